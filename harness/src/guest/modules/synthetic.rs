// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel modules made up for tests.

/// A 64-bit little-endian relocatable ELF file with nothing but .modinfo and .shstrtab.
fn elf_with_modinfo(modinfo: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
    let (names_at, modinfo_at) = (64, 64 + NAMES.len());
    let sections_at = (modinfo_at + modinfo.len()).next_multiple_of(8);
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [1_u16, 62] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [0_u64, 0, sections_at as u64] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 0, 0, 64, 3, 2] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(NAMES);
    elf.extend(modinfo);
    elf.resize(sections_at, 0);
    let mut header = |name: u32, kind: u32, offset: usize, size: usize| {
        elf.extend(name.to_le_bytes());
        elf.extend(kind.to_le_bytes());
        for word in [0, 0, offset as u64, size as u64] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend([0; 8]);
        for word in [1_u64, 0] {
            elf.extend(word.to_le_bytes());
        }
    };
    header(0, 0, 0, 0);
    header(1, 1, modinfo_at, modinfo.len());
    header(10, 3, names_at, NAMES.len());
    elf
}

/// A module with nothing in it but its name and what it depends on.
pub(crate) fn module(name: &str, depends: &str) -> Vec<u8> {
    elf_with_modinfo(
        format!("license=GPL\0name={name}\0depends={depends}\0vermagic=6.1\0").as_bytes(),
    )
}
