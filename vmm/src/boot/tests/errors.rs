// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every way booting can be refused, and what the user is told.

use std::io;
use std::path::Path;

use super::images::{BzImage, Elf};
use super::{Files, MIB, boot, load, only};
use crate::boot::file::fault;
use crate::boot::{BootError, BootSource, FileRole};

/// Asserts that a message names each of `parts` and is for people.
fn assert_tells(error: &BootError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
    for noise in ["os error", "Error", "Some(", "\n"] {
        assert!(!text.contains(noise), "\"{noise}\" is in: {text}");
    }
}

/// Boots a file of `content` as the kernel of a machine with 64 MiB, which must fail.
fn refused(content: &[u8]) -> (BootError, String) {
    let files = Files::new();
    let kernel = files.write("vmlinuz", content);
    let error = boot(64 * MIB, &only(&kernel)).expect_err("no kernel for this machine");
    (error, kernel.display().to_string())
}

#[test]
fn files_that_cannot_be_read() {
    let files = Files::new();
    let missing = files.path("none");
    let error = boot(64 * MIB, &only(&missing)).expect_err("no such file");
    assert_tells(&error, &["kernel", "none: no such file", "bzImage"]);
    let error = boot(64 * MIB, &only(files.folder.path())).expect_err("a directory");
    assert_tells(&error, &["is a directory", "give the path of"]);
    let error = boot(64 * MIB, &only(Path::new("/dev/null"))).expect_err("a device");
    assert_tells(&error, &["/dev/null: is a device"]);
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let error = boot(64 * MIB, &only(&kernel.join("x"))).expect_err("a file as a folder");
    assert_tells(&error, &["vmlinuz/x", "a part of the path is a file"]);
    let source = BootSource {
        initrd: Some(&missing),
        ..only(&kernel)
    };
    let error = boot(64 * MIB, &source).expect_err("no such file");
    assert_tells(&error, &["initrd", "none: no such file", "cpio"]);
    let denied = fault(FileRole::Kernel, &kernel, &io::Error::from_raw_os_error(13));
    assert_tells(&denied, &["vmlinuz: permission denied", "chmod a+r"]);
    let torn = fault(FileRole::Initrd, &kernel, &io::Error::from_raw_os_error(5));
    assert_tells(
        &torn,
        &["initrd", "vmlinuz: cannot be read: Input/output error"],
    );
}

#[test]
fn empty_files() {
    let (error, path) = refused(b"");
    assert_tells(&error, &["kernel", &path, "is empty (0 bytes)"]);
    let files = Files::new();
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let initrd = files.write("initrd", b"");
    let source = BootSource {
        initrd: Some(&initrd),
        ..only(&kernel)
    };
    let error = boot(64 * MIB, &source).expect_err("an empty initrd");
    assert_tells(&error, &["initrd", "is empty"]);
}

#[test]
fn files_that_are_not_kernels_are_named() {
    let elf = |elf: Elf| elf.build();
    for (content, found) in [
        (
            b"#!/bin/sh\nexec qemu\n".to_vec(),
            "text (it starts \"#!/bin/sh\\nexec q\")",
        ),
        (b"\x1f\x8b\x08 and so on".to_vec(), "gzip data"),
        (b"\xfd7zXZ\0".to_vec(), "xz data"),
        (b"\x28\xb5\x2f\xfd".to_vec(), "zstd data"),
        (b"0707010000".to_vec(), "a cpio archive"),
        (b"!<arch>\ndebian-binary".to_vec(), "Debian package"),
        (b"QFI\xfb\0\0\0\x03".to_vec(), "a qcow2 disk image"),
        (b"MZ\x90\0".to_vec(), "an EFI or Windows program"),
        (
            b"\x01\x02\xff".to_vec(),
            "of no known kind (it starts 01 02 ff)",
        ),
        (
            elf(Elf {
                machine: 183,
                ..Elf::default()
            }),
            "another architecture (arm64, machine 183",
        ),
        (
            elf(Elf {
                order: 2,
                ..Elf::default()
            }),
            "a big-endian ELF file",
        ),
        (
            elf(Elf {
                kind: 1,
                ..Elf::default()
            }),
            "an ELF object file (a kernel module?)",
        ),
        (
            elf(Elf {
                kind: 3,
                ..Elf::default()
            }),
            "an ELF program or shared library",
        ),
        (
            elf(Elf {
                entry: 0x10,
                ..Elf::default()
            }),
            "whose entry point 0x10 is outside",
        ),
    ] {
        let (error, path) = refused(&content);
        assert_tells(&error, &["kernel", &path, found, "give a bzImage"]);
        assert!(matches!(error, BootError::NotAKernel { .. }), "{error:?}");
    }
}

#[test]
fn kernels_without_a_64_bit_entry_point() {
    for (content, found) in [
        (
            Elf {
                class: 1,
                ..Elf::default()
            }
            .build(),
            "it is a 32-bit ELF file",
        ),
        (
            BzImage {
                xloadflags: 0,
                ..BzImage::default()
            }
            .build(),
            "XLF_KERNEL_64 is 0",
        ),
        (
            BzImage {
                protocol: 0x020a,
                ..BzImage::default()
            }
            .build(),
            "boot protocol 2.10 is older",
        ),
    ] {
        let (error, path) = refused(&content);
        assert_tells(&error, &["kernel", &path, found, "give an x86-64 kernel"]);
        assert!(matches!(error, BootError::Kernel32Bit { .. }), "{error:?}");
    }
}

