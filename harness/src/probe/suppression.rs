// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When a probe is not to be blamed on the guest, and so is not attempted or does not count.
//!
//! There is no live migration on this host; its rows stay in the rules, for the documents and the
//! tests of KubeVirt have them.

use std::time::Duration;

use crate::agent::AgentError;
use crate::spec::Handler;

#[cfg(test)]
mod tests;

/// How long frozen file systems excuse a guest: a thaw that never comes must not hide a hung one.
pub const LONGEST_FREEZE: Duration = Duration::from_secs(60);

/// Why a machine is paused. The names are libvirt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// Somebody asked for it.
    User,
    /// It is migrating.
    Migration,
    /// It is being saved.
    Save,
    /// Its memory is being dumped.
    Dump,
    /// It was restored from a snapshot.
    FromSnapshot,
    /// It is shutting down.
    ShuttingDown,
    /// A snapshot is being made.
    Snapshot,
    /// It is starting up.
    StartingUp,
    /// It is migrating in post-copy.
    Postcopy,
    /// A disk failed.
    IoError,
    /// The guest crashed.
    Crashed,
    /// Post-copy failed.
    PostcopyFailed,
    /// Nobody knows.
    Unknown,
    /// The watchdog's action.
    Watchdog,
}

impl PauseReason {
    /// Whether KubeVirt takes the guest for healthy nevertheless.
    #[must_use]
    pub const fn is_healthy(self) -> bool {
        !matches!(
            self,
            Self::IoError | Self::Crashed | Self::PostcopyFailed | Self::Unknown | Self::Watchdog
        )
    }
}

/// What the machine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Paused, and why.
    pub paused: Option<PauseReason>,
    /// How long its file systems have been frozen, if they are.
    pub frozen_for: Option<Duration>,
    /// `kubevirt.io/pause-guest-agent-probes` is true: see [`parse_bool`].
    pub agent_probes_paused: bool,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppression {
    /// It is made.
    None,
    /// It is not made, nothing is counted, results stay.
    Suspended,
    /// It is not made, and succeeds.
    Succeeds,
}

/// Kennel's rule: no probe of any kind while the machine is paused, by whomever, or frozen, unless
/// for longer than [`LONGEST_FREEZE`].
#[must_use]
pub fn of(handler: &Handler, machine: &Machine) -> Suppression {
    let pings = matches!(handler, Handler::GuestAgentPing);
    let excused = machine.frozen_for.is_some_and(|it| it < LONGEST_FREEZE);
    if machine.agent_probes_paused && pings {
        Suppression::Succeeds
    } else if machine.paused.is_some() || excused {
        Suppression::Suspended
    } else {
        Suppression::None
    }
}

/// KubeVirt's view of a machine whose agent's ping failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// It runs.
    Running,
    /// It is paused.
    Paused(PauseReason),
    /// There is none.
    NotFound,
    /// It could not be looked up.
    LookupFailed,
    /// Its state could not be read.
    StateFailed,
}

/// Why KubeVirt's ping failed. The names are libvirt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingError {
    /// The agent did not answer in time, or is not connected.
    AgentUnresponsive,
    /// There is no such machine.
    NoDomain,
    /// The agent refused, or anything else.
    Other,
}

impl From<&AgentError> for PingError {
    fn from(error: &AgentError) -> Self {
        match error {
            AgentError::TimedOut | AgentError::NotConnected | AgentError::Restarted => {
                Self::AgentUnresponsive
            }
            AgentError::Refused { .. }
            | AgentError::SyncRefused { .. }
            | AgentError::Garbled(_)
            | AgentError::Socket(_) => Self::Other,
        }
    }
}

/// KubeVirt's rule, which knows `guestAgentPing` only: whether a ping that failed like that succeeds
/// nevertheless. The annotation comes before it, as in [`of`].
///
/// No run follows it, nor one with `--compat`, which takes KubeVirt's numbers only: it is the reference
/// that Kennel's own rule, [`of`], is compared with.
#[must_use]
pub fn compat_excuses(error: PingError, migrating: bool, domain: Domain) -> bool {
    let excusable = matches!(error, PingError::AgentUnresponsive | PingError::NoDomain);
    let paused_but_healthy = match domain {
        Domain::NotFound | Domain::StateFailed => true,
        Domain::Paused(reason) => reason.is_healthy(),
        Domain::Running | Domain::LookupFailed => false,
    };
    excusable && (migrating || paused_but_healthy)
}

/// The value of `kubevirt.io/pause-guest-agent-probes`, as Go's `ParseBool` reads it; what that
/// does not know is false.
#[must_use]
pub fn parse_bool(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
