// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When attempts are made and decisions fall.

use proptest::prelude::*;

use super::*;

#[test]
fn ticks_missed_while_an_attempt_runs_become_one() {
    let mut worker = running(ProbeKind::Readiness, 1, 3);
    let first = worker.due(at(0)).expect("due");
    drop(worker.finished(at(25), first.number, ok()));
    let second = worker.due(at(25)).expect("one for 10 s and 20 s");
    drop(worker.finished(at(26), second.number, ok()));
    assert_eq!(worker.next_due(), Some(at(30)), "not one more");
}

#[test]
fn an_owner_who_comes_late_does_not_shift_the_ticks() {
    let mut worker = running(ProbeKind::Readiness, 1, 3);
    let first = worker.due(at(13)).expect("due");
    assert_eq!(first.deadline, at(14));
    drop(worker.finished(at(14), first.number, ok()));
    assert_eq!(worker.next_due(), Some(at(20)));
}

#[test]
fn numbers_of_nought_do_no_harm() {
    let timing = Timing {
        timeout: Duration::ZERO,
        ..timing(0, 0, 0, 0)
    };
    let mut worker = Worker::new(ProbeKind::Readiness, timing);
    worker.started(at(0));
    assert_eq!(said(&mut worker, ok()), [Said::BecameReady]);
    assert_eq!(worker.next_due(), Some(Moment::from_nanos(1)));
}

#[test]
fn the_end_of_time_is_no_panic() {
    let mut worker = running(ProbeKind::Readiness, 1, 1);
    let end = Moment::from_nanos(u64::MAX);
    let attempt = worker.due(end).expect("due");
    assert_eq!(attempt.deadline, end);
    worker.suspend(end);
    worker.resume(end);
    assert_eq!(worker.guest_reset(end), []);
}

/// The documents that teach readiness have a delay of 120 s; when Ready falls if the guest is well
/// and answers at once.
#[test]
fn documented_ready_instants() {
    for (period, successes, ready) in [(20, 3, 160), (10, 5, 160), (20, 5, 200)] {
        let timing = timing(120, period, successes, 3);
        let (_, turned) = play(ProbeKind::Readiness, timing, &[0; 8], &ok());
        assert_eq!(turned, at(ready), "period {period}, {successes} successes");
    }
}

/// Starts the guest at 0 and makes attempts with one outcome, each of which takes one of
/// `latencies`, in ns; when they began, and when the result turned.
fn play(
    kind: ProbeKind,
    timing: Timing,
    latencies: &[u64],
    outcome: &Outcome,
) -> (Vec<Moment>, Moment) {
    let mut worker = Worker::new(kind, timing);
    worker.started(at(0));
    let initial = worker.result();
    let mut end = at(0);
    let mut begun = vec![];
    for latency in latencies {
        let now = worker.next_due().expect("it goes on").max(end);
        let attempt = worker.due(now).expect("due");
        begun.push(now);
        end = now.after(Duration::from_nanos(*latency));
        assert_eq!(worker.due(end), None, "never two at once");
        drop(worker.finished(end, attempt.number, outcome.clone()));
        if worker.result() != initial {
            return (begun, end);
        }
    }
    panic!("no turn in {} attempts", latencies.len());
}

fn timings() -> impl Strategy<Value = (Timing, Vec<u64>)> {
    let numbers = (0_u64..200, 1_u64..60, 1_u64..30, 1_u32..8, 1_u32..8);
    let timing = numbers.prop_map(|(delay, period, timeout, successes, failures)| Timing {
        timeout: Duration::from_secs(timeout.min(period)),
        ..timing(delay, period, successes, failures)
    });
    timing.prop_flat_map(|timing| {
        let longest = u64::try_from(timing.timeout.as_nanos()).expect("some seconds");
        (Just(timing), proptest::collection::vec(0..=longest, 8))
    })
}

proptest! {
    /// With D, P, s, f, T: the first attempt at D, further ones every P, Ready within
    /// [D + (s-1)P, D + (s-1)P + T], a liveness decision within [D + (f-1)P, D + (f-1)P + T]. The
    /// kubelet's own bounds are wider by the P of its start.
    #[test]
    fn decisions_fall_within_their_bounds((timing, latencies) in timings()) {
        let Timing { initial_delay, period, timeout, .. } = timing;
        for (kind, outcome, threshold) in [
            (ProbeKind::Readiness, ok(), timing.success_threshold),
            (ProbeKind::Liveness, fail(), timing.failure_threshold),
        ] {
            let (begun, turned) = play(kind, timing, &latencies, &outcome);
            for (number, begun) in (0..).zip(&begun) {
                prop_assert_eq!(*begun, at(0).after(initial_delay + period * number));
            }
            let earliest = at(0).after(initial_delay + period * (threshold - 1));
            prop_assert!(turned >= earliest && turned <= earliest.after(timeout));
        }
    }

    /// Whatever happens when: attempts begin only on ticks or at the end of the one before, one at
    /// a time, never before the delay is over, and a probe that is attempted goes on.
    #[test]
    fn attempts_keep_to_the_ticks(
        delay in 0_u64..5_000,
        period in 1_u64..3_000,
        waits in proptest::collection::vec((0_u64..4_000, 0_u64..9_000), 1..20),
    ) {
        let millis = Duration::from_millis;
        let timing = Timing {
            initial_delay: millis(delay),
            period: millis(period),
            ..timing(0, 0, 1, 1)
        };
        let mut worker = Worker::new(ProbeKind::Readiness, timing);
        worker.started(at(0));
        let mut now = at(0);
        let mut last_tick = None;
        for (late, latency) in waits {
            let due = worker.next_due().expect("it goes on");
            let tick = (due.as_nanos() / 1_000_000 - delay) / period;
            prop_assert_eq!(due, at(0).after(millis(delay + tick * period)));
            prop_assert!(last_tick < Some(tick), "each tick once");
            last_tick = Some(tick);
            now = now.max(due).after(millis(late));
            let attempt = worker.due(now).expect("due");
            now = now.after(millis(latency));
            drop(worker.finished(now, attempt.number, ok()));
        }
    }
}
