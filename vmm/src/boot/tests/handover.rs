// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a kernel finds in memory and registers at its entry.

use vm_memory::{Bytes, GuestAddress};

use super::images::{BzImage, Elf};
use super::{Files, GIB, MIB, bytes_at, load, memory, number_at, only};
use crate::boot::{BootMode, BootSource, EntryPoint};
use crate::layout;
use crate::memory::GuestRam;

const ZERO_PAGE: u64 = 0x7000;
const START_INFO: u64 = 0x6000;

/// Offsets in `boot_params` (Linux, Documentation/arch/x86/{zero-page,boot}.rst).
const ACPI_RSDP_ADDR: u64 = ZERO_PAGE + 0x70;
const E820_ENTRIES: u64 = ZERO_PAGE + 0x1e8;
const HEADER_MAGIC: u64 = ZERO_PAGE + 0x202;
const TYPE_OF_LOADER: u64 = ZERO_PAGE + 0x210;
const RAMDISK_IMAGE: u64 = ZERO_PAGE + 0x218;
const RAMDISK_SIZE: u64 = ZERO_PAGE + 0x21c;
const CMD_LINE_PTR: u64 = ZERO_PAGE + 0x228;
const INIT_SIZE: u64 = ZERO_PAGE + 0x260;
const E820_TABLE: u64 = ZERO_PAGE + 0x2d0;

fn e820(memory: &GuestRam) -> Vec<(u64, u64, u64)> {
    (0..number_at::<1>(memory, E820_ENTRIES))
        .map(|index| {
            let entry = E820_TABLE + index * 20;
            let number = |offset| number_at::<8>(memory, entry + offset);
            (number(0), number(8), number_at::<4>(memory, entry + 16))
        })
        .collect()
}

#[test]
fn bzimage_is_entered_in_64_bit_mode_with_its_header_in_the_zero_page() {
    let files = Files::new();
    let image = BzImage::default();
    let kernel = files.write("vmlinuz", &image.build());
    let memory = memory(128 * MIB);
    let source = BootSource {
        cmdline: "console=ttyS0 panic=-1",
        ..only(&kernel)
    };
    assert_eq!(
        load(&memory, &source, 1),
        Ok(EntryPoint {
            mode: BootMode::Linux64,
            address: GuestAddress(0x10_0200),
            boot_info: GuestAddress(ZERO_PAGE),
        })
    );
    assert_eq!(bytes_at(&memory, 0x10_0000, image.payload), image.code());
    assert_eq!(bytes_at(&memory, HEADER_MAGIC, 4), b"HdrS");
    assert_eq!(number_at::<1>(&memory, TYPE_OF_LOADER), 0xff);
    assert_eq!(
        number_at::<4>(&memory, INIT_SIZE),
        u64::from(image.init_size)
    );
    assert_eq!(number_at::<4>(&memory, CMD_LINE_PTR), 0x2_0000);
    assert_eq!(bytes_at(&memory, 0x2_0000, 23), b"console=ttyS0 panic=-1\0");
    assert_eq!(number_at::<8>(&memory, ACPI_RSDP_ADDR), 0xe_0000);
    assert_eq!(number_at::<4>(&memory, RAMDISK_SIZE), 0, "no initrd");
    // The map of the first gigabyte and its code segment are there.
    assert_eq!(number_at::<8>(&memory, 0xb000), 0x83);
    assert_eq!(number_at::<8>(&memory, 0x510), 0x00af_9b00_0000_ffff);
}

#[test]
fn e820_lists_ram_around_the_legacy_area_and_the_pci_hole() {
    let files = Files::new();
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let low = [(0, 0x9_fc00, 1), (0x9_fc00, 0x6_0400, 2)];
    let platform = (0xfec0_0000, 0x140_0000, 2);
    for (bytes, rest) in [
        (128 * MIB, vec![(0x10_0000, 0x7f0_0000, 1), platform]),
        (GIB, vec![(0x10_0000, 0x3ff0_0000, 1), platform]),
        (
            5 * GIB,
            vec![
                (0x10_0000, 0xbff0_0000, 1),
                platform,
                (0x1_0000_0000, 0x8000_0000, 1),
            ],
        ),
    ] {
        let memory = memory(bytes);
        load(&memory, &only(&kernel), 1).expect("a kernel that fits");
        assert_eq!(e820(&memory), [&low[..], &rest].concat(), "{bytes:#x}");
    }
}

#[test]
fn initrd_is_at_the_top_of_low_ram_with_its_overlay_behind_it() {
    let files = Files::new();
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let initrd = files.write("initrd", b"\x1f\x8bfirst segment");
    for (bytes, top) in [(128 * MIB, 0x800_0000), (5 * GIB, 0x8000_0000)] {
        let memory = memory(bytes);
        let source = BootSource {
            initrd: Some(&initrd),
            initrd_overlay: b"070701over",
            ..only(&kernel)
        };
        load(&memory, &source, 1).expect("an initrd that fits");
        let address = number_at::<4>(&memory, RAMDISK_IMAGE);
        assert_eq!(address, top - 0x1000);
        assert_eq!(number_at::<4>(&memory, RAMDISK_SIZE), 26);
        assert_eq!(
            bytes_at(&memory, address, 26),
            b"\x1f\x8bfirst segment\x00070701over"
        );
    }
}

