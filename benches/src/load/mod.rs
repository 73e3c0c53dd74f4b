// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Probes by the thousand against one guest.

pub(crate) mod accounts;
pub(crate) mod engine;
pub(crate) mod floor;
pub(crate) mod guest;
pub(crate) mod hogs;
pub(crate) mod model;
pub(crate) mod run;
mod stack;

use std::time::Duration;

use kennel::probe::worker::Timing;
use kennel::spec::{self, Handler};

pub(crate) use stack::{Health, SILENT_PORT, TCP_PORT};

use crate::Trouble;

/// How the metrics of probes are measured.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// P6: this many HTTP probes and as many TCP probes [default: 50, then 1000]
    #[arg(long, value_name = "N")]
    pub(crate) probes: Option<u32>,
    /// P6 and R1: how long [default: 120 and 600]
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<u64>,
    /// P6: threads beside that compute without end; R1: processes [default: 2 and 24]
    #[arg(long, value_name = "H")]
    pub(crate) hogs: Option<usize>,
    /// Of the metrics of probes: whom they ask
    #[arg(long, value_enum, default_value_t)]
    pub(crate) guest: guest::Choice,
}

/// Once a second, as the kubelet's own stress test has it, and every failure counts.
pub(crate) const EVERY_SECOND: Timing = Timing {
    initial_delay: Duration::ZERO,
    timeout: Duration::from_secs(1),
    period: Duration::from_secs(1),
    success_threshold: 1,
    failure_threshold: 1,
};

/// A directory that can hold sockets, also where the temporary one cannot.
pub(crate) fn directory() -> Result<tempfile::TempDir, Trouble> {
    let made = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(place) => tempfile::tempdir_in(place),
        None => tempfile::tempdir(),
    };
    made.map_err(|error| Trouble::new(format!("no directory for sockets: {error}")))
}

/// `httpGet` or `tcpSocket` of this port, as a document has it.
pub(crate) fn handler(kind: &str, port: u16) -> Result<Handler, Trouble> {
    let document = format!(
        "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a}}, spec: \
         {{readinessProbe: {{{kind}: {{port: {port}}}}}, domain: {{devices: {{}}, resources: \
         {{requests: {{memory: 64M}}}}}}}}}}"
    );
    let document = spec::parse(&document, "a probe").map_err(Trouble::new)?;
    let probe = document.vmi.readiness.ok_or("a document without its probe");
    Ok(probe.map_err(Trouble::new)?.handler)
}
