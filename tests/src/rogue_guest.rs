// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that means its machine and its neighbours no good, without a kernel under it, on Kennel's own machine
//! alone, as it looks for no device. It arms its watchdog with 1.2 s, then does without end what the last letter of
//! the command line says:
//!
//! | | |
//! |---|---|
//! | `l` | sends messages of 47 MiB on the agent's port |
//! | `b` | moves its watchdog's BAR over the virtio console's, and away |
//! | `v` | prints 8 MiB at once on its virtio console |
//! | `r` | resets itself, without a watchdog |
//! | other | nothing: halts |
//!
//! `+` on COM1 says that it begins.

use std::arch::global_asm;

use tempfile::TempPath;

use crate::elf::{self, Entry};

global_asm!(include_str!("rogue_guest.s"), options(raw));

unsafe extern "C" {
    static kennel_rogue_guest_start: u8;
    static kennel_rogue_guest_end: u8;
}

/// The guest, in a temporary file.
///
/// # Panics
///
/// The file cannot be written.
#[must_use]
pub fn write() -> TempPath {
    let (start, end) = (
        &raw const kennel_rogue_guest_start,
        &raw const kennel_rogue_guest_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    elf::write(&elf::elf(unsafe { elf::code(start, end) }, Entry::Pvh))
}
