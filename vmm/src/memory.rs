// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest RAM: anonymous memory around the 4 GiB hole, mapped once for the life of the process.
//!
//! KVM maps 2 MiB at once where the host backs guest memory with a huge page and guest-physical and
//! host address agree modulo 2 MiB. Each page that it maps alone costs the guest an exit and longer
//! page walks, so both are seen to here.

use std::ffi::c_void;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use vm_memory::guest_memory::Result as AccessResult;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

use crate::layout;

/// What the x86's page tables map at once, one level above [`layout::PAGE_SIZE`].
const HUGE_PAGE: usize = 2 << 20;

/// Guest RAM cannot be had or wiped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The mapping failed.
    #[error("{mib} MiB of guest memory cannot be mapped: {reason}; ask for less memory")]
    Map {
        /// What was asked for.
        mib: u64,
        /// Why it failed.
        reason: String,
    },
    /// Pages could not be given back.
    #[error("guest memory cannot be wiped for the reset: {0}")]
    Wipe(Errno),
}

/// A machine's RAM; all of its clones share it.
pub type GuestRam = GuestRegionCollection<RamRegion>;

/// A contiguous piece of guest RAM.
#[derive(Debug)]
pub struct RamRegion {
    start: GuestAddress,
    mapping: Mapping,
}

/// An anonymous private mapping that this value owns.
#[derive(Debug)]
struct Mapping {
    base: *mut c_void,
    length: usize,
}

// SAFETY: the pointer is only lent out as a VolatileSlice, as an address for KVM, and for calls of
// the kernel; all of them take concurrent accesses, as the guest's vCPUs make them all the time.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `length` zero bytes at a multiple of [`HUGE_PAGE`]; the host backs them with huge pages if it
    /// can.
    fn new(length: usize) -> Result<Self, Errno> {
        let padded = length.checked_add(HUGE_PAGE).ok_or(Errno::NOMEM)?;
        let (protection, flags) = (
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        );
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), padded, protection, flags) }?;
        let head = start.addr().wrapping_neg() % HUGE_PAGE;
        let mapping = Self {
            base: start.wrapping_byte_add(head),
            length,
        };
        unmap(start, head);
        unmap(mapping.base.wrapping_byte_add(length), HUGE_PAGE - head);
        // SAFETY: base and length are the live mapping just made, and its contents stay.
        let advised = unsafe { rustix::mm::madvise(mapping.base, length, Advice::LinuxHugepage) };
        if let Err(error) = advised {
            log::debug!("guest memory has small pages only: {error}");
        }
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.base, self.length);
    }
}

/// Unmaps what nobody refers to any more.
fn unmap(start: *mut c_void, length: usize) {
    if length == 0 {
        return;
    }
    // SAFETY: private to this file, whose callers own that part of their mapping and lent it to
    // nobody who is still there.
    if let Err(error) = unsafe { rustix::mm::munmap(start, length) } {
        log::warn!("{length} bytes of address space could not be given back: {error}");
    }
}

impl RamRegion {
    /// The host's address of its first byte, for KVM's memory slot.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.base.cast()
    }
}

impl GuestMemoryRegion for RamRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.mapping.length as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) {}

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> AccessResult<VolatileSlice<'_>> {
        let start = usize::try_from(offset.0).unwrap_or(usize::MAX);
        if start.saturating_add(count) > self.mapping.length {
            return Err(GuestMemoryError::InvalidBackendAddress);
        }
        // SAFETY: the range is within the mapping, which lives as long as the borrow of self, and
        // is only ever lent out as volatile slices.
        Ok(unsafe { VolatileSlice::new(self.as_ptr().wrapping_add(start), count) })
    }
}

impl GuestMemoryRegionBytes for RamRegion {}

/// Maps `bytes` of guest RAM.
///
/// # Errors
///
/// The host refuses the mapping.
pub fn map(bytes: u64) -> Result<GuestRam, MemoryError> {
    let failed = |reason: String| MemoryError::Map {
        mib: bytes >> 20,
        reason,
    };
    let region = |(start, length)| {
        let mapping = Mapping::new(length).map_err(|error| failed(error.to_string()))?;
        Ok(RamRegion { start, mapping })
    };
    let regions: Result<_, _> = layout::ram_ranges(bytes).into_iter().map(region).collect();
    GuestRam::from_regions(regions?).map_err(|error| failed(error.to_string()))
}

/// Makes all of guest RAM zero again and gives its pages back to the host.
///
/// # Errors
///
/// The kernel refuses.
pub fn wipe(memory: &GuestRam) -> Result<(), MemoryError> {
    for region in memory.iter() {
        let Mapping { base, length } = region.mapping;
        // SAFETY: base and length are one live private anonymous mapping that `region` owns. No
        // vCPU runs and nobody in this process holds a reference into guest memory during a reset,
        // so replacing its pages by zero pages is unobserved.
        unsafe { rustix::mm::madvise(base, length, Advice::LinuxDontNeed) }
            .map_err(MemoryError::Wipe)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn host_and_guest_addresses_agree_modulo_a_huge_page() {
        for bytes in [2 * MIB, 5 * MIB + 0x1000, 128 * MIB, 5 << 30] {
            let memory = map(bytes).expect("address space");
            let mapped: u64 = memory.iter().map(GuestMemoryRegion::len).sum();
            assert_eq!(mapped, bytes);
            for region in memory.iter() {
                let (host, guest) = (region.as_ptr() as u64, region.start_addr().0);
                assert_eq!(host % (2 * MIB), guest % (2 * MIB), "{bytes:#x}");
            }
        }
    }

    #[test]
    fn every_byte_is_there_and_none_beyond() {
        let memory = map(2 * MIB + 0x1000).expect("address space");
        let last = GuestAddress(2 * MIB + 0xfff);
        memory.write_obj(7_u8, last).expect("the last byte");
        assert_eq!(memory.read_obj::<u8>(last).ok(), Some(7));
        assert!(memory.read_obj::<u16>(last).is_err());
        wipe(&memory).expect("wiped");
        assert_eq!(memory.read_obj::<u8>(last).ok(), Some(0));
    }

    /// KiB that /proc/self/smaps says of the mapping at `start`.
    fn smaps_kib(start: *const u8, field: &str) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut lines = smaps.lines();
        let head = format!("{:x}-", start as usize);
        lines
            .find(|line| line.starts_with(&head))
            .expect("the mapping");
        let line = lines.find(|line| line.starts_with(field)).expect("a field");
        let number = line.split_ascii_whitespace().nth(1).expect("a number");
        number.parse().expect("KiB")
    }

    #[test]
    fn the_host_backs_it_with_huge_pages_before_and_after_a_wipe() {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        if !setting.is_ok_and(|setting| !setting.contains("[never]")) {
            println!("SKIPPED: this host gives no transparent huge pages");
            return;
        }
        let memory = map(16 * MIB).expect("address space");
        let region = memory.iter().next().expect("a region");
        for round in 0..2 {
            assert_eq!(smaps_kib(region.as_ptr(), "Rss:"), 0, "round {round}");
            for at in (0..16 * MIB).step_by(2 << 20) {
                memory.write_obj(1_u8, GuestAddress(at)).expect("in RAM");
            }
            let huge = smaps_kib(region.as_ptr(), "AnonHugePages:");
            assert!(huge > 0 && huge.is_multiple_of(2048), "{huge} KiB");
            wipe(&memory).expect("wiped");
        }
    }
}
