// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a worker has to say: Kubernetes events, and turns of its result.

use crate::probe::ProbeKind;

/// Something that the owner of a worker must know or tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said {
    /// One attempt failed. Each failure is said; who shows them may join equal ones.
    Unhealthy {
        /// As the kubelet has it, and the streak: `Liveness probe failed: … (2 of 3)`.
        message: String,
        /// Failures in a row, this one included.
        failures: u32,
        /// How many make the probe fail.
        threshold: u32,
    },
    /// An attempt and its further tries could not tell anything; nothing is counted.
    Errored {
        /// As the kubelet has it: `Liveness probe errored and resulted in unknown state: …`.
        message: String,
    },
    /// An attempt succeeded with a warning.
    ProbeWarning {
        /// As the kubelet has it: `Readiness probe warning: …`.
        message: String,
    },
    /// The readiness probe succeeds now, and did not before.
    BecameReady,
    /// The readiness probe does not succeed any more, or does not count any more.
    BecameUnready,
    /// The liveness probe failed for good: the instance is to be stopped.
    LivenessFailed {
        /// Failures in a row.
        failures: u32,
        /// What the last of them said.
        output: String,
    },
}

impl Said {
    pub(super) fn unhealthy(kind: ProbeKind, output: &str, failures: u32, threshold: u32) -> Self {
        let streak = if failures <= threshold {
            format!("{failures} of {threshold}")
        } else {
            format!("{failures} in a row")
        };
        Self::Unhealthy {
            message: format!(
                "{} probe failed: {} ({streak})",
                kind.name(),
                output.trim_end()
            ),
            failures,
            threshold,
        }
    }

    pub(super) fn errored(kind: ProbeKind, why: &str) -> Self {
        Self::Errored {
            message: format!(
                "{} probe errored and resulted in unknown state: {why}",
                kind.name()
            ),
        }
    }

    pub(super) fn warning(kind: ProbeKind, output: &str) -> Self {
        Self::ProbeWarning {
            message: format!("{} probe warning: {output}", kind.name()),
        }
    }

    /// The reason of the event that this is in Kubernetes, if it is one.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Unhealthy { .. } | Self::Errored { .. } => Some("Unhealthy"),
            Self::ProbeWarning { .. } => Some("ProbeWarning"),
            Self::BecameReady | Self::BecameUnready | Self::LivenessFailed { .. } => None,
        }
    }

    /// The message of that event.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Unhealthy { message, .. }
            | Self::Errored { message }
            | Self::ProbeWarning { message } => Some(message),
            Self::BecameReady | Self::BecameUnready | Self::LivenessFailed { .. } => None,
        }
    }
}
