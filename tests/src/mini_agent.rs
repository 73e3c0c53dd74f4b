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

use tempfile::TempPath;

use crate::elf::{self, Entry};

global_asm!(include_str!("mini_agent.s"), options(raw));

unsafe extern "C" {
    static kennel_mini_agent_start: u8;
    static kennel_mini_agent_end: u8;
}

/// The agent as an ELF file, entered by PVH.
#[must_use]
pub fn elf() -> Vec<u8> {
    let (start, end) = (
        &raw const kennel_mini_agent_start,
        &raw const kennel_mini_agent_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    elf::elf(unsafe { elf::code(start, end) }, Entry::Pvh)
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
