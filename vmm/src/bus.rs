// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine's port and memory buses: vm-device's `IoManager` with a PC's manners.
//!
//! Unclaimed reads are all ones, unclaimed writes vanish, and a BAR that an access moved is moved
//! after that access, when no device is being called.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use kennel_pci::{BarChange, BarRange};
use parking_lot::{Mutex, RwLock};
use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

/// A device on the memory bus.
pub type MmioDevice = Arc<dyn DeviceMmio + Send + Sync>;
/// A device on the port bus.
pub type PioDevice = Arc<dyn DevicePio + Send + Sync>;

/// A range is taken already or wraps around.
#[derive(Debug, thiserror::Error)]
#[error("bus range {base:#x}+{size:#x} cannot be registered: {reason}")]
pub struct RegisterError {
    base: u64,
    size: u64,
    reason: String,
}

#[derive(Clone)]
struct PendingMove {
    device: MmioDevice,
    change: BarChange,
}

/// BAR moves that accesses left behind, in the order of the accesses.
#[derive(Clone, Default)]
pub struct BarMoves(Arc<Mutex<VecDeque<PendingMove>>>);

impl BarMoves {
    /// Remembers that an access moved a BAR of `device`; done by [`Bus::settle`].
    pub fn push(&self, device: MmioDevice, change: BarChange) {
        self.0.lock().push_back(PendingMove { device, change });
    }

    fn pop(&self) -> Option<PendingMove> {
        self.0.lock().pop_front()
    }
}

impl fmt::Debug for BarMoves {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BarMoves").finish_non_exhaustive()
    }
}

/// Both buses. Lock order: `io`, then a device's own lock, then `moves`.
#[derive(Default)]
pub struct Bus {
    io: RwLock<IoManager>,
    moves: BarMoves,
}

impl fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bus").finish_non_exhaustive()
    }
}

impl Bus {
    /// Empty buses.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `size` ports from `base`.
    ///
    /// # Errors
    ///
    /// The range overlaps another one.
    pub fn add_ports(&self, base: u16, size: u16, device: PioDevice) -> Result<(), RegisterError> {
        let error = |reason: String| RegisterError {
            base: base.into(),
            size: size.into(),
            reason,
        };
        let range =
            PioRange::new(PioAddress(base), size).map_err(|source| error(source.to_string()))?;
        self.io
            .write()
            .register_pio(range, device)
            .map_err(|source| error(source.to_string()))
    }

    /// Where devices leave the BAR moves for [`Bus::settle`].
    #[must_use]
    pub fn bar_moves(&self) -> BarMoves {
        self.moves.clone()
    }

    /// Guest read of `data.len()` bytes from `port`.
    pub fn pio_read(&self, port: u16, data: &mut [u8]) {
        if self.io.read().pio_read(PioAddress(port), data).is_err() {
            data.fill(0xff);
        }
        self.settle();
    }

    /// Guest write to `port`.
    pub fn pio_write(&self, port: u16, data: &[u8]) {
        if self.io.read().pio_write(PioAddress(port), data).is_err() {
            log::trace!("write of {data:02x?} to unclaimed port {port:#x}");
        }
        self.settle();
    }

    /// Guest read of `data.len()` bytes at `address`.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if self
            .io
            .read()
            .mmio_read(MmioAddress(address), data)
            .is_err()
        {
            data.fill(0xff);
        }
    }

    /// Guest write at `address`.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if self
            .io
            .read()
            .mmio_write(MmioAddress(address), data)
            .is_err()
        {
            log::trace!("write of {data:02x?} to unclaimed address {address:#x}");
        }
    }

    /// Applies the BAR moves that accesses left behind, in their order.
    pub fn settle(&self) {
        if self.moves.0.lock().is_empty() {
            return;
        }
        let mut io = self.io.write();
        while let Some(PendingMove { device, change }) = self.moves.pop() {
            if let Some(old) = change.old {
                unmap(&mut io, &device, old);
            }
            if let Some(new) = change.new {
                map(&mut io, device, new);
            }
        }
    }
}

