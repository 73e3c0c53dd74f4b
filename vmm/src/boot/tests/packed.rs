// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a bzImage packs, unpacked into guest memory, or entered as it is.

use std::io::Write;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use vm_memory::GuestAddress;

use super::images::{BzImage, Elf};
use super::{Files, MIB, boot, bytes_at, load, memory, only};
use crate::boot::{BootError, BootImage, BootMode, vmlinux};

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::default();
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).expect("a writer");
    writer.write_all(bytes).expect("in memory");
    sized(writer.finish().expect("in memory"), bytes.len())
}

/// Its own end is the length.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(bytes).expect("in memory");
    writer.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    sized(
        compress_to_vec(bytes, CompressionLevel::Fastest),
        bytes.len(),
    )
}

/// `packed` with the length of what it packs, as the kernel's build puts it behind.
fn sized(mut packed: Vec<u8>, length: usize) -> Vec<u8> {
    packed.extend(u32::try_from(length).expect("small").to_le_bytes());
    packed
}

/// An ELF kernel with something behind what it loads, as relocations are.
fn kernel(pvh_entry: Option<u32>) -> Vec<u8> {
    let elf = Elf {
        pvh_entry,
        ..Elf::default()
    };
    let noise = std::iter::successors(Some(1_u32), |number| {
        Some(number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    });
    let noise = noise.map(|number| number.to_le_bytes()[3]).take(50_000);
    elf.build().into_iter().chain(noise).collect()
}

#[test]
fn what_is_packed_is_loaded_where_it_wants_to_be() {
    let files = Files::new();
    let elf = kernel(None);
    for (packing, payload) in [("xz", xz(&elf)), ("gzip", gzip(&elf)), ("zstd", zstd(&elf))] {
        let bzimage = BzImage {
            cmdline_size: 300,
            ..BzImage::default()
        };
        let path = files.write(packing, &bzimage.packing(&payload));
        let memory = memory(32 * MIB);
        let entry = load(&memory, &only(&path), 1).expect("a kernel that fits");
        assert_eq!(
            (entry.mode, entry.address),
            (BootMode::Linux64, GuestAddress(0x100_0010)),
            "{packing}"
        );
        assert_eq!(bytes_at(&memory, 0x100_0000, Elf::CODE.len()), Elf::CODE);
        assert_eq!(bytes_at(&memory, 0x10_0000, 64), [0; 64], "no bzImage");
        let long = "x".repeat(301);
        let source = crate::boot::BootSource {
            cmdline: &long,
            ..only(&path)
        };
        let error = boot(32 * MIB, &source).expect_err("longer than the setup header allows");
        assert!(matches!(
            error,
            BootError::CmdlineTooLong { limit: 300, .. }
        ));
        assert_eq!(vmlinux(&bzimage.packing(&payload)), Some(elf.clone()));
    }
}

#[test]
fn one_with_the_note_is_entered_by_pvh() {
    let files = Files::new();
    let path = files.write(
        "vmlinuz",
        &BzImage::default().packing(&xz(&kernel(Some(0x100_0080)))),
    );
    let entry = boot(32 * MIB, &only(&path)).expect("a kernel that fits");
    assert_eq!((entry.mode, entry.address.0), (BootMode::Pvh32, 0x100_0080));
}

#[test]
fn another_packing_and_no_elf_file_enter_the_bzimage() {
    let files = Files::new();
    let shared_library = Elf {
        kind: 3,
        ..Elf::default()
    };
    for payload in [
        sized(b"\x04\x22\x4d\x18 is lz4".to_vec(), 5000),
        gzip(b"no ELF file"),
        zstd(&shared_library.build()),
    ] {
        let bzimage = BzImage::default().packing(&payload);
        let path = files.write("vmlinuz", &bzimage);
        let memory = memory(64 * MIB);
        let entry = load(&memory, &only(&path), 1).expect("a bzImage that fits");
        assert_eq!(
            (entry.mode, entry.address.0),
            (BootMode::Linux64, 0x10_0200)
        );
        assert_eq!(bytes_at(&memory, 0x10_0000, 48), [0xf4; 48]);
    }
    let elsewhere = BzImage::default().packing(&[0; 100]);
    assert_eq!(vmlinux(&elsewhere), None);
    assert_eq!(vmlinux(&kernel(None)), None, "no bzImage");
}

#[test]
fn damage_is_told_with_what_to_do() {
    let files = Files::new();
    let elf = kernel(None);
    for (packing, good) in [("xz", xz(&elf)), ("gzip", gzip(&elf)), ("zstd", zstd(&elf))] {
        let mut torn = good.clone();
        let middle = torn.len() / 2;
        torn[middle..middle + 2000].fill(0x55);
        let mut longer = good.clone();
        let at = longer.len() - 4;
        longer[at..].copy_from_slice(&5000_u32.to_le_bytes());
        let cut = sized(good[..good.len() - 1000].to_vec(), elf.len());
        for (damage, payload) in [("torn", torn), ("longer", longer), ("cut", cut)] {
            let bzimage = BzImage::default().packing(&payload);
            let path = files.write("vmlinuz", &bzimage);
            let error = boot(64 * MIB, &only(&path)).expect_err(damage).to_string();
            let told = format!("is damaged: its {packing} payload cannot be unpacked (");
            assert!(
                error.contains(&told) && error.ends_with("; copy or download it again"),
                "{damage}: {error}"
            );
            assert_eq!(vmlinux(&bzimage), None, "{damage} {packing}");
        }
    }
}

#[test]
fn what_comes_out_is_bounded_by_the_guests_memory() {
    let files = Files::new();
    let bomb = sized(xz(&vec![0; 4096]), 0xffff_ffff);
    let path = files.write("vmlinuz", &BzImage::default().packing(&bomb));
    let error = boot(64 * MIB, &only(&path)).expect_err("4 GiB");
    assert!(matches!(
        error,
        BootError::KernelTooLarge {
            needed_bytes: 0xffff_ffff,
            ..
        }
    ));
    let large = Elf {
        memory_bytes: 64 * MIB,
        ..Elf::default()
    };
    let path = files.write("large", &BzImage::default().packing(&gzip(&large.build())));
    let error = boot(64 * MIB, &only(&path)).expect_err("an end beyond RAM");
    assert!(matches!(
        error,
        BootError::KernelTooLarge {
            needed_bytes: 0x500_0000,
            ..
        }
    ));
}

#[test]
fn files_that_were_replaced_or_removed_change_nothing() {
    let files = Files::new();
    let kernel = files.write("vmlinuz", &BzImage::default().packing(&gzip(&kernel(None))));
    let initrd = files.write("initrd", b"070701 the first");
    let source = crate::boot::BootSource {
        initrd: Some(&initrd),
        ..only(&kernel)
    };
    let image = BootImage::open(&source).expect("files");
    let first = image.load(&memory(64 * MIB), 1).expect("a first boot");
    std::fs::remove_file(&kernel).expect("removed");
    let other = files.write("other", b"070701 another");
    std::fs::rename(other, &initrd).expect("replaced");
    let memory = memory(64 * MIB);
    assert_eq!(image.load(&memory, 1), Ok(first));
    assert_eq!(bytes_at(&memory, 0x3ff_f000, 16), b"070701 the first");
}
