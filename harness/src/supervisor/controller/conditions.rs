// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! KubeVirt's conditions of an instance, and the one word for a VirtualMachine's state.

use serde::Serialize;

use crate::supervisor::phase::Phase;

/// Who paused an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PausedBy {
    /// Somebody on the host.
    User,
    /// Its watchdog: Kennel's own reason, as KubeVirt's watchdog has no such action.
    Watchdog,
}

impl PausedBy {
    /// The condition's reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::User => "PausedByUser",
            Self::Watchdog => "PausedByWatchdog",
        }
    }
}

/// Why an instance is not Ready, in KubeVirt's words: there its pod says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It is being stopped, or has ended.
    PodTerminating,
    /// Its vCPUs have not run yet.
    GuestNotRunning,
    /// It is paused.
    ReadinessGatesNotReady,
    /// Its readiness probe has not succeeded, or has failed.
    ContainersNotReady,
}

impl NotReady {
    /// The condition's reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::PodTerminating => "PodTerminating",
            Self::GuestNotRunning => "GuestNotRunning",
            Self::ReadinessGatesNotReady => "ReadinessGatesNotReady",
            Self::ContainersNotReady => "ContainersNotReady",
        }
    }

    /// The same as a sentence.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::PodTerminating => "the instance is being stopped",
            Self::GuestNotRunning => "the guest does not run",
            Self::ReadinessGatesNotReady => "the guest is paused",
            Self::ContainersNotReady => "the readiness probe does not succeed",
        }
    }
}

/// What the conditions follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) stopping: bool,
    pub(super) paused: Option<PausedBy>,
    pub(super) agent_connected: bool,
    /// What the readiness probe says; true without one.
    pub(super) probe_ready: bool,
}

impl State {
    /// Ready, or the first reason why not, in KubeVirt's order.
    pub(super) fn ready(&self) -> Result<(), NotReady> {
        if self.stopping || self.phase.is_final() {
            Err(NotReady::PodTerminating)
        } else if self.phase != Phase::Running {
            Err(NotReady::GuestNotRunning)
        } else if !self.probe_ready {
            Err(NotReady::ContainersNotReady)
        } else if self.paused.is_some() {
            Err(NotReady::ReadinessGatesNotReady)
        } else {
            Ok(())
        }
    }

    /// The conditions that there are. AgentConnected and Paused are removed when they are not so,
    /// as KubeVirt does.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let condition = |name, status, reason| Condition {
            name,
            status,
            reason,
        };
        let mut all = vec![match self.ready() {
            Ok(()) => condition("Ready", "True", None),
            Err(why) => condition("Ready", "False", Some(why.reason())),
        }];
        if self.agent_connected {
            all.push(condition("AgentConnected", "True", None));
        }
        if let Some(by) = self.paused {
            all.push(condition("Paused", "True", Some(by.reason())));
        }
        all
    }

    /// The printable status of the VirtualMachine whose instance this is.
    pub(super) fn printable(&self) -> PrintableStatus {
        if self.phase.is_final() {
            PrintableStatus::Stopped
        } else if self.stopping {
            PrintableStatus::Stopping
        } else if self.paused.is_some() {
            PrintableStatus::Paused
        } else if self.phase == Phase::Running {
            PrintableStatus::Running
        } else {
            PrintableStatus::Starting
        }
    }
}

/// One condition, as Kubernetes writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Ready, AgentConnected or Paused.
    #[serde(rename = "type")]
    pub name: &'static str,
    /// True or False.
    pub status: &'static str,
    /// One word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// KubeVirt's `printableStatus` of a VirtualMachine, as far as one host has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintableStatus {
    /// Its instance is being stopped.
    Stopping,
    /// Its instance is paused.
    Paused,
    /// Its instance runs.
    Running,
    /// Its instance does not run yet.
    Starting,
    /// Its instances end one after the other, and the next one waits.
    CrashLoopBackOff,
    /// It has no instance, or one that has ended.
    Stopped,
}

impl PrintableStatus {
    /// The word in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopping => "Stopping",
            Self::Paused => "Paused",
            Self::Running => "Running",
            Self::Starting => "Starting",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::Stopped => "Stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: State = State {
        phase: Phase::Running,
        stopping: false,
        paused: None,
        agent_connected: true,
        probe_ready: true,
    };

    #[test]
    fn ready_and_status_follow_from_the_state() {
        let paused = Some(PausedBy::Watchdog);
        for (state, ready, status) in [
            (RUNNING, "True", "Running"),
            (
                State {
                    phase: Phase::Pending,
                    ..RUNNING
                },
                "GuestNotRunning",
                "Starting",
            ),
            (
                State {
                    phase: Phase::Scheduled,
                    probe_ready: false,
                    ..RUNNING
                },
                "GuestNotRunning",
                "Starting",
            ),
            (
                State {
                    probe_ready: false,
                    ..RUNNING
                },
                "ContainersNotReady",
                "Running",
            ),
            (
                State { paused, ..RUNNING },
                "ReadinessGatesNotReady",
                "Paused",
            ),
            (
                State {
                    stopping: true,
                    paused,
                    ..RUNNING
                },
                "PodTerminating",
                "Stopping",
            ),
            (
                State {
                    phase: Phase::Failed,
                    ..RUNNING
                },
                "PodTerminating",
                "Stopped",
            ),
        ] {
            let told = state.ready().map_or_else(NotReady::reason, |()| "True");
            assert_eq!(
                (told, state.printable().name()),
                (ready, status),
                "{state:?}"
            );
        }
    }

    #[test]
    fn conditions_that_are_not_so_are_not_there() {
        let names = |state: State| -> Vec<_> {
            let all = state.conditions().into_iter();
            all.map(|condition| (condition.name, condition.status))
                .collect()
        };
        assert_eq!(
            names(RUNNING),
            [("Ready", "True"), ("AgentConnected", "True")]
        );
        let state = State {
            agent_connected: false,
            paused: Some(PausedBy::User),
            ..RUNNING
        };
        assert_eq!(names(state), [("Ready", "False"), ("Paused", "True")]);
        let json = serde_json::to_string(&state.conditions()[0]).expect("JSON");
        assert_eq!(
            json,
            r#"{"type":"Ready","status":"False","reason":"ReadinessGatesNotReady"}"#
        );
    }
}
