// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A bare-metal guest: 64-bit code without a kernel under it, wrapped into an ELF file.
//!
//! The machine enters it as it enters an ELF kernel: long mode, memory mapped to itself, interrupts
//! off, `boot_params` in RSI. The first letter of the command line picks the program. Results go
//! out at COM1 as lines `name=HEX`.

use std::arch::global_asm;

use tempfile::TempPath;

use crate::elf::{self, Entry};

global_asm!(include_str!("payload.s"));

unsafe extern "C" {
    static kennel_payload_start: u8;
    static kennel_payload_end: u8;
    static kennel_payload_letter: u8;
}

/// Programs `I` and `J` write here: `B` when they arm the watchdog, and, as the other two that take the
/// stage-1 interrupt, `I` when they are interrupted.
pub const MARK_PORT: u16 = 0xf4;

/// The payload as an ELF file.
#[must_use]
pub fn elf() -> Vec<u8> {
    let (start, end) = (
        &raw const kennel_payload_start,
        &raw const kennel_payload_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    elf::elf(unsafe { elf::code(start, end) }, Entry::Long)
}

/// The same with a program of its own, whatever its command line begins with.
///
/// # Panics
///
/// The payload has no place for it.
#[must_use]
pub fn elf_of(letter: char) -> Vec<u8> {
    let (start, end) = (
        &raw const kennel_payload_start,
        &raw const kennel_payload_end,
    );
    let place = (&raw const kennel_payload_letter).addr() - start.addr();
    // SAFETY: as above.
    let mut code = unsafe { elf::code(start, end) }.to_vec();
    code[place] = u8::try_from(letter).expect("an ASCII letter");
    elf::elf(&code, Entry::Long)
}

/// Writes it into a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
pub fn write() -> TempPath {
    elf::write(&elf())
}
