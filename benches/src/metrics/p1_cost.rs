// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! P1: what a probe costs, by how many there are.

use std::time::Duration;

use super::Metric;
use super::s1_burst::raise_file_limit;
use crate::Trouble;
use crate::load::engine::Phase;
use crate::load::floor;
use crate::load::guest::Guest;
use crate::load::run::{Run, run};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::statistics::quantile;

pub(super) const METRIC: Metric = Metric {
    id: "P1",
    title: "CPU of a probe",
    unit: "µs",
    definition: "CPU of one attempt, of the probe's thread, its scheduler and the link, with 1 to \
                 1000 probes of one kind, each once a second; the guest as in P6.",
    floor: "a thread that connects, or gets, over loopback at the same rate",
    peer: "nothing",
    target: "≤ 1.3 × the floor; 1000 TCP probes: ≤ 10 % of a CPU, start p99 ≤ 1 ms (P2)",
    seconds: [130, 20],
    measure,
};

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    raise_file_limit();
    measured.axis = Some("probes".into());
    let counts: &[u32] = if session.quick {
        &[1, 10]
    } else {
        &[1, 10, 100, 1000]
    };
    let lasts = Duration::from_secs(if session.quick { 3 } else { 10 });
    let guest = Guest::start(session)?;
    measured
        .notes
        .push(format!("the guest is {}", guest.name()));
    let turns: Vec<(usize, u32)> = counts
        .iter()
        .flat_map(|count| [(0, *count), (1, *count)])
        .collect();
    let probes = guest.probes()?;
    let mut thousand = None;
    measured.blocks = session.blocks(turns.len(), |index| {
        let Some((kind, count)) = turns.get(index).copied() else {
            return Ok(());
        };
        let handlers = probes.iter().skip(kind).take(1).cycle().cloned();
        let many = usize::try_from(count).unwrap_or(0);
        let of_run = run(&guest, handlers.take(many).collect(), Phase::Spread, lasts)?;
        let (http, tcp) = if kind == 0 { (count, 0) } else { (0, count) };
        let floor = floor::run(http, tcp, lasts.div_f64(3.0))?;
        let bare = floor.client as f64 / floor.attempts.max(1) as f64;
        let mode = if kind == 0 { "httpGet" } else { "tcpSocket" };
        for (name, role, value) in [
            ("floor", Role::Floor, bare),
            ("Kennel", Role::Kennel, of_run.cpu_each()),
        ] {
            let series = Series::figure(name, role, value / 1e3);
            measured.series.push(series.in_mode(mode).at(count.into()));
        }
        measured.verdicts.push(Verdict::figure(
            format!("{count} {mode}: Kennel / floor"),
            Some(of_run.cpu_each() / bare.max(1e-9)),
            Target::AtMost(1.3),
        ));
        if (kind, count) == (1, 1000) {
            thousand = Some(of_run);
        }
        Ok(())
    })?;
    measured.verdicts.extend(thousand.iter().flat_map(of_many));
    Ok(())
}

fn of_many(run: &Run) -> [Verdict; 2] {
    let share = run.cpu_each() * 1000.0 / 1e9 * 100.0;
    let jitter = quantile(&run.record.jitter, 0.99) as f64 / 1e6;
    [
        Verdict::figure(
            "1000 tcpSocket: percent of a CPU",
            Some(share),
            Target::AtMost(10.0),
        ),
        Verdict::figure(
            "1000 tcpSocket: start p99, ms (P2)",
            Some(jitter),
            Target::AtMost(1.0),
        ),
    ]
}
