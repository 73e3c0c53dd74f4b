// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many probes, in a process of their own: nothing of them may be left in it.

use std::process::Command;

use serde_json::Value;

/// The figures of `metric`'s verdicts whose words end so.
fn figures(metric: &Value, ending: &str) -> Vec<f64> {
    let verdicts = metric["verdicts"].as_array().expect("verdicts");
    let named = verdicts.iter().filter(|one| {
        let what = one["what"].as_str();
        what.is_some_and(|what| what.ends_with(ending))
    });
    named
        .map(|one| one["value"].as_f64().expect("measured"))
        .collect()
}

/// The metrics of one run, by their order.
fn run(arguments: &[&str]) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("run.json");
    let mut program = Command::new(env!("CARGO_BIN_EXE_kennel-benches"));
    let output = program
        .args(["run", "--json"])
        .arg(&json)
        .args(arguments)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report = std::fs::read_to_string(json).expect("it was written");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    report["metrics"].as_array().expect("metrics").clone()
}

#[test]
fn probes_that_are_answered_leave_no_descriptor_and_no_thread() {
    let metrics = run(&[
        "--only",
        "P6",
        "--probes",
        "20",
        "--seconds",
        "3",
        "--hogs",
        "0",
    ]);
    let [metric] = &metrics[..] else {
        panic!("one metric");
    };
    assert_eq!(figures(metric, "descriptors left"), [0.0]);
    assert_eq!(figures(metric, "threads left"), [0.0]);
    // A tick may be missed on a busy host, but most are not.
    let attempts = metric["series"][0]["count"].as_u64().expect("a count");
    assert!((60..=120).contains(&attempts), "{attempts}");
    let failures = figures(metric, "false failures");
    assert!(failures.iter().all(|count| *count < 10.0), "{failures:?}");
}

#[test]
fn probes_that_nobody_answers_leave_nothing_either_and_never_succeed() {
    let metrics = run(&["--only", "P3", "--quick"]);
    let [metric] = &metrics[..] else {
        panic!("one metric");
    };
    let left = figures(metric, "descriptors and threads left");
    assert_eq!(left, [0.0, 0.0]);
    assert_eq!(figures(metric, "successes"), [0.0, 0.0]);
    // None ends before its time, but for the word's way back.
    for series in metric["series"].as_array().expect("series") {
        assert!(series["min"].as_f64().expect("a time") >= 940.0, "{series}");
    }
}
