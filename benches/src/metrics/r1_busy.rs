// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! R1: whether the watchdog tells hung guests from healthy ones on a machine that is far too busy.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kennel_tests::bench_guest;

use super::Metric;
use crate::Trouble;
use crate::contender::supervised::{CONSOLE, Setup, Supervised, Told};
use crate::load::hogs;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "R1",
    title: "Who is bitten on a busy machine",
    unit: "ms",
    definition: "Ten guests that ping their watchdog of 4 s every 2 s, and ten that hang after \
                 three pings, are bitten and reset, and hang again; each is a kennel run of its \
                 own, beside 24 processes that compute. All guests halt between pings. Lateness is \
                 what the events tell: from the exact deadline to the bite.",
    floor: "none",
    peer: "none",
    target: "no healthy guest bitten or ended, every hang bitten within 2 s of its deadline",
    seconds: [615, 60],
    measure,
};

/// Of each kind.
const EACH: usize = 10;
const HOGS: usize = 24;
const SECONDS: [u64; 2] = [600, 45];
const PING: Duration = Duration::from_secs(2);
/// From a boot to the deadline: three pings, and the timeout.
const HANG: Duration = Duration::from_secs(3 * PING.as_secs() + 4);
/// A bite that comes later, or whose reset does, does not count.
const BOUND: Duration = Duration::from_secs(2);
/// Twenty machines start within this time.
const START: Duration = Duration::from_secs(60);
const BLOCK: Duration = Duration::from_secs(15);

/// What came of one kind of guest.
#[derive(Debug, Default)]
struct Seen {
    lateness_ns: Vec<u64>,
    stalled_ns: Vec<u64>,
    bites: u64,
    early: u64,
    /// Hangs that were not bitten, or not reset, within their bound.
    overdue: u64,
    /// Whatever should not happen to a machine at all.
    strange: Vec<String>,
}

/// A machine, and when it last booted or was bitten.
#[derive(Debug)]
struct Watched {
    machine: Supervised,
    hangs: bool,
    since: Option<Instant>,
}

impl Watched {
    /// Whether it should have been bitten, or reset, since.
    fn is_overdue(&self, now: Instant) -> bool {
        let since = self.since.map(|since| now.saturating_duration_since(since));
        self.hangs && since.is_none_or(|since| since > HANG + BOUND)
    }
}

/// All of them, healthy and hung in turn.
#[derive(Debug)]
struct Fleet {
    machines: Vec<Watched>,
    told: Receiver<Told>,
    /// Of healthy guests, and of hung ones.
    seen: [Seen; 2],
}

impl Fleet {
    /// Starts it; every guest runs when this returns.
    fn start(guest: &Path) -> Result<Self, Trouble> {
        let (sender, told) = channel();
        let start = |number: usize| {
            let hangs = number % 2 == 1;
            let setup = Setup {
                kernel: guest,
                program: if hangs { 'h' } else { 'p' },
                action: "reset",
                console: CONSOLE,
            };
            let machine = Supervised::start(&setup, number, sender.clone())?;
            Ok(Watched {
                machine,
                hangs,
                since: None,
            })
        };
        let machines: Result<_, Trouble> = (0..2 * EACH).map(start).collect();
        let mut fleet = Self {
            machines: machines?,
            told,
            seen: Default::default(),
        };
        let end = Instant::now() + START;
        while fleet.machines.iter().any(|one| one.since.is_none()) {
            if Instant::now() > end {
                return Err(Trouble::new("not every machine starts"));
            }
            fleet.listen(Duration::from_millis(100));
        }
        Ok(fleet)
    }

