// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Dispatch of accesses: a snapshot of the buses, sorted, that a vCPU thread looks things up in
//! without a lock until a range comes or goes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_device::bus::{MmioAddress, PioAddress};

use super::{Bus, MmioDevice, PioDevice};

/// A device and its range.
#[derive(Clone)]
pub(super) struct Placed<D> {
    pub(super) base: u64,
    pub(super) size: u64,
    pub(super) device: D,
}

impl<D> Placed<D> {
    fn offset(&self, address: u64, len: usize) -> Option<u64> {
        let offset = address.wrapping_sub(self.base);
        // The second comparison finds accesses that begin in the range and leave it.
        (offset < self.size && len as u64 <= self.size.wrapping_sub(offset)).then_some(offset)
    }
}

/// One address space, sorted by base.
#[derive(Clone)]
pub(super) struct Space<D> {
    /// Apart from the devices, so that a search touches as few cache lines as it can.
    bases: Vec<u64>,
    placed: Vec<Placed<D>>,
}

impl<D> Default for Space<D> {
    fn default() -> Self {
        Self {
            bases: vec![],
            placed: vec![],
        }
    }
}

impl<D> Space<D> {
    /// Takes in a range that overlaps no other.
    pub(super) fn add(&mut self, placed: Placed<D>) {
        let at = self.bases.partition_point(|base| *base < placed.base);
        self.bases.insert(at, placed.base);
        self.placed.insert(at, placed);
    }

    /// Forgets the range that begins at `base`.
    pub(super) fn remove(&mut self, base: u64) {
        if let Ok(at) = self.bases.binary_search(&base) {
            self.bases.remove(at);
            self.placed.remove(at);
        }
    }

    /// The device that an access of `len` bytes fits into, and the offset into its range. Where
    /// accesses like it went before is tried first.
    #[inline]
    fn find(&self, hints: &mut Hints, address: u64, len: usize) -> Option<(&Placed<D>, u64)> {
        let hint = hints.of(address);
        if let Some(placed) = self.placed.get(usize::from(*hint))
            && let Some(offset) = placed.offset(address, len)
        {
            return Some((placed, offset));
        }
        let at = self
            .bases
            .partition_point(|base| *base <= address)
            .checked_sub(1)?;
        let placed = self.placed.get(at)?;
        let offset = placed.offset(address, len)?;
        *hint = u16::try_from(at).unwrap_or(0);
        Some((placed, offset))
    }
}

/// Where accesses went, by a few bits of their addresses. A wrong one costs a search.
struct Hints {
    /// The lowest of these bits.
    shift: u32,
    places: [u16; 1 << u8::BITS],
}

impl Hints {
    /// Most devices have some ports of their own.
    const PORTS: Self = Self::by(3);
    /// Most BARs have a page of their own.
    const MEMORY: Self = Self::by(12);

    const fn by(shift: u32) -> Self {
        Self {
            shift,
            places: [0; 1 << u8::BITS],
        }
    }

    #[inline]
    fn of(&mut self, address: u64) -> &mut u16 {
        let [slot, ..] = (address >> self.shift).to_le_bytes();
        &mut self.places[usize::from(slot)]
    }
}

/// Both address spaces as they were at one moment.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    pub(super) ports: Space<PioDevice>,
    pub(super) memory: Space<MmioDevice>,
}

/// The buses as one vCPU thread sees them.
pub struct View {
    bus: Arc<Bus>,
    generation: u64,
    snapshot: Arc<Snapshot>,
    port_hints: Hints,
    memory_hints: Hints,
}

