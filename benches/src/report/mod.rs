// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run as people read it: text, a page, charts, and tables.

pub(crate) mod compare;
pub(crate) mod html;
pub(crate) mod results;
pub(crate) mod svg;
pub(crate) mod text;

use crate::result::{Measured, Role, Series};

/// A figure with three digits that say something.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if size >= 1e7 {
        return format!("{value:.2e}");
    }
    let decimals = match size {
        size if size >= 100.0 || size.fract().abs() < 1e-9 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// The word for a role.
pub(crate) const fn role(role: Role) -> &'static str {
    match role {
        Role::Kennel => "kennel",
        Role::Qemu => "qemu",
        Role::Other => "other",
        Role::Floor => "floor",
    }
}

/// The modes of a metric, in the order in which they were measured.
pub(crate) fn modes(measured: &Measured) -> Vec<String> {
    let mut modes: Vec<String> = vec![];
    for series in &measured.series {
        if !modes.contains(&series.mode) {
            modes.push(series.mode.clone());
        }
    }
    modes
}

/// What a series is called in tables.
pub(crate) fn label(series: &Series) -> String {
    let mode = if series.mode.is_empty() {
        String::new()
    } else {
        format!(", {}", series.mode)
    };
    let x = series
        .x
        .map_or_else(String::new, |x| format!(" @ {}", figure(x)));
    format!("{}{mode}{x}", series.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_or_so() {
        let cases = [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (0.5, "0.500"),
            (2.345_6, "2.35"),
            (27.46, "27.5"),
            (1_000.0, "1000"),
            (25_829.4, "25829"),
            (-2.5, "-2.50"),
        ];
        for (value, expected) in cases {
            assert_eq!(figure(value), expected);
        }
    }
}
