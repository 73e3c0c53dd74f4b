// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T2: bites before their deadline. There must be none.

use i6300esb::{Config, I6300Esb, VmInstant};

use super::Metric;
use crate::Trouble;
use crate::clock::monotonic_ns;
use crate::fleet::{FINE_TICK_NS, Fleet};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::workload::{ping, preload};

pub(super) const METRIC: Metric = Metric {
    id: "T2",
    title: "Early bites",
    unit: "bites",
    definition: "Bites of watchdogs with random timeouts, prescalers and pings that come before \
                 the deadline as computed apart from the device, or for another deadline: in \
                 virtual time, called 1 ns before each deadline and at it; in real time by the \
                 host's clock.",
    floor: "none: it is a count of faults",
    peer: "QEMU's qtest accelerator, which distributions leave out of QEMU: not measured",
    target: "0",
    seconds: [6, 2],
    measure,
};

const SEED: u64 = 0x6300_e5b0;
const REAL: u32 = 10_000;
const CLOCK_NS: u64 = 30;

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let many = session.times(1_000_000, 100_000);
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut faults = 0_u32;
    let mut done = 0_usize;
    measured.blocks = session.blocks(20, |_| {
        for _ in 0..many / 20 {
            faults += u32::from(!bites_exactly(&mut rng));
            done += 1;
        }
        Ok(())
    })?;
    let real = real_time(&mut rng)?;
    let early = real.iter().filter(|lateness| **lateness < 0).count();
    measured.series = vec![
        Series::figure("Kennel, virtual time", Role::Kennel, faults.into()),
        Series::figure("Kennel, real time", Role::Kennel, early as f64),
    ];
    measured.verdicts = vec![
        Verdict::figure(
            format!("not at their deadline, of {done} bites in virtual time"),
            Some(faults.into()),
            Target::Exactly(0.0),
        ),
        Verdict::figure(
            format!("early, of {} bites in real time", real.len()),
            Some(early as f64),
            Target::Exactly(0.0),
        ),
    ];
    Ok(())
}

/// Whether one watchdog, pinged some times and then left alone, bites at its deadline and not 1 ns
/// before.
fn bites_exactly(rng: &mut fastrand::Rng) -> bool {
    let fine = rng.bool();
    let tick = CLOCK_NS << if fine { 5 } else { 15 };
    let most = 1_u32 << rng.u32(1..=20);
    let ticks = [rng.u32(0..most), rng.u32(0..most)];
    let stages = ticks.map(|ticks| u64::from(ticks.max(1)) * tick);
    let begin = rng.u64(..1 << 50);
    let at = VmInstant::from_nanos;

    let mut watchdog = I6300Esb::new(Config::default());
    let _ = watchdog.config_write(at(begin), 0x60, &[if fine { 0x07 } else { 0x03 }, 0]);
    preload(&mut watchdog, at(begin), ticks);
    let _ = watchdog.config_write(at(begin), 0x68, &[0x02]);
    let mut last = begin;
    for _ in 0..rng.u32(0..4) {
        // Pinged within its round, so it has not bitten.
        last += rng.u64(0..stages[0] + stages[1]);
        let _ = ping(&mut watchdog, at(last));
    }
    let (middle, due) = (last + stages[0], last + stages[0] + stages[1]);
    let bites = |watchdog: &mut I6300Esb, now| watchdog.timer_fired(at(now)).events.bite();
    let quiet = [middle - 1, middle, due - 1]
        .into_iter()
        .all(|now| bites(&mut watchdog, now.max(last)).is_none());
    quiet && bites(&mut watchdog, due).is_some_and(|bite| bite.due == at(due) && bite.count == 1)
}

/// Lateness of real deadlines up to two seconds away.
fn real_time(rng: &mut fastrand::Rng) -> Result<Vec<i64>, Trouble> {
    let mut fleet = Fleet::new(REAL)?;
    let mut due = vec![];
    for key in 0..REAL {
        let ticks = [rng.u32(1..1 << 20), rng.u32(1..1 << 20)];
        let now = monotonic_ns();
        due.push(now + u64::from(ticks[0] + ticks[1]) * FINE_TICK_NS);
        fleet.arm(key, now, ticks);
    }
    let of = |key: u32| {
        let index = usize::try_from(key).unwrap_or(usize::MAX);
        due.get(index).copied().unwrap_or(u64::MAX)
    };
    // A clock that is read later could hide an early one.
    fleet.serve(due.len(), 1, of)
}
