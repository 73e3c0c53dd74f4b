// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Probes: when one is attempted, what its outcome means, and how it asks the guest.

pub mod ask;
pub mod exec;
pub mod network;
pub mod ping;
pub mod runner;
pub mod suppression;
pub mod worker;

mod refusal;

/// Which of a machine's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Its failure ends the instance.
    Liveness,
    /// Its failure makes the instance NotReady.
    Readiness,
}

impl ProbeKind {
    /// The word in events, as the kubelet has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest is well.
    Success,
    /// It counts as success, and somebody should look: what the kubelet calls a warning.
    Warning(String),
    /// The guest is not well, and why.
    Failure(String),
    /// It could not be told, and why. Tried again at once, then discarded.
    Error(String),
}
