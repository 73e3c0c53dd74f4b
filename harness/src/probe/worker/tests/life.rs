// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Errors, resets, suspension, stopping, and what is said of them.

use super::*;
use ProbeKind::{Liveness, Readiness};
use ProbeResult::{Failure, Success};

fn message(said: &[Said]) -> &str {
    said.first().and_then(Said::message).unwrap_or_default()
}

#[test]
fn each_failure_is_said_with_its_streak() {
    let mut worker = running(Readiness, 1, 2);
    assert_eq!(said(&mut worker, ok()), [Said::BecameReady]);
    let first = said(&mut worker, fail());
    assert_eq!(message(&first), "Readiness probe failed: no (1 of 2)");
    let decided = said(&mut worker, fail());
    assert_eq!(message(&decided), "Readiness probe failed: no (2 of 2)");
    assert_eq!(decided.get(1), Some(&Said::BecameUnready));
    let further = said(&mut worker, fail());
    assert_eq!(message(&further), "Readiness probe failed: no (3 in a row)");
    assert_eq!(further.len(), 1);
    assert_eq!(further[0].reason(), Some("Unhealthy"));
}

#[test]
fn liveness_failure_is_said_once_and_last() {
    let mut worker = running(Liveness, 1, 2);
    assert_eq!(said(&mut worker, fail()).len(), 1);
    let decided = said(&mut worker, fail());
    assert_eq!(message(&decided), "Liveness probe failed: no (2 of 2)");
    let failed = Said::LivenessFailed {
        failures: 2,
        output: "no".into(),
    };
    assert_eq!(decided[1..], [failed]);
}

#[test]
fn a_warning_succeeds_and_is_said() {
    let mut worker = running(Readiness, 1, 1);
    let told = said(&mut worker, Outcome::Warning("redirected".into()));
    assert_eq!(message(&told), "Readiness probe warning: redirected");
    assert_eq!(told[0].reason(), Some("ProbeWarning"));
    assert_eq!(told[1], Said::BecameReady);
}

#[test]
fn an_error_is_tried_three_times_under_one_deadline() {
    let mut worker = running(Liveness, 1, 1);
    let first = worker.due(at(0)).expect("due");
    let second = worker.finished(at(0), first.number, error());
    assert_eq!(second.said, []);
    let second = second.again.expect("the second try");
    assert_ne!(second.number, first.number);
    assert_eq!(second.deadline, first.deadline);
    let third = worker.finished(at(0), second.number, error()).again;
    let third = third.expect("the third try");
    let last = worker.finished(at(0), third.number, error());
    assert_eq!(last.again, None);
    assert_eq!(
        message(&last.said),
        "Liveness probe errored and resulted in unknown state: line cut"
    );
    assert_eq!((worker.result(), worker.streak()), (Success, None));
}

#[test]
fn an_error_at_the_deadline_is_not_tried_again() {
    let mut worker = running(Liveness, 1, 1);
    let first = worker.due(at(0)).expect("due");
    let last = worker.finished(first.deadline, first.number, error());
    assert_eq!(last.again, None);
    assert_eq!(last.said.len(), 1);
}

#[test]
fn an_outcome_is_taken_once_and_only_from_the_attempt_under_way() {
    let mut worker = running(Readiness, 1, 1);
    let attempt = worker.due(at(0)).expect("due");
    let stray = worker.finished(at(0), attempt.number + 1, ok());
    assert_eq!(stray, Finished::default());
    assert_eq!(worker.in_flight(), Some(attempt));
    assert_eq!(worker.due(at(500)), None, "never two at once");
    drop(worker.finished(at(1), attempt.number, ok()));
    let twice = worker.finished(at(1), attempt.number, fail());
    assert_eq!(twice, Finished::default());
    assert_eq!(worker.result(), Success);
}

#[test]
fn a_guest_reset_begins_anew() {
    let mut worker = Worker::new(Readiness, timing(30, 10, 1, 3));
    worker.started(at(0));
    assert_eq!(said(&mut worker, ok()), [Said::BecameReady]);
    let under_way = worker.due(at(40)).expect("due");
    assert_eq!(worker.guest_reset(at(41)), [Said::BecameUnready]);
    assert_eq!((worker.result(), worker.streak()), (Failure, None));
    let void = worker.finished(at(42), under_way.number, ok());
    assert_eq!(void, Finished::default(), "of the boot before");
    assert_eq!(worker.result(), Failure);
    assert_eq!(worker.next_due(), Some(at(71)));
}

