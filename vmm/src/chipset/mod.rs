// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The board's own devices: power management, keyboard controller, PCI host.

pub mod keyboard;
pub mod pci_host;
pub mod power;
