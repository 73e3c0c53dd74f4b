// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Replica sets: how many, of what, and which are theirs.

use super::super::{HostLimits, Kind, MAX_REPLICAS, NoteKind};
use super::{accept, note, refuse};

const SET: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceReplicaSet
metadata:
  name: set
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web, tier: front}
    spec:
      domain:
        memory: {guest: 64Mi}
";

fn with(from: &str, to: &str) -> String {
    assert_eq!(SET.matches(from).count(), 1, "{from}");
    SET.replace(from, to)
}

fn replicas(text: &str) -> u32 {
    match accept(text).kind {
        Kind::VirtualMachineInstanceReplicaSet { replicas } => replicas,
        kind => unreachable!("{kind:?}"),
    }
}

#[test]
fn sets_are_counted() {
    assert_eq!(replicas(SET), 2);
    assert_eq!(accept(SET).vmi.labels.len(), 2);
    assert_eq!(replicas(&with("  replicas: 2\n", "")), 1);
    assert_eq!(replicas(&with("replicas: 2", "replicas:")), 1);
    assert_eq!(replicas(&with("replicas: 2", "replicas: 64")), MAX_REPLICAS);
    let none = accept(&with("replicas: 2", "replicas: 0"));
    assert_eq!(
        none.kind,
        Kind::VirtualMachineInstanceReplicaSet { replicas: 0 }
    );
    assert_eq!(
        note(&none, NoteKind::Doubtful).as_deref(),
        Some("0 replicas: no instance runs: spec.replicas (line 6)")
    );
    let at = "vm.yaml:6: spec.replicas:";
    for (value, expected) in [
        (
            "65",
            "\"65\" is no number of replicas; allowed: 0 to 64; \
             each is a machine with memory of its own, all on this host",
        ),
        (
            "-1",
            "\"-1\" is no number of replicas; allowed: 0 to 64; write 0 for none",
        ),
        (
            "\"2\"",
            "must be a whole number, is the text \"2\"; write 2 without quotes",
        ),
        ("1.5", "must be a whole number, is the number 1.5"),
    ] {
        let text = with("replicas: 2", &format!("replicas: {value}"));
        assert_eq!(refuse(&text), [format!("{at} {expected}")]);
    }
}

#[test]
fn a_set_needs_all_its_memory() {
    let document = accept(SET);
    let host = |mebibytes: u64| HostLimits {
        available_bytes: mebibytes << 20,
        max_vcpus: 1,
    };
    assert_eq!(document.check_host(&host(128)), Ok(()));
    let problems = document.check_host(&host(127)).expect_err("too little");
    assert_eq!(
        problems.to_string(),
        "vm.yaml:14: spec.template.spec.domain.memory.guest: 128 MiB of memory for 2 replicas are more than \
         this host has available; allowed: up to 127 MiB; ask for less, or free some"
    );
}

#[test]
fn a_paused_set_is_run_and_that_is_said() {
    let paused = accept(&with("  replicas: 2\n", "  replicas: 2\n  paused: true\n"));
    let said = note(&paused, NoteKind::StartedAnyway).unwrap_or_default();
    assert!(said.ends_with("spec.paused (line 7)"), "{said}");
    let running = accept(&with("  replicas: 2\n", "  replicas: 2\n  paused: false\n"));
    assert_eq!(note(&running, NoteKind::StartedAnyway), None);
}

#[test]
fn selectors_select_their_template() {
    let expression = |text: &str| {
        with(
            "    matchLabels: {app: web}\n",
            &format!("    matchExpressions:\n    - {text}\n"),
        )
    };
    for good in [
        "{key: app, operator: In, values: [a, web]}",
        "{key: app, operator: NotIn, values: [a]}",
        "{key: other, operator: NotIn, values: [a]}",
        "{key: tier, operator: Exists}",
        "{key: other, operator: DoesNotExist, values: []}",
    ] {
        assert_eq!(replicas(&expression(good)), 2, "{good}");
    }
    for (bad, expected) in [
        (
            "{key: app, operator: In, values: [a]}",
            "\"app\" In does not hold",
        ),
        (
            "{key: app, operator: NotIn, values: [web]}",
            "\"app\" NotIn does not hold",
        ),
        (
            "{key: other, operator: Exists}",
            "\"other\" Exists does not hold",
        ),
        (
            "{key: app, operator: DoesNotExist}",
            "\"app\" DoesNotExist does not hold",
        ),
        ("{key: app, operator: In}", "operator In needs values"),
        (
            "{key: app, operator: Exists, values: [a]}",
            "operator Exists takes no values",
        ),
        (
            "{key: app, operator: Is}",
            "unknown operator \"Is\"; allowed: In, NotIn, Exists, DoesNotExist",
        ),
        ("{operator: Exists}", "matchExpressions[0].key: missing"),
    ] {
        let lines = refuse(&expression(bad));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("vm.yaml:9: spec.selector.matchExpressions[0]"),
            "{lines:?}"
        );
        assert!(lines[0].contains(expected), "{lines:?}");
    }
    assert_eq!(
        replicas(&with(
            "    matchLabels: {app: web}\n",
            "    matchLabels: {}\n"
        )),
        2
    );
    let bare = with("    matchLabels: {app: web}\n", "    matchLabels: {}\n")
        .replace("labels: {app: web, tier: front}", "labels: {}");
    assert_eq!(
        refuse(&bare),
        [
            "vm.yaml:7: spec.selector: the template has no labels, and KubeVirt starts no such set; \
             write matchLabels: {app: NAME}, and app: NAME in template.metadata.labels"
        ]
    );
    for (from, to, expected) in [
        (
            "{app: web}",
            "{app: db}",
            "vm.yaml:8: spec.selector.matchLabels.app: the set would not know its own instances: it selects \
             \"app\" = \"db\", and its template has \"web\" there; write app: db in spec.template.metadata.labels too",
        ),
        (
            "{app: web}",
            "{example.com/role: db}",
            "vm.yaml:8: spec.selector.matchLabels[example.com/role]: the set would not know its own instances: it \
             selects \"example.com/role\" = \"db\", and its template has no such label; \
             write example.com/role: db in spec.template.metadata.labels too",
        ),
        (
            "  selector:\n    matchLabels: {app: web}\n",
            "",
            "vm.yaml:5: spec.selector: missing; write selector with matchLabels, and those labels in template.metadata",
        ),
        (
            "  selector:\n    matchLabels",
            "  selector:\n    matchLabel",
            "vm.yaml:8: spec.selector.matchLabel: unknown key \"matchLabel\" in LabelSelector; \
             did you mean \"matchLabels\"?",
        ),
    ] {
        assert_eq!(refuse(&with(from, to)), [expected]);
    }
}
