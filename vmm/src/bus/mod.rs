// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine's port and memory buses: vm-device's `IoManager` with a PC's manners.
//!
//! Unclaimed reads are all ones, unclaimed writes vanish, and a BAR that an access moved is moved
//! after that access. The manager knows which range is whose; each vCPU thread dispatches by a
//! [`View`] of it, without a lock.

mod view;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kennel_pci::{BarChange, BarRange};
use parking_lot::Mutex;
use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

pub use view::View;
use view::{Placed, Snapshot};

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

#[derive(Default)]
struct Moves {
    queue: Mutex<VecDeque<PendingMove>>,
    /// How many are in the queue; 0 saves the lock.
    count: AtomicUsize,
}

/// BAR moves that accesses left behind, in the order of the accesses.
#[derive(Clone, Default)]
pub struct BarMoves(Arc<Moves>);

impl BarMoves {
    /// Remembers that an access moved a BAR of `device`; done by [`Bus::settle`].
    pub fn push(&self, device: MmioDevice, change: BarChange) {
        let mut queue = self.0.queue.lock();
        queue.push_back(PendingMove { device, change });
        self.0.count.store(queue.len(), Ordering::Release);
    }

    fn pop(&self) -> Option<PendingMove> {
        let mut queue = self.0.queue.lock();
        let first = queue.pop_front();
        self.0.count.store(queue.len(), Ordering::Release);
        first
    }

    fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }
}

impl fmt::Debug for BarMoves {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BarMoves").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Ranges {
    io: IoManager,
    snapshot: Arc<Snapshot>,
}

/// Both buses. No device is called with a lock of theirs held.
#[derive(Default)]
pub struct Bus {
    ranges: Mutex<Ranges>,
    /// Counts the changes of `ranges`.
    generation: AtomicU64,
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
        self.change(|ranges| {
            ranges
                .io
                .register_pio(range, Arc::clone(&device))
                .map_err(|source| error(source.to_string()))?;
            let (base, size) = (base.into(), size.into());
            Arc::make_mut(&mut ranges.snapshot)
                .ports
                .add(Placed { base, size, device });
            Ok(())
        })
    }

    /// Changes the ranges; views see it at their next access.
    fn change<T>(&self, change: impl FnOnce(&mut Ranges) -> T) -> T {
        let mut ranges = self.ranges.lock();
        let result = change(&mut ranges);
        self.generation.fetch_add(1, Ordering::AcqRel);
        result
    }

    fn snapshot(&self) -> (u64, Arc<Snapshot>) {
        let ranges = self.ranges.lock();
        let generation = self.generation.load(Ordering::Acquire);
        (generation, Arc::clone(&ranges.snapshot))
    }

    /// Where devices leave the BAR moves for [`Bus::settle`].
    #[must_use]
    pub fn bar_moves(&self) -> BarMoves {
        self.moves.clone()
    }

    /// Applies the BAR moves that accesses left behind, in their order.
    pub fn settle(&self) {
        if self.moves.is_empty() {
            return;
        }
        let refused = self.change(|ranges| {
            let mut refused = None;
            while let Some(PendingMove { device, change }) = self.moves.pop() {
                if let Some(old) = change.old {
                    ranges.unmap(&device, old);
                }
                if let Some(new) = change.new
                    && let Err(error) = ranges.map(device, new)
                {
                    refused = Some(error);
                }
            }
            refused
        });
        // As on hardware, two claimants of one address give no service; the first one stays.
        if let Some(error) = refused {
            log::warn!("a BAR stays unmapped: {error}");
        }
    }
}

impl Ranges {
    /// Only the device that owns the range may lose it: a refused overlap was never mapped.
    fn unmap(&mut self, device: &MmioDevice, range: BarRange) {
        let address = MmioAddress(range.start());
        let ours = self
            .io
            .mmio_device(address)
            .is_some_and(|(at, owner)| at.base() == address && Arc::ptr_eq(owner, device));
        if ours {
            drop(self.io.deregister_mmio(address));
            Arc::make_mut(&mut self.snapshot).memory.remove(address.0);
        }
    }

    fn map(&mut self, device: MmioDevice, range: BarRange) -> Result<(), RegisterError> {
        let (base, size) = (range.start(), range.len());
        MmioRange::new(MmioAddress(base), size)
            .and_then(|place| self.io.register_mmio(place, Arc::clone(&device)))
            .map_err(|error| RegisterError {
                base,
                size,
                reason: error.to_string(),
            })?;
        let placed = Placed { base, size, device };
        Arc::make_mut(&mut self.snapshot).memory.add(placed);
        Ok(())
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

    fn bus() -> (Arc<Bus>, View) {
        let bus = Arc::new(Bus::new());
        let view = View::new(Arc::clone(&bus));
        (bus, view)
    }

    fn read(view: &mut View, address: u64) -> [u8; 4] {
        let mut data = [0; 4];
        view.mmio_read(address, &mut data);
        data
    }

    fn range(start: u64) -> Option<BarRange> {
        BarRange::new(AddressSpace::Memory, start, 16)
    }

    #[test]
    fn unclaimed_reads_are_all_ones() {
        let (_, mut view) = bus();
        let mut data = [0; 2];
        view.pio_read(0x1234, &mut data);
        assert_eq!(data, [0xff; 2]);
        assert_eq!(read(&mut view, 0xdead_0000), [0xff; 4]);
    }

    #[test]
    fn moved_bar_answers_at_its_new_place_only() {
        let (bus, mut view) = bus();
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
        assert_eq!(read(&mut view, 0x1004), [0xff; 4]);
        assert_eq!(read(&mut view, 0x2004), [4, 5, 6, 7]);
        assert_eq!(
            read(&mut view, 0x200e),
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
        assert_eq!(read(&mut view, 0x2004), [0xff; 4]);
    }

    #[test]
    fn refused_overlap_cannot_unmap_the_first_claimant() {
        let (bus, mut view) = bus();
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
        assert_eq!(read(&mut view, 0x1000), [0, 1, 2, 3]);
    }
}
