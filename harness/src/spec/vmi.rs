// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a document says, typed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kennel_vmm::config::{AfterBite, PretimeoutAction, WatchdogAction, WatchdogConfig};

use super::network::Network;
use super::probe::{IpFamily, Probe};
use super::problem::{Note, NoteKind, Place, printable};

/// A document that was accepted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Document {
    /// Its file, as the caller named it.
    pub file: String,
    /// Its kind.
    pub kind: Kind,
    /// The instance that it describes.
    pub vmi: Vmi,
    /// What is worth knowing about it.
    pub notes: Vec<Note>,
    pub(super) places: Places,
}

/// Where the values stand that are checked against the host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Places {
    pub(super) memory: Place,
    pub(super) vcpus: Place,
    pub(super) args: Place,
    pub(super) image: Place,
    pub(super) kernel: Place,
    pub(super) initrd: Place,
    /// Absent without the probe.
    pub(super) liveness: Option<Place>,
    pub(super) readiness: Option<Place>,
}

impl Document {
    /// What KubeVirt would make of each probe, a note each.
    #[must_use]
    pub fn rendered_probes(&self) -> Vec<Note> {
        let vmi = &self.vmi;
        let probes = [
            (&vmi.liveness, &self.places.liveness),
            (&vmi.readiness, &self.places.readiness),
        ];
        let placed = probes
            .into_iter()
            .filter_map(|(probe, place)| Some((probe.as_ref()?, place.as_ref()?)));
        placed
            .map(|(probe, place)| {
                let numbers = probe.clone().compat();
                let mut message = format!("KubeVirt would run it with {}", numbers.numbers());
                if let Some(argv) = probe.rendered_command(&vmi.namespace, &vmi.name) {
                    let argv: Vec<_> = argv.iter().map(|word| shell_word(word)).collect();
                    message.push_str(&format!(", as `{}`", argv.join(" ")));
                }
                Note {
                    kind: NoteKind::Rendered,
                    message,
                    places: vec![place.clone()],
                }
            })
            .collect()
    }
}

/// A word of a command as one would type it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        printable(&format!("'{}'", word.replace('\'', r"'\''")))
    }
}

/// What a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One instance.
    VirtualMachineInstance,
    /// A machine that has instances, one at a time.
    VirtualMachine {
        /// When it has one; `running: true` is Always, `running: false` is Halted.
        run_strategy: RunStrategy,
    },
    /// So many instances, each replaced when it has ended.
    VirtualMachineInstanceReplicaSet {
        /// How many.
        replicas: u32,
    },
}

impl Kind {
    /// KubeVirt's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtualMachineInstance => "VirtualMachineInstance",
            Self::VirtualMachine { .. } => "VirtualMachine",
            Self::VirtualMachineInstanceReplicaSet { .. } => "VirtualMachineInstanceReplicaSet",
        }
    }
}

/// When a VirtualMachine has an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunStrategy {
    /// At all times.
    Always,
    /// Until one succeeds.
    RerunOnFailure,
    /// When somebody starts it.
    Manual,
    /// Never.
    Halted,
    /// Once.
    Once,
}

impl RunStrategy {
    /// Every strategy, in the order that messages list them.
    pub const ALL: [Self; 5] = [
        Self::Always,
        Self::RerunOnFailure,
        Self::Manual,
        Self::Halted,
        Self::Once,
    ];

    /// KubeVirt's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::RerunOnFailure => "RerunOnFailure",
            Self::Manual => "Manual",
            Self::Halted => "Halted",
            Self::Once => "Once",
        }
    }
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vmi {
    /// `metadata.name`; for a VirtualMachine, that machine's.
    pub name: String,
    /// `metadata.namespace`, or `default`.
    pub namespace: String,
    /// The instance's labels.
    pub labels: BTreeMap<String, String>,
    /// The instance's annotations, a VirtualMachine's own `kennel/…` ones included.
    pub annotations: BTreeMap<String, String>,
    /// Guest RAM in bytes, a multiple of 4 KiB, at least [`super::MIN_MEMORY_BYTES`].
    pub memory_bytes: u64,
    /// 1 to [`super::MAX_VCPUS`].
    pub vcpus: u32,
    /// The watchdog, if the document has one.
    pub watchdog: Option<Watchdog>,
    /// The network, if the pod network is attached.
    pub network: Option<Network>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
    /// `kennel/probe-ip-family`: by which of its addresses `httpGet` and `tcpSocket` reach it.
    pub probe_ip_family: IpFamily,
    /// `startStrategy: Paused`: the instance begins with its vCPUs stopped.
    pub start_strategy_paused: bool,
    /// What boots.
    pub kernel_boot: KernelBoot,
    /// How long a graceful stop may take.
    pub termination_grace: Duration,
    /// `kennel/guest-script`: shell lines that the built guest image runs once it is up.
    pub guest_script: Option<String>,
    /// `kennel/pretimeout`: what happens a while before the watchdog bites.
    pub pretimeout: PretimeoutAction,
    /// `kennel/pretimeout-lead`: how long before.
    pub pretimeout_lead: Option<Duration>,
    /// `kennel/shutdown-grace`: how long action shutdown waits for the guest.
    pub shutdown_grace: Duration,
    /// `kennel/after-bite`: what the watchdog does after a bite that left the guest running.
    pub after_bite: AfterBite,
}

impl Vmi {
    /// The name in events: `namespace/name`.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The watchdog as the machine wants it, if the document has one.
    #[must_use]
    pub fn watchdog_config(&self) -> Option<WatchdogConfig> {
        self.watchdog.as_ref().map(|watchdog| WatchdogConfig {
            action: watchdog.action,
            pretimeout: self.pretimeout,
            pretimeout_lead: self.pretimeout_lead,
            after_bite: self.after_bite,
            shutdown_grace: self.shutdown_grace,
            ..WatchdogConfig::default()
        })
    }
}

/// `domain.devices.watchdog`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watchdog {
    /// Its name.
    pub name: String,
    /// What a bite does.
    pub action: WatchdogAction,
}

/// `domain.firmware.kernelBoot`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelBoot {
    /// Where kernel and initrd come from.
    pub source: KernelSource,
    /// `kernelArgs`.
    pub args: Option<String>,
}

/// Where kernel and initrd come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelSource {
    /// The built guest image, `kennel/guest`.
    #[default]
    Built,
    /// A directory on this host.
    Directory {
        /// The directory; a relative one is relative to the working directory, as the document's file is.
        path: PathBuf,
        /// `kernelPath` within it.
        kernel: PathBuf,
        /// `initrdPath` within it.
        initrd: Option<PathBuf>,
    },
}
