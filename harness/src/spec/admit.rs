// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The document as a whole: kind and version, and how a machine or set wraps an instance.

use std::path::Path;
use std::time::Duration;

use super::annotations::{Annotations, Has};
use super::keys::{API_VERSIONS, Object, REPLICA_SET, VIRTUAL_MACHINE, VIRTUAL_MACHINE_INSTANCE};
use super::ports::GuestNetwork;
use super::problem::{Fault, NoteKind, quoted};
use super::vmi::{Kind, Places, RunStrategy, Vmi};
use super::walk::{self, Cursor};
use super::{boot, devices, domain, metadata, nearest, probes, replicas, watchdog};

/// The tables of the kinds, in the order that messages list them.
static KINDS: [&Object; 3] = [&VIRTUAL_MACHINE_INSTANCE, &VIRTUAL_MACHINE, &REPLICA_SET];
/// KubeVirt's `DefaultGracePeriodSeconds`.
const DEFAULT_GRACE: u64 = 30;
/// A year; longer is a slip of the finger.
const LONGEST_GRACE: u64 = 365 * 24 * 3600;

/// What a document comes to. Complete even when problems were reported.
pub(super) struct Admitted {
    pub(super) kind: Kind,
    pub(super) vmi: Vmi,
    pub(super) places: Places,
}

/// Reads the document; none when its kind cannot be told, which is reported.
pub(super) fn admit(at: &Cursor<'_>, folder: &Path) -> Option<Admitted> {
    if !walk::check_mapping(at, "the document", None) {
        return None;
    }
    api_version(at);
    let kind = kind(at)?;
    walk::check(at, kind);
    let spec = at.require("spec", "a document needs a spec");
    let spec = spec.as_ref();
    Some(if kind.kind == VIRTUAL_MACHINE.kind {
        let run_strategy = spec.map_or(RunStrategy::Always, run_strategy);
        let kind = Kind::VirtualMachine { run_strategy };
        templated(at, spec, kind, folder)
    } else if kind.kind == REPLICA_SET.kind {
        replica_set(at, spec, folder)
    } else {
        single(at, spec, folder)
    })
}

fn single(at: &Cursor<'_>, spec: Option<&Cursor<'_>>, folder: &Path) -> Admitted {
    let annotations = Annotations::new([at.get("metadata")]);
    let (vmi, places) = instance(at, at.get("metadata").as_ref(), spec, &annotations, folder);
    Admitted {
        kind: Kind::VirtualMachineInstance,
        vmi,
        places,
    }
}

fn replica_set(at: &Cursor<'_>, spec: Option<&Cursor<'_>>, folder: &Path) -> Admitted {
    let replicas = spec.map_or(1, replicas::replicas);
    let kind = Kind::VirtualMachineInstanceReplicaSet { replicas };
    let admitted = templated(at, spec, kind, folder);
    if let Some(spec) = spec {
        replicas::note_paused(spec);
        replicas::check_selector(spec, &admitted.vmi.labels);
    }
    admitted
}

/// A machine or set, which describes its instances in a template.
fn templated(at: &Cursor<'_>, spec: Option<&Cursor<'_>>, kind: Kind, folder: &Path) -> Admitted {
    let hint = format!("a {} describes its instance there", kind.name());
    let template = spec.and_then(|spec| spec.require("template", &hint));
    let template_meta = template
        .as_ref()
        .and_then(|template| template.get("metadata"));
    let instance_spec = template
        .as_ref()
        .and_then(|template| template.require("spec", "the instance's own spec"));
    let annotations = Annotations::new([template_meta.clone(), at.get("metadata")]);
    let (vmi, places) = instance(
        at,
        template_meta.as_ref(),
        instance_spec.as_ref(),
        &annotations,
        folder,
    );
    if matches!(kind, Kind::VirtualMachineInstanceReplicaSet { replicas } if replicas > 1) {
        annotations.refuse_shared_tap();
    }
    Admitted { kind, vmi, places }
}

fn api_version(at: &Cursor<'_>) {
    let hint = format!("write apiVersion: {}", API_VERSIONS[0]);
    let Some(version) = at.require("apiVersion", &hint) else {
        return;
    };
    if let Some(text) = version.text().filter(|text| !API_VERSIONS.contains(text)) {
        version.refuse(Fault::unknown("apiVersion", text, API_VERSIONS.into_iter()));
    }
}

