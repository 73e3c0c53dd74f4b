// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Putting a guest into memory: kernel, initrd, command line, ACPI tables, boot structures.
//!
//! *Kernels:* ELF vmlinux by PVH if it has the note, else by the 64-bit Linux boot protocol at its
//! entry point; bzImage: the ELF vmlinux that it packs by xz, gzip or zstd is unpacked into guest
//! memory and entered as above, one packed in another way is entered itself, by the 64-bit Linux
//! boot protocol.
//!
//! *Not supported:* 32-bit-only kernels, compressed ELF files, multiboot, EFI programs.
//!
//! [`BootImage::load`] reads everything anew each time, through descriptors that were opened once, so
//! a guest reset wipes RAM and calls it again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::layout;
use crate::memory::GuestRam;
use file::BootFile;

pub mod acpi;
mod bzimage;
mod dsdt;
mod elf;
mod error;
mod file;
mod initrd;
mod kernel;
mod payload;
mod protocol;
pub mod registers;
mod stream;
#[cfg(test)]
mod tests;

pub use error::BootError;
pub use file::FileRole;
pub use payload::vmlinux;

/// What a guest is booted from.
#[derive(Clone, Copy, Debug)]
pub struct BootSource<'a> {
    /// bzImage or ELF vmlinux.
    pub kernel: &'a Path,
    /// Initial RAM disk.
    pub initrd: Option<&'a Path>,
    /// A cpio segment put behind `initrd`, or alone if there is none; may be empty.
    pub initrd_overlay: &'a [u8],
    /// Kernel command line.
    pub cmdline: &'a str,
}

/// The state that a kernel is entered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMode {
    /// 64-bit mode with paging, `boot_params` in RSI (Linux boot protocol).
    Linux64,
    /// 32-bit protected mode without paging, `hvm_start_info` in EBX (PVH).
    Pvh32,
}

/// How the boot CPU enters the kernel; see [`registers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    /// In which state.
    pub mode: BootMode,
    /// First instruction.
    pub address: GuestAddress,
    /// `boot_params` or `hvm_start_info`.
    pub boot_info: GuestAddress,
}

/// What a guest is booted from, with its files open for the life of the machine.
#[derive(Debug)]
pub struct BootImage {
    kernel: BootFile,
    initrd: Option<BootFile>,
    initrd_overlay: Vec<u8>,
    cmdline: String,
    steps: Arc<AtomicU64>,
}

impl BootImage {
    /// Opens the files of `source`.
    ///
    /// # Errors
    /// [`BootError`]: one of them is not there, not readable or not a file.
    pub fn open(source: &BootSource<'_>) -> Result<Self, BootError> {
        let steps = Arc::default();
        let initrd = source
            .initrd
            .map(|path| BootFile::open(FileRole::Initrd, path, &steps));
        Ok(Self {
            kernel: BootFile::open(FileRole::Kernel, source.kernel, &steps)?,
            initrd: initrd.transpose()?,
            initrd_overlay: source.initrd_overlay.to_owned(),
            cmdline: source.cmdline.to_owned(),
            steps,
        })
    }

    /// Grows with each piece that a load reads: one that hangs is told from one that is slow.
    #[must_use]
    pub fn steps(&self) -> &Arc<AtomicU64> {
        &self.steps
    }

    /// Puts the guest into `memory`, which must be made from [`layout::ram_ranges`], for a machine with
    /// `vcpus` vCPUs. Memory must be all zeros: fresh, or wiped after an earlier guest.
    ///
    /// # Errors
    /// [`BootError`]; guest memory may then be partly written.
    pub fn load(&self, memory: &GuestRam, vcpus: u32) -> Result<EntryPoint, BootError> {
        let ram: u64 = memory.iter().map(GuestMemoryRegion::len).sum();
        if ram < layout::MIN_RAM {
            return Err(BootError::RamTooSmall {
                bytes: ram,
                minimum: layout::MIN_RAM,
            });
        }
        let low_ram = ram.min(layout::LOW_RAM_LIMIT);
        let kernel = kernel::load(memory, &self.kernel, low_ram)?;
        let cmdline_length = protocol::write_cmdline(memory, &self.cmdline, kernel.cmdline_limit)?;
        let room = initrd::Room {
            start: kernel.end,
            end: low_ram.min(kernel.initrd_address_max.saturating_add(1)),
            ram,
        };
        let initrd = initrd::load(memory, self.initrd.as_ref(), &self.initrd_overlay, room)?;
        let rsdp = acpi::write(memory, vcpus)?;
        let handover = protocol::Handover {
            cmdline_length,
            initrd,
            rsdp,
            memory_map: layout::memory_map(ram),
        };
        let boot_info = match kernel.mode {
            BootMode::Linux64 => protocol::write_zero_page(memory, kernel.setup_header, &handover)?,
            BootMode::Pvh32 => protocol::write_start_info(memory, &handover)?,
        };
        registers::write_tables(memory, kernel.mode)?;
        log::debug!(
            "kernel {}: {:?} entry {:#x}, ends at {:#x}, initrd {:x?}, RSDP {:#x}",
            self.kernel.path().display(),
            kernel.mode,
            kernel.entry.raw_value(),
            kernel.end,
            initrd,
            rsdp.raw_value(),
        );
        Ok(EntryPoint {
            mode: kernel.mode,
            address: kernel.entry,
            boot_info,
        })
    }
}
