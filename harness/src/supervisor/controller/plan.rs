// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the controller takes from a document.

use std::time::Duration;

use super::policy::{self, Then};
use crate::probe::ProbeKind;
use crate::probe::suppression::parse_bool;
use crate::spec::{Document, Kind, Probe};
use crate::supervisor::phase::Phase;

/// How a document is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// KubeVirt's own numbers: [`Probe::compat`].
    pub compat: bool,
}

impl Options {
    /// The document's probe as it is run; none if it has none.
    #[must_use]
    pub fn probe(&self, document: &Document, kind: ProbeKind) -> Option<Probe> {
        let probe = match kind {
            ProbeKind::Liveness => &document.vmi.liveness,
            ProbeKind::Readiness => &document.vmi.readiness,
        };
        let probe = probe.clone()?;
        Some(if self.compat { probe.compat() } else { probe })
    }
}

/// KubeVirt's annotation that lets every `guestAgentPing` succeed without asking.
const PAUSE_AGENT_PROBES: &str = "kubevirt.io/pause-guest-agent-probes";

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// The document's name; instances of a replica set have names of their own.
    pub(super) name: String,
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) grace: Duration,
    /// `startStrategy: Paused`.
    pub(super) starts_paused: bool,
    /// [`PAUSE_AGENT_PROBES`] is true.
    pub(super) agent_probes_paused: bool,
}

impl Plan {
    pub(super) fn of(document: &Document, options: Options) -> Self {
        let pause = document.vmi.annotations.get(PAUSE_AGENT_PROBES);
        Self {
            kind: document.kind,
            name: document.vmi.name.clone(),
            liveness: options.probe(document, ProbeKind::Liveness),
            readiness: options.probe(document, ProbeKind::Readiness),
            grace: document.vmi.termination_grace,
            starts_paused: document.vmi.start_strategy_paused,
            agent_probes_paused: pause.is_some_and(|value| parse_bool(value)),
        }
    }

    /// One instance, and nothing asked of it.
    pub(super) fn single(name: &str) -> Self {
        Self {
            kind: Kind::VirtualMachineInstance,
            name: name.to_owned(),
            liveness: None,
            readiness: None,
            grace: Duration::ZERO,
            starts_paused: false,
            agent_probes_paused: false,
        }
    }

    /// How many instances there are at a time.
    pub(super) fn replicas(&self) -> u32 {
        match self.kind {
            Kind::VirtualMachineInstanceReplicaSet { replicas } => replicas,
            _ => 1,
        }
    }

    /// The name of the instance with this number.
    pub(super) fn instance_name(&self, number: u64) -> String {
        match self.kind {
            Kind::VirtualMachineInstanceReplicaSet { .. } => {
                super::names::generated(&self.name, number)
            }
            _ => self.name.clone(),
        }
    }

    /// Whether an instance that has failed is replaced.
    pub(super) fn replaces_failed(&self) -> bool {
        policy::after(self.kind, Phase::Failed) == Then::Replace
    }
}
