// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Conventional PCI for a virtual machine monitor: type-0 configuration space, BARs that can be sized and
//! moved, capabilities, INTx, a root bus, configuration mechanism #1 and a host bridge.
//!
//! The crate knows no hypervisor, no clock and no bus of the machine. A guest's access goes in as bytes;
//! what it changes for the outside (a BAR decoded elsewhere, an interrupt line's level, a reset) comes back
//! as data for the owner to apply. Nothing a guest does can make it fail.
//!
//! ```
//! use std::sync::Arc;
//! use kennel_pci::{ConfigMechanism1, FunctionAddress, HostBridge, PortEffects, RootBus};
//!
//! let mut bus = RootBus::new();
//! let slot = FunctionAddress::new(0, 0).ok_or("no such slot")?;
//! bus.add(slot, Arc::new(HostBridge::new()))?;
//! let ports = ConfigMechanism1::new(Arc::new(bus));
//!
//! // The guest asks 00:00.0 who it is.
//! let effects = ports.write(0xcf8, &0x8000_0000_u32.to_le_bytes());
//! assert_eq!(effects, PortEffects::None);
//! let mut id = [0; 4];
//! ports.read(0xcfc, &mut id);
//! assert_eq!(u32::from_le_bytes(id), 0x0d57_8086);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A device composes a [`Type0`] with registers of its own ([`ConfigWindow`]) and implements
//! [`PciFunction`] with a lock around both.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod bar;
pub mod config_space;
pub mod function;
pub mod host_bridge;
pub mod intx;
pub mod mechanism1;
pub mod msi;
pub mod msix;
mod register_file;
pub mod root;
pub mod spec;

pub use bar::{AddressSpace, Bar, BarChange, BarError, BarRange};
pub use config_space::{Identity, LayoutError, Type0};
pub use function::{ConfigEffects, ConfigWindow, DecodedBars, PciFunction};
pub use host_bridge::HostBridge;
pub use intx::{InterruptPin, IntxLine, IntxLines};
pub use mechanism1::{ConfigMechanism1, PortEffects, ResetRequest};
pub use msi::{Msi, MsiMessage};
pub use msix::{MsiX, MsixLayout};
pub use root::{AddFunctionError, FunctionAddress, IntxRoute, RootBus};
