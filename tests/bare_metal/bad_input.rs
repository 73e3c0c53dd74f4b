// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad input that only a machine on KVM finds: what `kennel run` says then, and what it leaves.

use std::fs::File;

use kennel_tests::documents::{FILE, Folder, VALID, with_kernel};
use kennel_tests::kennel::Ended;
use kennel_tests::payload;
use libtest_mimic::Trial;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("run_on_what_is_no_kernel", no_kernel),
        test("run_with_an_initrd_larger_than_memory", large_initrd),
        test(
            "run_with_events_tells_a_failure_in_both",
            failure_with_events,
        ),
        test("run_with_image_files_that_are_missing", image_missing),
        test("run_with_outputs_that_cannot_be_written", unwritable),
    ]
}

/// A folder with this kernel and an initrd of so many bytes.
fn folder(kernel: &[u8], initrd_bytes: u64) -> Folder {
    let folder = Folder::with(with_kernel());
    folder.file("image/vmlinuz", kernel);
    let initrd = File::create(folder.path("image/initrd")).expect("a file");
    initrd.set_len(initrd_bytes).expect("a sparse file");
    folder
}

/// A machine that came to nothing, told to people.
fn broken(ended: &Ended, parts: &[&str]) {
    let stopped: Vec<_> = ["Stopped"].iter().chain(parts).copied().collect();
    ended.is_messages(1, &[&["Created", "VM process"], &stopped]);
}

fn no_kernel() {
    let text = folder(
        b"These words are no kernel at all, and a few more of them.",
        512,
    );
    broken(
        &text.run(),
        &[
            "kernel ./image/vmlinuz",
            "is text",
            "not a Linux kernel",
            "bzImage",
        ],
    );
    let payload = payload::elf();
    let (half, _) = payload.split_at(payload.len() / 2);
    broken(
        &folder(half, 512).run(),
        &[
            "kernel ./image/vmlinuz",
            "cut short",
            "copy or download it again",
        ],
    );
}

fn large_initrd() {
    // The guest has 64 MiB.
    let ended = folder(&payload::elf(), 100 << 20).run();
    broken(
        &ended,
        &[
            "initrd ./image/initrd",
            "100 MiB (104857600 bytes)",
            "64 MiB",
            "more memory",
        ],
    );
}

fn failure_with_events() {
    let folder = folder(b"no kernel", 512);
    let args = ["run", FILE, "--no-box", "--events", "-"];
    let ended = folder.call(&args).run();
    assert_eq!(ended.status, 1, "{ended}");
    let events = ended.stdout.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        event["reason"].as_str().expect("a word").to_owned()
    });
    let events: Vec<_> = events.collect();
    assert_eq!(events, ["Created", "Stopped"], "{ended}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    assert!(
        ended.stderr.starts_with("kennel: kernel ./image/vmlinuz: "),
        "{ended}"
    );
}

fn image_missing() {
    let folder = Folder::with(VALID);
    let args = [
        "run", FILE, "--no-box", "--kernel", "none", "--initrd", "none",
    ];
    let ended = folder.call(&args).run();
    ended.failed_clearly(1);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("kennel: cannot read the kernel none: "),
        "{ended}"
    );
    assert!(last.contains("check the path"), "{ended}");
}

fn unwritable() {
    for (option, what) in [
        ("--events", "events"),
        ("--console", "what the guest prints"),
    ] {
        let folder = folder(&payload::elf(), 512);
        let args = ["run", FILE, "--no-box", option, "none/at/all"];
        let ended = folder.call(&args).run();
        let part = format!("cannot write {what} to none/at/all: No such file or directory; ");
        ended.is_one_message(1, &[&part, "that you may write to"]);
    }
}
