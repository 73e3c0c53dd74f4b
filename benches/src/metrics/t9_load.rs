// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T9: how late a bite comes on a busy machine.

use std::time::Duration;

use super::Metric;
use super::t1_expiry::{self, NAMES};
use crate::Trouble;
use crate::contender::qemu_version;
use crate::lateness::Lab;
use crate::load::hogs::Hogs;
use crate::result::{Measured, Series, Target, Verdict};
use crate::session::Session;
use crate::statistics::Ratio;

pub(super) const METRIC: Metric = Metric {
    id: "T9",
    title: "Lateness of a bite under load",
    unit: "µs",
    definition: "As T1 with a timeout of 1 s, while two threads compute without end; under the \
                 ordinary policy, and with every contender's threads under SCHED_FIFO 50.",
    floor: "an absolute timerfd and a thread that waits for it in epoll, under the same policy",
    peer: "QEMU's i6300esb under the same policy",
    target: "ours / floor: p99 ≤ 1.25",
    seconds: [65, 12],
    measure,
};

const TIMEOUT: Duration = Duration::from_secs(1);
const EACH: usize = 3;

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let with_qemu = qemu_version().is_some();
    for (part, policy) in [(0.0, "ordinary policy"), (0.5, "SCHED_FIFO")] {
        session.part(part, part + 0.5);
        let mut lab = Lab::new([EACH, EACH, if with_qemu { EACH } else { 0 }])?;
        if part > 0.0
            && let Err(trouble) = lab.make_real_time()
        {
            measured
                .notes
                .push(format!("{policy}: left out: {trouble}"));
            break;
        }
        let hogs = Hogs::start(2);
        let mut all: [Vec<Vec<u64>>; 3] = Default::default();
        let noise = session.blocks(session.times(24, 4), |index| {
            let round = lab.round(session, TIMEOUT, index % 2 == 0)?;
            t1_expiry::take(&mut all, round);
            Ok(())
        })?;
        drop(hogs);
        measured.blocks.extend(noise);
        for ((name, role), blocks) in NAMES.into_iter().zip(&all) {
            let samples = blocks.concat();
            let series = Series::of(name, role, &samples, 1e-3);
            let drawn = |one: Series| one.with_histogram(&samples, 1e-3).in_mode(policy);
            measured.series.extend(series.map(drawn));
        }
        let [floor, kennel, qemu] = &all;
        measured.verdicts.push(Verdict::ratio(
            format!("{policy}: Kennel / floor, p99"),
            Ratio::pooled(kennel, floor, 0.99),
            Target::AtMost(1.25),
        ));
        measured.verdicts.push(Verdict::ratio(
            format!("{policy}: Kennel / QEMU, p50"),
            Ratio::pooled(kennel, qemu, 0.5),
            Target::AtMost(1.0),
        ));
    }
    Ok(())
}
