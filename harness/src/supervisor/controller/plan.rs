// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the controller takes from a document.

use std::time::Duration;

use super::policy::{self, Then};
use crate::spec::{Document, Handler, Kind, Probe};
use crate::supervisor::phase::Phase;

/// How a document is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// KubeVirt's own numbers: [`Probe::compat`].
    pub compat: bool,
    /// `httpGet` and `tcpSocket` can be asked. Where they cannot, such a probe is as if it were
    /// not in the document, which admission has noted: never Ready would be a lie, too.
    pub network: bool,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// The document's name; instances of a replica set have names of their own.
    pub(super) name: String,
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) grace: Duration,
}

impl Plan {
    pub(super) fn of(document: &Document, options: Options) -> Self {
        let run = |probe: &Option<Probe>| {
            let probe = probe.as_ref()?;
            let network = matches!(probe.handler, Handler::HttpGet(_) | Handler::TcpSocket(_));
            let probe = (options.network || !network).then(|| probe.clone())?;
            Some(if options.compat {
                probe.compat()
            } else {
                probe
            })
        };
        Self {
            kind: document.kind,
            name: document.vmi.name.clone(),
            liveness: run(&document.vmi.liveness),
            readiness: run(&document.vmi.readiness),
            grace: document.vmi.termination_grace,
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