    /// Takes in what is told for so long.
    fn listen(&mut self, long: Duration) {
        let end = Instant::now() + long;
        let left = || end.saturating_duration_since(Instant::now());
        while let Ok(Told { machine, at, event }) = self.told.recv_timeout(left()) {
            let Some(one) = self.machines.get_mut(machine) else {
                continue;
            };
            let [healthy, hung] = &mut self.seen;
            let seen = if one.hangs { hung } else { healthy };
            let overdue = u64::from(one.is_overdue(at));
            match &*event.reason {
                "Started" => one.since = Some(at),
                "Reset" if one.hangs && event.says("cause", "watchdog") => {
                    one.since = Some(at);
                    seen.overdue += overdue;
                }
                "Watchdog" => {
                    one.since = Some(at);
                    seen.overdue += overdue;
                    seen.bites += event.figure("bites");
                    seen.lateness_ns.push(event.figure("lateness_ns"));
                    let early = event.figure("since_ping_ns") < event.figure("timeout_ns");
                    seen.early += u64::from(early);
                }
                "StallForgiven" => seen.stalled_ns.push(event.figure("stalled_ns")),
                "Created" | "WatchdogArmed" | "WatchdogDisarmed" | "Ready" => {}
                other => seen.strange.push(other.to_owned()),
            }
        }
    }

    /// Pings of each healthy guest so far.
    fn pings(&self) -> Vec<u64> {
        let healthy = self.machines.iter().filter(|one| !one.hangs);
        healthy.map(|one| one.machine.written()).collect()
    }

    /// What is to be said at the end.
    fn close(mut self) -> [Seen; 2] {
        let now = Instant::now();
        for one in &mut self.machines {
            let [healthy, hung] = &mut self.seen;
            let seen = if one.hangs { hung } else { healthy };
            seen.overdue += u64::from(one.is_overdue(now));
            if one.machine.ended() {
                seen.strange.push("ended".to_owned());
            }
        }
        self.seen
    }
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let guest = bench_guest::write();
    let mut fleet = Fleet::start(&guest)?;
    let hogs = hogs::processes(session.load.hogs.unwrap_or(HOGS))?;
    let [many, few] = SECONDS;
    let seconds = if session.quick { few } else { many };
    let seconds = session.load.seconds.unwrap_or(seconds);
    let blocks = usize::try_from(seconds / BLOCK.as_secs()).unwrap_or(1);
    let (begin, before) = (Instant::now(), fleet.pings());
    measured.blocks = session.blocks(blocks.max(1), |_| {
        fleet.listen(BLOCK);
        Ok(())
    })?;
    let on_time = begin.elapsed().as_secs_f64() / PING.as_secs_f64();
    let pings = fleet.pings().into_iter().zip(before);
    let fewest = pings.map(|(after, before)| after - before).min();
    let seen = fleet.close();
    drop(hogs);
    tell(measured, &seen, fewest.unwrap_or(0) as f64 / on_time);
    Ok(())
}

/// `pings` is the share of its pings that the least healthy guest came to.
fn tell(measured: &mut Measured, [healthy, hung]: &[Seen; 2], pings: f64) {
    let samples = &hung.lateness_ns;
    let lateness = Series::of("lateness of a bite", Role::Kennel, samples, 1e-6);
    let lateness = lateness.map(|series| series.with_histogram(samples, 1e-6));
    measured.series.extend(lateness);
    let stalls = [&*healthy.stalled_ns, &hung.stalled_ns].concat();
    let stalled = Series::of("stalls forgiven", Role::Kennel, &stalls, 1e-6);
    measured.series.extend(stalled);
    let none = |what: &str, count: f64| Verdict::figure(what, Some(count), Target::Exactly(0.0));
    measured.verdicts = vec![
        none("healthy guests: bites", healthy.bites as f64),
        none(
            "healthy guests: ends and resets",
            healthy.strange.len() as f64,
        ),
        none(
            "hangs not bitten, or not reset, in time",
            hung.overdue as f64,
        ),
        none("bites before their deadline", hung.early as f64),
        none("stalls forgiven", stalls.len() as f64),
        Verdict::figure(
            "healthy guests: pings of those that are due, the fewest",
            Some(pings),
            Target::AtLeast(0.9),
        ),
    ];
    measured.notes.push(format!("{} hangs bitten", hung.bites));
    let strange = healthy.strange.iter().chain(&hung.strange);
    for what in strange.collect::<std::collections::BTreeSet<_>>() {
        measured.notes.push(format!("told of a machine: {what}"));
    }
}
