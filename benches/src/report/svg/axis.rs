// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An axis: values to places, and where its numbers stand.

/// Values that span more than this are drawn by their logarithm.
const WIDE: f64 = 20.0;

/// From values to places.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// For `values`, drawn from the place `from` to the place `to`.
    pub(super) fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let logarithmic = low > 0.0 && high / low > WIDE;
        let (low, high) = if logarithmic {
            (low / 1.15, high * 1.15)
        } else {
            (0.0_f64.min(low), if high > 0.0 { high * 1.08 } else { 1.0 })
        };
        Self {
            low,
            high,
            logarithmic,
            from,
            to,
        }
    }

    /// Always by the logarithm, for values above zero.
    pub(super) fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = low.max(1e-6);
        Self {
            low,
            high: high.max(low * 1.5),
            logarithmic: true,
            from,
            to,
        }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// The numbers that are written along it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.high / self.low).log10();
            let steps: &[f64] = match decades {
                few if few < 1.2 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
                some if some < 2.5 => &[1.0, 2.0, 5.0],
                _ => &[1.0],
            };
            let first = self.low.log10().floor();
            let powers = (0..24).map(|power| 10_f64.powf(first + f64::from(power)));
            let all = powers.flat_map(|power| steps.iter().map(move |step| step * power));
            all.filter(|tick| (self.low..=self.high).contains(tick))
                .collect()
        } else {
            let rough = (self.high - self.low) / 4.0;
            let power = 10_f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 2.5, 5.0, 10.0]
                .into_iter()
                .map(|step| step * power)
                .find(|step| *step >= rough)
                .unwrap_or(rough);
            let all = (0..12).map(|index| self.low + f64::from(index) * step);
            all.filter(|tick| *tick <= self.high).collect()
        }
    }
}

/// A tick's number, short.
pub(super) fn number(value: f64) -> String {
    let shorten = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{text}{unit}")
    };
    match value.abs() {
        size if size >= 1e6 => shorten(value / 1e6, "M"),
        size if size >= 1e4 => shorten(value / 1e3, "k"),
        size if size > 0.0 && size < 0.01 => format!("{value:.0e}"),
        _ => shorten(value, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_values_are_drawn_by_their_logarithm() {
        let axis = Axis::new([0.1, 60.0].into_iter(), 0.0, 100.0);
        assert_eq!(axis.ticks(), [0.1, 1.0, 10.0]);
        let apart = axis.place(10.0) - axis.place(1.0);
        assert!((apart - (axis.place(1.0) - axis.place(0.1))).abs() < 1e-6);
        let narrow = Axis::new([10.0, 40.0].into_iter(), 100.0, 0.0);
        assert_eq!(narrow.ticks(), [0.0, 20.0, 40.0]);
        assert!((narrow.place(0.0) - 100.0).abs() < 1e-9);
        let nothing = Axis::new(std::iter::empty(), 0.0, 1.0);
        assert!(nothing.place(0.5).is_finite() && !nothing.ticks().is_empty());
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.5, 1500.0, 25_000.0, 2e6, 0.001].map(number);
        assert_eq!(all, ["0", "0.5", "1500", "25k", "2M", "1e-3"]);
    }
}
