// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Configuration mechanism #1: ports 0xCF8..=0xCFF, and the reset control register that hides in them.
//!
//! *Emulated:* CONFIG_ADDRESS by 32-bit accesses only; CONFIG_DATA with byte lanes; bus 0; the reset
//! control register by 8-bit accesses at 0xCF9 only.
//!
//! *Not emulated:* buses behind bridges, mechanism #2, special cycles, extended configuration space: all
//! read as if no function were there.
//!
//! *Differs from hardware:* CONFIG_ADDRESS' reserved bits 30:24 read back as written (QEMU behaviour).
//! While one of them is set no function answers, so that a guest which puts register bits 11:8 there (Linux
//! on AMD processors) finds no extended space, instead of the first 256 bytes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::function::ConfigEffects;
use crate::root::{FunctionAddress, RootBus};
use crate::spec;

/// What a guest asks for through the reset control register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetRequest {
    /// Processors only (INIT#); platforms commonly answer with a reset of everything.
    Soft,
    /// The whole platform.
    Hard,
    /// The whole platform, and its power goes off and on.
    PowerCycle,
}

/// What the owner must do after a port write.
#[must_use = "a BAR that moved is unreachable until the owner's bus knows; a reset is not done by itself"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one access, boxing would allocate on a guest path"
)]
pub enum PortEffects {
    /// Nothing.
    None,
    /// A function's configuration write had effects.
    Config {
        /// Whose.
        function: FunctionAddress,
        /// Which.
        effects: ConfigEffects,
    },
    /// The guest asks for a reset. The owner calls [`ConfigMechanism1::reset`] when it does it.
    Reset(ResetRequest),
}

/// The ports of configuration mechanism #1: see the [module](self). Shared by all vCPUs without a lock.
#[derive(Debug)]
pub struct ConfigMechanism1 {
    bus: Arc<RootBus>,
    address: AtomicU32,
    reset_control: AtomicU8,
}

/// What CONFIG_ADDRESS and the lane of an access select.
struct Target {
    function: FunctionAddress,
    offset: u16,
}

impl ConfigMechanism1 {
    /// The ports in front of `bus`, as after a reset.
    #[must_use]
    pub fn new(bus: Arc<RootBus>) -> Self {
        Self {
            bus,
            address: AtomicU32::new(0),
            reset_control: AtomicU8::new(0),
        }
    }

    /// The bus behind the ports.
    #[must_use]
    pub fn bus(&self) -> &Arc<RootBus> {
        &self.bus
    }

    /// A read of 1, 2 or 4 bytes at an absolute port; what is not claimed reads all ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        match (port, data.len()) {
            (spec::PORT_CONFIG_ADDRESS, 4) => {
                data.copy_from_slice(&self.address.load(Ordering::Acquire).to_le_bytes());
            }
            (spec::PORT_RESET_CONTROL, 1) => data.fill(self.reset_control.load(Ordering::Acquire)),
            _ => {
                data.fill(spec::UNCLAIMED);
                let Some(lane) = data_lane(port) else { return };
                let Some(target) = self.target(lane) else {
                    return;
                };
                let len = data.len().min(lanes_left(lane));
                if let Some(claimed) = data.get_mut(..len) {
                    self.bus
                        .config_read(target.function, target.offset, claimed);
                }
            }
        }
    }

    /// A write of 1, 2 or 4 bytes at an absolute port; what is not claimed is ignored.
    pub fn write(&self, port: u16, data: &[u8]) -> PortEffects {
        match (port, data) {
            (spec::PORT_CONFIG_ADDRESS, &[a, b, c, d]) => {
                let address = u32::from_le_bytes([a, b, c, d]) & spec::ADDRESS_KEPT;
                self.address.store(address, Ordering::Release);
                PortEffects::None
            }
            (spec::PORT_RESET_CONTROL, &[value]) => self.write_reset_control(value),
            _ => self.write_data(port, data).unwrap_or(PortEffects::None),
        }
    }

    fn write_data(&self, port: u16, data: &[u8]) -> Option<PortEffects> {
        let lane = data_lane(port)?;
        let Target { function, offset } = self.target(lane)?;
        let claimed = data.get(..data.len().min(lanes_left(lane)))?;
        let effects = self.bus.config_write(function, offset, claimed);
        (!effects.is_none()).then_some(PortEffects::Config { function, effects })
    }

    fn write_reset_control(&self, value: u8) -> PortEffects {
        let old = self
            .reset_control
            .swap(value & spec::RESET_WRITABLE, Ordering::AcqRel);
        if old & spec::RESET_CPU != 0 || value & spec::RESET_CPU == 0 {
            return PortEffects::None;
        }
        let system = value & spec::RESET_SYSTEM != 0;
        let full = value & spec::RESET_FULL != 0;
        PortEffects::Reset(match (system, full) {
            (false, _) => ResetRequest::Soft,
            (true, false) => ResetRequest::Hard,
            (true, true) => ResetRequest::PowerCycle,
        })
    }

    fn target(&self, lane: u8) -> Option<Target> {
        let address = self.address.load(Ordering::Acquire);
        let enabled = address & spec::ADDRESS_ENABLE != 0 && address & spec::ADDRESS_RESERVED == 0;
        let [register, device_function, bus, _] = address.to_le_bytes();
        if !enabled || bus != 0 {
            return None;
        }
        Some(Target {
            function: FunctionAddress::new(device_function >> 3, device_function & 0b111)?,
            offset: u16::from(register | lane),
        })
    }

    /// Brings both registers to their values after a platform reset; the functions are
    /// [`RootBus::reset`]'s.
    pub fn reset(&self) {
        self.address.store(0, Ordering::Release);
        self.reset_control.store(0, Ordering::Release);
    }
}

/// Byte lane 0..=3 that a port of CONFIG_DATA starts at.
fn data_lane(port: u16) -> Option<u8> {
    let lane = port.checked_sub(spec::PORT_CONFIG_DATA)?;
    u8::try_from(lane).ok().filter(|&lane| lane < 4)
}

/// Bytes from `lane` to the end of the dword.
fn lanes_left(lane: u8) -> usize {
    4_usize.saturating_sub(lane.into())
}
