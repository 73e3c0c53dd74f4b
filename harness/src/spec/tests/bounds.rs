// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Nothing that a document holds makes reading it panic, hang or grow without bound.

use proptest::prelude::*;

use super::super::{parse, problem};
use super::{INSTANCE, refuse};

fn lines_are_single(text: &str) {
    if let Err(problems) = parse(text, "vm.yaml") {
        assert!(problems.count() > 0);
        for line in problems.list().iter().map(ToString::to_string) {
            assert!(!line.contains(['\n', '\r']), "{line:?}");
        }
    }
}

#[test]
fn alias_bombs_and_deep_nests_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert!(
        refuse(&bomb)[0].contains("too large when its aliases are expanded"),
        "{:?}",
        refuse(&bomb)
    );

    let mut deep = "a0: &a0 [x]\n".to_owned();
    for level in 1..200 {
        deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(
        refuse(&deep)[0].contains("nested too deeply"),
        "{:?}",
        refuse(&deep)
    );

    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(5_000),
    ] {
        assert_eq!(refuse(&text).len(), 1);
    }
    assert!(
        refuse("a: &a [*a]\n")[0].contains("alias"),
        "{:?}",
        refuse("a: &a [*a]\n")
    );
}

#[test]
fn a_large_text_is_refused_and_many_problems_are_counted() {
    assert!(refuse(&"#".repeat(2 << 20))[0].contains("at most 1048576 bytes"));
    let many: String = (0..5_000).map(|n| format!("key{n}: 1\n")).collect();
    let problems = parse(&format!("{INSTANCE}{many}"), "vm.yaml").expect_err("unknown keys");
    assert_eq!(problems.count(), 5_000);
    assert!(problems.list().len() <= 100);
}

/// A change to a text: where, what to remove, what to put there.
fn edits() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    let words = prop::sample::select(vec![
        "",
        "\t",
        "\n",
        "  ",
        ":",
        "- ",
        "---\n",
        "&a ",
        "*a",
        "{",
        "}",
        "[",
        "]",
        "|",
        "\"",
        "'",
        "#",
        "~",
        "!!str ",
        "<<: ",
        "\u{0}",
        "\u{feff}",
        "\u{2028}",
        "ä",
        "0",
        "-1",
        "1e999",
        "99999999999999999999",
        "true",
        "watchdog",
        "spec:",
        "metadata:",
        "kennel/guest",
        "VirtualMachine",
        "VirtualMachineInstanceReplicaSet",
        "guestAgentPing: {}",
        "65536",
        "oci:",
        "../..",
    ]);
    prop::collection::vec(
        (0..1200_usize, 0..12_usize, words.prop_map(str::to_owned)),
        1..8,
    )
}

/// [`INSTANCE`] with something of everything that is read.
fn rich() -> String {
    format!(
        "{INSTANCE}      interfaces:\n      - name: default\n        masquerade: {{}}\n        ports:\n        \
         - name: web\n          port: 80\n  networks:\n  - name: default\n    pod: {{}}\n  livenessProbe:\n    \
         initialDelaySeconds: 120\n    timeoutSeconds: 10\n    exec:\n      command:\n      - cat\n      - /tmp/a\n  \
         readinessProbe:\n    periodSeconds: 20\n    successThreshold: 3\n    httpGet:\n      port: web\n      \
         path: /a\n      httpHeaders:\n      - name: Host\n        value: a\n"
    )
}

#[test]
fn the_rich_document_is_valid() {
    let document = parse(&rich(), "vm.yaml").expect("it is valid");
    assert!(document.vmi.liveness.is_some() && document.vmi.readiness.is_some());
    assert_eq!(rich().lines().count(), 43);
}

proptest! {
    #[test]
    fn changed_documents_never_panic(edits in edits()) {
        let mut chars: Vec<char> = rich().chars().collect();
        for (at, removed, text) in edits {
            let at = at.min(chars.len());
            let end = at.saturating_add(removed).min(chars.len());
            chars.splice(at..end, text.chars());
        }
        lines_are_single(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn changed_values_never_panic(line in 0..43_usize, value in "\\PC{0,24}") {
        let changed: String = rich().lines().enumerate().map(|(number, text)| {
            let (key, _) = text.split_once(':').unwrap_or((text, ""));
            if number == line { format!("{key}: {value}\n") } else { format!("{text}\n") }
        }).collect();
        lines_are_single(&changed);
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        lines_are_single(&text);
        prop_assert!(!problem::printable(&text).contains('\n'));
    }
}
