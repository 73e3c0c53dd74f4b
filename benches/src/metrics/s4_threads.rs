// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! S4: pings a second by several threads, each with watchdogs of its own.

use std::sync::{Barrier, Mutex, PoisonError};

use i6300esb::{I6300Esb, VmInstant};

use super::Metric;
use crate::Trouble;
use crate::clock::monotonic_ns;
use crate::contest::Contest;
use crate::result::{Measured, Role, Target, Verdict};
use crate::session::Session;
use crate::workload::{armed, ping};

pub(super) const METRIC: Metric = Metric {
    id: "S4",
    title: "Pings by several threads",
    unit: "ns",
    definition: "Time of one ping, the clock read once, when 1 or 2 threads ping 64 watchdogs each.",
    floor: "the same with one thread, as each has all to itself",
    peer: "one lock around all watchdogs",
    target: "two threads ping ≥ 0.9 × twice as often as one",
    seconds: [10, 2],
    measure,
};

const DEVICES: usize = 64;
const PINGS: u64 = 200_000;
const ONE: &str = "1 thread";
const TWO: &str = "2 threads";
const LOCKED: &str = "2 threads, one lock";

fn devices() -> Vec<I6300Esb> {
    let now = VmInstant::from_nanos(monotonic_ns());
    (0..DEVICES).map(|_| armed(now, 0xf_ffff)).collect()
}

/// Time of one ping, in ps, as each of so many threads saw it.
fn threads(count: usize, work: impl Fn() + Sync) -> Vec<u64> {
    let together = Barrier::new(count);
    let one = || {
        together.wait();
        let begin = monotonic_ns();
        work();
        (monotonic_ns() - begin) * 1_000 / PINGS
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        all.into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    })
}

fn disjoint() {
    let mut devices = devices();
    for _ in 0..PINGS / 64 {
        for device in &mut devices {
            let _moved = ping(device, VmInstant::from_nanos(monotonic_ns()));
        }
    }
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Err(Trouble::new("one CPU: two threads say nothing"));
    }
    let all = Mutex::new(devices());
    let locked = || {
        for _ in 0..PINGS / 64 {
            for index in 0..DEVICES {
                let mut devices = all.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(device) = devices.get_mut(index) {
                    let _moved = ping(device, VmInstant::from_nanos(monotonic_ns()));
                }
            }
        }
    };
    let outcome = Contest::default()
        .with(ONE, Role::Floor, || Ok(threads(1, disjoint)))
        .with(TWO, Role::Kennel, || Ok(threads(2, disjoint)))
        .with(LOCKED, Role::Other, || Ok(threads(2, locked)))
        .run(session, session.times(40, 5))?;
    measured.series = outcome.series(1e-3);
    measured.verdicts = vec![Verdict::ratio(
        "pings of 2 threads / twice those of 1",
        // Half the time for one is twice as many.
        outcome.ratio(ONE, TWO, 0.5),
        Target::AtLeast(0.9),
    )];
    measured.blocks = outcome.noise;
    Ok(())
}
