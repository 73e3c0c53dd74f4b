// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::collections::BTreeMap;

use super::assemble::Program;
use super::*;
use crate::guest::modules::Modules;
use crate::guest::modules::synthetic;
use crate::guest::newc;

/// A kernel that has `modules` (name and `depends=`).
fn kernel(modules: &[(&str, &str)]) -> Kernel<'static> {
    let files: BTreeMap<String, Vec<u8>> = modules
        .iter()
        .map(|(name, depends)| {
            (
                format!("lib/modules/6.9/kernel/{name}.ko"),
                synthetic::module(name, depends),
            )
        })
        .collect();
    let paths: Vec<String> = files.keys().cloned().collect();
    let read = move |path: &str| {
        files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    Kernel {
        release: "6.9".into(),
        vmlinuz: b"kernel".to_vec(),
        modules: Modules::new("6.9", paths, "", read),
    }
}

/// A kernel with all that a guest wants.
fn complete() -> Kernel<'static> {
    kernel(&[
        ("i6300esb", "watchdog"),
        ("watchdog", ""),
        ("button", ""),
        ("evdev", ""),
        ("virtio_pci", "virtio"),
        ("virtio_console", "virtio"),
        ("virtio_net", "virtio"),
        ("virtio_blk", "virtio"),
        ("virtio", ""),
    ])
}

fn wdctl() -> Program {
    let libraries = [
        ("lib64/ld.so".to_owned(), b"linker".to_vec()),
        ("lib/libc.so.6".to_owned(), b"libc".to_vec()),
    ];
    Program {
        path: "bin/wdctl",
        elf: b"wdctl".to_vec(),
        libraries: libraries.into(),
    }
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes
        .windows(what.len())
        .any(|window| window == what.as_bytes())
}

#[test]
fn the_same_parts_give_the_same_bytes() {
    let first = assemble(&complete(), b"busybox", &[wdctl()]).expect("an image");
    let second = assemble(&complete(), b"busybox", &[wdctl()]).expect("an image");
    assert!(first.initrd == second.initrd && first.notes.is_empty());
    assert_eq!(first.initrd.len() % newc::BLOCK, 0);
    for part in [
        "bin/wdctl\0",
        "lib64/ld.so\0",
        "lib/libc.so.6\0",
        "etc/acpi/PWRF/00000080\0",
        "etc/os-release\0",
        "etc/udhcpc/default.script\0",
        "bin/agent-start\0",
        "bin/agent-stop\0",
        "sbin/shutdown\0",
        "dev/console\0",
    ] {
        assert!(contains(&first.initrd, part), "{part}");
    }
    let order =
        "/lib/modules/6.9/watchdog.ko\n/lib/modules/6.9/i6300esb.ko\n/lib/modules/6.9/button.ko\n";
    assert!(contains(&first.initrd, order));
    let other = assemble(&complete(), b"busybox 2", &[wdctl()]).expect("an image");
    assert!(first.initrd != other.initrd);
}

#[test]
fn what_a_kernel_lacks_is_said_unless_no_guest_can_do_without() {
    let some =
        assemble(&kernel(&[("i6300esb", ""), ("evdev", "")]), b"busybox", &[]).expect("an image");
    assert_eq!(
        some.notes[0],
        "kernel 6.9 has no module button: it does not obey its power button"
    );
    assert_eq!(some.notes.len(), 5);
    let error =
        assemble(&kernel(&[("button", "")]), b"busybox", &[]).expect_err("no watchdog driver");
    assert_eq!(
        error.to_string(),
        "kernel 6.9 has no module i6300esb; choose another kernel"
    );
}

#[test]
fn a_program_that_cannot_be_had_is_said_and_does_without() {
    let cache = tempfile::tempdir().expect("temporary directory");
    let store = PackageStore::open(cache.path(), &|_| {}).expect("store");
    let gone = |wanted| {
        let error = PackageError::NoKernel {
            depends: "nothing".into(),
        };
        (wanted, Err(error))
    };
    let gathered = programs::gather(programs::PROGRAMS.into_iter().map(gone).collect(), &store);
    assert!(gathered.programs.is_empty() && gathered.libraries.is_empty());
    let starts = [
        "the guest has no wdctl: ",
        "the guest has no guest agent (qemu-ga): ",
    ];
    assert_eq!(gathered.notes.len(), starts.len());
    for (note, start) in gathered.notes.iter().zip(starts) {
        assert!(
            note.starts_with(start) && note.contains("nothing"),
            "{note}"
        );
    }
}

