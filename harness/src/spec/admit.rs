// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The document as a whole: kind and version, and how a VirtualMachine wraps an instance.

use std::path::Path;
use std::time::Duration;

use super::annotations::Annotations;
use super::keys::{API_VERSIONS, Object, VIRTUAL_MACHINE, VIRTUAL_MACHINE_INSTANCE};
use super::problem::{Fault, NoteKind, quoted};
use super::vmi::{Kind, Places, RunStrategy, Vmi};
use super::walk::{self, Cursor};
use super::{boot, devices, domain, metadata, nearest, watchdog};

const REPLICA_SET: &str = "VirtualMachineInstanceReplicaSet";
const KINDS: [&str; 2] = ["VirtualMachineInstance", "VirtualMachine"];
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
    if std::ptr::eq(kind, &raw const VIRTUAL_MACHINE) {
        return Some(virtual_machine(at, spec.as_ref(), folder));
    }
    let annotations = Annotations::new([at.get("metadata")]);
    let (vmi, places) = instance(
        at,
        at.get("metadata").as_ref(),
        spec.as_ref(),
        &annotations,
        folder,
    );
    Some(Admitted {
        kind: Kind::VirtualMachineInstance,
        vmi,
        places,
    })
}

fn virtual_machine(at: &Cursor<'_>, spec: Option<&Cursor<'_>>, folder: &Path) -> Admitted {
    let run_strategy = spec.map_or(RunStrategy::Always, run_strategy);
    let template = spec
        .and_then(|spec| spec.require("template", "a VirtualMachine describes its instance there"));
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
    Admitted {
        kind: Kind::VirtualMachine { run_strategy },
        vmi,
        places,
    }
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
    let Some(text) = kind.text() else {
        kind.refuse(Fault::new("the kind must be a word").allowed(KINDS.join(", ")));
        return None;
    };
    let near = match text {
        REPLICA_SET => {
            let fault = Fault::new(format!("kind {REPLICA_SET} is not supported yet"))
                .allowed(KINDS.join(", "));
            kind.refuse(fault.hint("make its template a VirtualMachineInstance"));
            return None;
        }
        _ if KINDS.contains(&text) => text,
        _ => {
            kind.refuse(Fault::unknown("kind", text, KINDS.into_iter()));
            nearest::among(text, KINDS.into_iter())?
        }
    };
    Some(if near == KINDS[0] {
        &VIRTUAL_MACHINE_INSTANCE
    } else {
        &VIRTUAL_MACHINE
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
    annotations.refuse_unknown();
    annotations.note_without_effect(watchdog.is_some(), &boot.kernel_boot.source);
    let vmi = Vmi {
        name: identity.name,
        namespace: identity.namespace,
        labels: metadata::strings(meta, "labels"),
        annotations: annotations.all(meta),
        memory_bytes: memory.value,
        vcpus: vcpus.value,
        watchdog,
        liveness: None,
        readiness: None,
        kernel_boot: boot.kernel_boot,
        termination_grace: spec.map_or(Duration::from_secs(DEFAULT_GRACE), termination_grace),
        guest_script: annotations.guest_script(),
        pretimeout: annotations.pretimeout(),
        shutdown_grace: annotations.shutdown_grace(),
        after_bite: annotations.after_bite(),
    };
    let places = Places {
        memory: memory.place,
        vcpus: vcpus.place,
        image: boot.image,
        kernel: boot.kernel,
        initrd: boot.initrd,
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
