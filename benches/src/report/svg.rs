// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Charts as SVG: curves over an axis, histograms row by row, and bars. Colours are the page's.

mod axis;
mod curve;
mod rows;

use std::fmt::Write;

use super::{modes, role};
use crate::result::{Measured, Role};

const WIDTH: f64 = 440.0;
/// Room of an axis' numbers to the left, and of what may stick out to the right.
const LEFT: f64 = 54.0;
const RIGHT: f64 = 16.0;

/// Colours, for light and dark; in the page and in files alike.
pub(crate) const STYLE: &str = "
.chart{--ink:#1c2430;--dim:#5b6675;--grid:#d9dee5;--kennel:#0b6bb8;--qemu:#c2500a;--floor:#6a7480;--other:#7d4fa3}
@media(prefers-color-scheme:dark){.chart{--ink:#e8ecf1;--dim:#a3adba;--grid:#36404d;--kennel:#62b5f5;--qemu:#ff9d5c;--floor:#a7b0bb;--other:#c79df0}}
.chart text{font:11px system-ui,sans-serif;fill:var(--dim)}
.chart .title{font-size:12.5px;font-weight:600;fill:var(--ink)}
.chart .name{fill:var(--ink)}
.chart .grid{stroke:var(--grid);stroke-width:1}
.chart .kennel{--own:var(--kennel)}.chart .qemu{--own:var(--qemu)}.chart .floor{--own:var(--floor)}.chart .other{--own:var(--other)}
.chart .line{fill:none;stroke:var(--own);stroke-width:2}
.chart .floor .line,.chart .line.floor{stroke-dasharray:5 3}
.chart .whisker{stroke:var(--own);stroke-width:1.2;opacity:.6}
.chart .mark,.chart .bar{fill:var(--own)}
.chart .median{stroke:var(--ink);stroke-width:1.5}
";

/// A chart with a file's name.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) name: String,
    height: f64,
    title: String,
    body: String,
}

impl Chart {
    /// For a page that has [`STYLE`].
    pub(crate) fn inline(&self) -> String {
        format!(
            "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" \
             role=\"img\" aria-label=\"{}\">{}</svg>",
            self.height,
            escaped(&self.title),
            self.body
        )
    }

    /// A file of its own.
    pub(crate) fn standalone(&self) -> String {
        let background =
            ".chart{background:#fff}@media(prefers-color-scheme:dark){.chart{background:#12171e}}";
        self.inline()
            .replacen('>', &format!("><style>{STYLE}{background}</style>"), 1)
            + "\n"
    }
}

/// Everything that can be drawn of a metric.
pub(crate) fn charts(measured: &Measured) -> Vec<Chart> {
    let mut charts = vec![];
    for mode in modes(measured) {
        let of_mode: Vec<_> = measured
            .series
            .iter()
            .filter(|one| one.mode == mode)
            .collect();
        let mut title = format!("{} {}", measured.id, measured.title);
        let mut name = measured.id.to_lowercase();
        if !mode.is_empty() {
            title.push_str(&format!(", {mode}"));
            name.push_str(&format!("-{}", mode.replace([' ', ',', '/'], "-")));
        }
        charts.extend(curve::chart(&name, &title, measured, &of_mode));
        charts.extend(rows::histograms(&name, &title, measured, &of_mode));
        charts.extend(rows::bars(&name, &title, measured, &of_mode));
    }
    charts
}

/// Text that stands for itself in XML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// What is drawn so far.
#[derive(Debug, Default)]
struct Canvas(String);

/// Where a text ends up beside its point.
#[derive(Clone, Copy, Debug)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    fn text(&mut self, [x, y]: [f64; 2], anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        // Writing to a string cannot fail.
        let _ = write!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            escaped(text)
        );
    }

    fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], class: &str) {
        let _ = write!(
            self.0,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        );
    }

    fn rect(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], class: &str) {
        let _ = write!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        );
    }

    fn polyline(&mut self, points: &[[f64; 2]], class: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|[x, y]| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = write!(
            self.0,
            "<polyline points=\"{}\" class=\"{class}\"/>",
            points.join(" ")
        );
    }

    /// Each role has a shape of its own, not only a colour.
    fn mark(&mut self, [x, y]: [f64; 2], of: Role) {
        let shape = match of {
            Role::Kennel => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\""),
            Role::Qemu => format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"6.6\" height=\"6.6\"",
                x - 3.3,
                y - 3.3
            ),
            Role::Floor => format!("<path d=\"M{x:.1} {:.1}l4 7h-8z\"", y - 4.4),
            Role::Other => format!(
                "<path d=\"M{x:.1} {:.1}l4.4 4.4l-4.4 4.4l-4.4-4.4z\"",
                y - 4.4
            ),
        };
        let _ = write!(self.0, "{shape} class=\"mark {}\"/>", role(of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Series;

    fn measured(series: Vec<Series>) -> Measured {
        Measured {
            id: "X1".into(),
            title: "A <title>".into(),
            unit: "µs".into(),
            axis: Some("n".into()),
            series,
            ..Measured::default()
        }
    }

    #[test]
    fn series_over_an_axis_are_a_curve_and_others_rows() {
        let at = |x: f64| Series::figure("Kennel", Role::Kennel, 10.0 * x).at(x);
        let curves = charts(&measured(vec![at(1.0), at(100.0)]));
        assert_eq!(curves.len(), 1);
        let drawn = curves.first().map(Chart::standalone).unwrap_or_default();
        assert!(
            drawn.contains("<polyline") && drawn.contains("&lt;title&gt;"),
            "{drawn}"
        );
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");

        let bars = charts(&measured(vec![Series::figure("Kennel", Role::Kennel, 0.0)]));
        assert_eq!(bars.len(), 1);

        let samples: Vec<u64> = (1..1000).collect();
        let series = Series::of("QEMU", Role::Qemu, &samples, 1.0).expect("samples");
        let rows = charts(&measured(vec![series.with_histogram(&samples, 1.0)]));
        let drawn = rows.first().map(Chart::inline).unwrap_or_default();
        assert!(drawn.contains("class=\"bar qemu\"") && !drawn.contains("NaN"));
    }
}
