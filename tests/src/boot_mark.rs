// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A first process that marks its beginning: a Linux program of a few instructions, which writes
//! [`MARK`] to COM1's port past all drivers, and sleeps for ever.

use std::arch::global_asm;

use kennel::guest::newc::Archive;

use crate::elf::{self, Entry};

global_asm!(
    "    .section .rodata.kennel_boot_mark, \"a\"",
    "    .globl kennel_boot_mark_start",
    "    .globl kennel_boot_mark_end",
    "kennel_boot_mark_start:",
    // ioperm(0x3f8, 1, 1)
    "    mov eax, 173",
    "    mov edi, 0x3f8",
    "    mov esi, 1",
    "    mov edx, 1",
    "    syscall",
    "    mov dx, 0x3f8",
    "    mov al, {mark}",
    "    out dx, al",
    // pause()
    "2:  mov eax, 34",
    "    syscall",
    "    jmp 2b",
    "kennel_boot_mark_end:",
    "    .previous",
    mark = const MARK,
);

unsafe extern "C" {
    static kennel_boot_mark_start: u8;
    static kennel_boot_mark_end: u8;
}

/// ENQ, which no kernel prints.
pub const MARK: u8 = 5;
/// Has the kernel start it.
pub const RDINIT: &str = "rdinit=/kennel-boot-mark";

/// The program as a cpio archive, to be put behind an initrd.
///
/// # Panics
///
/// It does not fit an archive.
#[must_use]
#[expect(clippy::expect_used, reason = "a program of a few bytes fits")]
pub fn archive() -> Vec<u8> {
    let (start, end) = (
        &raw const kennel_boot_mark_start,
        &raw const kennel_boot_mark_end,
    );
    // SAFETY: the two symbols delimit one read-only section of this program.
    let program = elf::elf(unsafe { elf::code(start, end) }, Entry::Program);
    let mut archive = Archive::new();
    archive
        .file("kennel-boot-mark", 0o755, &program)
        .expect("a few bytes");
    archive.finish()
}
