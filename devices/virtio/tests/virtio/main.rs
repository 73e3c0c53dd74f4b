// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Console and network card behind their transport, driven by a guest's driver over guest memory.

mod flow;
mod guest;
mod handshake;
mod hostile;
mod interrupts;
mod known_bugs;
mod net;
mod other_devices;
mod registers;
mod reset;
