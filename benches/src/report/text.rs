// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A metric's figures on a terminal.

use std::fmt::Write;

use super::{figure, label};
use crate::result::{Measured, Verdict};

/// Several lines, without the last newline.
pub(crate) fn metric(measured: &Measured) -> String {
    let mut text = format!("{}: {} ({})\n", measured.id, measured.title, measured.unit);
    let labels: Vec<String> = measured.series.iter().map(label).collect();
    let width = labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0);
    let mut line = |label: &str, cells: [String; 5]| {
        let [p50, p90, p99, max, count] = cells;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {label:<width$} {p50:>9} {p90:>9} {p99:>9} {max:>9} {count:>7}"
        );
    };
    line("", ["p50", "p90", "p99", "max", "n"].map(str::to_owned));
    for (series, label) in measured.series.iter().zip(&labels) {
        let [p50, p90, p99, max] = [series.p50, series.p90, series.p99, series.max].map(figure);
        line(label, [p50, p90, p99, max, series.count.to_string()]);
    }
    for one in &measured.verdicts {
        let _ = writeln!(text, "  {}", verdict(one));
    }
    for note in &measured.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    text.trim_end().to_owned() + "\n"
}

fn verdict(one: &Verdict) -> String {
    let word = one.outcome.word().to_uppercase();
    format!(
        "{word:<8} {}: {} (target {})",
        one.what,
        value(one),
        one.target
    )
}

/// The value with its interval.
pub(crate) fn value(one: &Verdict) -> String {
    match (one.value, one.interval) {
        (Some(value), Some((low, high))) => {
            format!("{} [{} to {}]", figure(value), figure(low), figure(high))
        }
        (Some(value), None) => figure(value),
        (None, _) => "not measured".into(),
    }
}
