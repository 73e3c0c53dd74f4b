// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that would silence its watchdog, on Kennel's own machine alone, as it looks for no device.
//!
//! The last letter of the command line says how: `d` prints 1 MiB, breaks its virtio console and hangs, `c` lets
//! BARs collide for ever, `p` prints at its virtio console for ever, `a` sends messages of 46 MiB on the agent's
//! port for ever, `r` resets itself at once, anything else hangs. `+` on COM1 says that the watchdog is armed (from
//! `r`: that it booted); `*` comes every 8192 moves of a BAR, every 8 MiB of printed text, and after each message.
//!
//! A capital does what its small letter does, with a timeout of 1.2 s instead of 0.4 s.

use std::arch::global_asm;

use tempfile::TempPath;

use crate::elf::{self, Entry};

global_asm!(include_str!("silencer.s"), options(raw));

unsafe extern "C" {
    static kennel_silencer_start: u8;
    static kennel_silencer_end: u8;
}

/// Moves of a BAR from one `*` to the next.
pub const MOVES: usize = 8192;

/// The guest in a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
pub fn write() -> TempPath {
    elf::write(&image())
}

/// The guest as an ELF file, entered by PVH.
#[must_use]
pub fn image() -> Vec<u8> {
    let (start, end) = (
        &raw const kennel_silencer_start,
        &raw const kennel_silencer_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    elf::elf(unsafe { elf::code(start, end) }, Entry::Pvh)
}
