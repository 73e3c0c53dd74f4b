// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A row for each contender: its histogram, or a bar.

use super::axis::{Axis, number};
use super::{Anchor, Canvas, Chart, RIGHT, WIDTH};
use crate::report::{figure, role};
use crate::result::{Measured, Series};

const TITLE: f64 = 24.0;
const NAME: f64 = 16.0;
const ROW: f64 = 34.0;
/// Between a row's name and its highest bar.
const AIR: f64 = 5.0;
const GAP: f64 = 8.0;
const BELOW: f64 = 38.0;
const LEFT: f64 = 12.0;
const BAR: f64 = 12.0;

/// Samples of each contender over one logarithmic axis; `None` if nobody has a histogram.
pub(super) fn histograms(
    name: &str,
    title: &str,
    measured: &Measured,
    series: &[&Series],
) -> Option<Chart> {
    let drawn: Vec<&&Series> = series
        .iter()
        .filter(|one| !one.histogram.is_empty())
        .collect();
    let bins = || {
        drawn
            .iter()
            .flat_map(|one| &one.histogram)
            .filter(|bin| bin.count > 0)
    };
    let low = bins().map(|bin| bin.low).reduce(f64::min)?;
    let high = bins().map(|bin| bin.high).reduce(f64::max)?;
    let across = Axis::logarithmic(low, high, LEFT, WIDTH - RIGHT);
    let mut canvas = Canvas::default();
    let at = drawn.iter().find_map(|one| one.x);
    canvas.text([8.0, 14.0], Anchor::Start, "title", title);
    let mut y = TITLE;
    if let (Some(x), Some(axis)) = (at, &measured.axis) {
        let words = format!("{axis}: {}", figure(x));
        canvas.text([8.0, y + 6.0], Anchor::Start, "", &words);
        y += NAME;
    }
    for one in &drawn {
        let class = role(one.role);
        canvas.mark([LEFT + 5.0, y + NAME - 8.0], one.role);
        canvas.text(
            [LEFT + 14.0, y + NAME - 4.0],
            Anchor::Start,
            "name",
            &one.name,
        );
        let words = format!("p50 {}, p99 {}", figure(one.p50), figure(one.p99));
        canvas.text([WIDTH - RIGHT, y + NAME - 4.0], Anchor::End, "", &words);
        let bottom = y + NAME + ROW;
        let most = one.histogram.iter().map(|bin| bin.count).max().unwrap_or(1);
        for bin in one.histogram.iter().filter(|bin| bin.count > 0) {
            let (from, to) = (across.place(bin.low), across.place(bin.high));
            // A single sample is still seen.
            let height = (bin.count as f64 / most as f64 * (ROW - AIR)).max(1.5);
            let size = [(to - from - 0.5).max(1.0), height];
            canvas.rect([from, bottom - height], size, &format!("bar {class}"));
        }
        canvas.line([LEFT, bottom], [WIDTH - RIGHT, bottom], "grid");
        let median = across.place(one.p50);
        canvas.line(
            [median, bottom - ROW + AIR],
            [median, bottom + 3.0],
            "median",
        );
        y = bottom + GAP;
    }
    for tick in across.ticks() {
        let x = across.place(tick);
        canvas.line([x, y - GAP], [x, y - GAP + 4.0], "grid");
        canvas.text([x, y + 8.0], Anchor::Middle, "", &number(tick));
    }
    canvas.text([WIDTH / 2.0, y + 24.0], Anchor::Middle, "", &measured.unit);
    let name = at.map_or_else(|| name.to_owned(), |_| format!("{name}-histogram"));
    Some(Chart {
        name,
        height: y + BELOW,
        title: title.to_owned(),
        body: canvas.0,
    })
}

/// Single figures; `None` if there are none beside histograms and curves.
pub(super) fn bars(
    name: &str,
    title: &str,
    measured: &Measured,
    series: &[&Series],
) -> Option<Chart> {
    let alone = |one: &&&Series| one.x.is_none() && one.histogram.is_empty();
    let drawn: Vec<&&Series> = series.iter().filter(alone).collect();
    if drawn.is_empty() {
        return None;
    }
    let mut canvas = Canvas::default();
    let heading = format!("{title} ({})", measured.unit);
    canvas.text([8.0, 14.0], Anchor::Start, "title", &heading);
    let most = drawn.iter().map(|one| one.p50).fold(0.0, f64::max);
    let room = WIDTH - RIGHT - LEFT;
    let mut y = TITLE;
    for one in &drawn {
        canvas.text([LEFT, y + NAME - 4.0], Anchor::Start, "name", &one.name);
        canvas.text(
            [WIDTH - RIGHT, y + NAME - 4.0],
            Anchor::End,
            "",
            &figure(one.p50),
        );
        let width = if most > 0.0 {
            one.p50.max(0.0) / most * room
        } else {
            0.0
        };
        let class = format!("bar {}", role(one.role));
        canvas.rect([LEFT, y + NAME], [width.max(1.0), BAR], &class);
        y += NAME + BAR + GAP;
    }
    Some(Chart {
        name: name.to_owned(),
        height: y + 6.0,
        title: heading,
        body: canvas.0,
    })
}
