// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run as one page: light and dark, wide and narrow, nothing fetched from anywhere.

use std::fmt::Write;

use super::svg::{self, escaped};
use super::{figure, label, text};
use crate::result::{Measured, Outcome, Report};

const STYLE: &str = "
:root{color-scheme:light dark;--paper:#f6f8fa;--card:#fff;--text:#1c2430;--soft:#5b6675;--edge:#d9dee5;--met:#0d6b3c;--metb:#dcf3e6;--missed:#a3231d;--missedb:#fbe3e1;--unclear:#7a5200;--unclearb:#fbefd0;--absent:#4b5563;--absentb:#e6e9ee}
@media(prefers-color-scheme:dark){:root{--paper:#0d1117;--card:#12171e;--text:#e8ecf1;--soft:#a3adba;--edge:#2c3541;--met:#7fe0ac;--metb:#123524;--missed:#ff9d96;--missedb:#41191a;--unclear:#f3cb72;--unclearb:#3a2c0c;--absent:#b6bfca;--absentb:#27303b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--text);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}h2{font-size:19px;line-height:1.3;margin:0 0 4px}
p{margin:0 0 12px;color:var(--soft);max-width:80ch}
section{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:16px;margin:16px 0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:6px 20px;margin:0}
.facts div{min-width:0}.facts dt{font-size:12px;color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
.counts{display:flex;flex-wrap:wrap;gap:8px;margin:14px 0 0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:16px;margin:8px 0 14px}
.charts svg{width:100%;height:auto;max-width:640px}
.badge{display:inline-block;border-radius:999px;padding:1px 10px;font-size:13px;font-weight:600;white-space:nowrap}
.met{color:var(--met);background:var(--metb)}.missed{color:var(--missed);background:var(--missedb)}
.unclear{color:var(--unclear);background:var(--unclearb)}.absent{color:var(--absent);background:var(--absentb)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;font-size:12px;font-weight:600;color:var(--soft)}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--edge);vertical-align:baseline}
.figures td+td,.figures th+th{text-align:right;white-space:nowrap}
.wide{overflow-x:auto}
ul{margin:10px 0 0;padding-left:20px;color:var(--soft)}
details{margin-top:10px}summary{cursor:pointer;color:var(--soft)}
a{color:inherit}
@media(max-width:640px){
main{padding:16px 10px 48px}section{padding:12px}
.verdicts thead{display:none}.verdicts tr{display:grid;grid-template-columns:1fr auto;gap:0 10px;border-bottom:1px solid var(--edge);padding:7px 0}
.verdicts td{border:0;padding:0}.verdicts .what{grid-column:1/-1}.verdicts .target{grid-column:1;color:var(--soft)}
.verdicts .value{grid-column:1}.verdicts .word{grid-column:2;grid-row:2/4;align-self:center}
.verdicts .target::before{content:'target '}}
";

const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Met, "✓"),
    (Outcome::Missed, "✗"),
    (Outcome::Unclear, "?"),
    (Outcome::Absent, "–"),
];

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Kennel, measured</title><style>{STYLE}{}</style></head><body><main>\n",
        svg::STYLE
    );
    head(&mut page, report);
    for metric in &report.metrics {
        section(&mut page, metric);
    }
    page.push_str("</main></body></html>\n");
    page
}

fn badge(outcome: Outcome, words: &str) -> String {
    let sign = OUTCOMES
        .iter()
        .find(|(one, _)| *one == outcome)
        .map_or("", |(_, sign)| sign);
    let word = outcome.word();
    format!("<span class=\"badge {word}\">{sign} {words}</span>")
}

fn head(page: &mut String, report: &Report) {
    page.push_str("<h1>Kennel, measured</h1>\n<p>");
    page.push_str(
        "Each metric beside the smallest program that does only the kernel's part (the floor) and, \
         where it has one, beside QEMU, in turns within one run. What counts is the ratio and the \
         interval that it lies in (95 %): a target is met or missed if the whole interval does.",
    );
    page.push_str("</p>\n<section><dl class=\"facts\">");
    for (name, value) in report.host.facts() {
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            escaped(&value)
        );
    }
    let kind = match (report.quick, report.interrupted) {
        (_, true) => "ended early",
        (true, false) => "quick: few repetitions",
        (false, false) => "full",
    };
    let _ = write!(
        page,
        "<div><dt>Run</dt><dd>{kind}</dd></div></dl><div class=\"counts\">"
    );
    let all = || report.metrics.iter().flat_map(|metric| &metric.verdicts);
    for (outcome, _) in OUTCOMES {
        let count = all().filter(|verdict| verdict.outcome == outcome).count();
        if count > 0 {
            page.push_str(&badge(outcome, &format!("{count} {}", outcome.word())));
        }
    }
    page.push_str("</div></section>\n");
}

fn section(page: &mut String, metric: &Measured) {
    let _ = write!(
        page,
        "<section id=\"{0}\"><h2>{0}: {1}</h2><p>{2}</p>",
        escaped(&metric.id),
        escaped(&metric.title),
        escaped(&metric.definition)
    );
    let charts = svg::charts(metric);
    if !charts.is_empty() {
        page.push_str("<div class=\"charts\">");
        for chart in charts {
            page.push_str(&chart.inline());
        }
        page.push_str("</div>");
    }
    verdicts(page, metric);
    if !metric.notes.is_empty() {
        page.push_str("<ul>");
        for note in &metric.notes {
            let _ = write!(page, "<li>{}</li>", escaped(note));
        }
        page.push_str("</ul>");
    }
    figures(page, metric);
    page.push_str("</section>\n");
}

fn verdicts(page: &mut String, metric: &Measured) {
    if metric.verdicts.is_empty() {
        return;
    }
    page.push_str(
        "<table class=\"verdicts\"><thead><tr><th>what</th><th>measured [95 %]</th><th>target</th>\
         <th>verdict</th></tr></thead><tbody>",
    );
    for verdict in &metric.verdicts {
        let _ = write!(
            page,
            "<tr><td class=\"what\">{}</td><td class=\"value\">{}</td><td class=\"target\">{}</td>\
             <td class=\"word\">{}</td></tr>",
            escaped(&verdict.what),
            escaped(&text::value(verdict)),
            escaped(&verdict.target.to_string()),
            badge(verdict.outcome, verdict.outcome.word())
        );
    }
    page.push_str("</tbody></table>");
}

fn figures(page: &mut String, metric: &Measured) {
    if metric.series.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<details><summary>Figures ({}), {:.0} s, {} blocks, {:.0} % noisy</summary>\
         <div class=\"wide\"><table class=\"figures\"><thead><tr><th>series</th>",
        escaped(&metric.unit),
        metric.seconds,
        metric.blocks.len(),
        metric.noisy_share() * 100.0
    );
    for name in ["min", "p50", "p90", "p99", "max", "n"] {
        let _ = write!(page, "<th>{name}</th>");
    }
    page.push_str("</tr></thead><tbody>");
    for series in &metric.series {
        let _ = write!(page, "<tr><td>{}</td>", escaped(&label(series)));
        for number in [series.min, series.p50, series.p90, series.p99, series.max] {
            let _ = write!(page, "<td>{}</td>", figure(number));
        }
        let _ = write!(page, "<td>{}</td></tr>", series.count);
    }
    page.push_str("</tbody></table></div></details>");
}
