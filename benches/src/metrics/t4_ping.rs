// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T4: one ping through the watchdog's crate.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use i6300esb::{I6300Esb, VmInstant};

use super::Metric;
use crate::Trouble;
use crate::clock::{arm, monotonic_ns, timer};
use crate::contest::Contest;
use crate::count;
use crate::result::{Measured, Role, Target, Verdict};
use crate::session::Session;
use crate::workload::{self, ping, ping_by_the_clock};

pub(super) const METRIC: Metric = Metric {
    id: "T4",
    title: "One ping through the crate",
    unit: "ns",
    definition: "The three guest writes of a ping (0x80, 0x86, 0x100 at BAR 0 + 0x0C) of an armed \
                 watchdog, with the time read once; instructions, system calls and allocations \
                 are counted without reading it.",
    floor: "reading the clock and storing a deadline",
    peer: "timerfd_settime at each ping, as a watchdog without lazy timers does it",
    target: "≤ 2 × the floor, ≤ 200 instructions, no system call, no allocation",
    seconds: [12, 5],
    measure,
};

const KENNEL: &str = "Kennel";
const FLOOR: &str = "floor";
const BATCH: u64 = 2_000;
const BATCHES: usize = 40;
/// Long enough that nothing falls due.
const FAR_NS: u64 = 3_600_000_000_000;

/// What one of a batch costs, in ps, batch by batch.
pub(super) fn batches(mut one: impl FnMut()) -> Vec<u64> {
    let mut batch = || {
        let begin = monotonic_ns();
        for _ in 0..BATCH {
            one();
        }
        (monotonic_ns() - begin) * 1_000 / BATCH
    };
    let _warm = batch();
    (0..BATCHES).map(|_| batch()).collect()
}

/// With the longest timeout: nothing falls due for half an hour.
fn armed_now() -> I6300Esb {
    workload::armed(VmInstant::from_nanos(monotonic_ns()), 0xf_ffff)
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let (mut once, mut thrice, mut given) = (armed_now(), armed_now(), armed_now());
    let mut now = monotonic_ns();
    let deadline = AtomicU64::new(0);
    let timer = timer()?;
    let outcome = Contest::default()
        .with(FLOOR, Role::Floor, || {
            Ok(batches(|| {
                black_box(&deadline).store(monotonic_ns() + FAR_NS, Ordering::Relaxed);
            }))
        })
        .with(KENNEL, Role::Kennel, || {
            Ok(batches(|| {
                black_box(ping(&mut once, VmInstant::from_nanos(monotonic_ns())));
            }))
        })
        .with("Kennel, time given", Role::Kennel, || {
            Ok(batches(|| {
                now += 1;
                black_box(ping(&mut given, VmInstant::from_nanos(now)));
            }))
        })
        .with("Kennel, time read for each write", Role::Kennel, || {
            Ok(batches(|| {
                black_box(ping_by_the_clock(&mut thrice));
            }))
        })
        .with("timerfd_settime", Role::Other, || {
            Ok(batches(|| arm(&timer, monotonic_ns() + FAR_NS)))
        })
        .run(session, session.times(40, 5))?;
    measured.series = outcome.series_with_histograms(1e-3);
    measured.verdicts.push(Verdict::ratio(
        "Kennel / floor, p50",
        outcome.ratio(KENNEL, FLOOR, 0.5),
        Target::AtMost(2.0),
    ));
    measured.blocks = outcome.noise;
    let counted = counted(measured)?;
    measured.verdicts.extend(counted);
    Ok(())
}

/// The deterministic part, by itself.
fn counted(measured: &mut Measured) -> Result<Vec<Verdict>, Trouble> {
    let cost = count::cost(workload::PING)?;
    if cost.is_none() {
        measured
            .notes
            .push("valgrind is not installed: nothing was counted".into());
    }
    let of = |pick: fn(count::Cost) -> f64| cost.map(pick);
    Ok(vec![
        Verdict::figure(
            "instructions",
            of(|cost| cost.instructions),
            Target::AtMost(200.0),
        ),
        Verdict::figure(
            "system calls",
            of(|cost| cost.system_calls),
            Target::Exactly(0.0),
        ),
        Verdict::figure(
            "allocations",
            of(|cost| cost.allocations),
            Target::Exactly(0.0),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_pinged_at_rest() {
        let mut watchdog = armed_now();
        assert!(!ping_by_the_clock(&mut watchdog), "no timer is moved");
        let status = watchdog.status(VmInstant::from_nanos(monotonic_ns()));
        assert!(status.armed);
        assert!(status.pings >= 1);
    }
}
