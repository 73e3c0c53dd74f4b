// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Percentiles, and ratios of medians with the interval that they may lie in.

use serde::Serialize;

/// Resamplings for the interval of a ratio.
const RESAMPLINGS: usize = 10_000;

/// Percentiles of samples in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Percentiles {
    /// Of `samples`, in any order; all zero if there are none.
    pub(crate) fn of(samples: &[u64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        Self {
            p50: nearest_rank(&sorted, 50),
            p90: nearest_rank(&sorted, 90),
            p99: nearest_rank(&sorted, 99),
            max: sorted.last().copied().unwrap_or(0),
        }
    }
}

/// The smallest value that `percent` of all are not above.
fn nearest_rank<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    let rank = sorted.len().saturating_mul(percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A ratio, by the median of what blocks say, with a 95 % interval from resampling the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Ratio {
    /// Of the ratios that each block gave; `None` without blocks.
    pub(crate) fn of(blocks: &[f64]) -> Option<Self> {
        if blocks.is_empty() {
            return None;
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            // xorshift64: the same figures from the same samples.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let index = state % u64::try_from(blocks.len()).unwrap_or(1);
            let index = usize::try_from(index).unwrap_or(0);
            blocks.get(index).copied().unwrap_or_default()
        };
        let mut medians: Vec<f64> = (0..RESAMPLINGS)
            .map(|_| median((0..blocks.len()).map(|_| draw()).collect()))
            .collect();
        medians.sort_unstable_by(f64::total_cmp);
        let at = |per_mille: usize| {
            let index = medians.len().saturating_mul(per_mille) / 1000;
            medians.get(index).copied().unwrap_or_default()
        };
        Some(Self {
            median: median(blocks.to_vec()),
            low: at(25),
            high: at(975),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    nearest_rank(&values, 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<u64> = (1..=200).rev().collect();
        let expected = Percentiles {
            p50: 100,
            p90: 180,
            p99: 198,
            max: 200,
        };
        assert_eq!(Percentiles::of(&samples), expected);
        assert_eq!(Percentiles::of(&[]).p50, 0);
        assert_eq!(Percentiles::of(&[7]).p99, 7);
    }

    #[test]
    fn a_ratio_lies_in_its_interval() {
        let blocks: Vec<f64> = (0..21).map(|n| 0.8 + f64::from(n) / 100.0).collect();
        let ratio = Ratio::of(&blocks).expect("blocks");
        assert!((ratio.median - 0.9).abs() < 1e-9, "{ratio:?}");
        assert!(ratio.low < ratio.median && ratio.median < ratio.high);
        assert!(0.8 <= ratio.low && ratio.high <= 1.0, "{ratio:?}");
        assert_eq!(Ratio::of(&[]), None);
    }
}
