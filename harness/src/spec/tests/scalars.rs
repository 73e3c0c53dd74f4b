// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scalars mean what kubectl makes of them: `scalars.tsv` has its answers.

use std::time::Duration;

use super::super::node::{self, Content, Node};
use super::super::scalar::Scalar;
use super::super::{Handler, NoteKind};
use super::{INSTANCE, accept, refuse, with};

/// What the table says of each scalar: kind, as written, the JSON.
fn table() -> impl Iterator<Item = [&'static str; 3]> {
    include_str!("scalars.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            columns.try_into().expect("three columns")
        })
}

fn json(value: &Node) -> Option<serde_json::Value> {
    let Content::Scalar { text, value } = &value.content else {
        unreachable!("a scalar")
    };
    Some(match value {
        Scalar::Null => serde_json::Value::Null,
        Scalar::Flag(flag) => (*flag).into(),
        Scalar::Integer(number) => match i64::try_from(*number) {
            Ok(number) => number.into(),
            // kubectl gives what is beyond 64 bits as a floating-point number.
            Err(_) => number.to_string().parse::<f64>().expect("a number").into(),
        },
        Scalar::Fraction(number) => (*number).into(),
        Scalar::Text => text.clone().into(),
        Scalar::Unfit => return None,
    })
}

/// Numbers are compared as numbers: 9223372036854775808 and 9.223372036854776e18 are one.
fn same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    one == other || (one.is_number() && one.as_f64() == other.as_f64())
}

#[test]
fn a_scalar_means_what_kubectl_makes_of_it() {
    let mut seen = 0;
    for [_, written, expected] in table().filter(|[kind, ..]| *kind == "value") {
        let document = node::read(&format!("v: {written}\n")).expect(written);
        let Content::Mapping(entries) = &document.content else {
            unreachable!("a mapping")
        };
        let read = json(&entries[0].value);
        let expected = (expected != "refused").then(|| serde_json::from_str(expected));
        let expected: Option<serde_json::Value> = expected.map(|json| json.expect(written));
        let fits = match (&read, &expected) {
            (Some(read), Some(expected)) => same(read, expected),
            (read, expected) => read == expected,
        };
        assert!(
            fits,
            "{written}: read as {read:?}, by kubectl as {expected:?}"
        );
        seen += 1;
    }
    assert!(seen > 150, "{seen} scalars");
}

/// A key is taken if kubectl leaves it as it is, else refused.
#[test]
fn a_key_is_what_kubectl_makes_of_it() {
    for [_, written, expected] in table().filter(|[kind, ..]| *kind == "key") {
        let labels = format!("name: small\n  labels:\n    {written}: x");
        let text = with("name: small", &labels);
        let bare = written.trim_matches(['"', '\'']);
        if expected == format!("\"{bare}\"") && bare != ".inf" {
            let document = accept(&text);
            assert_eq!(document.vmi.labels.get(bare).map(String::as_str), Some("x"));
        } else {
            let lines = refuse(&text);
            assert!(
                lines[0].contains("write it in quotes"),
                "{written}: {lines:?}"
            );
        }
    }
}

const NUMBERS: &str = "  livenessProbe:
    tcpSocket: {port: 0120}
    initialDelaySeconds: 010
    periodSeconds: 1e1
    timeoutSeconds: 0x10
    failureThreshold: 1_0
";

