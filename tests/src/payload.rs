// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A bare-metal guest: 64-bit code without a kernel under it, wrapped into an ELF file.
//!
//! The machine enters it as it enters an ELF kernel: long mode, memory mapped to itself, interrupts
//! off, `boot_params` in RSI. The first letter of the command line picks the program. Results go
//! out at COM1 as lines `name=HEX`.

use std::arch::global_asm;
use std::io::Write;

use tempfile::TempPath;

/// Where the code is loaded and entered.
const LOAD_ADDRESS: u64 = 0x20_0000;

global_asm!(include_str!("payload.s"));

unsafe extern "C" {
    static kennel_payload_start: u8;
    static kennel_payload_end: u8;
}

/// The assembled code.
fn code() -> &'static [u8] {
    let (start, end) = (
        &raw const kennel_payload_start,
        &raw const kennel_payload_end,
    );
    let length = (end as usize).saturating_sub(start as usize);
    // SAFETY: the two symbols delimit one read-only section of this program, which lives for ever.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// The payload as an ELF file with one segment.
#[must_use]
pub fn elf() -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let code = code();
    let length = code.len() as u64;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01");
    file.extend([0; 9]);
    // ET_EXEC, EM_X86_64, EV_CURRENT.
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for field in [LOAD_ADDRESS, 64, 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    // Header sizes and counts: one program header, no sections.
    for field in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    // PT_LOAD, readable, writable and executable.
    file.extend(1_u32.to_le_bytes());
    file.extend(7_u32.to_le_bytes());
    for field in [HEADERS, LOAD_ADDRESS, LOAD_ADDRESS, length, length, 1] {
        file.extend(field.to_le_bytes());
    }
    file.extend(code);
    file
}

/// Writes the payload into a temporary file.
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
