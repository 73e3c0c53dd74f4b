// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two runs beside each other.

use std::fmt::Write;

use super::{figure, label};
use crate::result::{Measured, Report};

/// What changed, a metric a paragraph.
pub(crate) fn text(before: &Report, after: &Report) -> String {
    let mut text = String::new();
    for ((name, old), (_, new)) in before.host.facts().into_iter().zip(after.host.facts()) {
        if old != new {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name} differs: {old}; {new}");
        }
    }
    if !text.is_empty() {
        text.push_str("Only ratios of one run compare between machines.\n\n");
    }
    for old in &before.metrics {
        match after.metrics.iter().find(|new| new.id == old.id) {
            Some(new) => metric(&mut text, old, new),
            None => {
                let _ = writeln!(text, "{}: not in the later run\n", old.id);
            }
        }
    }
    for new in &after.metrics {
        if before.metrics.iter().all(|old| old.id != new.id) {
            let _ = writeln!(text, "{}: not in the earlier run\n", new.id);
        }
    }
    text
}

fn metric(text: &mut String, old: &Measured, new: &Measured) {
    let _ = writeln!(text, "{}: {} ({})", old.id, old.title, old.unit);
    for series in &old.series {
        let name = label(series);
        if let Some(later) = new.series.iter().find(|later| label(later) == name) {
            let change = (later.p50 / series.p50 - 1.0) * 100.0;
            let change = if change.is_finite() {
                format!("{change:+.1} %")
            } else {
                "-".into()
            };
            let (from, to) = (figure(series.p50), figure(later.p50));
            let _ = writeln!(text, "  {name}, p50: {from} -> {to} ({change})");
        }
    }
    for verdict in &old.verdicts {
        let same = |later: &&crate::result::Verdict| later.what == verdict.what;
        if let Some(later) = new.verdicts.iter().find(same) {
            let value = |value: Option<f64>| value.map_or_else(|| "-".into(), figure);
            let turned = if later.outcome == verdict.outcome {
                later.outcome.word().to_owned()
            } else {
                format!("{} -> {}", verdict.outcome.word(), later.outcome.word())
            };
            let (from, to) = (value(verdict.value), value(later.value));
            let _ = writeln!(text, "  {}: {from} -> {to}, {turned}", verdict.what);
        }
    }
    text.push('\n');
}
