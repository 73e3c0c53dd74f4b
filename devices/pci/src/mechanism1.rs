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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_bridge::HostBridge;

    fn ports() -> ConfigMechanism1 {
        let mut bus = RootBus::new();
        let slot = FunctionAddress::new(0, 0).expect("valid");
        bus.add(slot, Arc::new(HostBridge::new())).expect("free");
        ConfigMechanism1::new(Arc::new(bus))
    }

    fn select(ports: &ConfigMechanism1, address: u32) {
        assert_eq!(
            ports.write(0xcf8, &address.to_le_bytes()),
            PortEffects::None
        );
    }

    fn read(ports: &ConfigMechanism1, port: u16, len: usize) -> Vec<u8> {
        let mut data = vec![0xee; len];
        ports.read(port, &mut data);
        data
    }

    #[test]
    fn only_a_dword_at_0xcf8_is_the_address() {
        let ports = ports();
        select(&ports, 0x8000_00ff);
        assert_eq!(read(&ports, 0xcf8, 4), [0xfc, 0, 0, 0x80]);
        for (port, data) in [
            (0xcf8, &[0x12][..]),
            (0xcf8, &[0x12, 0x34]),
            (0xcf9, &[0x06, 0x34]),
            (0xcfa, &[0x12, 0x34]),
            (0xcfb, &[0x01]),
            (0xcf9, &[0x0e, 2, 3, 4]),
            (0xcf7, &[1, 2, 3, 4]),
            (0xcf8, &[1, 2, 3, 4, 5]),
            (0xcf8, &[]),
        ] {
            assert_eq!(ports.write(port, data), PortEffects::None);
            assert_eq!(
                read(&ports, 0xcf8, 4),
                [0xfc, 0, 0, 0x80],
                "{port:#x} {data:x?}"
            );
        }
        for (port, len) in [
            (0xcf8, 1),
            (0xcf8, 2),
            (0xcf9, 2),
            (0xcfa, 1),
            (0xcfb, 1),
            (0xcfa, 2),
        ] {
            assert_eq!(read(&ports, port, len), vec![0xff; len], "{port:#x} {len}");
        }
        assert_eq!(read(&ports, 0xcf9, 1), [0]);
    }

    #[test]
    fn data_lanes() {
        let ports = ports();
        select(&ports, 0x8000_0000);
        let id = [0x86, 0x80, 0x57, 0x0d];
        for (lane, port) in (0xcfc..=0xcff).enumerate() {
            for len in [1, 2, 4] {
                let got = read(&ports, port, len);
                // What reaches over the end of the dword belongs to no one.
                let want: Vec<u8> = id[lane..]
                    .iter()
                    .copied()
                    .chain([0xff; 4])
                    .take(len)
                    .collect();
                assert_eq!(got, want, "{len} bytes at {port:#x}");
            }
        }
        assert_eq!(read(&ports, 0xd00, 1), [0xff]);
        select(&ports, 0x8000_0008);
        assert_eq!(read(&ports, 0xcff, 1), [0x06], "base class");
        select(&ports, 0x8000_003c);
        let _ = ports.write(0xcfc, &[0x0b]);
        let _ = ports.write(0xcfd, &[0xff; 4]);
        assert_eq!(read(&ports, 0xcfc, 4), [0x0b, 0, 0, 0]);
        select(&ports, 0x8000_0038);
        let _ = ports.write(0xcff, &[0xff; 4]);
        select(&ports, 0x8000_003c);
        assert_eq!(read(&ports, 0xcfc, 1), [0x0b], "not the next dword's");
    }

    #[test]
    fn absent_functions_read_all_ones_and_ignore_writes() {
        let ports = ports();
        for (name, address) in [
            ("not enabled", 0x0000_0000),
            ("another device", 0x8000_0800),
            ("another function", 0x8000_0100),
            ("last function", 0x8000_ff00),
            ("another bus", 0x8001_0000),
            ("last bus", 0x80ff_0000),
            ("extended register", 0x8100_0000),
            ("reserved bit", 0xc000_0000),
        ] {
            select(&ports, address | 0x3c);
            let _ = ports.write(0xcfc, &[0x55]);
            for len in [1, 2, 4] {
                assert_eq!(read(&ports, 0xcfc, len), vec![0xff; len], "{name}");
            }
            assert_eq!(read(&ports, 0xcf8, 4), (address | 0x3c).to_le_bytes());
        }
        select(&ports, 0x8000_003c);
        assert_eq!(read(&ports, 0xcfc, 1), [0], "no write went through");
    }

    #[test]
    fn a_reset_is_asked_for_when_bit_2_rises() {
        use ResetRequest::{Hard, PowerCycle, Soft};
        for (writes, want) in [
            (&[0x00][..], None),
            (&[0x02], None),
            (&[0x0a], None),
            (&[0xf9], None),
            (&[0x04], Some(Soft)),
            (&[0x0c], Some(Soft)),
            (&[0x06], Some(Hard)),
            (&[0x02, 0x06], Some(Hard)),
            (&[0x0e], Some(PowerCycle)),
            (&[0x02, 0x0e], Some(PowerCycle)),
            (&[0xff], Some(PowerCycle)),
            (&[0x06, 0x06], None),
            (&[0x04, 0x06], None),
            (&[0x04, 0x02, 0x06], Some(Hard)),
        ] {
            let ports = ports();
            let mut last = PortEffects::None;
            for &value in writes {
                last = ports.write(0xcf9, &[value]);
                assert_eq!(read(&ports, 0xcf9, 1), [value & 0x0e]);
            }
            let want = want.map_or(PortEffects::None, PortEffects::Reset);
            assert_eq!(last, want, "{writes:x?}");
        }
    }

    #[test]
    fn reset_clears_both_registers() {
        let ports = ports();
        select(&ports, 0x8000_0004);
        let _ = ports.write(0xcf9, &[0x0e]);
        ports.reset();
        assert_eq!(read(&ports, 0xcf8, 4), [0; 4]);
        assert_eq!(read(&ports, 0xcf9, 1), [0]);
        assert_eq!(read(&ports, 0xcfc, 4), [0xff; 4]);
        assert_eq!(
            ports.write(0xcf9, &[0x06]),
            PortEffects::Reset(ResetRequest::Hard)
        );
    }
}
