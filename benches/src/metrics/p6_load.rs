// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! P6: false failures of many probes on a busy host; with P1, P2 and P5 of the same run.

use std::time::Duration;

use super::Metric;
use super::s1_burst::raise_file_limit;
use crate::Trouble;
use crate::load::accounts::{self, HostSockets};
use crate::load::engine::{self, Orders, Phase, Record};
use crate::load::floor::{self, Floor};
use crate::load::model::Model;
use crate::load::{EVERY_SECOND, HTTP_PORT, Hogs, TCP_PORT, handler};
use crate::noise::Watch;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "P6",
    title: "False failures of many probes",
    unit: "ms",
    definition: "HTTP and TCP probes of one guest, as many of each, each once a second at a phase of \
                 its own with a timeout of 1 s, while threads compute without end. Kennel's workers \
                 and runners, dial socket and link; the guest is a model: a TCP/IP stack in a thread, \
                 behind queues instead of rings, as a guest on a slow KVM is not fast enough. Start: \
                 from when an attempt is due to its beginning (P2). Attempt: from there to its end. \
                 CPU of a probe: threads of the probes, their scheduler and the link (P1); the \
                 guest's is told beside.",
    floor: "a thread that connects, and gets, over loopback at the same rate",
    peer: "nothing",
    target: "no failure, no tick skipped, no socket left; start p99 ≤ 1 ms without load",
    seconds: [310, 25],
    measure,
};

/// What a run of so many left behind.
struct Run {
    record: Record,
    /// ns of CPU.
    link: u64,
    guest: u64,
    time_wait: u64,
    /// Of both processes, after minus before.
    descriptors: usize,
    threads: usize,
    /// Bytes that it added to the VM process.
    resident: u64,
}

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
    measured.axis = Some("probes".into());
    measured.notes.push(format!(
        "{hogs} threads compute beside; {lasts} s each; the guest is a model"
    ));
    for count in counts {
        if session.stopped() {
            break;
        }
        let watch = Watch::start();
        let hogs = Hogs::start(hogs);
        let run = probe(count, Duration::from_secs(lasts))?;
        let floor = floor::run(count, count, Duration::from_secs(lasts.div_ceil(6)))?;
        drop(hogs);
        measured.blocks.push(watch.stop());
        tell(measured, count * 2, &run, floor);
    }
    Ok(())
}

fn probe(count: u32, lasts: Duration) -> Result<Run, Trouble> {
    let model = Model::start()?;
    let (ours, theirs) = (std::process::id(), model.pid());
    let held = || {
        let of = |count: fn(u32) -> usize| count(ours) + count(theirs);
        (of(accounts::descriptors), of(accounts::threads))
    };
    let kinds = [
        handler("httpGet", HTTP_PORT)?,
        handler("tcpSocket", TCP_PORT)?,
    ];
    let orders = Orders {
        handlers: (0..count).flat_map(|_| kinds.clone()).collect(),
        timing: EVERY_SECOND,
        phase: Phase::Spread,
        lasts,
    };
    // ARP, and what is allocated once.
    let first = Orders {
        handlers: kinds.to_vec(),
        lasts: Duration::from_millis(10),
        ..orders.clone()
    };
    engine::run(&model.socket(), &first)?;
    let (descriptors, threads) = held();
    let (resident, resident_there) = (accounts::resident(ours), accounts::resident(theirs));
    let (link, guest) = (
        accounts::cpu_ns(theirs, &["link"]),
        accounts::cpu_ns(theirs, &["guest"]),
    );
    let time_wait = HostSockets::read().time_wait;
    let mut record = engine::run(&model.socket(), &orders)?;
    record.resident = record.resident.saturating_sub(resident);
    let link = accounts::cpu_ns(theirs, &["link"]).saturating_sub(link);
    let guest = accounts::cpu_ns(theirs, &["guest"]).saturating_sub(guest);
    let time_wait = HostSockets::read().time_wait.saturating_sub(time_wait);
    let resident_there = accounts::resident(theirs).saturating_sub(resident_there);
    // The link closes what its clients have left within a second.
    std::thread::sleep(Duration::from_millis(1500));
    let after = held();
    Ok(Run {
        record,
        link,
        guest,
        time_wait,
        descriptors: after.0.saturating_sub(descriptors),
        threads: after.1.saturating_sub(threads),
        resident: resident_there,
    })
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
    let ours = us(record.cpu + run.link, record.attempts);
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
        most("CPU of a probe, floors (P1)", ours / bare.max(1e-9), 1.3),
        most(
            "resident KiB of a probe in the supervisor (P1)",
            record.resident as f64 / 1024.0 / x,
            4.0,
        ),
    ]);
    measured.notes.push(format!(
        "{count} probes: {} attempts; CPU of each {ours:.1} µs (probes and scheduler {:.1}, link \
         {:.1}) and the guest's {:.1}; resident KiB of each in the VM process {:.2}",
        record.attempts,
        us(record.cpu, record.attempts),
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
        measured.notes.push(format!("{count} probes: failure: {said}"));
    }
}
