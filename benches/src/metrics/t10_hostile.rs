// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T10: how late a bite comes beside a hostile machine, and in one.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kennel_tests::{bench_guest, silencer};
use tempfile::TempPath;

use super::Metric;
use crate::Trouble;
use crate::contender::supervised::{Setup, Supervised, Told};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::statistics::{Blocks, Ratio, pooled_quantile};

pub(super) const METRIC: Metric = Metric {
    id: "T10",
    title: "Lateness of a bite beside a hostile machine",
    unit: "ms",
    definition: "From the exact deadline to the bite, as the events of kennel run tell it, of eight \
                 machines whose guests halt and are bitten every 1.2 s without an action, while the \
                 guest of one more computes, sends messages of 46 MiB on the agent's port, has BARs \
                 collide, floods its virtio console, or resets itself, each without end; and of \
                 that machine's own bites, which a guest that resets itself has none of.",
    floor: "the machine whose guest computes",
    peer: "none",
    target: "p99 ≤ 5 ms, or ≤ 3 times the floor's",
    seconds: [410, 80],
    measure,
};

/// What the guest does, its letter, and whether its own watchdog bites. The first is the floor.
const CASES: [(&str, char, bool); 5] = [
    ("computes", 'c', true),
    ("messages", 'A', true),
    ("BARs", 'C', true),
    ("console", 'P', true),
    ("resets", 'R', false),
];
const NEIGHBOURS: usize = 8;
/// Of the neighbours, and of the machine beside them.
const TIMEOUT: Duration = Duration::from_nanos(2 * 610 * (1 << 15) * 30);
/// Until the machine's first bite or reset: by then its guest does what it is there for.
const START: Duration = Duration::from_secs(30);
const TURN: [Duration; 2] = [Duration::from_secs(6), Duration::from_secs(5)];
/// p99 may be so late anyway.
const ALLOWED_NS: u64 = 5_000_000;
/// And so many times as late as the floor's.
const FACTOR: u64 = 3;

/// The bites of one turn.
#[derive(Debug, Default)]
struct Bites {
    lateness_ns: Vec<u64>,
    /// How long all bites would have taken that the events stand for, if none had been late.
    timely_ns: u64,
    watched_ns: u64,
}

/// The turns of a case.
#[derive(Debug)]
struct Turns {
    name: &'static str,
    letter: char,
    bites_itself: bool,
    beside: Vec<Bites>,
    itself: Vec<Bites>,
}

/// Machines that are bitten, and room for one more.
struct Lab<'a> {
    session: &'a Session,
    guest: TempPath,
    hostile: TempPath,
    sender: Sender<Told>,
    told: Receiver<Told>,
    neighbours: Vec<Supervised>,
}

impl<'a> Lab<'a> {
    fn start(session: &'a Session) -> Result<Self, Trouble> {
        let (sender, told) = channel();
        let mut lab = Self {
            session,
            guest: bench_guest::write(),
            hostile: silencer::write(),
            sender,
            told,
            neighbours: vec![],
        };
        for number in 0..NEIGHBOURS {
            // Each is bitten at an instant of its own.
            session.wait(TIMEOUT.div_f64(NEIGHBOURS as f64))?;
            lab.neighbours.push(lab.machine(&lab.guest, 'b', number)?);
        }
        Ok(lab)
    }

    fn machine(&self, kernel: &Path, program: char, number: usize) -> Result<Supervised, Trouble> {
        let setup = Setup {
            kernel,
            program,
            action: "none",
            console: "/dev/null",
        };
        Supervised::start(&setup, number, self.sender.clone())
    }