#[test]
fn kernels_cut_short() {
    let mut image = BzImage::default().build();
    let whole = image.len();
    image.truncate(whole - 0x100);
    let (error, path) = refused(&image);
    let expected = format!("promises {whole} bytes, the file has {}", whole - 0x100);
    assert_tells(&error, &[&path, &expected, "copy or download it again"]);
    for length in [0x206, 0x250, 0x400] {
        let (error, _) = refused(&image[..length]);
        assert!(
            matches!(error, BootError::KernelTruncated { .. }),
            "{length:#x}: {error}"
        );
    }
    let elf = Elf::default().build();
    for length in [4, 16, 60, 64, 0x100, 0x280] {
        let (error, _) = refused(&elf[..length]);
        assert!(
            matches!(error, BootError::KernelTruncated { .. }),
            "{length:#x}: {error}"
        );
    }
}

#[test]
fn kernels_that_do_not_fit() {
    // Needs 16 MiB + 56 MiB.
    let image = BzImage {
        init_size: 0x380_0000,
        ..BzImage::default()
    };
    let (error, path) = refused(&image.build());
    assert_tells(
        &error,
        &[
            &path,
            "up to 72 MiB (75497472 bytes)",
            "has 64 MiB (67108864 bytes)",
            "give the guest more memory",
        ],
    );
    let elf = Elf {
        memory_bytes: 0x1000_0000,
        ..Elf::default()
    };
    let (error, _) = refused(&elf.build());
    assert_tells(&error, &["up to 272 MiB", "has 64 MiB"]);
    let huge = Elf {
        memory_bytes: u64::MAX,
        ..Elf::default()
    };
    assert!(matches!(
        refused(&huge.build()).0,
        BootError::KernelTooLarge { .. }
    ));
    let huge = BzImage {
        pref_address: u64::MAX,
        ..BzImage::default()
    };
    assert!(matches!(
        refused(&huge.build()).0,
        BootError::NotAKernel { .. }
    ));
    let low = Elf {
        physical: 0x8000,
        entry: 0x8000,
        ..Elf::default()
    };
    let (error, _) = refused(&low.build());
    assert_tells(&error, &["wants to be loaded at 0x8000", "below 0x100000"]);
}

#[test]
fn what_the_loader_refuses_is_passed_on() {
    // A zImage: loaded below 1 MiB.
    let (error, path) = refused(
        &BzImage {
            loadflags: 0,
            ..BzImage::default()
        }
        .build(),
    );
    assert!(
        matches!(error, BootError::KernelRefused { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(&path), "{error}");
}

#[test]
fn initrd_larger_than_ram() {
    let files = Files::new();
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let initrd = files.path("initrd");
    let file = std::fs::File::create(&initrd).expect("a file");
    file.set_len(200 * MIB).expect("a sparse file");
    let source = BootSource {
        initrd: Some(&initrd),
        ..only(&kernel)
    };
    let error = boot(64 * MIB, &source).expect_err("too large an initrd");
    assert_tells(
        &error,
        &[
            &initrd.display().to_string(),
            "200 MiB (209715200 bytes)",
            "16 MiB (16777216 bytes)",
            "64 MiB of memory",
            "give the guest more memory",
        ],
    );
}

#[test]
fn command_lines() {
    let files = Files::new();
    let image = BzImage {
        cmdline_size: 100,
        ..BzImage::default()
    };
    let kernel = files.write("vmlinuz", &image.build());
    let line = "x".repeat(101);
    assert!(
        boot(
            64 * MIB,
            &BootSource {
                cmdline: &line[..100],
                ..only(&kernel)
            }
        )
        .is_ok()
    );
    let error = boot(
        64 * MIB,
        &BootSource {
            cmdline: &line,
            ..only(&kernel)
        },
    );
    let error = error.expect_err("one byte too long");
    assert_tells(
        &error,
        &[
            "command line",
            "101 bytes",
            "at most 100",
            "shorten it by 1",
        ],
    );
    let source = BootSource {
        cmdline: "quiet\0init=/bin/sh",
        ..only(&kernel)
    };
    let error = boot(64 * MIB, &source).expect_err("a NUL inside");
    assert_tells(&error, &["NUL byte at offset 5"]);
    let vmlinux = files.write("vmlinux", &Elf::default().build());
    let line = "x".repeat(2048);
    let error = boot(
        64 * MIB,
        &BootSource {
            cmdline: &line,
            ..only(&vmlinux)
        },
    );
    assert_tells(
        &error.expect_err("longer than Linux reads"),
        &["2048 bytes", "at most 2047"],
    );
}

#[test]
fn machines_that_cannot_be() {
    let files = Files::new();
    let kernel = files.write("vmlinuz", &BzImage::default().build());
    let error = boot(MIB, &only(&kernel)).expect_err("too little memory");
    assert_tells(&error, &["1048576 bytes", "at least 2097152"]);
    for vcpus in [0, 4097] {
        let error = load(&super::memory(64 * MIB), &only(&kernel), vcpus);
        let error = error.expect_err("a number of vCPUs out of range");
        assert_tells(&error, &[&format!("vCPUs: {vcpus} "), "between 1 and 4096"]);
    }
}
