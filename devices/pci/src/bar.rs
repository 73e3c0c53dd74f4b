// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Base address registers: what a function asks for, and the range it answers at.

use crate::spec;

/// The address space a BAR lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressSpace {
    /// Memory-mapped, decoded while command bit 1 is set.
    Memory,
    /// Port I/O, decoded while command bit 0 is set.
    Io,
}

/// Why a BAR cannot be described or added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarError {
    /// The size is no power of two or outside what the kind of BAR can express.
    #[error("BAR size {size:#x} is not a power of two from {min:#x} to {max:#x} bytes")]
    Size {
        /// Size asked for, bytes.
        size: u64,
        /// Smallest size of this kind, bytes.
        min: u64,
        /// Largest size of this kind, bytes.
        max: u64,
    },
    /// The address has bits the register cannot hold.
    #[error(
        "address {address:#x} is not aligned to the BAR's {size:#x} bytes, or is out of its reach"
    )]
    Address {
        /// Address asked for.
        address: u64,
        /// Size of the BAR, bytes.
        size: u64,
    },
    /// There are six registers, and a 64-bit BAR takes two.
    #[error("BAR {0} does not exist, or leaves no register for its upper half")]
    Index(usize),
    /// Another BAR has this register already.
    #[error("BAR {0} is in use already")]
    InUse(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory32,
    Memory64,
    Io,
}

/// What a function asks for with one BAR: kind, size, and the address it has after a reset.
///
/// A real function comes out of reset at address 0 and firmware assigns one. A machine without firmware
/// gives that assignment with [`Bar::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    kind: Kind,
    size: u64,
    prefetchable: bool,
    address: u64,
}

impl Bar {
    /// 32-bit memory, 16 bytes to 2 GiB.
    ///
    /// # Errors
    /// [`BarError::Size`].
    pub fn memory32(size: u64) -> Result<Self, BarError> {
        Self::new(Kind::Memory32, size, 16, 1 << 31)
    }

    /// 64-bit memory, 16 bytes to 2^63 bytes; takes this BAR and the next.
    ///
    /// # Errors
    /// [`BarError::Size`].
    pub fn memory64(size: u64) -> Result<Self, BarError> {
        Self::new(Kind::Memory64, size, 16, 1 << 63)
    }

    /// Port I/O, 4 to 256 bytes. Only 16 address bits exist, as on every x86 machine.
    ///
    /// # Errors
    /// [`BarError::Size`].
    pub fn io(size: u64) -> Result<Self, BarError> {
        Self::new(Kind::Io, size, 4, 256)
    }

    fn new(kind: Kind, size: u64, min: u64, max: u64) -> Result<Self, BarError> {
        if !size.is_power_of_two() || size < min || size > max {
            return Err(BarError::Size { size, min, max });
        }
        Ok(Self {
            kind,
            size,
            prefetchable: false,
            address: 0,
        })
    }

    /// Marks a memory BAR as prefetchable; means nothing for I/O.
    #[must_use]
    pub fn prefetchable(self) -> Self {
        Self {
            prefetchable: true,
            ..self
        }
    }

    /// Sets the address after each reset.
    ///
    /// # Errors
    /// [`BarError::Address`] if it is not a multiple of the size, or out of reach.
    pub fn at(self, address: u64) -> Result<Self, BarError> {
        if address & !self.address_mask() != 0 {
            let size = self.size;
            return Err(BarError::Address { address, size });
        }
        Ok(Self { address, ..self })
    }

    /// Size in bytes, a power of two.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The space it lies in.
    #[must_use]
    pub fn space(&self) -> AddressSpace {
        match self.kind {
            Kind::Memory32 | Kind::Memory64 => AddressSpace::Memory,
            Kind::Io => AddressSpace::Io,
        }
    }

    /// Whether it takes the next register as its upper half.
    #[must_use]
    pub fn is_64bit(&self) -> bool {
        self.kind == Kind::Memory64
    }

    /// Address bits the guest can write; the rest reads as [`Bar::type_bits`].
    pub(crate) fn address_mask(&self) -> u64 {
        let reach = match self.kind {
            Kind::Memory32 => 0xffff_ffff,
            Kind::Memory64 => u64::MAX,
            Kind::Io => 0xffff,
        };
        !self.size.wrapping_sub(1) & reach
    }

    /// Read-only low bits of the register.
    pub(crate) fn type_bits(&self) -> u64 {
        let kind = match self.kind {
            Kind::Memory32 => 0,
            Kind::Memory64 => spec::BAR_MEMORY_64,
            Kind::Io => return spec::BAR_IO.into(),
        };
        let prefetchable = if self.prefetchable {
            spec::BAR_PREFETCHABLE
        } else {
            0
        };
        (kind | prefetchable).into()
    }

