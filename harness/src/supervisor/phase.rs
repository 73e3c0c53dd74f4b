// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! KubeVirt's phases of an instance, as far as one host has them.

/// Where an instance is in its life.
///
/// *Scheduling* is left out: it is the search for a node, and there is but one. So are
/// *WaitingForSync* (a migration's receiver) and *Unknown* (a node that is not heard of).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no VM process yet.
    Pending,
    /// Its VM process exists and builds the machine.
    Scheduled,
    /// The vCPUs have run.
    Running,
    /// The guest powered itself off.
    Succeeded,
    /// Somebody or something else ended it.
    Failed,
}

impl Phase {
    /// The word in documents and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Succeeded or Failed.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}
