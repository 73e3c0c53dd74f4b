// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T1: how late a bite comes after its deadline.

use std::time::Duration;

use super::Metric;
use crate::Trouble;
use crate::contender;
use crate::lateness::{Lab, Round};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::statistics::Ratio;

pub(super) const METRIC: Metric = Metric {
    id: "T1",
    title: "Lateness of a bite",
    unit: "µs",
    definition: "From the exact deadline, arming plus both stages' ticks, to the bite, for timeouts \
                 from 0.1 to 60 s, on the product's path. Ours is the lateness_ns that the VM \
                 process tells of the bite; its guest arms the watchdog when the console says so, \
                 and halts. A stall that is forgiven is a sample too, beside its bite's, which \
                 counts from the first deadline. QEMU's counts from after the enabling write to \
                 the time stamp of its WATCHDOG event.",
    floor: "an absolute timerfd and a thread that waits for it in epoll",
    peer: "QEMU's i6300esb on a guest that stands still, armed through qtest",
    target: "ours / QEMU, p50: ≤ 0.8 at 0.1 s, 0.25 at 1 s, 0.03 at 10 s, 0.01 at 30 s; ours / \
             floor: p50 ≤ 1.10, p99 ≤ 1.25",
    seconds: [305, 27],
    measure,
};

/// The rounds against the floor alone: a p99 takes thousands of samples, and QEMU cannot give them.
const NEAR: Point = point(100, [40, 60], Some([40, 6]), None);

/// One timeout.
#[derive(Clone, Copy, Debug)]
struct Point {
    ms: u64,
    /// How many of each contender at once, and how many rounds of it.
    repetitions: [usize; 2],
    /// The same in a quick run, if it is in one.
    quick: Option<[usize; 2]>,
    /// p50 of ours / QEMU's, at most.
    target: Option<f64>,
}

impl Point {
    /// As it is in such a run, if it is in one.
    fn in_run(self, quick: bool) -> Option<Self> {
        let repetitions = if quick { self.quick? } else { self.repetitions };
        Some(Self {
            repetitions,
            ..self
        })
    }
}

const fn point(
    ms: u64,
    repetitions: [usize; 2],
    quick: Option<[usize; 2]>,
    target: Option<f64>,
) -> Point {
    Point {
        ms,
        repetitions,
        quick,
        target,
    }
}

const POINTS: [Point; 6] = [
    point(100, [3, 60], Some([3, 4]), Some(0.8)),
    point(1_000, [3, 20], Some([3, 3]), Some(0.25)),
    point(3_000, [5, 3], None, None),
    point(10_000, [5, 2], Some([5, 1]), Some(0.03)),
    point(30_000, [7, 1], None, Some(0.01)),
    point(60_000, [5, 1], None, None),
];
pub(super) const NAMES: [(&str, Role); 3] = [
    ("floor", Role::Floor),
    ("Kennel", Role::Kennel),
    ("QEMU", Role::Qemu),
];
/// The point whose histogram is drawn.
const DRAWN: u64 = 1_000;

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    measured.axis = Some("timeout, s".into());
    let with_qemu = contender::qemu_version().is_some();
    if !with_qemu {
        measured.notes.push(format!(
            "QEMU: absent, {} is not installed",
            contender::QEMU
        ));
    }
    let points: Vec<Point> = POINTS
        .into_iter()
        .filter_map(|point| point.in_run(session.quick))
        .collect();
    let near_point = NEAR.in_run(session.quick);
    // Against the floor all rounds count together: both are the same timer.
    let mut near: [Vec<Vec<u64>>; 2] = Default::default();
    let most = points.iter().map(|point| point.repetitions[0]).max();
    let most = most.unwrap_or(1);
    let qemus = if with_qemu { most } else { 0 };
    let each = most.max(NEAR.repetitions[0]);
    let mut lab = Lab::new([each, each, qemus])?;
    let whole: f64 = points.iter().chain(&near_point).map(expected).sum();
    let mut done = 0.0;
    for point in points {
        let Point {
            ms,
            repetitions: [each, _],
            target,
            ..
        } = point;
        session.part(done / whole, (done + expected(&point)) / whole);
        done += expected(&point);
        let all = rounds(&mut lab, session, measured, point, each)?;
        report(measured, ms, &all, target);
        let [floor, kennel, _] = all;
        let [near_floor, near_kennel] = &mut near;
        near_floor.extend(floor);
        near_kennel.extend(kennel);
    }
    if let Some(point) = near_point {
        session.part(done / whole, 1.0);
        let [floor, kennel, _] = rounds(&mut lab, session, measured, point, 0)?;
        near[0].extend(floor);
        near[1].extend(kennel);
    }
    let [floor, kennel] = &near;
    let stalls = kennel.iter().filter(|samples| samples.len() > 1).count();
    if stalls > 0 {
        measured.notes.push(format!(
            "{stalls} of {} deadlines were found late enough to be forgiven, and count twice",
            kennel.len()
        ));
    }
    for (name, share, bound) in [("p50", 0.5, 1.10), ("p99", 0.99, 1.25)] {
        measured.verdicts.push(Verdict::ratio(
            format!("all timeouts: Kennel / floor, {name}"),
            Ratio::pooled(kennel, floor, share),
            Target::AtMost(bound),
        ));
    }
    Ok(())
}

/// What a point's rounds gave, with at most so many QEMUs.
fn rounds(
    lab: &mut Lab,
    session: &Session,
    measured: &mut Measured,
    point: Point,
    qemus: usize,
) -> Result<[Vec<Vec<u64>>; 3], Trouble> {
    let [each, rounds] = point.repetitions;
    lab.use_only(each, qemus);
    let mut all: [Vec<Vec<u64>>; 3] = Default::default();
    let noise = session.blocks(rounds, |index| {
        let timeout = Duration::from_millis(point.ms);
        take(&mut all, lab.round(session, timeout, index % 2 == 0)?);
        Ok(())
    })?;
    measured.blocks.extend(noise);
    Ok(all)
}

/// Seconds that a point takes, about.
fn expected(point: &Point) -> f64 {
    let timeout = point.ms as f64 / 1e3;
    let [each, rounds] = point.repetitions.map(|count| count as f64);
    (timeout + (timeout * 0.004).clamp(0.009, 0.25) * 3.0 * each).max(1.2) * rounds
}

/// Each that was armed is a block of its own, beside those that were armed next to it.
pub(super) fn take(all: &mut [Vec<Vec<u64>>; 3], round: Round) {
    for (blocks, samples) in all.iter_mut().zip(round) {
        blocks.extend(samples);
    }
}

fn report(measured: &mut Measured, ms: u64, all: &[Vec<Vec<u64>>; 3], target: Option<f64>) {
    let seconds = ms as f64 / 1e3;
    for ((name, role), blocks) in NAMES.into_iter().zip(all) {
        let samples = blocks.concat();
        if let Some(series) = Series::of(name, role, &samples, 1e-3) {
            let series = if ms == DRAWN {
                series.with_histogram(&samples, 1e-3)
            } else {
                series
            };
            measured.series.push(series.at(seconds));
        }
    }
    if let Some(bound) = target {
        let [_, kennel, qemu] = all;
        measured.verdicts.push(Verdict::ratio(
            format!("{seconds} s: Kennel / QEMU, p50"),
            Ratio::pooled(kennel, qemu, 0.5),
            Target::AtMost(bound),
        ));
    }
}
