// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! P6: false failures of many probes on a busy host; with P1, P2 and P5 of the same run.

use std::time::Duration;

use super::Metric;
use super::s1_burst::raise_file_limit;
use crate::Trouble;
use crate::load::engine::Phase;
use crate::load::floor::{self, Floor};
use crate::load::guest::Guest;
use crate::load::hogs::Hogs;
use crate::load::run::{Run, run};
use crate::noise::Watch;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "P6",
    title: "False failures of many probes",
    unit: "ms",
    definition: "HTTP and TCP probes of one guest, as many of each, each once a second at a phase of \
                 its own with a timeout of 1 s, while threads compute without end: the kubelet's \
                 stress test has 50. Kennel's workers and runners, a thread for each probe, dial \
                 socket and link. Start: from when an attempt is due to its beginning (P2). Attempt: \
                 from there to its end. CPU of a probe (P1): the probes' threads, their scheduler and \
                 the link; the guest's is told beside. The guest is a model unless --guest says \
                 otherwise.",
    floor: "a thread that connects, and gets, over loopback at the same rate",
    peer: "nothing",
    target: "no failure, no tick skipped, nothing left; CPU ≤ 1.3 × the floor; ≤ 4 KiB a probe",
    seconds: [295, 25],
    measure,
};

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    raise_file_limit();
    let load = &session.load;
    let counts = match (load.probes, session.quick) {
        (Some(count), _) => vec![count],
        (None, true) => vec![50],
        (None, false) => vec![50, 1000],
    };
    let lasts = load.seconds.unwrap_or(if session.quick { 10 } else { 120 });
    let hogs = load.hogs.unwrap_or(2);
    let guest = Guest::start(session)?;
    measured.axis = Some("probes".into());
    measured.notes.push(format!(
        "the guest is {}; {hogs} threads compute beside; {lasts} s each",
        guest.name()
    ));
    for count in counts {
        if session.stopped() {
            break;
        }
        let watch = Watch::start();
        let hogs = Hogs::start(hogs);
        let kinds = guest.probes()?;
        let handlers = (0..count).flat_map(|_| kinds.clone()).collect();
        let of_run = run(&guest, handlers, Phase::Spread, Duration::from_secs(lasts))?;
        let floor = floor::run(count, count, Duration::from_secs(lasts.div_ceil(6)))?;
        drop(hogs);
        measured.blocks.push(watch.stop());
        tell(measured, count * 2, &of_run, floor);
    }
    Ok(())
}

fn tell(measured: &mut Measured, count: u32, run: &Run, floor: Floor) {
    let record = &run.record;
    let x = f64::from(count);
    for (mode, samples) in [("start", &record.jitter), ("attempt", &record.took)] {
        let series = Series::of("Kennel", Role::Kennel, samples, 1e-6);
        let drawn = |one: Series| one.with_histogram(samples, 1e-6).in_mode(mode).at(x);
        measured.series.extend(series.map(drawn));
    }
    let us = |ns: u64, attempts: u64| ns as f64 / 1e3 / attempts.max(1) as f64;
    let ours = run.cpu_each() / 1e3;
    let bare = us(floor.client, floor.attempts);
    let none = |what: &str, value: u64| {
        let what = format!("{count} probes: {what}");
        Verdict::figure(what, Some(value as f64), Target::Exactly(0.0))
    };
    let most = |what: &str, value: f64, bound| {
        let what = format!("{count} probes: {what}");
        Verdict::figure(what, Some(value), Target::AtMost(bound))
    };
    let left = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    measured.verdicts.extend([
        none("false failures", record.failures),
        none("ticks skipped", record.skipped),
        none("descriptors left", left(run.descriptors)),
        none("threads left", left(run.threads)),
        none("sockets in TIME-WAIT on the host (P5)", run.time_wait),
        most("CPU of a probe / floor (P1)", ours / bare.max(1e-9), 1.3),
        most(
            "resident KiB of a probe in the supervisor (P1)",
            record.resident as f64 / 1024.0 / x,
            4.0,
        ),
    ]);
    measured.notes.push(format!(
        "{count} probes: {} attempts; CPU of each {ours:.1} µs: probes {:.1}, scheduler {:.1}, link \
         {:.1}; the guest's {:.1}; resident KiB of each in the VM process {:.2}",
        record.attempts,
        us(record.cpu.saturating_sub(record.scheduler), record.attempts),
        us(record.scheduler, record.attempts),
        us(run.link, record.attempts),
        us(run.guest, record.attempts),
        run.resident as f64 / 1024.0 / x,
    ));
    measured.notes.push(format!(
        "{count} probes: the floor's CPU of each {bare:.1} µs, its servers' {:.1}; it left {} \
         sockets in TIME-WAIT after {} connections",
        us(floor.servers, floor.attempts),
        floor.time_wait,
        floor.attempts,
    ));
    for said in &record.said {
        let note = format!("{count} probes: failure: {said}");
        measured.notes.push(note);
    }
}
