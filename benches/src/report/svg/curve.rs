// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Medians over an axis, each with a whisker up to its 99th percentile.

use super::axis::{Axis, number};
use super::{Anchor, Canvas, Chart, LEFT, RIGHT, WIDTH};
use crate::report::role;
use crate::result::{Measured, Series};

const TITLE: f64 = 18.0;
const LEGEND: f64 = 16.0;
const PLOT: f64 = 200.0;
const BELOW: f64 = 40.0;
/// Width of a character of the legend, about.
const CHARACTER: f64 = 6.6;

/// `None` unless a series has at least two points.
pub(super) fn chart(
    name: &str,
    title: &str,
    measured: &Measured,
    series: &[&Series],
) -> Option<Chart> {
    let curves = curves(series);
    if curves.iter().all(|curve| curve.len() < 2) {
        return None;
    }
    let mut canvas = Canvas::default();
    canvas.text([8.0, 14.0], Anchor::Start, "title", title);
    let top = TITLE + legend(&mut canvas, &curves) + 10.0;
    let bottom = top + PLOT;
    let points = || curves.iter().flatten();
    let across = Axis::new(points().filter_map(|one| one.x), LEFT, WIDTH - RIGHT);
    let up = Axis::new(points().flat_map(|one| [one.p50, one.p99]), bottom, top);
    for tick in up.ticks() {
        let y = up.place(tick);
        canvas.line([LEFT, y], [WIDTH - RIGHT, y], "grid");
        canvas.text([LEFT - 6.0, y + 4.0], Anchor::End, "", &number(tick));
    }
    for tick in across.ticks() {
        let x = across.place(tick);
        canvas.line([x, bottom], [x, bottom + 4.0], "grid");
        canvas.text([x, bottom + 16.0], Anchor::Middle, "", &number(tick));
    }
    let axis = measured.axis.as_deref().unwrap_or_default();
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    canvas.text([middle, bottom + 32.0], Anchor::Middle, "", axis);
    canvas.text(
        [WIDTH - RIGHT, top - 5.0],
        Anchor::End,
        "",
        &format!("{}: p50, whisker to p99", measured.unit),
    );
    for curve in &curves {
        draw(&mut canvas, curve, &across, &up);
    }
    Some(Chart {
        name: name.to_owned(),
        height: bottom + BELOW,
        title: title.to_owned(),
        body: canvas.0,
    })
}

/// Points with the same name, by their place on the axis; the floor first, to lie lowest.
fn curves<'a>(series: &[&'a Series]) -> Vec<Vec<&'a Series>> {
    let mut curves: Vec<Vec<&Series>> = vec![];
    for one in series.iter().filter(|one| one.x.is_some()) {
        match curves
            .iter_mut()
            .find(|curve| curve.iter().any(|other| other.name == one.name))
        {
            Some(curve) => curve.push(one),
            None => curves.push(vec![one]),
        }
    }
    curves.sort_by_key(|curve| std::cmp::Reverse(curve.first().map(|one| one.role)));
    curves
}

/// Names with their marks, in as many lines as they need; its height.
fn legend(canvas: &mut Canvas, curves: &[Vec<&Series>]) -> f64 {
    let (mut x, mut y) = (8.0, TITLE + LEGEND - 4.0);
    for one in curves.iter().rev().filter_map(|curve| curve.first()) {
        let width = 30.0 + one.name.chars().count() as f64 * CHARACTER;
        if x + width > WIDTH && x > 8.0 {
            (x, y) = (8.0, y + LEGEND);
        }
        canvas.mark([x + 5.0, y - 4.0], one.role);
        canvas.text([x + 14.0, y], Anchor::Start, "name", &one.name);
        x += width;
    }
    y - TITLE + 14.0
}

fn draw(canvas: &mut Canvas, curve: &[&Series], across: &Axis, up: &Axis) {
    let places = |pick: fn(&Series) -> f64| -> Vec<[f64; 2]> {
        let place = |one: &&Series| Some([across.place(one.x?), up.place(pick(one))]);
        curve.iter().filter_map(place).collect()
    };
    let (medians, tails) = (places(|one| one.p50), places(|one| one.p99));
    let Some(of) = curve.first().map(|one| one.role) else {
        return;
    };
    let class = role(of);
    for (median, tail) in medians.iter().zip(&tails) {
        canvas.line(*median, *tail, &format!("whisker {class}"));
    }
    canvas.polyline(&medians, &format!("line {class}"));
    for median in medians {
        canvas.mark(median, of);
    }
}