    /// Starts the machine of a case, and ends it after a while.
    fn turn(&self, case: &mut Turns) -> Result<(), Trouble> {
        let floor = case.name == CASES[0].0;
        let kernel = if floor { &self.guest } else { &self.hostile };
        let _machine = self.machine(kernel, case.letter, NEIGHBOURS)?;
        let end = Instant::now() + START;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left);
            let silent = |_| Trouble::new(format!("{}: no bite and no reset", case.name));
            let Told { machine, event, .. } = told.map_err(silent)?;
            if machine == NEIGHBOURS && ["Watchdog", "Reset"].contains(&&*event.reason) {
                break;
            }
        }
        self.told.try_iter().for_each(drop);
        let [long, short] = TURN;
        let turn = if self.session.quick { short } else { long };
        self.session.wait(turn)?;
        let [mut beside, mut itself]: [Bites; 2] = Default::default();
        for Told { machine, event, .. } in self.told.try_iter() {
            if event.reason == "Watchdog" {
                let own = machine == NEIGHBOURS;
                let bites = if own { &mut itself } else { &mut beside };
                bites.lateness_ns.push(event.figure("lateness_ns"));
                bites.timely_ns += event.figure("bites") * event.figure("timeout_ns");
            }
        }
        let turn_ns = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
        itself.watched_ns = turn_ns;
        beside.watched_ns = turn_ns * NEIGHBOURS as u64;
        case.beside.push(beside);
        case.itself.push(itself);
        Ok(())
    }
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let lab = Lab::start(session)?;
    let mut all = CASES.map(|(name, letter, bites_itself)| Turns {
        name,
        letter,
        bites_itself,
        beside: vec![],
        itself: vec![],
    });
    measured.blocks = session.blocks(session.times(5, 1), |_| {
        all.iter_mut().try_for_each(|case| lab.turn(case))?;
        all.iter_mut().rev().try_for_each(|case| lab.turn(case))
    })?;
    let beside = all.iter().map(|case| (case.name, &*case.beside));
    tell(measured, "beside it", &beside.collect::<Vec<_>>());
    let itself = all.iter().filter(|case| case.bites_itself);
    let itself = itself.map(|case| (case.name, &*case.itself));
    tell(measured, "itself", &itself.collect::<Vec<_>>());
    Ok(())
}

/// The figures of each case, by its name.
fn tell(measured: &mut Measured, mode: &str, cases: &[(&str, &[Bites])]) {
    let blocks = |bites: &[Bites]| -> Vec<Vec<u64>> {
        let lateness = bites.iter().map(|turn| turn.lateness_ns.clone());
        lateness.collect()
    };
    let floor = cases.first().map(|(_, bites)| blocks(bites));
    let floor = floor.unwrap_or_default();
    let mut shares = vec![];
    for (index, (name, bites)) in cases.iter().enumerate() {
        let ours = blocks(bites);
        let samples = ours.concat();
        let role = if index == 0 {
            Role::Floor
        } else {
            Role::Kennel
        };
        let series = Series::of(name, role, &samples, 1e-6);
        let drawn = |one: Series| one.with_histogram(&samples, 1e-6).in_mode(mode);
        measured.series.extend(series.map(drawn));
        let timely: u64 = bites.iter().map(|turn| turn.timely_ns).sum();
        let watched: u64 = bites.iter().map(|turn| turn.watched_ns).sum();
        shares.push(timely as f64 / watched as f64);
        if index > 0 {
            measured.verdicts.push(Verdict::ratio(
                format!("{name}, {mode}: p99 / max(5 ms, 3 times the floor's)"),
                of_allowed(&ours, &floor),
                Target::AtMost(1.0),
            ));
        }
    }
    // A bite that never comes is late by nothing.
    measured.verdicts.push(Verdict::figure(
        format!("{mode}: bites of those that are due, the fewest"),
        shares.into_iter().min_by(f64::total_cmp),
        Target::AtLeast(0.9),
    ));
}

/// What p99 is of what it may be; `None` without bites.
fn of_allowed(ours: &Blocks, floor: &Blocks) -> Option<Ratio> {
    let samples = ours.iter().map(Vec::len).sum();
    let count = ours.len().min(floor.len());
    Ratio::resampled(count, samples, |drawn| {
        let p99 = |blocks| pooled_quantile(blocks, drawn, 0.99);
        p99(ours) as f64 / ALLOWED_NS.max(FACTOR * p99(floor)) as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_milliseconds_or_three_times_the_floor_are_allowed() {
        let of = |ours: u64, floor: u64| {
            let of = of_allowed(&[vec![ours; 9]], &[vec![floor; 9]]);
            of.expect("bites").median
        };
        assert!((of(4_000_000, 100_000) - 0.8).abs() < 1e-9);
        assert!((of(9_000_000, 2_000_000) - 1.5).abs() < 1e-9);
        assert_eq!(of_allowed(&[vec![]], &[vec![1]]), None);
    }
}
