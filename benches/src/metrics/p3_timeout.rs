// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! P3: when an attempt ends that nobody answers.

use std::time::Duration;

use super::Metric;
use crate::Trouble;
use crate::load::engine::Phase;
use crate::load::guest::{Choice, Guest};
use crate::load::run::run;
use crate::load::{SILENT_PORT, TCP_PORT, handler};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "P3",
    title: "Timeout of a probe",
    unit: "ms",
    definition: "From the beginning of an attempt with timeoutSeconds 1 to its end, 20 probes of each \
                 kind: a TCP probe whose packets nobody answers, and an HTTP probe that is accepted \
                 and hears nothing. The first ends up to 50 ms early: the VM process' word about the \
                 guest must have come by the deadline.",
    floor: "the timeout itself",
    peer: "nothing",
    target: "≤ 1005 ms; no descriptor and no thread left",
    seconds: [34, 8],
    measure,
};

const EACH: usize = 20;

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    if session.load.guest == Choice::Linux {
        return Err(Trouble::new("only the model is silent at will"));
    }
    let guest = Guest::start(session)?;
    let lasts = Duration::from_secs(if session.quick { 2 } else { 15 });
    let kinds = [
        ("tcpSocket, no answer", "tcpSocket", SILENT_PORT),
        ("httpGet, nothing said", "httpGet", TCP_PORT),
    ];
    measured.blocks = session.blocks(kinds.len(), |index| {
        let Some((what, kind, port)) = kinds.get(index).copied() else {
            return Ok(());
        };
        let probes = vec![handler(kind, port)?; EACH];
        let of_run = run(&guest, probes, Phase::Spread, lasts)?;
        let took = &of_run.record.took;
        let series = Series::of("Kennel", Role::Kennel, took, 1e-6);
        let drawn = |one: Series| one.with_histogram(took, 1e-6).in_mode(what);
        measured.series.extend(series.map(drawn));
        let most = took.iter().max().map(|most| *most as f64 / 1e6);
        let succeeded = of_run.record.attempts - of_run.record.failures;
        let left = of_run.descriptors + of_run.threads;
        let none = |of: &str, value: f64| {
            Verdict::figure(format!("{what}: {of}"), Some(value), Target::Exactly(0.0))
        };
        measured.verdicts.extend([
            Verdict::figure(format!("{what}: latest, ms"), most, Target::AtMost(1005.0)),
            none("successes", succeeded as f64),
            none("descriptors and threads left", left as f64),
        ]);
        Ok(())
    })?;
    Ok(())
}
