// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest to measure with: a few dozen instructions that boot wherever an ELF file with a PVH note
//! does, and a firmware that does the same from the reset vector on.
//!
//! Its very first instructions write `S` to COM1. Then the last character of the command line picks:
//!
//! | | |
//! |---|---|
//! | `b` | arms the watchdog at 00:04.0 with 1.2 s and halts, so that it bites |
//! | `n` | the same; its NMI handler writes `N` and halts for good |
//! | `c` | the same, but computes without end |
//! | `a` | writes `R`, and arms it whenever COM1 says how many ticks a stage has, as a decimal and a newline; halts meanwhile |
//! | `p` | arms it with 4 s, and pings it every 2 s, each time with a `p`; sleeps meanwhile |
//! | `h` | as `p`, and hangs after three pings: halts for good |
//! | digit | writes `B`, pings the watchdog so many times [`PINGS`], writes `E`, halts |
//! | other | halts |
//!
//! The firmware is program `b`.

use std::arch::global_asm;

use tempfile::TempPath;

use crate::elf::{self, Entry};

global_asm!(include_str!("bench_guest.s"), options(raw));

unsafe extern "C" {
    static kennel_bench_guest_start: u8;
    static kennel_bench_guest_end: u8;
    static kennel_bench_rom_start: u8;
    static kennel_bench_rom_end: u8;
}

/// Pings that each unit of the digit stands for.
pub const PINGS: u64 = 2_000;
/// `mov dx, 0x3f8; mov al, 'S'; out dx, al; jmp 0`, at the reset vector.
const RESET: [u8; 9] = [0xba, 0xf8, 0x03, 0xb0, b'S', 0xee, 0xe9, 0x07, 0x00];
const ROM_SIZE: usize = 64 << 10;
const RESET_VECTOR: usize = 0xfff0;

/// The guest as an ELF file, entered by PVH, in a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
pub fn write() -> TempPath {
    let (start, end) = (
        &raw const kennel_bench_guest_start,
        &raw const kennel_bench_guest_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    elf::write(&elf::elf(unsafe { elf::code(start, end) }, Entry::Pvh))
}

/// The firmware, in a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
pub fn write_rom() -> TempPath {
    let (start, end) = (
        &raw const kennel_bench_rom_start,
        &raw const kennel_bench_rom_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    let code = unsafe { elf::code(start, end) };
    let filler = |length: usize| std::iter::repeat_n(0xf4_u8, length);
    let mut rom = code.to_vec();
    rom.extend(filler(RESET_VECTOR.saturating_sub(rom.len())));
    rom.extend(RESET);
    rom.extend(filler(ROM_SIZE.saturating_sub(rom.len())));
    elf::write(&rom)
}
