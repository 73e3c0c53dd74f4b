// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The documents of KubeVirt's tutorials, with the numbers that they teach.

use std::time::Duration;

use super::super::{Handler, Kind, Network, NoteKind, Probe, RunStrategy};
use super::{fixture, note};

/// Initial delay, timeout, period, success and failure threshold, in KubeVirt's units.
fn numbers(probe: &Probe) -> [u64; 5] {
    [
        probe.initial_delay.as_secs(),
        probe.timeout.as_secs(),
        probe.period.as_secs(),
        probe.success_threshold.into(),
        probe.failure_threshold.into(),
    ]
}

/// The handler with its port, if it has one, and the numbers.
fn told(probe: Option<&Probe>) -> Option<(&'static str, u16, [u64; 5])> {
    let probe = probe?;
    let port = match &probe.handler {
        Handler::HttpGet(get) => {
            assert_eq!((get.path.as_str(), get.https), ("/", false));
            assert_eq!((&get.host, get.headers.len()), (&None, 0));
            get.port
        }
        Handler::TcpSocket(socket) => {
            assert_eq!(socket.host, None);
            socket.port
        }
        Handler::Exec { .. } | Handler::GuestAgentPing => 0,
    };
    Some((probe.handler.name(), port, numbers(probe)))
}

#[test]
fn the_tutorials_probes() {
    let alive = [120, 10, 20, 1, 3];
    let ready = [120, 10, 20, 5, 5];
    let http_ready = Some(("httpGet", 8081, ready));
    let table = [
        (
            "fedora-http-liveness.yaml",
            Some(("httpGet", 1500, alive)),
            None,
        ),
        (
            "fedora-tcp-liveness.yaml",
            Some(("tcpSocket", 1500, alive)),
            None,
        ),
        (
            "fedora-http-readiness.yaml",
            None,
            Some(("httpGet", 1500, [120, 10, 20, 3, 3])),
        ),
        (
            "lab-http-liveness.yaml",
            Some(("httpGet", 8081, alive)),
            None,
        ),
        (
            "lab-http-both.yaml",
            Some(("httpGet", 8081, alive)),
            http_ready,
        ),
        (
            "lab-tcp-liveness.yaml",
            Some(("tcpSocket", 8081, alive)),
            http_ready,
        ),
        (
            "lab-ping-liveness.yaml",
            Some(("guestAgentPing", 0, alive)),
            http_ready,
        ),
        (
            "lab-exec.yaml",
            Some(("exec", 0, alive)),
            Some(("exec", 0, [120, 5, 10, 5, 5])),
        ),
        ("lab-watchdog.yaml", None, None),
        ("replica-set.yaml", Some(("guestAgentPing", 0, alive)), None),
    ];
    for (name, liveness, readiness) in table {
        let vmi = fixture(name).vmi;
        assert_eq!(told(vmi.liveness.as_ref()), liveness, "{name}");
        assert_eq!(told(vmi.readiness.as_ref()), readiness, "{name}");
    }
}

#[test]
fn the_tutorials_machines() {
    for name in ["http-liveness", "tcp-liveness", "http-readiness"] {
        let document = fixture(&format!("fedora-{name}.yaml"));
        assert_eq!(document.kind, Kind::VirtualMachineInstance);
        let vmi = &document.vmi;
        assert_eq!(vmi.object(), "default/vmi-fedora");
        assert_eq!(
            vmi.labels.get("special").map(String::as_str),
            Some("vmi-fedora")
        );
        assert_eq!(vmi.memory_bytes, 1_024_000_000);
        assert_eq!(vmi.termination_grace, Duration::ZERO);
        assert!(
            note(&document, NoteKind::NotAttached)
                .is_some_and(|note| note.contains("spec.volumes"))
        );
    }
    let halted = Kind::VirtualMachine {
        run_strategy: RunStrategy::Halted,
    };
    for name in [
        "http-liveness",
        "http-both",
        "tcp-liveness",
        "ping-liveness",
        "exec",
    ] {
        let document = fixture(&format!("lab-{name}.yaml"));
        assert_eq!(document.kind, halted);
        let label = document.vmi.labels.get("kubevirt.io/domain");
        assert_eq!(label.map(String::as_str), Some("lab08-probe"));
        assert_eq!(document.vmi.termination_grace, Duration::from_secs(30));
    }
    assert_eq!(
        fixture("replica-set.yaml").kind,
        Kind::VirtualMachineInstanceReplicaSet { replicas: 3 }
    );
}

/// The pod network is attached where a tutorial says so, and where it says nothing.
#[test]
fn the_tutorials_have_a_network() {
    for name in ["lab-http-both", "lab-watchdog", "fedora-tcp-liveness"] {
        let document = fixture(&format!("{name}.yaml"));
        assert_eq!(document.vmi.network, Some(Network::default()), "{name}");
        let not_attached = note(&document, NoteKind::NotAttached).unwrap_or_default();
        assert!(!not_attached.contains("network"), "{not_attached}");
        assert!(!not_attached.contains("interface"), "{not_attached}");
    }
}
