// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents that are taken, and what comes of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kennel_vmm::config::{AfterBite, PretimeoutAction, WatchdogAction};

use super::super::{
    IpFamily, KernelSource, Kind, Network, NoteKind, RunStrategy, UplinkWish, parse,
};
use super::{INSTANCE, accept, fixture, note, with};

#[test]
fn the_labs_watchdog_machine() {
    let document = fixture("lab-watchdog.yaml");
    assert_eq!(
        document.kind,
        Kind::VirtualMachine {
            run_strategy: RunStrategy::Halted
        }
    );
    let vmi = &document.vmi;
    assert_eq!(vmi.object(), "default/lab08-watchdog");
    assert_eq!(vmi.memory_bytes, 1_024_000_000);
    assert_eq!(vmi.vcpus, 1);
    assert_eq!(
        vmi.labels.get("kubevirt.io/domain").map(String::as_str),
        Some("lab08-watchdog")
    );
    assert_eq!(
        vmi.watchdog.as_ref().map(|w| (w.name.as_str(), w.action)),
        Some(("mywatchdog", WatchdogAction::Poweroff))
    );
    assert_eq!(vmi.kernel_boot.source, KernelSource::Built);
    assert_eq!(vmi.termination_grace, Duration::from_secs(30));
    assert_eq!(
        note(&document, NoteKind::NotAttached).as_deref(),
        Some(
            "not attached to the guest yet: spec.template.spec.domain.devices.disks (line 19), \
             spec.template.spec.volumes (line 40)"
        )
    );
    assert_eq!(
        note(&document, NoteKind::NoUseHere).as_deref(),
        Some("of no use on this host, ignored: spec.template.spec.tolerations (line 35)")
    );
    assert!(
        note(&document, NoteKind::StartedAnyway)
            .is_some_and(|note| note.ends_with("spec.running (line 7)"))
    );
    assert!(
        note(&document, NoteKind::Defaulted)
            .is_some_and(|note| note.contains("kennel/guest boots"))
    );
    assert_eq!(document.notes.len(), 4, "{:?}", document.notes);
}

#[test]
fn old_versions_and_volume_names_are_taken() {
    let document = accept(
        "apiVersion: kubevirt.io/v1alpha3\nkind: VirtualMachineInstance\nmetadata:\n  name: vmi-fedora\nspec:\n  \
         domain:\n    devices:\n      disks:\n      - disk:\n          bus: virtio\n        name: containerdisk\n    \
         resources:\n      requests:\n        memory: 1024M\n  livenessProbe:\n    initialDelaySeconds: 120\n    \
         httpGet:\n      port: 1500\n  readinessProbe:\n    guestAgentPing: {}\n  terminationGracePeriodSeconds: 0\n  \
         volumes:\n  - name: containerdisk\n    registryDisk:\n      image: registry:5000/fedora:devel\n",
    );
    assert_eq!(document.vmi.termination_grace, Duration::ZERO);
    assert_eq!(document.vmi.watchdog, None);
    assert_eq!(document.vmi.watchdog_config(), None);
    assert_eq!(document.vmi.network, Some(Network::default()));
    assert_eq!(document.vmi.probe_ip_family, IpFamily::Ipv4);
}

#[test]
fn the_example_validates() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/watchdog.yaml");
    let document = super::super::load_file(&path).expect("the example is valid");
    assert_eq!(
        document.vmi.watchdog_config().map(|w| w.action),
        Some(WatchdogAction::Poweroff)
    );
    let script = document
        .vmi
        .guest_script
        .as_deref()
        .expect("the example has a script");
    let lines: Vec<_> = script.lines().collect();
    let feeder = "busybox watchdog -F -t 2000ms -T 10000ms /dev/watchdog &";
    assert_eq!(lines, [feeder, "sleep 6", "kill -9 $!"]);
    assert!(document.notes.is_empty(), "{:?}", document.notes);
    document
        .check_files()
        .expect("the built image needs no files");
}

#[test]
fn every_action_and_kubevirts_defaults() {
    for action in WatchdogAction::ALL {
        let document = accept(&with("poweroff", action.name()));
        assert_eq!(
            document.vmi.watchdog.as_ref().map(|w| w.action),
            Some(action)
        );
        let own = matches!(
            action,
            WatchdogAction::Pause | WatchdogAction::InjectNmi | WatchdogAction::None
        );
        assert_eq!(
            note(&document, NoteKind::NotInKubeVirt).is_some(),
            own,
            "{action:?}"
        );
    }
    for text in [
        with("action: poweroff", "action: \"\""),
        with("action: poweroff", "action:"),
        with(
            "        i6300esb:\n          action: poweroff\n",
            "        i6300esb: {}\n",
        ),
    ] {
        assert_eq!(
            accept(&text).vmi.watchdog.map(|w| w.action),
            Some(WatchdogAction::Reset),
            "{text}"
        );
    }
    let document = accept(&with("        i6300esb:\n          action: poweroff\n", ""));
    assert_eq!(
        document.vmi.watchdog.as_ref().map(|w| w.action),
        Some(WatchdogAction::Reset)
    );
    assert!(
        note(&document, NoteKind::Defaulted)
            .is_some_and(|note| note.contains("i6300esb with action reset"))
    );
}