#[test]
fn failures_before_a_guest_reset_do_not_count_after_it_and_a_hold_stays() {
    let mut worker = running(Liveness, 1, 2);
    said(&mut worker, fail());
    assert_eq!(worker.guest_reset(at(5)), []);
    said(&mut worker, fail());
    assert_eq!(worker.result(), Success);
    said(&mut worker, fail());
    assert!(worker.is_on_hold());
    assert_eq!(worker.guest_reset(at(50)), []);
    assert!(worker.is_on_hold(), "it is to be stopped, reset or not");
}

#[test]
fn nothing_is_attempted_or_counted_while_suspended() {
    let mut worker = running(Liveness, 1, 2);
    said(&mut worker, fail());
    let under_way = worker.due(at(10)).expect("due");
    worker.suspend(at(10));
    worker.suspend(at(11));
    let void = worker.finished(at(11), under_way.number, fail());
    assert_eq!(void, Finished::default());
    assert_eq!((worker.next_due(), worker.due(at(34))), (None, None));
    worker.resume(at(34));
    assert_eq!(
        worker.next_due(),
        Some(at(40)),
        "ticks stay where they were"
    );
    said(&mut worker, fail());
    assert_eq!(worker.result(), Success, "the streak ended when suspended");
}

#[test]
fn an_attempt_of_before_a_pause_does_not_count_after_it() {
    let mut worker = running(Liveness, 1, 1);
    let under_way = worker.due(at(0)).expect("due");
    worker.suspend(at(0));
    worker.resume(at(30));
    assert_eq!(worker.next_due(), None, "never two at once");
    let void = worker.finished(at(31), under_way.number, fail());
    assert_eq!(void, Finished::default());
    assert_eq!(worker.next_due(), Some(at(30)));
}

#[test]
fn the_result_stays_while_suspended() {
    let mut worker = running(Readiness, 1, 1);
    said(&mut worker, ok());
    worker.suspend(at(5));
    assert!(worker.is_ready());
    worker.resume(at(6));
    assert!(worker.is_ready());
    worker.resume(at(100));
    assert_eq!(
        worker.next_due(),
        Some(at(10)),
        "a second resume does nothing"
    );
}

#[test]
fn the_delay_does_not_count_time_suspended() {
    let mut worker = Worker::new(Readiness, timing(30, 10, 1, 1));
    worker.suspend(at(0));
    worker.started(at(2));
    worker.resume(at(7));
    assert_eq!(worker.next_due(), Some(at(37)));
    worker.suspend(at(10));
    drop(worker.guest_reset(at(20)));
    worker.resume(at(25));
    assert_eq!(worker.next_due(), Some(at(55)));
}

#[test]
fn stopping_silences() {
    let mut liveness = running(Liveness, 1, 1);
    let under_way = liveness.due(at(0)).expect("due");
    assert_eq!(liveness.stopping(), []);
    let void = liveness.finished(at(1), under_way.number, fail());
    assert_eq!(void, Finished::default());
    assert_eq!((liveness.result(), liveness.next_due()), (Success, None));

    let mut readiness = running(Readiness, 1, 1);
    said(&mut readiness, ok());
    assert_eq!(readiness.stopping(), [Said::BecameUnready]);
    assert_eq!(readiness.stopping(), []);
    assert!(!readiness.is_ready());
    assert_eq!(said(&mut readiness, fail()), []);
    assert_eq!(said(&mut readiness, ok()), []);
    assert_eq!((readiness.result(), readiness.is_ready()), (Success, false));
    assert_eq!(readiness.ended(), []);
}

#[test]
fn an_end_makes_unready_and_void() {
    let mut worker = running(Readiness, 1, 1);
    said(&mut worker, ok());
    let under_way = worker.due(at(10)).expect("due");
    assert_eq!(worker.ended(), [Said::BecameUnready]);
    worker.started(at(11));
    assert_eq!(worker.next_due(), None, "the old attempt goes on");
    let void = worker.finished(at(12), under_way.number, ok());
    assert_eq!(void, Finished::default());
    assert!(!worker.is_ready());
    assert_eq!(worker.next_due(), Some(at(11)));
}
