// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host bridge at 00:00.0: an identity and nothing else.
//!
//! *Emulated:* the type-0 header with the class that an operating system looks for on bus 0 before it
//! trusts configuration mechanism #1 (Linux: a host bridge or VGA class, or an Intel or Compaq function).
//!
//! *Not emulated:* memory controller and chipset registers. 8086:0d57 has no Linux driver that would look
//! for them; cloud-hypervisor and Firecracker use the same identity.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config_space::{Identity, Type0};
use crate::function::{ConfigEffects, DecodedBars, PciFunction};

/// A host bridge, 8086:0d57, class 06/00/00: see the [module](self).
pub struct HostBridge {
    config: Mutex<Type0>,
}

impl HostBridge {
    /// What the bridge says it is.
    pub const IDENTITY: Identity = Identity {
        vendor: 0x8086,
        device: 0x0d57,
        class: [0x06, 0x00, 0x00],
        revision: 0,
        subsystem_vendor: 0,
        subsystem: 0,
    };

    /// A bridge after a reset.
    #[must_use]
    pub fn new() -> Self {
        Self {
            config: Mutex::new(Type0::new(Self::IDENTITY)),
        }
    }

    /// A panic elsewhere leaves the registers whole, so poison means nothing here.
    fn config(&self) -> MutexGuard<'_, Type0> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HostBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBridge").finish_non_exhaustive()
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffects {
        self.config().write(offset, data)
    }

    fn reset(&self) -> ConfigEffects {
        self.config().reset()
    }

    fn decoded_bars(&self) -> DecodedBars {
        self.config().decoded_bars()
    }
}