#[test]
fn initrd_may_be_the_overlay_alone_and_keeps_below_what_the_kernel_allows() {
    let files = Files::new();
    let image = BzImage {
        initrd_addr_max: 0x37ff_ffff,
        ..BzImage::default()
    };
    let kernel = files.write("vmlinuz", &image.build());
    let memory = memory(GIB);
    let source = BootSource {
        initrd_overlay: b"070701",
        ..only(&kernel)
    };
    load(&memory, &source, 1).expect("an overlay that fits");
    assert_eq!(number_at::<4>(&memory, RAMDISK_IMAGE), 0x37ff_f000);
    assert_eq!(bytes_at(&memory, 0x37ff_f000, 6), b"070701");
}

#[test]
fn initrd_never_reaches_into_the_memory_the_kernel_unpacks_itself_to() {
    let files = Files::new();
    // Unpacks to 16 MiB and uses 32 MiB there.
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let initrd = files.write("initrd", &vec![1; 0x10_0000]);
    let source = BootSource {
        initrd: Some(&initrd),
        ..only(&kernel)
    };
    let memory_49 = memory(49 * MIB);
    load(&memory_49, &source, 1).expect("an initrd that just fits");
    assert_eq!(number_at::<4>(&memory_49, RAMDISK_IMAGE), 48 * MIB);
    let error = load(&memory(49 * MIB - 0x1000), &source, 1).expect_err("one page too little");
    assert!(
        error.to_string().contains("give the guest more memory"),
        "{error}"
    );
}

#[test]
fn vmlinux_with_the_note_is_entered_by_pvh() {
    let files = Files::new();
    let image = Elf {
        pvh_entry: Some(0x100_0080),
        ..Elf::default()
    };
    let kernel = files.write("vmlinux", &image.build());
    let initrd = files.write("initrd", b"070701");
    let memory = memory(5 * GIB);
    let source = BootSource {
        initrd: Some(&initrd),
        cmdline: "quiet",
        ..only(&kernel)
    };
    assert_eq!(
        load(&memory, &source, 1),
        Ok(EntryPoint {
            mode: BootMode::Pvh32,
            address: GuestAddress(0x100_0080),
            boot_info: GuestAddress(START_INFO),
        })
    );
    assert_eq!(bytes_at(&memory, 0x100_0000, Elf::CODE.len()), Elf::CODE);
    // struct hvm_start_info, version 1 (Xen, public/arch-x86/hvm/start_info.h).
    assert_eq!(number_at::<4>(&memory, START_INFO), 0x336e_c578);
    assert_eq!(number_at::<4>(&memory, START_INFO + 4), 1);
    assert_eq!(number_at::<4>(&memory, START_INFO + 12), 1, "one module");
    let module = number_at::<8>(&memory, START_INFO + 16);
    assert_eq!(number_at::<8>(&memory, module), 0x7fff_f000);
    assert_eq!(number_at::<8>(&memory, module + 8), 6);
    let cmdline = number_at::<8>(&memory, START_INFO + 24);
    assert_eq!(bytes_at(&memory, cmdline, 6), b"quiet\0");
    assert_eq!(number_at::<8>(&memory, START_INFO + 32), 0xe_0000);
    let map = number_at::<8>(&memory, START_INFO + 40);
    let entries: Vec<_> = (0..number_at::<4>(&memory, START_INFO + 48))
        .map(|index| map + index * 24)
        .map(|entry| {
            let number = |offset| number_at::<8>(&memory, entry + offset);
            (number(0), number(8), number_at::<4>(&memory, entry + 16))
        })
        .collect();
    assert_eq!(
        entries,
        [
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0x6_0400, 2),
            (0x10_0000, 0xbff0_0000, 1),
            (0xfec0_0000, 0x140_0000, 2),
            (0x1_0000_0000, 0x8000_0000, 1),
        ]
    );
}

#[test]
fn vmlinux_without_the_note_is_entered_by_the_64_bit_protocol() {
    let files = Files::new();
    let kernel = files.write("vmlinux", &Elf::default().build());
    let memory = memory(128 * MIB);
    let entry = load(&memory, &only(&kernel), 1).expect("a kernel that fits");
    assert_eq!(
        (entry.mode, entry.address.0),
        (BootMode::Linux64, 0x100_0010)
    );
    assert_eq!(bytes_at(&memory, HEADER_MAGIC, 4), b"HdrS");
    assert_eq!(number_at::<2>(&memory, ZERO_PAGE + 0x1fe), 0xaa55);
    assert_eq!(number_at::<8>(&memory, ACPI_RSDP_ADDR), 0xe_0000);
    assert_eq!(e820(&memory).len(), 4);
}

#[test]
fn loading_again_repairs_what_a_guest_overwrote() {
    let files = Files::new();
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let initrd = files.write("initrd", b"070701");
    let source = BootSource {
        initrd: Some(&initrd),
        cmdline: "ro",
        ..only(&kernel)
    };
    let memory = memory(64 * MIB);
    let first = load(&memory, &source, 2).expect("a first boot");
    let snapshot = bytes_at(&memory, 0, 0x10_0000);
    for address in [
        layout::GDT.0,
        ZERO_PAGE,
        0xb000,
        0x2_0000,
        0xe_0000,
        0x10_0000,
    ] {
        memory
            .write_slice(&[0xff; 64], GuestAddress(address))
            .expect("an address in RAM");
    }
    assert_eq!(load(&memory, &source, 2), Ok(first));
    let again = bytes_at(&memory, 0, 0x10_0000);
    for (start, end) in [
        (0x510, 0x530),
        (0x7000, 0x8000),
        (0x9000, 0xf000),
        (0x2_0000, 0x2_0003),
        (0xe_0000, 0xe_0024),
        (0xe_0040, 0xe_0080),
    ] {
        assert_eq!(again[start..end], snapshot[start..end], "{start:#x}");
    }
}