/// Only the device that owns the range may lose it: a refused overlap was never mapped.
fn unmap(io: &mut IoManager, device: &MmioDevice, range: BarRange) {
    let address = MmioAddress(range.start());
    let ours = io
        .mmio_device(address)
        .is_some_and(|(at, owner)| at.base() == address && Arc::ptr_eq(owner, device));
    if ours {
        drop(io.deregister_mmio(address));
    }
}

fn map(io: &mut IoManager, device: MmioDevice, range: BarRange) {
    let placed = MmioRange::new(MmioAddress(range.start()), range.len())
        .and_then(|place| io.register_mmio(place, device));
    if let Err(error) = placed {
        // As on hardware, two claimants of one address give no service; the first one stays.
        log::warn!(
            "BAR at {:#x}+{:#x} stays unmapped: {error}",
            range.start(),
            range.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kennel_pci::AddressSpace;
    use vm_device::bus::MmioAddressOffset;

    struct Ramp;

    impl DeviceMmio for Ramp {
        fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
            for (byte, value) in data.iter_mut().zip(u8::try_from(offset).expect("small")..) {
                *byte = value;
            }
        }
        fn mmio_write(&self, _base: MmioAddress, _offset: MmioAddressOffset, _data: &[u8]) {}
    }

    fn read(bus: &Bus, address: u64) -> [u8; 4] {
        let mut data = [0; 4];
        bus.mmio_read(address, &mut data);
        data
    }

    fn range(start: u64) -> Option<BarRange> {
        BarRange::new(AddressSpace::Memory, start, 16)
    }

    #[test]
    fn unclaimed_reads_are_all_ones() {
        let bus = Bus::new();
        let mut data = [0; 2];
        bus.pio_read(0x1234, &mut data);
        assert_eq!(data, [0xff; 2]);
        assert_eq!(read(&bus, 0xdead_0000), [0xff; 4]);
    }

    #[test]
    fn moved_bar_answers_at_its_new_place_only() {
        let bus = Bus::new();
        let device: MmioDevice = Arc::new(Ramp);
        let moves = bus.bar_moves();
        moves.push(
            Arc::clone(&device),
            BarChange {
                bar: 0,
                old: None,
                new: range(0x1000),
            },
        );
        moves.push(
            Arc::clone(&device),
            BarChange {
                bar: 0,
                old: range(0x1000),
                new: range(0x2000),
            },
        );
        bus.settle();
        assert_eq!(read(&bus, 0x1004), [0xff; 4]);
        assert_eq!(read(&bus, 0x2004), [4, 5, 6, 7]);
        assert_eq!(
            read(&bus, 0x200e),
            [0xff; 4],
            "an access must fit into the range"
        );
        moves.push(
            device,
            BarChange {
                bar: 0,
                old: range(0x2000),
                new: None,
            },
        );
        bus.settle();
        assert_eq!(read(&bus, 0x2004), [0xff; 4]);
    }

    #[test]
    fn refused_overlap_cannot_unmap_the_first_claimant() {
        let bus = Bus::new();
        let (first, second): (MmioDevice, MmioDevice) = (Arc::new(Ramp), Arc::new(Ramp));
        let moves = bus.bar_moves();
        moves.push(
            first,
            BarChange {
                bar: 0,
                old: None,
                new: range(0x1000),
            },
        );
        moves.push(
            Arc::clone(&second),
            BarChange {
                bar: 0,
                old: None,
                new: range(0x1000),
            },
        );
        moves.push(
            second,
            BarChange {
                bar: 0,
                old: range(0x1000),
                new: None,
            },
        );
        bus.settle();
        assert_eq!(read(&bus, 0x1000), [0, 1, 2, 3]);
    }
}
