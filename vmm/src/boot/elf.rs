// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ELF vmlinux: entered by PVH if it has the note, else by the 64-bit Linux boot protocol.

use std::io;

use vm_memory::{Address, Bytes, GuestAddress};

use super::kernel::{INITRD_ADDRESS_MAX, KernelFile, LINUX_CMDLINE_SIZE, LoadedKernel};
use super::stream::Stream;
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
/// Notes are looked at up to this size.
const NOTE_BYTES: u64 = 64 << 10;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PVH_NOTE: u32 = 18;

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
#[derive(Clone, Copy)]
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

    /// Where its bytes end in the file.
    const fn file_end(&self) -> u64 {
        self.file_offset.saturating_add(self.file_bytes)
    }

    /// Where the bytes of `other` are in guest memory, if it is a part of this one.
    fn place_of(&self, other: &Self) -> Option<GuestAddress> {
        let distance = other.file_offset.checked_sub(self.file_offset)?;
        let inside = self.kind == SEGMENT_LOAD && other.file_end() <= self.file_end();
        inside.then(|| GuestAddress(self.physical.saturating_add(distance)))
    }
}

/// What is to be loaded, checked against the guest's RAM.
pub(super) struct Plan {
    /// What is loaded, and notes, by their place in the file.
    segments: Vec<Segment>,
    entry: GuestAddress,
    end: u64,
}

/// Loads an ELF kernel where its segments want to be.
pub(super) fn load(
    memory: &GuestRam,
    kernel: &KernelFile<'_>,
    low_ram: u64,
) -> Result<LoadedKernel, BootError> {
    let mut stream =
        Stream::file(kernel.whole(), kernel.size).map_err(|error| kernel.file.fault(&error))?;
    let plan = plan(kernel, &stream, low_ram)?;
    let loaded = plan.load(memory, &mut stream);
    let loaded = loaded.map_err(|error| kernel.file.fault(&error))?;
    kernel.check_entry(&loaded)?;
    Ok(loaded)
}

/// Checks header and segments of the ELF kernel in `stream`, which is or comes out of `kernel`.
pub(super) fn plan(
    kernel: &KernelFile<'_>,
    stream: &Stream<'_>,
    low_ram: u64,
) -> Result<Plan, BootError> {
    if !matches(stream.head()) {
        return Err(kernel.not_a_kernel("no ELF file"));
    }
    check_header(kernel, stream.head())?;
    let mut segments = segments(kernel, stream)?;
    segments.retain(|segment| matches!(segment.kind, SEGMENT_LOAD | SEGMENT_NOTE));
    segments.sort_by_key(|segment| segment.file_offset);
    let end = check_segments(kernel, &segments, stream.length(), low_ram)?;
    let entry = u64_at(stream.head(), 24).unwrap_or_default();
    Ok(Plan {
        segments,
        entry: GuestAddress(entry),
        end,
    })
}

impl Plan {
    /// Loads what was planned.
    pub(super) fn load(
        &self,
        memory: &GuestRam,
        stream: &mut Stream<'_>,
    ) -> io::Result<LoadedKernel> {
        let mut pvh = None;
        for segment in &self.segments {
            let entry = match segment.kind {
                SEGMENT_NOTE => pvh_entry(&self.note(segment, memory, stream)?),
                _ => {
                    stream.skip_to(segment.file_offset)?;
                    stream.put(memory, GuestAddress(segment.physical), segment.file_bytes)?;
                    None
                }
            };
            pvh = pvh.or(entry);
        }
        let (mode, entry) = match pvh {
            Some(entry) => (BootMode::Pvh32, GuestAddress(entry.into())),
            None => (BootMode::Linux64, self.entry),
        };
        Ok(LoadedKernel {
            mode,
            entry,
            end: self.end,
            cmdline_limit: LINUX_CMDLINE_SIZE - 1,
            initrd_address_max: INITRD_ADDRESS_MAX,
            setup_header: None,
        })
    }

    /// The bytes of a note, which the linker has put into what is loaded, too.
    fn note(
        &self,
        note: &Segment,
        memory: &GuestRam,
        stream: &mut Stream<'_>,
    ) -> io::Result<Vec<u8>> {
        if note.file_bytes > NOTE_BYTES {
            return Ok(vec![]);
        }
        let Some(address) = self.segments.iter().find_map(|load| load.place_of(note)) else {
            stream.skip_to(note.file_offset)?;
            return stream.take(note.file_bytes);
        };
        let mut bytes = vec![0; usize::try_from(note.file_bytes).map_err(io::Error::other)?];
        let read = memory.read_slice(&mut bytes, address);
        read.map(|()| bytes).map_err(io::Error::other)
    }
}

/// The entry that a note of Xen's names (`XEN_ELFNOTE_PHYS32_ENTRY`).
fn pvh_entry(mut notes: &[u8]) -> Option<u32> {
    let aligned = |length: u32| usize::try_from(length).ok()?.checked_next_multiple_of(4);
    loop {
        let (name_bytes, value_bytes) = (u32_at(notes, 0)?, u32_at(notes, 4)?);
        let kind = u32_at(notes, 8)?;
        let (name, rest) = notes.get(12..)?.split_at_checked(aligned(name_bytes)?)?;
        let (value, rest) = rest.split_at_checked(aligned(value_bytes)?)?;
        if kind == PVH_NOTE && name_bytes == 4 && name == b"Xen\0" {
            return u32_at(value, 0);
        }
        notes = rest;
    }
}

impl KernelFile<'_> {
    /// Checks that a loaded ELF kernel is entered within itself.
    pub(super) fn check_entry(&self, loaded: &LoadedKernel) -> Result<(), BootError> {
        let entry = loaded.entry.raw_value();
        if entry < crate::layout::HIMEM_START || entry >= loaded.end {
            return Err(self.not_a_kernel(format!(
                "an ELF file whose entry point {entry:#x} is outside what it loads"
            )));
        }
        Ok(())
    }
}

fn check_header(kernel: &KernelFile<'_>, head: &[u8]) -> Result<(), BootError> {
    let (Some(&class), Some(&order)) = (head.get(4), head.get(5)) else {
        return Err(kernel.truncated(HEADER_BYTES as u64));
    };
    if class != CLASS_64 {
        return Err(BootError::Kernel32Bit {
            path: kernel.file.path().to_owned(),
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
fn check_segments(
    kernel: &KernelFile<'_>,
    segments: &[Segment],
    file_bytes: u64,
    low_ram: u64,
) -> Result<u64, BootError> {
    let (mut start, mut end) = (u64::MAX, 0);
    for segment in segments {
        if segment.file_end() > file_bytes {
            return Err(kernel.truncated(segment.file_end()));
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

fn segments(kernel: &KernelFile<'_>, stream: &Stream<'_>) -> Result<Vec<Segment>, BootError> {
    let head = stream.head();
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
    let table_end = offset.saturating_add(u64::from(count) * u64::from(size));
    if table_end > stream.length() {
        return Err(kernel.truncated(table_end));
    }
    let part = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let table = head.get(part(offset)..part(table_end)).ok_or_else(|| {
        kernel.not_a_kernel("an ELF file whose program headers are far from its start")
    })?;
    Ok(table
        .chunks_exact(PROGRAM_HEADER_BYTES)
        .filter_map(Segment::parse)
        .collect())
}
