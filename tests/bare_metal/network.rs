// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that mean their network no good: the machine stays small, its watchdog bites when it should,
//! and who asks for the guest's ports is told the truth. And one that serves.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use kennel_tests::documents::{FILE, Folder};
use kennel_tests::hostile_guest::{self, FRAMES, TIMEOUT_NS};
use kennel_tests::machine::{Machine, Seen};
use kennel_tests::web_guest;
use kennel_vmm::protocol::{Command, Ending, News};
use libtest_mimic::Trial;

use crate::registers::ended;
use crate::test;

/// More than the link ever holds, and an allocator's habits.
const GROWTH: u64 = 8 << 20;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("flood_of_frames_is_survived", flood),
        test("broken_rings_are_survived", broken),
        test("silent_guest_is_told_as_such", silent),
        test("broken_rings_fill_no_log", log),
        test("web_server_answers_probes", web),
    ]
}

/// A dial's answer, its first line.
fn dial(socket: &Path, target: &str) -> String {
    let stream = UnixStream::connect(socket).expect("the machine listens");
    // A bound for a test that has failed already.
    let bound = Some(Duration::from_secs(60));
    stream.set_read_timeout(bound).expect("a socket");
    (&stream)
        .write_all(format!("CONNECT {target} 80 200\n").as_bytes())
        .expect("room");
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line);
    read.expect("an answer, at the deadline at the latest");
    line
}

/// What the process alone has in memory, its guest's included.
fn memory(machine: &Machine) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", machine.pid());
    let text = std::fs::read_to_string(path).expect("a process");
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.map_or(0, |kib: u64| kib << 10)
}

/// A bite, which nothing has made early: on the beat of a watchdog that nobody feeds.
fn bitten(machine: &mut Machine) {
    let (notice, report) = machine.news("bite", |news| match news {
        News::Watchdog(report) => Some(*report),
        _ => None,
    });
    assert_eq!(report.timeout_ns, TIMEOUT_NS);
    let due = report.since_ping_ns - report.lateness_ns;
    assert!(due >= TIMEOUT_NS && due % TIMEOUT_NS == 0, "{report:?}");
    assert!(notice.uptime_ns >= report.since_ping_ns);
}

fn stopped(mut machine: Machine, socket: &Path) {
    machine.tell(&Command::Stop);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::Stopped);
    assert!(machine.orphaned().success());
    assert!(!socket.exists(), "it is removed");
}

fn starts_with_one_of(answer: &str, reasons: &[&str]) -> bool {
    let mut reasons = reasons.iter();
    reasons.any(|reason| answer.starts_with(&format!("FAIL {reason} ")))
}

/// It also takes nothing of what it is sent, so that everything that can wait does.
fn flood() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("dials");
    let mut machine = Machine::start_hostile('f', &socket);
    machine.line("+");
    let before = memory(&machine);
    machine.line("*");
    bitten(&mut machine);
    for target in ["ipv4", "ipv6", "10.0.2.77"] {
        let answer = dial(&socket, target);
        let truths = ["timeout", "unreachable"];
        assert!(starts_with_one_of(&answer, &truths), "{target}: {answer}");
    }
    for _ in 0..6 {
        machine.line("*");
    }
    let after = memory(&machine);
    assert!(
        after <= before + GROWTH,
        "{before} before, {after} after {} frames",
        7 * FRAMES
    );
    let shows_both = |seen: &Seen| match seen {
        Seen::Notice(notice) => matches!(
            notice.news,
            News::GuestAddresses {
                ipv4: Some(_),
                ipv6: Some(_)
            }
        ),
        _ => false,
    };
    assert!(machine.log().iter().any(shows_both), "its frames are heard");
    stopped(machine, &socket);
}

fn broken() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("dials");
    let mut machine = Machine::start_hostile('b', &socket);
    machine.line("+");
    let before = memory(&machine);
    bitten(&mut machine);
    for _ in 0..4 {
        let answer = dial(&socket, "ipv4");
        let truths = ["no-driver", "unreachable"];
        assert!(starts_with_one_of(&answer, &truths), "{answer}");
        machine.line("*");
    }
    let after = memory(&machine);
    assert!(after <= before + GROWTH, "{before} before, {after} after");
    stopped(machine, &socket);
}

fn silent() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("dials");
    let mut machine = Machine::start_hostile('s', &socket);
    machine.line("+");
    for target in ["ipv4", "ipv6"] {
        let answer = dial(&socket, target);
        assert!(starts_with_one_of(&answer, &["unreachable"]), "{answer}");
    }
    bitten(&mut machine);
    stopped(machine, &socket);
}

/// Each bite resets the machine, and it all begins again.
fn log() {
    let folder = Folder::with(
        "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: hostile, \
         annotations: {kennel/uplink: none}}, spec: {terminationGracePeriodSeconds: 0, domain: {resources: {requests: {memory: 64Mi}}, devices: \
         {watchdog: {name: w, i6300esb: {action: reset}}}, firmware: {kernelBoot: {kernelArgs: b, \
         container: {image: ./image, kernelPath: /guest}}}}}}",
    );
    folder.file("image/guest", &hostile_guest::image('b'));
    let args = [
        "run",
        FILE,
        "--no-box",
        "--events",
        "events",
        "--console",
        "console",
        "--timeout",
        "3",
    ];
    let ended = folder.call(&args).run();
    assert_eq!(ended.status, 124, "{ended}");
    let events = std::fs::read_to_string(folder.path("events")).expect("events");
    let count = |reason: &str| events.matches(&format!("\"reason\":\"{reason}\"")).count();
    assert!(count("Watchdog") > 0 && count("Reset") > 0, "{events}");
    let warnings = ended.stderr.matches("broke its network device").count();
    assert_eq!(warnings, 1, "{ended}");
    assert!(
        ended.stderr.len() < 4096,
        "{} bytes: {ended}",
        ended.stderr.len()
    );
}

/// More often than its rings have entries, one connection after the other: each closed by the guest after
/// its answer, or by the host without a word.
fn web() {
    const TIMES: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("dials");
    let mut machine = Machine::start_web(&socket);
    machine.line("+");
    for time in 0..TIMES {
        let mut stream = connected(&socket);
        if time % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("room");
            let mut answer = vec![];
            stream.read_to_end(&mut answer).expect("an end");
            assert_eq!(answer, web_guest::ANSWER, "connection {time}");
        }
    }
    stopped(machine, &socket);
}

/// A connection to a port of the guest.
fn connected(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("the machine listens");
    let bound = Some(Duration::from_secs(60));
    stream.set_read_timeout(bound).expect("a socket");
    stream.write_all(b"CONNECT ipv4 80 60000\n").expect("room");
    let mut line = vec![];
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("an answer");
        line.extend(byte);
    }
    let line = String::from_utf8_lossy(&line);
    assert!(line.starts_with("OK "), "{line}");
    stream
}