#[test]
fn memory_guest_decides_then_request_then_limit() {
    let base = "    resources:\n      requests:\n        memory: 128Mi\n";
    let table = [
        (base.to_owned(), 128 << 20),
        (format!("{base}    memory:\n      guest: 1Gi\n"), 1 << 30),
        (
            format!("{base}      limits:\n        memory: 1Gi\n"),
            128 << 20,
        ),
        (
            "    resources:\n      limits:\n        memory: 1Gi\n".to_owned(),
            1 << 30,
        ),
        (
            "    memory:\n      guest: 134217728\n".to_owned(),
            128 << 20,
        ),
        (
            "    memory:\n      guest: \"0.5Gi\"\n".to_owned(),
            512 << 20,
        ),
        ("    memory:\n      guest: 5e8\n".to_owned(), 500_002_816),
        ("    memory: {guest: 33554432}\n".to_owned(), 32 << 20),
    ];
    for (memory, bytes) in table {
        assert_eq!(
            accept(&with(base, &memory)).vmi.memory_bytes,
            bytes,
            "{memory}"
        );
    }
    let odd = accept(&with("128Mi", "134217729"));
    assert_eq!(odd.vmi.memory_bytes, 134_217_728 + 4096);
    assert!(note(&odd, NoteKind::Rounded).is_some_and(|note| note.contains("134221824 bytes")));
}

#[test]
fn vcpus_are_cores_times_sockets_times_threads_or_the_cpu_resource() {
    let table = [
        ("    cpu:\n      cores: 2\n", 2),
        (
            "    cpu:\n      cores: 2\n      sockets: 3\n      threads: 2\n",
            12,
        ),
        ("    cpu:\n      sockets: +4\n", 4),
        ("    cpu:\n      model: host-passthrough\n", 1),
        ("    cpu: {}\n", 1),
        ("    cpu:\n", 1),
    ];
    for (cpu, vcpus) in table {
        let text = with("    devices:\n", &format!("{cpu}    devices:\n"));
        assert_eq!(accept(&text).vmi.vcpus, vcpus, "{cpu}");
    }
    for (cpu, vcpus) in [("2", 2), ("\"3\"", 3), ("1500m", 2), ("500m", 1)] {
        let text = with(
            "memory: 128Mi\n",
            &format!("memory: 128Mi\n        cpu: {cpu}\n"),
        );
        assert_eq!(accept(&text).vmi.vcpus, vcpus, "{cpu}");
    }
}

#[test]
fn kennels_annotations() {
    let text = with(
        "  name: small\n",
        "  name: small\n  namespace: lab\n  annotations:\n    kennel/pretimeout: inject-nmi\n    \
         kennel/pretimeout-lead: 1.5s\n    \
         kennel/shutdown-grace: 1m30s\n    kennel/after-bite: disarm\n    kennel/uplink: passt\n    \
         kennel/guest-script: |\n      echo one\n      echo two\n    example.com/other: x\n",
    );
    let document = accept(&text);
    let vmi = &document.vmi;
    assert_eq!(vmi.object(), "lab/small");
    let config = vmi.watchdog_config().expect("there is a watchdog");
    assert_eq!(config.pretimeout, PretimeoutAction::InjectNmi);
    assert_eq!(config.pretimeout_lead, Some(Duration::from_millis(1_500)));
    assert_eq!(config.shutdown_grace, Duration::from_secs(90));
    assert_eq!(config.after_bite, AfterBite::Disarm);
    assert_eq!(vmi.guest_script.as_deref(), Some("echo one\necho two\n"));
    assert_eq!(vmi.annotations.len(), 7);
    let uplink = vmi.network.as_ref().map(|network| &network.uplink);
    assert_eq!(uplink, Some(&UplinkWish::Passt));
    assert_eq!(note(&document, NoteKind::NoEffect), None);
}

#[test]
fn a_lead_without_a_pretimeout_is_noted() {
    for (line, noted) in [
        ("kennel/pretimeout: none", true),
        ("other: x", true),
        ("kennel/pretimeout: event", false),
    ] {
        let annotations =
            format!("  name: small\n  annotations:\n    {line}\n    kennel/pretimeout-lead: 2s\n");
        let document = accept(&with("  name: small\n", &annotations));
        let note = note(&document, NoteKind::NoEffect);
        assert_eq!(note.is_some(), noted, "{line}: {note:?}");
    }
}

