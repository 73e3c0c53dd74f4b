// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest agent on bare metal: a virtio-serial driver that answers whatever comes in at port
//! `org.qemu.guest_agent.0`, without a kernel under it.
//!
//! It runs wherever an ELF file with a PVH note is booted, so on other VMMs too. A request is answered
//! with `{"return":{}}`, guest-sync and guest-sync-delimited with their ID, each with the request's own
//! `id`. It knows one request a buffer, and no other rule of JSON.
//!
//! A digit as the last character of the command line: so many requests beside syncs are answered,
//! then no more. `!` on COM1 says that the port is open, `?` that there is no virtio-serial device.

use std::arch::global_asm;
use std::io::Write;

use tempfile::TempPath;

/// Where the code is loaded and entered.
const LOAD_ADDRESS: u32 = 0x20_0000;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PVH_ENTRY: u32 = 18;

global_asm!(include_str!("mini_agent.s"), options(raw));

unsafe extern "C" {
    static kennel_mini_agent_start: u8;
    static kennel_mini_agent_end: u8;
}

/// The assembled code.
fn code() -> &'static [u8] {
    let (start, end) = (
        &raw const kennel_mini_agent_start,
        &raw const kennel_mini_agent_end,
    );
    let length = (end as usize).saturating_sub(start as usize);
    // SAFETY: the two symbols delimit one read-only section of this program, which lives for ever.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// One program header of a 64-bit ELF file.
fn segment(kind: u32, offset: u64, address: u64, length: u64) -> Vec<u8> {
    /// Readable, writable and executable.
    const ALL: u32 = 7;
    let mut header = [kind.to_le_bytes(), ALL.to_le_bytes()].concat();
    for field in [offset, address, address, length, length, 4] {
        header.extend(field.to_le_bytes());
    }
    header
}

/// The agent as an ELF file: one segment, and the note that has it entered by PVH.
#[must_use]
pub fn elf() -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let code = code();
    let mut note = vec![];
    for field in [4_u32, 4, PVH_ENTRY] {
        note.extend(field.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(LOAD_ADDRESS.to_le_bytes());
    let note_length = note.len() as u64;
    let address = u64::from(LOAD_ADDRESS);

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.extend([0; 9]);
    // ET_EXEC, EM_X86_64, EV_CURRENT.
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for field in [address, 64, 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    // Header sizes and counts: two program headers, no sections.
    for field in [64_u16, 56, 2, 0, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    // PT_NOTE, then PT_LOAD.
    file.extend(segment(4, HEADERS, 0, note_length));
    file.extend(segment(
        1,
        HEADERS + note_length,
        address,
        code.len() as u64,
    ));
    file.extend(note);
    file.extend(code);
    file
}

/// Writes the agent into a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
#[expect(clippy::expect_used, reason = "a test without its payload has failed")]
pub fn write() -> TempPath {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&elf()).expect("room for the payload");
    file.into_temp_path()
}
