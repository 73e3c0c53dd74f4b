// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the supervisor tells by itself, beside what VM processes tell it.

use std::net::SocketAddr;
use std::time::Duration;

use kennel_vmm::mailbox::ResetCause;
use serde_json::json;

use super::Said;
use crate::probe::ProbeKind;
use crate::supervisor::controller::{Condition, NotReady};
use crate::supervisor::phase::Phase;
use crate::supervisor::verdict::Cause;

/// How far a probe's run of equal results has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    /// Results of this sort in a row.
    pub run: u32,
    /// So many decide.
    pub threshold: u32,
}

impl Said {
    /// The instance's VM process exists.
    #[must_use]
    pub fn created(pid: Option<u32>) -> Self {
        match pid {
            Some(pid) => Self::normal("Created", format!("VM process {pid} created"))
                .with(json!({ "pid": pid })),
            None => Self::normal("Created", "Instance created"),
        }
    }

    /// The VM process runs and gets nowhere: it is killed, and what it owes is done in its stead.
    #[must_use]
    pub fn stuck(message: String, data: serde_json::Value) -> Self {
        Self::warning("Stuck", message).with(data)
    }

    /// The VM process does not run. `state` is what ps(1) shows of it.
    #[must_use]
    pub fn process_stopped(state: Option<char>, silent: Duration) -> Self {
        let why = match state {
            Some('T') => "a signal has stopped it; SIGCONT lets it go on",
            Some('t') => "a debugger has stopped it",
            Some('D') => "the kernel holds it",
            _ => "it gets no time to run, or is frozen",
        };
        let message = format!(
            "The VM process has not run for {:.1} s: {why}. Its guest stands still meanwhile",
            silent.as_secs_f64()
        );
        let state = state.map(String::from);
        Self::warning("ProcessStopped", message)
            .with(json!({ "state": state, "silent_ns": nanos(silent) }))
    }

    /// The machine was reset by starting it in a new VM process.
    #[must_use]
    pub fn reset_in_new_process(cause: ResetCause, count: u64, pid: Option<u32>) -> Self {
        let by = super::reset_cause(cause);
        let message = format!("The machine was reset by {by}, in a new VM process");
        let data = json!({ "cause": cause, "count": count, "new_process": true, "pid": pid });
        Self::normal("Reset", message).with(data)
    }

    /// Somebody ends the machine.
    #[must_use]
    pub fn killing(why: &str) -> Self {
        Self::normal("Killing", format!("Stopping the machine: {why}"))
    }

    /// The liveness probe has failed for good.
    #[must_use]
    pub fn liveness_killing(name: &str, replaced: bool, grace: Duration) -> Self {
        let then = if replaced { ", will be restarted" } else { "" };
        Self::normal(
            "Killing",
            format!("Instance {name} failed liveness probe{then}"),
        )
        .with(json!({ "cause": Cause::LivenessFailed.name(), "grace_ns": nanos(grace) }))
    }

    /// The instance has ended.
    #[must_use]
    pub fn stopped(phase: Phase, how: &str, cause: Option<Cause>) -> Self {
        let said = if phase == Phase::Succeeded {
            Self::normal
        } else {
            Self::warning
        };
        let mut data = json!({ "phase": phase.name() });
        if cause == Some(Cause::LivenessFailed) {
            data["cause"] = json!(Cause::LivenessFailed.name());
        }
        said("Stopped", how).with(data)
    }

    /// The next instance waits before it takes the place of this one.
    #[must_use]
    pub fn back_off(wait: Duration, restart: u64) -> Self {
        let shown = humantime::format_duration(wait);
        Self::warning(
            "BackOff",
            format!("Back-off: the next instance starts in {shown}"),
        )
        .with(json!({ "wait_ns": nanos(wait), "restart": restart }))
    }

    /// Somebody in the guest opened or closed the agent's port.
    #[must_use]
    pub fn agent(connected: bool) -> Self {
        if connected {
            Self::normal("AgentConnected", "The guest agent is connected")
        } else {
            Self::normal(
                "AgentDisconnected",
                "The guest agent is no longer connected",
            )
        }
    }

    /// The condition Ready has changed.
    #[must_use]
    pub fn ready(ready: Result<(), NotReady>) -> Self {
        match ready {
            Ok(()) => Self::normal("Ready", "The instance is ready"),
            Err(why) => Self::warning(
                "NotReady",
                format!("The instance is not ready: {}", why.message()),
            )
            .with(json!({ "reason": why.reason() })),
        }
    }

    /// A published port leads to the guest.
    #[must_use]
    pub fn port_opened(at: SocketAddr, guest_port: u16) -> Self {
        let message = format!("{at} leads to port {guest_port} of the guest");
        Self::normal("PortOpened", message).with(port_data(at, guest_port))
    }

    /// A published port leads to no guest any more.
    #[must_use]
    pub fn port_closed(at: SocketAddr, guest_port: u16) -> Self {
        Self::normal("PortClosed", format!("{at} is closed")).with(port_data(at, guest_port))
    }

    /// A published port cannot be opened.
    #[must_use]
    pub fn port_failed(at: SocketAddr, guest_port: u16, why: &str) -> Self {
        let message = format!("{why}; it is tried again when it next has a guest");
        Self::warning("PortFailed", message).with(port_data(at, guest_port))
    }

    /// With all conditions of the instance, as this leaves them.
    #[must_use]
    pub fn with_conditions(mut self, conditions: &[Condition]) -> Self {
        self.data.insert("conditions".to_owned(), json!(conditions));
        self
    }

    /// An attempt failed, or, without a streak, told nothing and does not count.
    #[must_use]
    pub fn unhealthy(probe: ProbeKind, message: String, streak: Option<Streak>) -> Self {
        Self::warning("Unhealthy", message).with(probe_data(probe, streak))
    }

    /// An attempt succeeded, with a warning.
    #[must_use]
    pub fn probe_warning(probe: ProbeKind, message: String) -> Self {
        Self::warning("ProbeWarning", message).with(probe_data(probe, None))
    }
}

fn port_data(at: SocketAddr, guest_port: u16) -> serde_json::Value {
    json!({ "address": at.to_string(), "guest_port": guest_port })
}

fn probe_data(probe: ProbeKind, streak: Option<Streak>) -> serde_json::Value {
    let mut data = json!({ "probe": probe.name().to_lowercase() });
    if let Some(Streak { run, threshold }) = streak {
        data["streak"] = json!(run);
        data["threshold"] = json!(threshold);
    }
    data
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
