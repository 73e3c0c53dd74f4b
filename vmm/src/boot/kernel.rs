// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel images: telling them apart, and what every format comes down to once loaded.

use std::io::{self, Read};
use std::ops::Range;

use linux_loader::loader::bootparam::setup_header;
use vm_memory::GuestAddress;

use super::file::{self, BootFile, Reader};
use super::payload::Packing;
use super::{BootError, BootMode, bzimage, elf};
use crate::layout;
use crate::memory::GuestRam;

/// Enough of a file to tell what it is: boot sector, setup header and the tar magic.
const PROBE_BYTES: u64 = 0x400;
/// What Linux on x86 reads of a command line, its NUL included (`COMMAND_LINE_SIZE`).
pub(super) const LINUX_CMDLINE_SIZE: usize = 2048;
/// Highest address of an initrd unless the kernel says otherwise (Linux boot protocol).
pub(super) const INITRD_ADDRESS_MAX: u64 = 0x7fff_ffff;

/// A kernel that is in guest memory.
#[derive(Debug)]
pub(super) struct LoadedKernel {
    /// How it wants to be entered.
    pub mode: BootMode,
    /// Where.
    pub entry: GuestAddress,
    /// First address behind all the memory it uses before it reads the memory map.
    pub end: u64,
    /// Longest command line in bytes, without NUL.
    pub cmdline_limit: usize,
    /// Highest address that an initrd may occupy.
    pub initrd_address_max: u64,
    /// The setup header, if the format has one.
    pub setup_header: Option<setup_header>,
}

/// A kernel file that is being loaded.
pub(super) struct KernelFile<'a> {
    pub file: &'a BootFile,
    /// Size in bytes.
    pub size: u64,
    /// Up to [`PROBE_BYTES`] bytes of its start.
    pub head: Vec<u8>,
}

impl<'a> KernelFile<'a> {
    /// Reads a part of it.
    pub(super) fn reader(&self, range: Range<u64>) -> Reader<'a> {
        self.file.reader(range)
    }

    /// Reads all of it.
    pub(super) fn whole(&self) -> Reader<'a> {
        self.reader(0..self.size)
    }

    pub(super) fn not_a_kernel(&self, found: impl Into<String>) -> BootError {
        BootError::NotAKernel {
            path: self.file.path().to_owned(),
            found: found.into(),
        }
    }

    pub(super) fn truncated(&self, expected: u64) -> BootError {
        BootError::KernelTruncated {
            path: self.file.path().to_owned(),
            expected,
            actual: self.size,
        }
    }

    pub(super) fn refused(&self, error: &linux_loader::loader::Error) -> BootError {
        BootError::KernelRefused {
            path: self.file.path().to_owned(),
            reason: error.to_string(),
        }
    }

    /// The payload, packed in this way, cannot be unpacked.
    pub(super) fn damaged(&self, packing: Packing, error: &io::Error) -> BootError {
        BootError::KernelDamaged {
            path: self.file.path().to_owned(),
            packing: packing.name(),
            reason: file::reason(error),
        }
    }

    /// Checks that `[start, end)` is RAM below the PCI hole and above the boot structures.
    pub(super) fn check_fit(&self, start: u64, end: u64, low_ram: u64) -> Result<(), BootError> {
        if start < layout::HIMEM_START {
            return Err(BootError::KernelTooLow {
                path: self.file.path().to_owned(),
                address: start,
                limit: layout::HIMEM_START,
            });
        }
        if end > low_ram {
            return Err(BootError::KernelTooLarge {
                path: self.file.path().to_owned(),
                needed_bytes: end,
                available_bytes: low_ram,
            });
        }
        Ok(())
    }
}

/// Loads a kernel into guest memory, whose low RAM ends at `low_ram`.
pub(super) fn load(
    memory: &GuestRam,
    file: &BootFile,
    low_ram: u64,
) -> Result<LoadedKernel, BootError> {
    let size = file.size()?;
    let mut head = Vec::new();
    file.reader(0..size.min(PROBE_BYTES))
        .read_to_end(&mut head)
        .map_err(|error| file.fault(&error))?;
    let kernel = KernelFile { file, size, head };
    if bzimage::matches(&kernel.head) {
        bzimage::load(memory, &kernel, low_ram)
    } else if elf::matches(&kernel.head) {
        elf::load(memory, &kernel, low_ram)
    } else {
        Err(kernel.not_a_kernel(describe(&kernel.head)))
    }
}

/// Starts of files that get mistaken for kernels: offset, bytes, name.
const KNOWN: [(usize, &[u8], &str); 14] = [
    (
        0,
        b"\x1f\x8b",
        "gzip data (an initrd, or a kernel to unpack first)",
    ),
    (
        0,
        b"\xfd7zXZ\0",
        "xz data (an initrd, or a kernel to unpack first)",
    ),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "zstd data (an initrd, or a kernel to unpack first)",
    ),
    (
        0,
        b"\x02\x21\x4c\x18",
        "LZ4 data (an initrd, or a kernel to unpack first)",
    ),
    (
        0,
        b"BZh",
        "bzip2 data (an initrd, or a kernel to unpack first)",
    ),
    (0, b"070701", "a cpio archive (an initrd?)"),
    (0, b"070702", "a cpio archive (an initrd?)"),
    (
        0,
        b"!<arch>\n",
        "an ar archive or Debian package (unpack it first)",
    ),
    (0, b"\xed\xab\xee\xdb", "an RPM package (unpack it first)"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0x38, b"ARM\x64", "an arm64 kernel"),
    (0x38, b"RSC\x05", "a RISC-V kernel"),
    (0x101, b"ustar", "a tar archive"),
    (
        0,
        b"MZ",
        "an EFI or Windows program without a Linux setup header",
    ),
];

/// What a file that is no kernel looks like, for a message.
fn describe(head: &[u8]) -> String {
    let starts = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if let Some((_, _, name)) = KNOWN
        .iter()
        .find(|(offset, magic, _)| starts(*offset, magic))
    {
        return (*name).to_owned();
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e);
    let first: Vec<u8> = head.iter().copied().take(16).collect();
    if head.iter().all(is_text) {
        let line = String::from_utf8_lossy(&first);
        return format!("text (it starts \"{}\")", line.escape_debug());
    }
    let hex: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("of no known kind (it starts {})", hex.join(" "))
}
