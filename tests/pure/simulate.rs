// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel simulate` as a user calls it.

use std::path::Path;

use kennel_tests::documents::{FILE, Folder, VALID};
use kennel_tests::kennel::{Call, Ended};
use libtest_mimic::Trial;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("simulate_example_gives_the_same_bytes_twice", example),
        test("simulate_decides_about_the_tutorials_on_time", tutorials),
        test("simulate_tells_everything_wrong_with_both_files", wrong),
    ]
}

fn example() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let simulate = || -> Ended {
        let args = ["simulate", "probes.yaml", "--script", "probes-script.yaml"];
        Call::new(&args).within(&examples).run()
    };
    let first = simulate();
    assert_eq!(first.status, 0, "{first}");
    let (events, table): (Vec<_>, Vec<_>) =
        first.stdout.lines().partition(|line| line.starts_with('{'));
    let decided = events
        .iter()
        .find(|line| line.contains("\"Killing\""))
        .expect("a kill");
    assert!(
        decided.starts_with("{\"time\":\"1970-01-01T00:00:42.000000000Z\""),
        "{decided}"
    );
    let expected = [
        "NAME             PHASE     READY   RESTARTS   STATUS",
        "probes-example   Running   True    1          Running",
    ];
    assert_eq!(table, expected);
    assert_eq!(first.stdout, simulate().stdout);
}

/// The seconds of this event in the timeline of a tutorial.
fn seconds(fixture: &str, script: &str, compat: bool, reason: &str) -> Vec<String> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let document = std::fs::read_to_string(fixtures.join(fixture)).expect("a fixture");
    let folder = Folder::with(document);
    folder.file("script.yaml", script.as_bytes());
    let mut args = vec!["simulate", FILE, "--script", "script.yaml"];
    args.extend(compat.then_some("--compat"));
    let ended = folder.call(&args).run();
    assert_eq!(ended.status, 0, "{ended}");
    let reason = format!("\"reason\":\"{reason}\"");
    let events = ended.stdout.lines().filter(|line| line.contains(&reason));
    let second = |line: &str| {
        let uptime = line.split("\"uptime_ns\":").nth(1)?;
        let ns: u64 = uptime.split(',').next()?.parse().ok()?;
        Some((ns / 1_000_000_000).to_string())
    };
    events.filter_map(second).collect()
}

/// Probes over the network decide when the tutorials' own numbers say so, and 10 s later by
/// KubeVirt's.
fn tutorials() {
    let script = |probe: &str, outcome: &str, until: u32| {
        format!("until: {until}s\nevents: [{{at: 0s, probe: {probe}, outcome: {outcome}}}]\n")
    };
    let recovers = "until: 500s\nevents:\n- {at: 250s, probe: readiness, outcome: failure}\n\
        - {at: 400s, probe: readiness, outcome: success}\n";
    let hangs = script("liveness", "timeout", 300);
    let refuses = script("liveness", "failure", 300);
    let answers = script("readiness", "success", 300);
    for (fixture, script, reason, at) in [
        // Delay 120, period 20, timeout 10, three failures.
        ("fedora-http-liveness", &hangs, "Killing", &[170][..]),
        ("fedora-tcp-liveness", &hangs, "Killing", &[170]),
        ("fedora-tcp-liveness", &refuses, "Killing", &[160]),
        ("lab-http-liveness", &hangs, "Killing", &[170]),
        ("lab-tcp-liveness", &refuses, "Killing", &[160]),
        // Three successes, and five.
        ("fedora-http-readiness", &answers, "Ready", &[160]),
        ("lab-http-both", &answers, "Ready", &[200]),
        ("lab-tcp-liveness", &answers, "Ready", &[200]),
        ("lab-ping-liveness", &answers, "Ready", &[200]),
    ] {
        let fixture = format!("{fixture}.yaml");
        for (compat, more) in [(false, 0), (true, 10)] {
            let expected: Vec<_> = at.iter().map(|at: &u32| (at + more).to_string()).collect();
            let found = seconds(&fixture, script, compat, reason);
            assert_eq!(found, expected, "{fixture} {reason} {compat}");
        }
    }
    // It is asked at 120, 140 and so on: three failures from 260 on, three successes from 400 on.
    let readiness = "fedora-http-readiness.yaml";
    assert_eq!(seconds(readiness, recovers, false, "NotReady"), ["300"]);
    assert_eq!(seconds(readiness, recovers, false, "Ready"), ["160", "440"]);
    // An instance that is killed comes back, and is as long in its start.
    let both = "lab-http-both.yaml";
    let cycles = script("liveness", "failure", 400);
    assert_eq!(seconds(both, &cycles, false, "Killing"), ["160", "160"]);
    assert_eq!(seconds(both, &cycles, false, "Ready"), [""; 0]);
}

fn wrong() {
    let folder = Folder::with(VALID.replace("action: poweroff", "action: powerof"));
    folder.file(
        "script.yaml",
        b"until: 10s\nevents: [{at: 1s, gest: reset}, {at: x, guest: nap}]\n",
    );
    let ended = folder
        .call(&["simulate", FILE, "--script", "script.yaml"])
        .run();
    let messages: [&[&str]; 4] = [
        &["vm.yaml:14:", "\"powerof\"", "did you mean \"poweroff\"?"],
        &["script.yaml:2: events[0].gest:", "did you mean \"guest\"?"],
        &["script.yaml:2: events[1].at:", "\"x\" is not a duration"],
        &["script.yaml:2: events[1].guest:", "\"nap\"", "poweroff"],
    ];
    ended.is_messages(2, &messages);
    let missing = folder.call(&["simulate", FILE]).run();
    missing.is_bad_usage(&["--script"]);
}
