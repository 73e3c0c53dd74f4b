// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VirtualMachineInstanceReplicaSet has beside its template: how many, and which are its own.

use std::collections::BTreeMap;

use super::problem::{Fault, NoteKind, quoted};
use super::walk::Cursor;

/// Most instances of a set: each is a process with memory of its own.
pub const MAX_REPLICAS: u32 = 64;

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// `spec.replicas`; 1 if not given, as in KubeVirt.
pub(super) fn replicas(spec: &Cursor<'_>) -> u32 {
    const DEFAULT: u32 = 1;
    let Some((at, value)) = spec
        .get("replicas")
        .and_then(|at| Some((at.clone(), at.integer()?)))
    else {
        return DEFAULT;
    };
    match u32::try_from(value) {
        Ok(0) => {
            at.note(NoteKind::Doubtful, "0 replicas: no instance runs");
            0
        }
        Ok(count) if count <= MAX_REPLICAS => count,
        _ => {
            let shown = at.scalar().unwrap_or_default();
            let fault = Fault::new(format!("{} is no number of replicas", quoted(shown)));
            let fault = fault.allowed(format!("0 to {MAX_REPLICAS}"));
            at.refuse(if value < 0 {
                fault.hint("write 0 for none")
            } else {
                fault.hint("each is a machine with memory of its own, all on this host")
            });
            DEFAULT
        }
    }
}

/// `spec.paused`, which stops nothing here.
pub(super) fn note_paused(spec: &Cursor<'_>) {
    if let Some(at) = spec.get("paused").filter(|at| at.flag() == Some(true)) {
        at.note(
            NoteKind::StartedAnyway,
            "KubeVirt would start no instance of a paused set; they are started here",
        );
    }
}

/// Checks that the set's selector selects what its template makes.
pub(super) fn check_selector(spec: &Cursor<'_>, labels: &BTreeMap<String, String>) {
    const HINT: &str = "write selector with matchLabels, and those labels in template.metadata";
    let Some(selector) = spec.require("selector", HINT) else {
        return;
    };
    let wanted = selector.get("matchLabels");
    // Where labels are wanted, each one that is not there is told below.
    if labels.is_empty() && wanted.iter().flat_map(Cursor::named).next().is_none() {
        let fault = Fault::new("the template has no labels, and KubeVirt starts no such set");
        selector.refuse_whole(
            fault.hint("write matchLabels: {app: NAME}, and app: NAME in template.metadata.labels"),
        );
        return;
    }
    if let Some(wanted) = wanted {
        for (key, at) in wanted.named() {
            if let Some(value) = at.text() {
                check_label(&at, key, value, labels);
            }
        }
    }
    let expressions = selector.get("matchExpressions");
    for at in expressions.iter().flat_map(Cursor::items) {
        check_expression(&at, labels);
    }
}

fn check_label(at: &Cursor<'_>, key: &str, value: &str, labels: &BTreeMap<String, String>) {
    let has = match labels.get(key) {
        Some(label) if label == value => return,
        Some(label) => format!("has {} there", quoted(label)),
        None => "has no such label".to_owned(),
    };
    let fault = Fault::new(format!(
        "the set would not know its own instances: it selects {} = {}, and its template {has}",
        quoted(key),
        quoted(value)
    ));
    at.refuse(fault.hint(format!(
        "write {key}: {value} in spec.template.metadata.labels too"
    )));
}

fn check_expression(at: &Cursor<'_>, labels: &BTreeMap<String, String>) {
    let key = at.require("key", "write the label's name");
    let operator = at.require("operator", "write operator: In, with values");
    let (Some(key), Some(operator)) = (key, operator) else {
        return;
    };
    let (Some(key), Some(word)) = (key.text(), operator.text()) else {
        return;
    };
    if !OPERATORS.contains(&word) {
        operator.refuse(Fault::unknown("operator", word, OPERATORS.into_iter()));
        return;
    }
    let values = at.get("values");
    let values: Vec<_> = values
        .iter()
        .flat_map(Cursor::items)
        .filter_map(|at| at.text())
        .collect();
    let by_value = matches!(word, "In" | "NotIn");
    if by_value == values.is_empty() {
        let fault = Fault::new(format!(
            "operator {word} {}",
            if by_value {
                "needs values"
            } else {
                "takes no values"
            }
        ));
        at.refuse(fault.hint(if by_value {
            "write values: [...], or operator: Exists"
        } else {
            "remove values, or write operator: In"
        }));
        return;
    }
    let label = labels.get(key).map(String::as_str);
    let listed = label.is_some_and(|label| values.contains(&label));
    let matches = match word {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => label.is_some(),
        _ => label.is_none(),
    };
    if !matches {
        let fault = Fault::new(format!(
            "the set would not know its own instances: {} {word} does not hold for its template's labels",
            quoted(key)
        ));
        at.refuse(fault.hint("change spec.template.metadata.labels, or this expression"));
    }
}
