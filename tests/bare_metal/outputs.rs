// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Screens, events and consoles that nobody reads, or that take no more: the machine and the run's exit
//! status do not depend on them, but for events that are lost.

use std::os::unix::fs::PermissionsExt;

use kennel_tests::documents::{FILE, Folder};
use kennel_tests::kennel::Ended;
use kennel_tests::web_guest::{self, Leaving};
use libtest_mimic::Trial;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("screen_that_nobody_reads_holds_up_nobody", unread_screen),
        test("fifo_that_nobody_reads_holds_up_nobody", unread_fifo),
        test("events_that_cannot_be_written_are_told_once", full_events),
        test("console_that_cannot_be_written_is_told_once", full_console),
        test("files_are_their_owners", modes),
        test("console_file_is_limited", limited),
    ]
}

/// A guest that powers itself off over the second request that it gets.
fn folder() -> Folder {
    let folder = Folder::with(
        "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: lab, \
         annotations: {kennel/uplink: none}}, spec: {terminationGracePeriodSeconds: 0, \
         livenessProbe: {httpGet: {port: 80}, periodSeconds: 1, timeoutSeconds: 60}, \
         networks: [{name: default, pod: {}}], domain: {memory: {guest: 64Mi}, \
         devices: {interfaces: [{name: default, masquerade: {}}]}, firmware: {kernelBoot: \
         {container: {image: ./image, kernelPath: /web}}}}}}",
    );
    let guest = web_guest::image_that_leaves(2, Leaving::PowerOff);
    folder.file("image/web", &guest);
    folder
}

/// Runs it, by a shell that ends by running its arguments.
fn run(folder: &Folder, shell: &str, words: &[&str]) -> Ended {
    let args = ["run", FILE, "--no-box", "--timeout", "60"];
    let args: Vec<_> = args.iter().chain(words).copied().collect();
    folder.call(&args).through(&["sh", "-c", shell, "sh"]).run()
}

fn events(folder: &Folder) -> String {
    std::fs::read_to_string(folder.path("events")).expect("events")
}

/// A full pipe whose reader never reads; what is said before, during and after the run goes there.
fn unread_screen() {
    let folder = folder();
    let shell = r#"mkfifo full && exec 9<>full && head -c 65536 /dev/zero >&9 && "$@" 2>full"#;
    let words = [
        "--events",
        "events",
        "--console",
        "console",
        "--publish",
        "0:80",
    ];
    let ended = run(&folder, shell, &words);
    assert_eq!(ended.status, 0, "{ended}");
    assert!(
        events(&folder).contains("\"Stopped\""),
        "{}",
        events(&folder)
    );
    // Events and console on the screen, too.
    let ended = run(&folder, shell.replace("mkfifo full && ", "").as_str(), &[]);
    assert_eq!(ended.status, 0, "{ended}");
}

fn unread_fifo() {
    let folder = folder();
    let words = ["--events", "events", "--console", "console"];
    let ended = run(&folder, r#"mkfifo events && exec "$@""#, &words);
    assert_eq!(ended.status, 1, "{ended}");
    let told = ended.stderr.matches("was not taken in time").count();
    assert_eq!(told, 1, "{ended}");
    let ended = run(
        &folder,
        r#"rm events console && mkfifo console && exec "$@""#,
        &words,
    );
    assert_eq!(ended.status, 0, "{ended}");
    assert!(events(&folder).contains("\"Stopped\""), "{ended}");
    // A reader that comes gets everything.
    let read =
        r#"rm events && mkfifo events && { cat events > heard & } && "$@"; s=$?; wait; exit $s"#;
    let ended = run(
        &folder,
        read,
        &["--events", "events", "--console", "/dev/null"],
    );
    assert_eq!(ended.status, 0, "{ended}");
    let heard = std::fs::read_to_string(folder.path("heard")).expect("a file");
    assert!(heard.contains("\"Stopped\""), "{heard}");
}

fn full_events() {
    let folder = folder();
    let words = ["--events", "/dev/full", "--console", "console"];
    let ended = run(&folder, r#"exec "$@""#, &words);
    assert_eq!(ended.status, 1, "{ended}");
    let told: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("/dev/full"))
        .collect();
    assert_eq!(told.len(), 1, "{ended}");
    assert!(told[0].contains("events cannot be written"), "{ended}");
    assert!(told[0].contains("No space left on device"), "{ended}");
    // Another exit status stays what it is.
    let short = [&words[..], &["--timeout", "1ms"]].concat();
    let ended = run(&folder, r#"exec "$@""#, &short);
    assert_eq!(ended.status, 124, "{ended}");
}

fn full_console() {
    let folder = folder();
    let words = ["--events", "events", "--console", "/dev/full"];
    let ended = run(&folder, r#"exec "$@""#, &words);
    assert_eq!(ended.status, 0, "{ended}");
    let told = ended.stderr.matches("cannot be written").count();
    assert_eq!(told, 1, "{ended}");
}

fn modes() {
    let folder = folder();
    folder.file("console", b"");
    let mode = |name| {
        let file = std::fs::metadata(folder.path(name)).expect("a file");
        file.permissions().mode() & 0o777
    };
    let before = mode("console");
    let words = ["--events", "events", "--console", "console"];
    let ended = run(&folder, r#"umask 0 && exec "$@""#, &words);
    assert_eq!(ended.status, 0, "{ended}");
    assert_eq!((mode("events"), mode("console")), (0o600, before));
}

/// That it is kept within its limit is a unit test's: this guest says too little.
fn limited() {
    let folder = folder();
    let words = [
        "--events",
        "events",
        "--console",
        "console",
        "--console-limit",
        "4Ki",
    ];
    let ended = run(&folder, r#"umask 0 && exec "$@""#, &words);
    assert_eq!(ended.status, 0, "{ended}");
    let console = std::fs::read_to_string(folder.path("console")).expect("a file");
    assert_eq!(console, "+\n");
    let ended = run(
        &folder,
        r#"exec "$@""#,
        &["--console", "/dev/null", "--console-limit", "4Ki"],
    );
    assert_eq!(ended.status, 1, "{ended}");
    assert!(ended.stderr.contains("no regular file"), "{ended}");
    let ended = run(
        &folder,
        r#"exec "$@""#,
        &["--console", "-", "--console-limit", "4Ki"],
    );
    assert_eq!(ended.status, 2, "{ended}");
}
