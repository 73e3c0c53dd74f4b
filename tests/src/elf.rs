// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bare-metal code as an ELF file that a VMM boots.

use std::io::Write;

use tempfile::TempPath;

/// Where the code is loaded and entered.
pub const LOAD_ADDRESS: u32 = 0x20_0000;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PVH_ENTRY: u32 = 18;
const FILE_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// How the code is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In long mode, at the ELF file's own entry point.
    Long,
    /// In 32-bit mode, by the note of the PVH boot protocol.
    Pvh,
    /// As a program of Linux', which is mapped where its place in the file says.
    Program,
}

/// The code between two symbols of the text section.
///
/// # Safety
///
/// They delimit one read-only section of this program.
#[must_use]
pub unsafe fn code(start: *const u8, end: *const u8) -> &'static [u8] {
    let length = (end as usize).saturating_sub(start as usize);
    // SAFETY: the caller's word; sections live for ever.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// `code` as an ELF file with one segment at [`LOAD_ADDRESS`], a program's a few bytes behind it.
#[must_use]
pub fn elf(code: &[u8], entry: Entry) -> Vec<u8> {
    let note = match entry {
        Entry::Long | Entry::Program => vec![],
        Entry::Pvh => pvh_note(),
    };
    let headers = if note.is_empty() { 1_u16 } else { 2 };
    let content = u64::from(FILE_HEADER) + u64::from(headers) * u64::from(PROGRAM_HEADER);
    let address = match entry {
        Entry::Long | Entry::Pvh => u64::from(LOAD_ADDRESS),
        Entry::Program => u64::from(LOAD_ADDRESS) + content,
    };
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.extend([0; 9]);
    // ET_EXEC, EM_X86_64, EV_CURRENT.
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for field in [address, u64::from(FILE_HEADER), 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    // Header sizes and counts; no sections.
    for field in [FILE_HEADER, PROGRAM_HEADER, headers, 0, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    let note_length = note.len() as u64;
    if !note.is_empty() {
        file.extend(program_header(PT_NOTE, content, 0, note_length));
    }
    let length = code.len() as u64;
    file.extend(program_header(
        PT_LOAD,
        content + note_length,
        address,
        length,
    ));
    file.extend(note);
    file.extend(code);
    file
}

fn pvh_note() -> Vec<u8> {
    let mut note = vec![];
    for field in [4_u32, 4, PVH_ENTRY] {
        note.extend(field.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(LOAD_ADDRESS.to_le_bytes());
    note
}

fn program_header(kind: u32, offset: u64, address: u64, length: u64) -> Vec<u8> {
    /// Readable, writable and executable.
    const ALL: u32 = 7;
    let mut header = [kind.to_le_bytes(), ALL.to_le_bytes()].concat();
    for field in [offset, address, address, length, length, 4] {
        header.extend(field.to_le_bytes());
    }
    header
}

/// Writes an ELF file into a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
#[expect(clippy::expect_used, reason = "a test without its payload has failed")]
pub fn write(elf: &[u8]) -> TempPath {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(elf).expect("room for the payload");
    file.into_temp_path()
}
