// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker against the kubelet's rules.
//!
//! Not applicable, as neither exists here: everything about startup probes (`ResultRun` startup,
//! `LivenessDisabledByStarted`, `StartupDisabledByStarted`), other containers, pods without a
//! status, and the manager's adding and removing of workers (`Add/Remove`, `CleanUp`).

use super::*;

mod kubelet;
mod life;
mod timing;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Moment {
    Moment::ZERO.after(Duration::from_secs(seconds))
}

fn timing(delay: u64, period: u64, successes: u32, failures: u32) -> Timing {
    Timing {
        initial_delay: Duration::from_secs(delay),
        timeout: SECOND,
        period: Duration::from_secs(period),
        success_threshold: successes,
        failure_threshold: failures,
    }
}

fn ok() -> Outcome {
    Outcome::Success
}

fn fail() -> Outcome {
    Outcome::Failure("no".into())
}

fn error() -> Outcome {
    Outcome::Error("line cut".into())
}

/// A worker whose guest has just started, with period 10 s and no delay.
fn running(kind: ProbeKind, successes: u32, failures: u32) -> Worker {
    let mut worker = Worker::new(kind, timing(0, 10, successes, failures));
    worker.started(at(0));
    worker
}

/// The next attempt, made at its time and over at once; `None` if there is none to come.
fn step(worker: &mut Worker, outcome: Outcome) -> Option<Finished> {
    let now = worker.next_due()?;
    let attempt = worker.due(now).expect("it is due");
    Some(worker.finished(now, attempt.number, outcome))
}

/// What was said by [`step`].
fn said(worker: &mut Worker, outcome: Outcome) -> Vec<Said> {
    step(worker, outcome)
        .expect("there is an attempt to come")
        .said
}

/// An attempt at `now`, all of whose tries have this outcome.
fn all_tries(worker: &mut Worker, now: Moment, outcome: &Outcome) {
    let mut attempt = worker.due(now);
    assert!(attempt.is_some(), "due");
    while let Some(Attempt { number, .. }) = attempt {
        attempt = worker.finished(now, number, outcome.clone()).again;
    }
}
