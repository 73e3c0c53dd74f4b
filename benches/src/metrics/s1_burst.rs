// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! S1: how late bites come when many watchdogs of one process are due together, or close by.

use super::Metric;
use crate::Trouble;
use crate::clock::monotonic_ns;
use crate::contest::{Contest, Outcome};
use crate::fleet::{EACH, FINE_TICK_NS, Fleet, Timers, heap};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::statistics::{Ratio, quantile};

pub(super) const METRIC: Metric = Metric {
    id: "S1",
    title: "Lateness with many watchdogs",
    unit: "µs",
    definition: "From each watchdog's deadline to its bite, with 1 to 10,000 armed watchdogs in one \
                 process, all due together (burst) or 1 ms apart, 0.1 ms with 10,000 (spread). \
                 The clock is read after every sixteenth, and counts for all of them.",
    floor: "one timerfd and a binary heap of deadlines",
    peer: "a timerfd for each watchdog",
    target: "≤ 1.2 × the floor at every count; 10,000 together: a burst's p99 ≤ 600 µs, p99 \
             ≤ 0.04 × the timerfds, ≤ 50 ns for each further one",
    seconds: [140, 15],
    measure,
};

const COUNTS: [u32; 5] = [1, 10, 100, 1_000, 10_000];
const KENNEL: &str = "Kennel";
const FLOOR: &str = "one timerfd, heap";
const TIMERS: &str = "timerfd each";
/// Ticks of each stage; arming 10,000 takes less than one of them.
const TICKS: u32 = 40_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Burst,
    Spread,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Spread => "spread",
        }
    }

    /// ns from one deadline to the next.
    const fn apart(self, count: u32) -> u64 {
        match self {
            Self::Burst => 0,
            Self::Spread if count >= 10_000 => 100_000,
            Self::Spread => 1_000_000,
        }
    }
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    measured.axis = Some("watchdogs".into());
    raise_file_limit();
    let mut burst = vec![];
    for (half, mode) in [(0.0, Mode::Burst), (0.5, Mode::Spread)] {
        for (count, part) in COUNTS.into_iter().zip([0.0, 0.1, 0.2, 0.3, 0.4]) {
            session.part(half + part, half + part + 0.1);
            // A spread of many takes a second or so a turn.
            let blocks = match mode {
                Mode::Burst => session.times(20, 3),
                Mode::Spread => session.times(5, 1),
            };
            let outcome = contest(session, mode, count, blocks)?;
            judge(measured, mode, count, &outcome);
            if mode == Mode::Burst {
                burst.push((count, outcome.of(KENNEL).map(|one| one.all())));
            }
            measured.blocks.extend(outcome.noise);
        }
    }
    measured.verdicts.push(slope(&burst));
    Ok(())
}

/// ns that each further watchdog of a burst adds to the median.
fn slope(burst: &[(u32, Option<Vec<u64>>)]) -> Verdict {
    let median = |(count, samples): &(u32, Option<Vec<u64>>)| {
        let samples = samples.as_ref().filter(|samples| !samples.is_empty())?;
        Some((f64::from(*count), quantile(samples, 0.5) as f64))
    };
    let ends = burst
        .first()
        .and_then(median)
        .zip(burst.last().and_then(median));
    // The median of a burst is its middle one.
    let each = ends
        .filter(|((few, _), (many, _))| many > few)
        .map(|((few, first), (many, last))| (last - first) / ((many - few) / 2.0));
    Verdict::figure(
        "burst, ns for each further one, p50",
        each,
        Target::AtMost(50.0),
    )
}

fn contest(session: &Session, mode: Mode, count: u32, blocks: usize) -> Result<Outcome, Trouble> {
    let apart = mode.apart(count);
    let deadlines = move || {
        let first = monotonic_ns() + 2 * u64::from(TICKS) * FINE_TICK_NS;
        (0..u64::from(count))
            .map(|key| first + key * apart)
            .collect::<Vec<u64>>()
    };
    let samples = |lateness: Vec<i64>| -> Result<Vec<u64>, Trouble> {
        Ok(lateness
            .into_iter()
            .map(|nanos| u64::try_from(nanos).unwrap_or(0))
            .collect())
    };
    Contest::default()
        .with(FLOOR, Role::Floor, move || samples(heap(&deadlines())?))
        .with(KENNEL, Role::Kennel, move || {
            let mut fleet = Fleet::new(count)?;
            let now = monotonic_ns();
            for key in 0..count {
                fleet.arm(key, now + u64::from(key) * apart, [TICKS, TICKS]);
            }
            let first = now + 2 * u64::from(TICKS) * FINE_TICK_NS;
            let bites = usize::try_from(count).unwrap_or(0);
            samples(fleet.serve(bites, EACH, |key| first + u64::from(key) * apart)?)
        })
        .with(TIMERS, Role::Other, move || {
            let mut timers = Timers::new(usize::try_from(count).unwrap_or(0))?;
            samples(timers.serve(&deadlines())?)
        })
        .run(session, blocks)
}

fn judge(measured: &mut Measured, mode: Mode, count: u32, outcome: &Outcome) {
    let name = mode.name();
    for one in &outcome.contenders {
        let samples = one.all();
        if let Some(series) = Series::of(one.name, one.role, &samples, 1e-3) {
            let series = if mode == Mode::Burst && count == 10_000 {
                series.with_histogram(&samples, 1e-3)
            } else {
                series
            };
            measured.series.push(series.in_mode(name).at(count.into()));
        }
    }
    measured.verdicts.push(Verdict::ratio(
        format!("{name} of {count}: Kennel / floor, p50"),
        outcome.ratio(KENNEL, FLOOR, 0.5),
        Target::AtMost(1.2),
    ));
    if mode == Mode::Burst && count == 10_000 {
        measured.verdicts.push(Verdict::ratio(
            "burst of 10000: p99 of a burst, µs",
            outcome.of(KENNEL).and_then(|one| tail(&one.all(), count)),
            Target::AtMost(600.0),
        ));
        measured.verdicts.push(Verdict::ratio(
            "burst of 10000: Kennel / timerfd each, p99",
            outcome.ratio(KENNEL, TIMERS, 0.99),
            Target::AtMost(0.04),
        ));
    }
}

/// p99 of each burst of `count`, in µs, and of those the median: what one burst in forty meets on a shared
/// machine is not the rule.
fn tail(samples: &[u64], count: u32) -> Option<Ratio> {
    let bursts = samples.chunks(usize::try_from(count).ok()?);
    let tails: Vec<f64> = bursts
        .map(|burst| quantile(burst, 0.99) as f64 / 1e3)
        .collect();
    Ratio::of(&tails)
}

/// A timerfd each takes a descriptor each.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it fails, the timerfds say so.
    let _raised = setrlimit(Resource::Nofile, raised);
}