    /// Register value after a reset.
    pub(crate) fn power_on_value(&self) -> u64 {
        self.address | self.type_bits()
    }

    /// The range that the register value `raw` selects.
    pub(crate) fn range(&self, raw: u64) -> BarRange {
        BarRange {
            space: self.space(),
            start: raw & self.address_mask(),
            len: self.size,
        }
    }
}

/// A range of addresses that a BAR answers at: never empty, never past the end of its space.
///
/// It may still lie over RAM, over another BAR or over the interrupt controllers, since the guest chooses
/// the address; what then happens is the owner's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BarRange {
    space: AddressSpace,
    start: u64,
    len: u64,
}

impl BarRange {
    /// A range of `len` bytes from `start`; `None` if empty or if its last byte is out of the space.
    #[must_use]
    pub fn new(space: AddressSpace, start: u64, len: u64) -> Option<Self> {
        let last = start.checked_add(len.checked_sub(1)?)?;
        let limit = match space {
            AddressSpace::Memory => u64::MAX,
            AddressSpace::Io => 0xffff,
        };
        (last <= limit).then_some(Self { space, start, len })
    }

    /// The space it lies in.
    #[must_use]
    pub fn space(&self) -> AddressSpace {
        self.space
    }

    /// First address.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Last address, inclusive: an exclusive end would not fit for a range that ends with its space.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.start.saturating_add(self.len.saturating_sub(1))
    }

    /// Size in bytes, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a BAR range is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether both are in one space and share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.space == other.space && self.start <= other.last() && other.start <= self.last()
    }

    /// Offset of `address` from the start, if it is inside.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        address
            .checked_sub(self.start)
            .filter(|&offset| offset < self.len)
    }
}

/// One BAR decoded differently than before: `None` where it is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarChange {
    /// Which BAR, 0..6; of a 64-bit BAR the lower one.
    pub bar: usize,
    /// Where it answered before the access.
    pub old: Option<BarRange>,
    /// Where it answers from now on.
    pub new: Option<BarRange>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_within_the_kind() {
        for size in [0, 1, 8, 17, 24, 1 << 32, u64::MAX] {
            assert!(Bar::memory32(size).is_err(), "{size:#x}");
        }
        assert!(Bar::memory64(1 << 32).is_ok());
        assert!(Bar::io(4).is_ok());
        for size in [2, 512] {
            assert!(Bar::io(size).is_err(), "{size:#x}");
        }
    }

    #[test]
    fn addresses_are_aligned_and_in_reach() {
        let bar = Bar::memory32(0x1000).expect("valid size");
        assert!(bar.at(0xfebf_f000).is_ok());
        assert!(bar.at(0xfebf_f010).is_err());
        assert!(bar.at(0x1_0000_0000).is_err());
        assert!(Bar::io(4).expect("valid size").at(0x1_0000).is_err());
    }

    #[test]
    fn ranges_at_the_end_of_the_space_do_not_wrap() {
        let top = BarRange::new(AddressSpace::Memory, u64::MAX - 15, 16).expect("fits");
        assert_eq!(top.last(), u64::MAX);
        assert_eq!(top.offset_of(u64::MAX), Some(15));
        assert_eq!(top.offset_of(0), None);
        assert!(!top.overlaps(&BarRange::new(AddressSpace::Memory, 0, 16).expect("fits")));
        assert_eq!(BarRange::new(AddressSpace::Memory, u64::MAX - 15, 17), None);
        assert_eq!(BarRange::new(AddressSpace::Memory, 0, 0), None);
        assert_eq!(BarRange::new(AddressSpace::Io, 0xfff0, 17), None);
    }

    #[test]
    fn overlap_needs_the_same_space_and_a_shared_byte() {
        let range = |space, start, len| BarRange::new(space, start, len).expect("fits");
        let a = range(AddressSpace::Memory, 0x100, 0x10);
        for (other, want) in [
            (range(AddressSpace::Memory, 0x0f0, 0x10), false),
            (range(AddressSpace::Memory, 0x0f0, 0x11), true),
            (range(AddressSpace::Memory, 0x10f, 0x01), true),
            (range(AddressSpace::Memory, 0x110, 0x10), false),
            (range(AddressSpace::Memory, 0x000, 0x1000), true),
            (range(AddressSpace::Io, 0x100, 0x10), false),
        ] {
            assert_eq!(a.overlaps(&other), want, "{other:x?}");
            assert_eq!(other.overlaps(&a), want, "{other:x?}");
        }
    }
}
