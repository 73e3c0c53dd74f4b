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