impl fmt::Debug for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// A view of `bus`, which follows its changes.
    #[must_use]
    pub fn new(bus: Arc<Bus>) -> Self {
        let (generation, snapshot) = bus.snapshot();
        Self {
            bus,
            generation,
            snapshot,
            port_hints: Hints::PORTS,
            memory_hints: Hints::MEMORY,
        }
    }

    #[inline]
    fn follow(&mut self) {
        if self.bus.generation.load(Ordering::Acquire) != self.generation {
            (self.generation, self.snapshot) = self.bus.snapshot();
        }
    }

    /// Guest read of `data.len()` bytes from `port`.
    pub fn pio_read(&mut self, port: u16, data: &mut [u8]) {
        self.follow();
        let found = self
            .snapshot
            .ports
            .find(&mut self.port_hints, port.into(), data.len());
        match found {
            Some((placed, offset)) => {
                let (base, offset) = (PioAddress(narrow(placed.base)), narrow(offset));
                placed.device.pio_read(base, offset, data);
            }
            None => data.fill(0xff),
        }
        self.bus.settle();
    }

    /// Guest write to `port`.
    pub fn pio_write(&mut self, port: u16, data: &[u8]) {
        self.follow();
        let found = self
            .snapshot
            .ports
            .find(&mut self.port_hints, port.into(), data.len());
        match found {
            Some((placed, offset)) => {
                let (base, offset) = (PioAddress(narrow(placed.base)), narrow(offset));
                placed.device.pio_write(base, offset, data);
            }
            None => log::trace!("write of {data:02x?} to unclaimed port {port:#x}"),
        }
        self.bus.settle();
    }

    /// Guest read of `data.len()` bytes at `address`.
    pub fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.follow();
        let found = self
            .snapshot
            .memory
            .find(&mut self.memory_hints, address, data.len());
        match found {
            Some((placed, offset)) => {
                placed
                    .device
                    .mmio_read(MmioAddress(placed.base), offset, data);
            }
            None => data.fill(0xff),
        }
    }

    /// Guest write to `address`.
    // Inlined for pings: an exit finds no code in the processor's caches, and each jump costs.
    #[inline]
    pub fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.follow();
        let found = self
            .snapshot
            .memory
            .find(&mut self.memory_hints, address, data.len());
        match found {
            Some((placed, offset)) => {
                placed
                    .device
                    .mmio_write(MmioAddress(placed.base), offset, data);
            }
            None => log::trace!("write of {data:02x?} to unclaimed address {address:#x}"),
        }
    }
}

/// What came from 16 bits fits into them.
fn narrow(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(ranges: &[(u64, u64)]) -> Space<usize> {
        let mut space = Space::default();
        for (device, &(base, size)) in ranges.iter().enumerate() {
            space.add(Placed { base, size, device });
        }
        space
    }

    fn find(space: &Space<usize>, hint: u16, address: u64, len: usize) -> Option<(usize, u64)> {
        let mut hints = Hints::MEMORY;
        hints.places = [hint; 256];
        let found = space.find(&mut hints, address, len);
        found.map(|(placed, offset)| (placed.device, offset))
    }

    #[test]
    fn found_whatever_the_hint_says() {
        // Added out of order.
        let space = space(&[(0x300, 8), (0x100, 8), (u64::MAX - 7, 8), (0x108, 4)]);
        for hint in 0..6 {
            assert_eq!(find(&space, hint, 0x100, 8), Some((1, 0)));
            assert_eq!(find(&space, hint, 0x107, 1), Some((1, 7)));
            assert_eq!(find(&space, hint, 0x10b, 1), Some((3, 3)));
            assert_eq!(find(&space, hint, 0x304, 4), Some((0, 4)));
            assert_eq!(find(&space, hint, u64::MAX, 1), Some((2, 7)));
            for (address, len) in [
                (0, 1),
                (0xff, 1),
                (0xff, 2),
                (0x107, 2),
                (0x10c, 1),
                (0x2ff, 1),
                (0x308, 1),
                (0x301, 8),
                (u64::MAX, 2),
            ] {
                assert_eq!(find(&space, hint, address, len), None, "{address:#x}+{len}");
            }
        }
    }

    #[test]
    fn removed_range_is_found_no_more() {
        let mut space = space(&[(0x100, 8), (0x200, 8)]);
        space.remove(0x104);
        assert_eq!(find(&space, 0, 0x104, 1), Some((0, 4)), "begins elsewhere");
        space.remove(0x100);
        for hint in 0..3 {
            assert_eq!(find(&space, hint, 0x104, 1), None);
            assert_eq!(find(&space, hint, 0x204, 1), Some((1, 4)));
        }
    }
}
