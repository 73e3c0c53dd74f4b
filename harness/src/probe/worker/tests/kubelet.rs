// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kubelet's own test tables.

use super::*;
use ProbeKind::{Liveness, Readiness};
use ProbeResult::{Failure, Success};

/// Its `doProbe` table: state, kind, whether attempts go on, and the result, after a success if one
/// could be made.
#[test]
fn one_step_in_each_state() {
    type Prepare = fn(&mut Worker);
    let terminated: Prepare = |worker| {
        worker.started(at(0));
        drop(worker.ended());
    };
    let deleted: Prepare = |worker| {
        worker.started(at(0));
        drop(worker.stopping());
    };
    let started: Prepare = |worker| worker.started(at(0));
    let rows: [(&str, Prepare, ProbeKind, bool, ProbeResult); 8] = [
        ("waiting", |_| {}, Liveness, false, Failure),
        ("waiting", |_| {}, Readiness, false, Failure),
        ("terminated", terminated, Liveness, false, Failure),
        ("terminated", terminated, Readiness, false, Failure),
        ("deletion requested", deleted, Liveness, false, Success),
        ("deletion requested", deleted, Readiness, true, Success),
        ("running", started, Liveness, true, Success),
        ("running", started, Readiness, true, Success),
    ];
    for (state, prepare, kind, goes_on, result) in rows {
        let mut worker = Worker::new(kind, timing(0, 10, 1, 3));
        prepare(&mut worker);
        assert_eq!(
            step(&mut worker, ok()).is_some(),
            goes_on,
            "{state} {kind:?}"
        );
        assert_eq!(worker.result(), result, "{state} {kind:?}");
    }
}

#[test]
fn initial_delay() {
    for (kind, initial) in [(Liveness, Success), (Readiness, Failure)] {
        let mut worker = Worker::new(kind, timing(10, 10, 1, 3));
        worker.started(at(0));
        assert_eq!(worker.due(at(0)), None);
        assert_eq!(worker.due(Moment::from_nanos(9_999_999_999)), None);
        assert_eq!(worker.result(), initial);
        let attempt = worker.due(at(100)).expect("long since due");
        drop(worker.finished(at(100), attempt.number, ok()));
        assert_eq!(worker.result(), Success);
    }
}

#[test]
fn failure_threshold() {
    let mut worker = running(Readiness, 1, 3);
    for _ in 0..2 {
        for (outcome, result) in [
            (ok(), Success),
            (ok(), Success),
            (ok(), Success),
            (fail(), Success),
            (fail(), Success),
            (fail(), Failure),
            (fail(), Failure),
            (fail(), Failure),
        ] {
            said(&mut worker, outcome);
            assert_eq!(worker.result(), result);
        }
    }
}

#[test]
fn success_threshold() {
    let mut worker = running(Readiness, 3, 1);
    for _ in 0..2 {
        for (outcome, result) in [
            (ok(), Failure),
            (ok(), Failure),
            (ok(), Success),
            (ok(), Success),
            (ok(), Success),
            (fail(), Failure),
        ] {
            said(&mut worker, outcome);
            assert_eq!(worker.result(), result);
        }
    }
}

#[test]
fn on_hold() {
    let mut worker = running(Liveness, 1, 1);
    said(&mut worker, fail());
    assert!(worker.is_on_hold());
    assert_eq!(worker.result(), Failure);
    assert_eq!(worker.next_due(), None);
    assert_eq!(worker.due(at(1000)), None, "not attempted on hold");
    assert_eq!(worker.result(), Failure);
    worker.started(at(1000));
    assert!(!worker.is_on_hold());
    said(&mut worker, ok());
    assert_eq!(worker.result(), Success);
}

#[test]
fn result_run_of_liveness() {
    let mut worker = running(Liveness, 1, 3);
    for (outcome, result, streak) in [
        (ok(), Success, Some((Success, 1))),
        (fail(), Success, Some((Failure, 1))),
        (fail(), Success, Some((Failure, 2))),
        (fail(), Failure, None),
    ] {
        said(&mut worker, outcome);
        assert_eq!((worker.result(), worker.streak()), (result, streak));
    }
    assert!(worker.is_on_hold());
}

/// `HandleCrash`: a prober that crashes is an error to us.
#[test]
fn a_crash_changes_nothing() {
    let mut worker = running(Readiness, 1, 1);
    said(&mut worker, ok());
    all_tries(&mut worker, at(10), &error());
    assert_eq!(worker.result(), Success);
    assert_eq!(worker.streak(), Some((Success, 1)));
    assert_eq!(worker.next_due(), Some(at(20)), "it goes on");
}

/// `UpdatePodStatus`, as far as a worker decides it.
#[test]
fn ready_is_what_runs_and_succeeds() {
    let mut worker = Worker::new(Readiness, timing(0, 10, 1, 1));
    assert!(!worker.is_ready(), "pending");
    worker.started(at(0));
    assert!(!worker.is_ready(), "not asked yet");
    said(&mut worker, ok());
    assert!(worker.is_ready());
    said(&mut worker, fail());
    assert!(!worker.is_ready());
    said(&mut worker, ok());
    drop(worker.ended());
    assert!(!worker.is_ready(), "an old success does not count");
}

/// `probe()`: what an outcome counts as.
#[test]
fn outcomes() {
    for (outcome, counts) in [
        (ok(), Some(Success)),
        (Outcome::Warning("look".into()), Some(Success)),
        (fail(), Some(Failure)),
        (error(), None),
    ] {
        let mut worker = running(Readiness, 9, 9);
        all_tries(&mut worker, at(0), &outcome);
        assert_eq!(worker.streak().map(|(result, _)| result), counts);
    }
}
