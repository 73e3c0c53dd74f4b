// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The network card behind its transport.

mod hostile;
mod interrupts;
mod receive;
mod registers;
mod reset;
mod traffic;
mod transmit;
