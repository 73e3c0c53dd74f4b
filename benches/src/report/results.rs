// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run as files for `docs/results`: figures and verdicts as CSV, charts as SVG.

use super::{role, svg};
use crate::result::Report;

/// Names and contents.
pub(crate) fn files(report: &Report) -> Vec<(String, String)> {
    let mut files = vec![
        ("figures.csv".to_owned(), figures(report)),
        ("verdicts.csv".to_owned(), verdicts(report)),
    ];
    for metric in &report.metrics {
        for chart in svg::charts(metric) {
            files.push((format!("{}.svg", chart.name), chart.standalone()));
        }
    }
    files
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn figures(report: &Report) -> String {
    let mut csv = "metric,unit,series,role,mode,x,n,min,p50,p90,p99,max\n".to_owned();
    for metric in &report.metrics {
        for one in &metric.series {
            let x = one.x.map_or_else(String::new, |x| x.to_string());
            let numbers = [one.min, one.p50, one.p90, one.p99, one.max]
                .map(|number| format!("{number:.6}"))
                .join(",");
            csv.push_str(&format!(
                "{},{},{},{},{},{x},{},{numbers}\n",
                metric.id,
                quoted(&metric.unit),
                quoted(&one.name),
                role(one.role),
                quoted(&one.mode),
                one.count,
            ));
        }
    }
    csv
}

fn verdicts(report: &Report) -> String {
    let mut csv = "metric,what,value,low,high,target,outcome\n".to_owned();
    for metric in &report.metrics {
        for one in &metric.verdicts {
            let number =
                |value: Option<f64>| value.map_or_else(String::new, |it| format!("{it:.6}"));
            csv.push_str(&format!(
                "{},{},{},{},{},{},{}\n",
                metric.id,
                quoted(&one.what),
                number(one.value),
                number(one.interval.map(|(low, _)| low)),
                number(one.interval.map(|(_, high)| high)),
                quoted(&one.target.to_string()),
                one.outcome.word(),
            ));
        }
    }
    csv
}