#[test]
fn a_templates_annotations_win_over_its_machines() {
    let machine = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: outer
  annotations:
    kennel/shutdown-grace: \"5\"
    kennel/after-bite: halt
    other: outer
spec:
  runStrategy: Once
  template:
    metadata:
      annotations:
        kennel/after-bite: disarm
    spec:
      domain:
        resources: {requests: {memory: 1Gi}}
";
    let document = accept(machine);
    assert_eq!(
        document.kind,
        Kind::VirtualMachine {
            run_strategy: RunStrategy::Once
        }
    );
    assert_eq!(document.vmi.shutdown_grace, Duration::from_secs(5));
    assert_eq!(document.vmi.after_bite, AfterBite::Disarm);
    assert!(!document.vmi.annotations.contains_key("other"));
    let without = document
        .notes
        .iter()
        .filter(|note| note.message == "no effect without a watchdog");
    assert_eq!(without.count(), 1);
}

#[test]
fn run_strategies() {
    let vm = |lines: &str| {
        let text = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: m}\nspec:\n"
            .to_owned();
        accept(&format!(
            "{text}{lines}\n  template: {{spec: {{domain: {{memory: {{guest: 1Gi}}}}}}}}\n"
        ))
    };
    for (line, expected, started_anyway) in [
        ("  running: true", RunStrategy::Always, false),
        ("  running: no", RunStrategy::Halted, true),
        ("  runStrategy: Always", RunStrategy::Always, false),
        (
            "  runStrategy: RerunOnFailure",
            RunStrategy::RerunOnFailure,
            false,
        ),
        ("  runStrategy: Manual", RunStrategy::Manual, true),
        ("  runStrategy: Halted", RunStrategy::Halted, true),
        ("  runStrategy: Once", RunStrategy::Once, false),
    ] {
        let document = vm(line);
        assert_eq!(
            document.kind,
            Kind::VirtualMachine {
                run_strategy: expected
            },
            "{line}"
        );
        assert_eq!(
            note(&document, NoteKind::StartedAnyway).is_some(),
            started_anyway,
            "{line}"
        );
    }
}

#[test]
fn directories_are_relative_to_the_document() {
    let container =
        "image: guests/debian\n          kernelPath: /boot/vmlinuz\n          initrdPath: /initrd";
    let text = with("image: kennel/guest", container)
        .replace("container:", "kernelArgs: quiet\n        container:");
    let document = parse(&text, "some/folder/vm.yaml").expect("valid");
    assert_eq!(document.vmi.kernel_boot.args.as_deref(), Some("quiet"));
    assert_eq!(
        document.vmi.kernel_boot.source,
        KernelSource::Directory {
            path: PathBuf::from("some/folder/guests/debian"),
            kernel: PathBuf::from("some/folder/guests/debian/boot/vmlinuz"),
            initrd: Some(PathBuf::from("some/folder/guests/debian/initrd")),
        }
    );
    let absolute = text.replace("guests/debian", "/srv/guest");
    let source = parse(&absolute, "vm.yaml")
        .expect("valid")
        .vmi
        .kernel_boot
        .source;
    assert!(
        matches!(source, KernelSource::Directory { path, .. } if path == Path::new("/srv/guest"))
    );
}

#[test]
fn aliases_json_and_empty_documents_around() {
    let aliased = with(
        "        memory: 128Mi\n",
        "        memory: &amount 128Mi\n      limits:\n        memory: *amount\n",
    );
    assert_eq!(accept(&aliased).vmi.memory_bytes, 128 << 20);
    assert_eq!(accept(&format!("---\n{INSTANCE}---\n")).vmi.name, "small");
    let json = r#"{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "j"},
        "spec": {"domain": {"memory": {"guest": "1Gi"}}}}"#;
    assert_eq!(accept(json).vmi.memory_bytes, 1 << 30);
}

#[test]
fn fields_without_use_are_named_in_one_note() {
    let text = format!(
        "{INSTANCE}    clock:\n      timezone: UTC\n    features: {{acpi: {{}}}}\n  hostname: a\n  evictionStrategy: None\n  \
         nodeSelector:\n    a: b\n  affinity: {{anything: [1, 2]}}\n  architecture:\nstatus: {{}}\n"
    );
    let document = accept(&text);
    assert_eq!(document.notes.len(), 1, "{:?}", document.notes);
    let paths: Vec<_> = document.notes[0]
        .places
        .iter()
        .map(|place| place.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "spec.domain.clock",
            "spec.domain.features",
            "spec.hostname",
            "spec.evictionStrategy",
            "spec.nodeSelector",
            "spec.affinity",
            "status"
        ]
    );
}
