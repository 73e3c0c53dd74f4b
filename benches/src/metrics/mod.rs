// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The metrics, a file each, and the list of them.

mod a1_round_trip;
mod p1_cost;
mod p3_timeout;
mod p4_detection;
mod p6_load;
mod r1_busy;
mod s1_burst;
mod s2_memory;
mod s3_idle;
mod s4_threads;
mod t10_hostile;
mod t1_expiry;
mod t2_early;
mod t4_ping;
mod t5_end_to_end;
mod t6_stage_1;
mod t7_actions;
mod t8_pause;
mod t9_load;
mod v1_start;
mod v2_boot;
mod v3_memory;
mod v4_dispatch;
mod v6_idle;

use std::time::Instant;

use crate::Trouble;
use crate::result::Measured;
use crate::session::Session;

pub(crate) use s2_memory::heap_bytes;
pub(crate) use s3_idle::wakeups;
pub(crate) use t5_end_to_end::exits_per_ping;
pub(crate) use v3_memory::memory_beyond_guest;

/// A metric: what it is, and how it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) definition: &'static str,
    /// The smallest program that does only the kernel's part.
    pub(crate) floor: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) target: &'static str,
    /// About how long it takes, and how long in a quick run.
    pub(crate) seconds: [u64; 2],
    pub(crate) measure: fn(&Session, &mut Measured) -> Result<(), Trouble>,
}

/// All of them, in the order in which they are measured.
pub(crate) const ALL: &[Metric] = &[
    t1_expiry::METRIC,
    t2_early::METRIC,
    t4_ping::METRIC,
    s1_burst::METRIC,
    s2_memory::METRIC,
    s3_idle::METRIC,
    s4_threads::METRIC,
    v4_dispatch::METRIC,
    t5_end_to_end::METRIC,
    t6_stage_1::METRIC,
    t7_actions::METRIC,
    t8_pause::METRIC,
    t9_load::METRIC,
    t10_hostile::METRIC,
    r1_busy::METRIC,
    v1_start::METRIC,
    v2_boot::METRIC,
    v3_memory::METRIC,
    v6_idle::METRIC,
    p1_cost::METRIC,
    p3_timeout::METRIC,
    p4_detection::METRIC,
    p6_load::METRIC,
    a1_round_trip::BARE_METAL,
    a1_round_trip::LINUX,
    a1_round_trip::STRESSED,
];

/// What is planned and not there, and why.
pub(crate) const MISSING: &[(&str, &str, &str)] = &[
    (
        "T3",
        "Conformance in virtual time",
        "needs a QEMU with the qtest accelerator; recorded traces are replayed by tests instead",
    ),
    ("V5", "Exits for a console byte", "not written yet"),
    ("A2", "Throughput of the agent's channel", "not written yet"),
];

impl Metric {
    pub(crate) fn seconds(&self, quick: bool) -> u64 {
        let [full, short] = self.seconds;
        if quick { short } else { full }
    }

    /// Measures; what went wrong becomes a note, and whether something did.
    pub(crate) fn run(&self, session: &Session) -> (Measured, bool) {
        let begin = Instant::now();
        let mut measured = Measured {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            unit: self.unit.to_owned(),
            definition: format!(
                "{} Floor: {}. Beside it: {}.",
                self.definition, self.floor, self.peer
            ),
            ..Measured::default()
        };
        let result = (self.measure)(session, &mut measured);
        if session.stopped() {
            measured.notes.push("ended early: fewer repetitions".into());
        } else if let Err(trouble) = &result {
            measured.notes.push(format!("not measured: {trouble}"));
        }
        measured.weigh_noise();
        measured.seconds = begin.elapsed().as_secs_f64();
        (measured, result.is_err() && !session.stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_once() {
        let mut ids: Vec<&str> = ALL.iter().map(|metric| metric.id).collect();
        ids.extend(MISSING.iter().map(|(id, ..)| *id));
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "{ids:?}");
    }
}
