// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! P4: from a guest's failure to the probe's word of it, against the arithmetic.

use std::time::{Duration, Instant};

use kennel::moment::Moment;
use kennel::probe::worker::Timing;

use super::Metric;
use crate::Trouble;
use crate::load::engine::{self, Failed, Orders, Phase};
use crate::load::guest::{Choice, Guest};
use crate::load::{EVERY_SECOND, Health};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "P4",
    title: "Detection of a guest's failure",
    unit: "ms",
    definition: "20 HTTP and 20 TCP probes at phases of their own, periodSeconds 1, timeoutSeconds 1, \
                 failureThreshold 3. The guest stops listening, or stops answering at all, at some \
                 moment; measured is by how much the probe fails later than two ticks after the first \
                 that failed, plus, in a guest that does not answer, the 949 ms that a connection is \
                 waited for.",
    floor: "the arithmetic",
    peer: "nothing",
    target: "≤ 5 ms apart; no probe that fails before, none that never does",
    seconds: [40, 14],
    measure,
};

const EACH: usize = 20;
const FAILURES: u32 = 3;
/// Of a connection: what is left of the timeout once the VM process' answer has had its time, in
/// whole ms, of which it has one less for what passes until it is asked.
const CONNECTS: Duration = Duration::from_millis(949);
/// A command to the guest takes a moment, more on a busy host.
const UNSURE: Duration = Duration::from_millis(500);
const TIMING: Timing = Timing {
    failure_threshold: FAILURES,
    ..EVERY_SECOND
};

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    if session.load.guest == Choice::Linux {
        return Err(Trouble::new("only the model can be made ill"));
    }
    for (part, what, health) in [
        (0.0, "stops listening", Health::Refuses),
        (0.5, "stops answering", Health::Silent),
    ] {
        session.part(part, part + 0.5);
        let (mut apart, mut wrong) = (vec![], 0);
        let noise = session.blocks(session.times(3, 1), |_| {
            let (samples, not) = once(session, health)?;
            apart.extend(samples);
            wrong += not;
            Ok(())
        })?;
        measured.blocks.extend(noise);
        let series = Series::of("Kennel", Role::Kennel, &apart, 1e-6);
        let drawn = |one: Series| one.with_histogram(&apart, 1e-6).in_mode(what);
        measured.series.extend(series.map(drawn));
        let most = apart.iter().max().map(|most| *most as f64 / 1e6);
        measured.verdicts.extend([
            Verdict::figure(format!("{what}: most, ms"), most, Target::AtMost(5.0)),
            Verdict::figure(
                format!("{what}: wrong or missing failures"),
                Some(f64::from(wrong)),
                Target::Exactly(0.0),
            ),
        ]);
    }
    Ok(())
}

/// By how many ns each probe failed later than it should, and how many failed early or never.
fn once(session: &Session, health: Health) -> Result<(Vec<u64>, u32), Trouble> {
    let mut guest = Guest::start(session)?;
    let kinds = guest.probes()?;
    let orders = Orders {
        handlers: (0..EACH).flat_map(|_| kinds.clone()).collect(),
        timing: TIMING,
        phase: Phase::Spread,
        lasts: Duration::from_secs(6),
    };
    let socket = guest.socket();
    let (record, ill) = std::thread::scope(|scope| {
        let probes = scope.spawn(|| engine::run(&socket, &orders));
        std::thread::sleep(Duration::from_millis(fastrand::u64(1500..2500)));
        guest.becomes(health)?;
        let ill = Instant::now();
        let record = probes.join().map_err(|_| Trouble::new("it panicked"))??;
        Ok::<_, Trouble>((record, ill))
    })?;
    let began = record.began.unwrap_or(ill);
    let ill = Moment::ZERO.after(ill.saturating_duration_since(began));
    let waits = match health {
        Health::Silent => CONNECTS,
        Health::Well | Health::Refuses => Duration::ZERO,
    };
    let missing = orders.handlers.len().saturating_sub(record.failed.len());
    let (mut apart, mut wrong) = (vec![], u32::try_from(missing).unwrap_or(u32::MAX));
    for Failed { since, at } in record.failed {
        let expected = since.after(TIMING.period * (FAILURES - 1)).after(waits);
        // One tick before, an attempt may have been under way; one after is the first that can tell.
        let near = ill.since(since).max(since.since(ill)) <= TIMING.period + UNSURE;
        if near && at >= expected {
            apart.push(u64::try_from(at.since(expected).as_nanos()).unwrap_or(u64::MAX));
        } else {
            wrong += 1;
        }
    }
    Ok((apart, wrong))
}