/// The table of the document's kind. A misspelt kind is reported and read as the one meant.
fn kind(at: &Cursor<'_>) -> Option<&'static Object> {
    let kind = at.require("kind", "write kind: VirtualMachineInstance")?;
    let names = KINDS.iter().map(|table| table.kind);
    let Some(text) = kind.text() else {
        let list = names.collect::<Vec<_>>().join(", ");
        kind.refuse(Fault::new("the kind must be a word").allowed(list));
        return None;
    };
    let table = |name: &str| KINDS.into_iter().find(|table| table.kind == name);
    table(text).or_else(|| {
        kind.refuse(Fault::unknown("kind", text, names.clone()));
        table(nearest::among(text, names)?)
    })
}

fn run_strategy(spec: &Cursor<'_>) -> RunStrategy {
    const STARTED: &str = "KubeVirt would not start this machine by itself; it is started here";
    let (running, strategy) = (spec.get("running"), spec.get("runStrategy"));
    if let (Some(running), Some(_)) = (&running, &strategy) {
        let fault = Fault::new("running and runStrategy are mutually exclusive");
        running.refuse(fault.hint("remove running, which is deprecated"));
    }
    let (decides, strategy) = match (running, strategy) {
        (_, Some(at)) => {
            let strategy = at
                .text()
                .map_or(RunStrategy::Always, |text| strategy_named(&at, text));
            (at, strategy)
        }
        (Some(at), None) => {
            let strategy = if at.flag() == Some(false) {
                RunStrategy::Halted
            } else {
                RunStrategy::Always
            };
            (at, strategy)
        }
        (None, None) => {
            spec.missing(
                "runStrategy",
                "write runStrategy: Always, or Manual, or one of RerunOnFailure, Halted, Once",
            );
            return RunStrategy::Always;
        }
    };
    if matches!(strategy, RunStrategy::Halted | RunStrategy::Manual) {
        decides.note(NoteKind::StartedAnyway, STARTED);
    }
    strategy
}

fn strategy_named(at: &Cursor<'_>, text: &str) -> RunStrategy {
    let known = RunStrategy::ALL.into_iter();
    if let Some(strategy) = known.clone().find(|strategy| strategy.name() == text) {
        return strategy;
    }
    if text == "WaitAsReceiver" {
        let fault = Fault::new(
            "runStrategy \"WaitAsReceiver\" needs a migration to receive, which one host has not",
        );
        at.refuse(fault.allowed(RunStrategy::ALL.map(RunStrategy::name).join(", ")));
    } else {
        at.refuse(Fault::unknown(
            "runStrategy",
            text,
            known.map(RunStrategy::name),
        ));
    }
    RunStrategy::Always
}

/// The instance: identity from the document, labels from `meta`, the rest from its spec.
fn instance(
    at: &Cursor<'_>,
    meta: Option<&Cursor<'_>>,
    spec: Option<&Cursor<'_>>,
    annotations: &Annotations<'_>,
    folder: &Path,
) -> (Vmi, Places) {
    let identity = metadata::identity(at);
    let domain = spec
        .and_then(|spec| spec.require("domain", "it describes the machine: memory, cpu, devices"));
    let memory = domain::memory(domain.as_ref(), at);
    let vcpus = domain::vcpus(domain.as_ref(), at);
    let boot = boot::kernel_boot(domain.as_ref(), at, folder);
    let watchdog = domain.as_ref().and_then(watchdog::watchdog);
    if let Some(spec) = spec {
        devices::check_names(spec);
    }
    let source = &boot.kernel_boot.source;
    let network = spec.map(GuestNetwork::read);
    let probes = spec.zip(network.as_ref());
    let probes = probes.map(|(spec, network)| probes::probes(spec, network, source));
    let probes = probes.unwrap_or_default();
    let uplink = annotations.uplink();
    let network = network.and_then(|network| network.attach(uplink));
    let has = Has {
        watchdog: watchdog.is_some(),
        network: network.is_some(),
        network_probe: probes.need_network(),
    };
    annotations.refuse_unknown();
    annotations.note_without_effect(has, source);
    let vmi = Vmi {
        name: identity.name,
        namespace: identity.namespace,
        labels: metadata::strings(meta, "labels"),
        annotations: annotations.all(meta),
        memory_bytes: memory.value,
        vcpus: vcpus.value,
        watchdog,
        network,
        probe_ip_family: annotations.probe_ip_family(),
        liveness: probes.liveness,
        readiness: probes.readiness,
        start_strategy_paused: probes.start_paused,
        kernel_boot: boot.kernel_boot,
        termination_grace: spec.map_or(Duration::from_secs(DEFAULT_GRACE), termination_grace),
        guest_script: annotations.guest_script(),
        pretimeout: annotations.pretimeout(),
        pretimeout_lead: annotations.pretimeout_lead(),
        shutdown_grace: annotations.shutdown_grace(),
        after_bite: annotations.after_bite(),
    };
    let places = Places {
        memory: memory.place,
        vcpus: vcpus.place,
        args: boot.args,
        image: boot.image,
        kernel: boot.kernel,
        initrd: boot.initrd,
        liveness: probes.liveness_at,
        readiness: probes.readiness_at,
    };
    (vmi, places)
}

fn termination_grace(spec: &Cursor<'_>) -> Duration {
    let Some(at) = spec.get("terminationGracePeriodSeconds") else {
        return Duration::from_secs(DEFAULT_GRACE);
    };
    let seconds = at.count().unwrap_or(DEFAULT_GRACE);
    if seconds > LONGEST_GRACE {
        let text = at.scalar().unwrap_or_default();
        at.refuse(
            Fault::new(format!("{} seconds are too long", quoted(text)))
                .allowed(format!("0 to {LONGEST_GRACE}")),
        );
    }
    Duration::from_secs(seconds.min(LONGEST_GRACE))
}
