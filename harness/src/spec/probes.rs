// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `livenessProbe` and `readinessProbe`: their numbers with KubeVirt's defaults, and the rules that
//! KubeVirt or, later and out of sight, Kubernetes holds them to.

use std::time::Duration;

use super::handlers;
use super::ports::GuestNetwork;
use super::probe::{Handler, Probe};
use super::problem::{Fault, NoteKind, Place, quoted};
use super::vmi::KernelSource;
use super::walk::Cursor;

/// KubeVirt's numbers are 32-bit.
const MOST: u32 = i32::MAX.unsigned_abs();

/// The instance's probes, and where they stand.
#[derive(Default)]
pub(super) struct Probes {
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) liveness_at: Option<Place>,
    pub(super) readiness_at: Option<Place>,
    /// `startStrategy: Paused`.
    pub(super) start_paused: bool,
}

impl Probes {
    /// Whether one of them goes through the network.
    pub(super) fn need_network(&self) -> bool {
        let mut both = [&self.liveness, &self.readiness].into_iter().flatten();
        both.any(|probe| probe.handler.needs_network())
    }
}

/// Reads both probes of the instance's spec.
pub(super) fn probes(
    spec: &Cursor<'_>,
    network: &GuestNetwork<'_>,
    boots: &KernelSource,
) -> Probes {
    let (liveness, readiness) = (spec.get("livenessProbe"), spec.get("readinessProbe"));
    let read = |at: &Cursor<'_>| {
        let probe = probe(at, network)?;
        note(at, &probe, boots);
        Some(probe)
    };
    if let Some(at) = &liveness {
        check_liveness(at);
    }
    Probes {
        liveness: liveness.as_ref().and_then(read),
        readiness: readiness.as_ref().and_then(read),
        liveness_at: liveness.as_ref().map(Cursor::key_place),
        readiness_at: readiness.as_ref().map(Cursor::key_place),
        start_paused: start_paused(spec, liveness.is_some()),
    }
}

fn probe(at: &Cursor<'_>, network: &GuestNetwork<'_>) -> Option<Probe> {
    // All of them, so that all problems are told.
    let initial_delay = initial_delay(at);
    let timeout = at_least_1(at, "timeoutSeconds", 1);
    let period = at_least_1(at, "periodSeconds", 10);
    let success_threshold = at_least_1(at, "successThreshold", 1);
    let failure_threshold = at_least_1(at, "failureThreshold", 3);
    Some(Probe {
        handler: handlers::handler(at, network)?,
        initial_delay: seconds(initial_delay),
        timeout: seconds(timeout),
        period: seconds(period),
        success_threshold,
        failure_threshold,
    })
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// KubeVirt's rule for all numbers but the initial delay: below 1 the default is taken.
fn at_least_1(probe: &Cursor<'_>, key: &str, default: u32) -> u32 {
    let Some((at, value)) = number(probe, key) else {
        return default;
    };
    if value < 1 {
        at.note(
            NoteKind::Defaulted,
            &format!("less than 1: {default} is taken, as in KubeVirt"),
        );
        return default;
    }
    fitting(&at, value, 1).unwrap_or(default)
}

fn initial_delay(probe: &Cursor<'_>) -> u32 {
    let Some((at, value)) = number(probe, "initialDelaySeconds") else {
        return 0;
    };
    if value < 0 {
        let fault = Fault::new(format!("a delay of {value} seconds is negative"));
        at.refuse(
            fault
                .allowed(format!("0 to {MOST}"))
                .hint("write 0 to probe from the start"),
        );
        return 0;
    }
    fitting(&at, value, 0).unwrap_or(0)
}

fn number<'a>(probe: &Cursor<'a>, key: &str) -> Option<(Cursor<'a>, i64)> {
    let at = probe.get(key)?;
    let value = at.integer()?;
    Some((at, value))
}

fn fitting(at: &Cursor<'_>, value: i64, least: u32) -> Option<u32> {
    let fitting = u32::try_from(value).ok().filter(|value| *value <= MOST);
    if fitting.is_none() {
        let shown = quoted(at.scalar().unwrap_or_default());
        let fault = Fault::new(format!("{shown} is too large"));
        at.refuse(fault.allowed(format!("{least} to {MOST}")));
    }
    fitting
}

/// Kubernetes' rule, which KubeVirt leaves to it: the instance would never be scheduled.
fn check_liveness(probe: &Cursor<'_>) {
    if let Some((at, value)) = number(probe, "successThreshold")
        && value > 1
    {
        let fault = Fault::new(format!(
            "a liveness probe succeeds with its first success, not with {value} in a row"
        ));
        at.refuse(
            fault
                .allowed("1")
                .hint("leave it out; a readinessProbe may have a successThreshold"),
        );
    }
}

/// Reads `startStrategy`, which must leave a livenessProbe something to find alive.
fn start_paused(spec: &Cursor<'_>, liveness: bool) -> bool {
    const PAUSED: &str = "Paused";
    let Some((at, text)) = spec
        .get("startStrategy")
        .and_then(|at| Some((at.clone(), at.text()?)))
    else {
        return false;
    };
    if text != PAUSED {
        at.refuse(Fault::unknown("startStrategy", text, [PAUSED].into_iter()));
    } else if liveness {
        let fault = Fault::new("a machine that starts paused cannot have a livenessProbe");
        at.refuse(
            fault.hint("remove startStrategy, or the livenessProbe, or make it a readinessProbe"),
        );
    }
    text == PAUSED
}

/// What is allowed, and probably not meant, or not done here.
fn note(at: &Cursor<'_>, probe: &Probe, boots: &KernelSource) {
    let doubt = |key: &str, message: &str| match at.get(key) {
        Some(at) => at.note(NoteKind::Doubtful, message),
        None => at.note(NoteKind::Doubtful, message),
    };
    if probe.timeout > probe.period {
        doubt(
            "timeoutSeconds",
            &format!(
                "a timeout of {} s is longer than the period of {} s: an attempt without an answer delays the next",
                probe.timeout.as_secs(),
                probe.period.as_secs()
            ),
        );
    }
    match &probe.handler {
        Handler::HttpGet(_) | Handler::TcpSocket(_) => {}
        Handler::Exec { .. } | Handler::GuestAgentPing => {
            if matches!(probe.handler, Handler::Exec { .. }) && at.get("timeoutSeconds").is_none() {
                doubt(
                    "timeoutSeconds",
                    "no timeoutSeconds: the command has 1 second, its way through the agent included",
                );
            }
            if *boots != KernelSource::Built {
                at.note(
                    NoteKind::Doubtful,
                    "needs a guest agent in the guest, which its files do not tell: it fails without one",
                );
            }
        }
    }
}