#[test]
fn numbers_reach_every_field_as_the_cluster_has_them() {
    let text = format!("{}{NUMBERS}", INSTANCE.replace("128Mi", "01000000000"));
    let text = text.replace(
        "    devices:\n",
        "    cpu: {cores: 02, sockets: 0b11}\n    devices:\n",
    );
    let document = accept(&text);
    let vmi = &document.vmi;
    assert_eq!((vmi.vcpus, vmi.memory_bytes), (6, 134_217_728));
    let probe = vmi.liveness.as_ref().expect("a probe");
    let Handler::TcpSocket(socket) = &probe.handler else {
        unreachable!("{probe:?}")
    };
    assert_eq!(socket.port, 80);
    assert_eq!(probe.initial_delay, Duration::from_secs(8));
    assert_eq!(probe.period, Duration::from_secs(10));
    assert_eq!(probe.timeout, Duration::from_secs(16));
    assert_eq!(probe.failure_threshold, 10);
    let notes: Vec<_> = document.notes.iter().map(ToString::to_string).collect();
    for note in [
        "0120 is read as 80, as a cluster reads it: spec.livenessProbe.tcpSocket.port (line 21)",
        "010 is read as 8, as a cluster reads it: spec.livenessProbe.initialDelaySeconds (line 22)",
        "01000000000 is read as 134217728, as a cluster reads it: spec.domain.resources.requests.memory (line 13)",
    ] {
        assert!(notes.iter().any(|line| line == note), "{note}: {notes:#?}");
    }
    // What means the same either way is not noted: 02 and 1e1.
    assert!(
        !notes
            .iter()
            .any(|line| line.starts_with("02 ") || line.starts_with("1e1 "))
    );
    let rendered = document.rendered_probes()[0].to_string();
    assert!(rendered.contains("initialDelaySeconds 18,"), "{rendered}");
}

#[test]
fn a_scalar_of_another_type_is_told_what_to_write() {
    let probe = |line: &str| {
        format!("{INSTANCE}  readinessProbe:\n    exec: {{command: [a]}}\n    {line}\n")
    };
    for (text, says) in [
        (
            with("name: small", "name: 010"),
            "must be a string, is the number 010; write it in quotes: \"010\"",
        ),
        (
            with("name: small", "name: y"),
            "must be a string, is the boolean y; write it in quotes: \"y\"",
        ),
        (
            with("name: small", "name: 1_0"),
            "must be a string, is the number 1_0",
        ),
        (
            probe("periodSeconds: \"010\""),
            "is the text \"010\"; write 10 without quotes",
        ),
        (
            probe("periodSeconds: 1.5"),
            "must be a whole number, is the number 1.5",
        ),
        (
            probe("periodSeconds: 1:30"),
            "must be a whole number, is the text \"1:30\"",
        ),
        (
            probe("periodSeconds: 0o8"),
            "must be a whole number, is the text \"0o8\"",
        ),
        (
            probe("periodSeconds: .inf"),
            ".inf is no number for Kubernetes",
        ),
        (
            probe("periodSeconds: !!int yes"),
            "\"yes\" does not fit its tag",
        ),
        (with("128Mi", "1_000Mi"), "unknown unit \"_000Mi\""),
        (
            with("128Mi", "yes"),
            "must be a quantity such as 512Mi, is the boolean yes",
        ),
        (with("128Mi", "0o7"), "memory \"7\" is 7 bytes"),
        (
            format!("{INSTANCE}  tolerations: [{{a: .nan}}]\n"),
            "spec.tolerations[0].a: .nan is no number",
        ),
    ] {
        let lines = refuse(&text);
        assert!(
            lines.iter().any(|line| line.contains(says)),
            "{says}: {lines:#?}"
        );
    }
    let machine = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: a}\nspec:\n  running: \"off\"\n";
    let lines = refuse(machine);
    assert!(
        lines
            .iter()
            .any(|line| line.ends_with("write false without quotes")),
        "{lines:?}"
    );
}

/// As in KubeVirt, where a 0 is the absence of the number.
#[test]
fn no_cores_are_as_none_given() {
    let cpus = |cpu: &str| {
        accept(&with(
            "    devices:\n",
            &format!("    cpu: {cpu}\n    devices:\n"),
        ))
    };
    for (cpu, vcpus) in [
        ("{cores: 0}", 1),
        ("{cores: 0, sockets: 2, threads: 0}", 2),
        ("{cores: 3, threads: 0}", 3),
    ] {
        let document = cpus(cpu);
        assert_eq!(document.vmi.vcpus, vcpus, "{cpu}");
        let note = super::note(&document, NoteKind::Defaulted);
        assert!(
            note.is_some_and(|note| note.starts_with("0 counts as not given")),
            "{cpu}"
        );
    }
    let text = with("memory: 128Mi", "memory: 128Mi\n        cpu: 2");
    let text = text.replace(
        "    devices:\n",
        "    cpu: {cores: 0, sockets: 0}\n    devices:\n",
    );
    assert_eq!(accept(&text).vmi.vcpus, 2);
}