#[test]
fn an_image_is_stored_whole_and_twice_without_harm() {
    let cache = tempfile::tempdir().expect("temporary directory");
    let images = ImageCache::open(cache.path()).expect("cache");
    let store = PackageStore::open(cache.path(), &|_| {}).expect("store");
    let assembled = assemble(&complete(), b"busybox", &[]).expect("an image");
    let mut key = Key::new();
    key.add(b"parts");
    assert_eq!(images.find(&key, &store), None);

    let first = images
        .store(&key, &complete(), &assembled, &[], &Source::Packages)
        .expect("stored");
    let second = images
        .store(&key, &complete(), &assembled, &[], &Source::Packages)
        .expect("stored again");
    assert_eq!(first, second);
    assert_eq!(images.find(&key, &store), Some(first.clone()));
    assert_eq!(fs::read(&first.initrd).expect("initrd"), assembled.initrd);
    assert_eq!(fs::read(&first.kernel).expect("kernel"), b"kernel");
    let names = fs::read_dir(cache.path().join("images"))
        .expect("listed")
        .count();
    assert_eq!(names, 2, "the image and its record, nothing temporary");

    fs::remove_file(&first.initrd).expect("removed");
    assert_eq!(
        images.find(&key, &store),
        None,
        "an incomplete image is not given out"
    );
    let again = images
        .store(&key, &complete(), &assembled, &[], &Source::Packages)
        .expect("stored in its place");
    assert_eq!(images.find(&key, &store), Some(again));

    let copy = first
        .copy_to(&cache.path().join("out/dir"))
        .expect("copied");
    assert_eq!(fs::read(copy.initrd).expect("initrd"), assembled.initrd);
}

#[test]
fn files_that_somebody_made_are_taken_or_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (vmlinux, initrd) = (
        directory.path().join("vmlinux"),
        directory.path().join("initrd"),
    );
    fs::write(&vmlinux, b"\x7fELF and so on").expect("write");
    fs::write(&initrd, b"\x1f\x8b and so on").expect("write");
    let source = Source::Files {
        kernel: vmlinux.clone(),
        initrd: initrd.clone(),
    };
    let image = build(&source, directory.path(), &|_| {}).expect("taken");
    assert_eq!(
        (&image.kernel, &image.initrd, image.kernel_version.as_str()),
        (&vmlinux, &initrd, "unknown")
    );

    fs::write(&initrd, b"hello").expect("write");
    let error = build(&source, directory.path(), &|_| {})
        .expect_err("no initrd")
        .to_string();
    assert!(
        error.starts_with(&format!("{} is not an initrd: ", initrd.display())),
        "{error}"
    );
    fs::remove_file(&initrd).expect("remove");
    let error = build(&source, directory.path(), &|_| {})
        .expect_err("no file")
        .to_string();
    assert!(
        error.starts_with(&format!("cannot read the initrd {}: ", initrd.display())),
        "{error}"
    );
}

/// What apt says where there is no network.
fn out_of_reach() -> PackageError {
    PackageError::Apt {
        command: "apt-get download linux-image-6.10=1".into(),
        output: "Temporary failure resolving 'packages.example'".into(),
    }
}

/// Parts of which one program cannot be had, for this reason.
fn without_a_program(error: PackageError) -> Parts {
    let package = |name: &str| Package {
        name: name.into(),
        version: "2".into(),
        sha256: format!("the newer {name}"),
        path: "/no/such".into(),
    };
    let [wanted, ..] = programs::PROGRAMS;
    Parts {
        kernel: package("linux-image-6.10"),
        busybox: package("busybox-static"),
        programs: vec![(wanted, Err(error))],
    }
}

#[test]
fn what_was_made_last_is_used_where_newer_packages_cannot_be_fetched() {
    let cache = tempfile::tempdir().expect("temporary directory");
    let images = ImageCache::open(cache.path()).expect("cache");
    let error = Err(out_of_reach());
    assert_eq!(made_before(&error, &images), None, "there is none yet");

    let store = |part: &str, programs: &[Program], from: &Source| {
        let assembled = assemble(&complete(), b"busybox", programs).expect("an image");
        let mut key = Key::new();
        key.add(part.as_bytes());
        let stored = images.store(&key, &complete(), &assembled, &[], from);
        stored.expect("stored")
    };
    store("the host's", &[], &Source::HostKernel);
    assert_eq!(made_before(&error, &images), None, "not from packages");

    let made = store("1", &[wdctl()], &Source::Packages);
    let used = made_before(&error, &images).expect("it is there");
    assert_eq!(used.kernel, made.kernel);
    assert_eq!(used.notes.len(), 1);
    assert!(
        used.notes[0].contains("made last") && used.notes[0].contains("Temporary failure"),
        "{:?}",
        used.notes
    );
    let without = Ok(without_a_program(out_of_reach()));
    let used = made_before(&without, &images).expect("that one has the program");
    assert_eq!(used.kernel, made.kernel);

    // Nothing else than reach makes an older image do.
    let unreadable = || PackageError::Unreadable {
        path: "/x.deb".into(),
        reason: "it is no package".into(),
    };
    assert_eq!(made_before(&Err(unreadable()), &images), None);
    let without = Ok(without_a_program(unreadable()));
    assert_eq!(made_before(&without, &images), None);

    fs::remove_file(&made.initrd).expect("removed");
    assert_eq!(made_before(&error, &images), None, "it is not whole");
}
