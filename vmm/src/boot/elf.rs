// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ELF vmlinux: entered by PVH if it has the note, else by the 64-bit Linux boot protocol.

use std::os::unix::fs::FileExt;

use linux_loader::loader::{Elf, KernelLoader, PvhBootCapability};
use vm_memory::{Address, GuestAddress};

use super::file::{self, FileRole};
use super::kernel::{INITRD_ADDRESS_MAX, KernelFile, LINUX_CMDLINE_SIZE, LoadedKernel};
use super::{BootError, BootMode};
use crate::memory::GuestRam;

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE_X86_64: u16 = 62;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;

/// Whether a file that starts with `head` is an ELF file.
pub(super) fn matches(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// One program header, as far as loading needs it.
struct Segment {
    kind: u32,
    file_offset: u64,
    physical: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            file_offset: u64_at(bytes, 8)?,
            physical: u64_at(bytes, 24)?,
            file_bytes: u64_at(bytes, 32)?,
            memory_bytes: u64_at(bytes, 40)?,
        })
    }
}

/// Loads an ELF kernel where its segments want to be.
pub(super) fn load(
    memory: &GuestRam,
    kernel: &mut KernelFile<'_>,
    low_ram: u64,
) -> Result<LoadedKernel, BootError> {
    check_header(kernel)?;
    let end = check_segments(kernel, low_ram)?;
    let loaded =
        Elf::load(memory, None, &mut kernel.file, None).map_err(|error| kernel.refused(&error))?;
    let (mode, entry) = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => (BootMode::Pvh32, entry),
        _ => (BootMode::Linux64, loaded.kernel_load),
    };
    kernel.check_entry(entry, end)?;
    Ok(LoadedKernel {
        mode,
        entry,
        end,
        cmdline_limit: LINUX_CMDLINE_SIZE - 1,
        initrd_address_max: INITRD_ADDRESS_MAX,
        setup_header: None,
    })
}

impl KernelFile<'_> {
    fn check_entry(&self, entry: GuestAddress, end: u64) -> Result<(), BootError> {
        if entry.raw_value() < crate::layout::HIMEM_START || entry.raw_value() >= end {
            return Err(self.not_a_kernel(format!(
                "an ELF file whose entry point {:#x} is outside what it loads",
                entry.raw_value()
            )));
        }
        Ok(())
    }
}

fn check_header(kernel: &KernelFile<'_>) -> Result<(), BootError> {
    let head = kernel.head.as_slice();
    let (Some(&class), Some(&order)) = (head.get(4), head.get(5)) else {
        return Err(kernel.truncated(HEADER_BYTES as u64));
    };
    if class != CLASS_64 {
        return Err(BootError::Kernel32Bit {
            path: kernel.path.to_owned(),
            found: "it is a 32-bit ELF file".to_owned(),
        });
    }
    if order != LITTLE_ENDIAN {
        return Err(kernel.not_a_kernel("a big-endian ELF file for another architecture"));
    }
    let (Some(kind), Some(machine)) = (u16_at(head, 16), u16_at(head, 18)) else {
        return Err(kernel.truncated(HEADER_BYTES as u64));
    };
    if machine != MACHINE_X86_64 {
        let name = match machine {
            183 => "arm64, ",
            243 => "RISC-V, ",
            258 => "LoongArch, ",
            _ => "",
        };
        return Err(kernel.not_a_kernel(format!(
            "an ELF file for another architecture ({name}machine {machine}, x86-64 is 62)"
        )));
    }
    match kind {
        TYPE_EXECUTABLE => Ok(()),
        1 => Err(kernel.not_a_kernel("an ELF object file (a kernel module?)")),
        3 => Err(kernel.not_a_kernel("an ELF program or shared library")),
        4 => Err(kernel.not_a_kernel("an ELF core dump")),
        other => Err(kernel.not_a_kernel(format!("an ELF file of type {other}"))),
    }
}

/// Checks every segment against the file and the guest's RAM; gives the end of the highest one.
fn check_segments(kernel: &KernelFile<'_>, low_ram: u64) -> Result<u64, BootError> {
    let (mut start, mut end) = (u64::MAX, 0);
    for segment in segments(kernel)? {
        if segment.kind != SEGMENT_LOAD && segment.kind != SEGMENT_NOTE {
            continue;
        }
        let in_file = segment.file_offset.saturating_add(segment.file_bytes);
        if in_file > kernel.size {
            return Err(kernel.truncated(in_file));
        }
        if segment.kind == SEGMENT_LOAD {
            let bytes = segment.memory_bytes.max(segment.file_bytes);
            start = start.min(segment.physical);
            end = end.max(segment.physical.saturating_add(bytes));
        }
    }
    if end == 0 {
        return Err(kernel.not_a_kernel("an ELF file that loads nothing"));
    }
    kernel.check_fit(start, end, low_ram)?;
    Ok(end)
}

fn segments(kernel: &KernelFile<'_>) -> Result<Vec<Segment>, BootError> {
    let head = kernel.head.as_slice();
    let (Some(offset), Some(size), Some(count)) =
        (u64_at(head, 32), u16_at(head, 54), u16_at(head, 56))
    else {
        return Err(kernel.truncated(HEADER_BYTES as u64));
    };
    if usize::from(size) != PROGRAM_HEADER_BYTES {
        return Err(kernel.not_a_kernel(format!(
            "an ELF file with program headers of {size} bytes (x86-64 has {PROGRAM_HEADER_BYTES})"
        )));
    }
    let mut table = vec![0; usize::from(count) * PROGRAM_HEADER_BYTES];
    let table_end = offset.saturating_add(table.len() as u64);
    if table_end > kernel.size {
        return Err(kernel.truncated(table_end));
    }
    kernel
        .file
        .read_exact_at(&mut table, offset)
        .map_err(|error| file::fault(FileRole::Kernel, kernel.path, &error))?;
    Ok(table
        .chunks_exact(PROGRAM_HEADER_BYTES)
        .filter_map(Segment::parse)
        .collect())
}
