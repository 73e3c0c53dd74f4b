// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest RAM: anonymous memory around the 4 GiB hole, mapped once for the life of the process.

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::layout;

/// Guest RAM cannot be had or wiped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The mapping failed.
    #[error("{mib} MiB of guest memory cannot be mapped: {source}; ask for less memory")]
    Map {
        /// What was asked for.
        mib: u64,
        /// Why it failed.
        source: vm_memory::mmap::FromRangesError,
    },
    /// Pages could not be given back.
    #[error("guest memory cannot be wiped for the reset: {0}")]
    Wipe(rustix::io::Errno),
}

/// Maps `bytes` of guest RAM.
///
/// # Errors
///
/// The host refuses the mapping.
pub fn map(bytes: u64) -> Result<GuestMemoryMmap, MemoryError> {
    GuestMemoryMmap::from_ranges(&layout::ram_ranges(bytes)).map_err(|source| MemoryError::Map {
        mib: bytes >> 20,
        source,
    })
}

/// Makes all of guest RAM zero again and gives its pages back to the host.
///
/// # Errors
///
/// The kernel refuses.
pub fn wipe(memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    for region in memory.iter() {
        let base = region.as_ptr().cast::<std::ffi::c_void>();
        let length = usize::try_from(region.len()).unwrap_or(usize::MAX);
        // SAFETY: base and length are one live private anonymous mapping that `region` owns. No
        // vCPU runs and nobody in this process holds a reference into guest memory during a reset,
        // so replacing its pages by zero pages is unobserved.
        unsafe { rustix::mm::madvise(base, length, rustix::mm::Advice::LinuxDontNeed) }
            .map_err(MemoryError::Wipe)?;
    }
    Ok(())
}
