// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Quantiles, and ratios with the interval that they may lie in.

use serde::{Deserialize, Serialize};

/// Resamplings for the interval of a ratio.
const RESAMPLINGS: usize = 10_000;
/// Samples that all resamplings of pooled blocks may look at.
const POOLED_WORK: usize = 40_000_000;
/// The same figures from the same samples.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The smallest sample that a share of `quantile` of all are not above; zero without samples.
pub(crate) fn quantile(samples: &[u64], quantile: f64) -> u64 {
    let mut samples = samples.to_vec();
    take_quantile(&mut samples, quantile)
}

fn take_quantile(samples: &mut [u64], quantile: f64) -> u64 {
    let index = nearest_rank(samples.len(), quantile);
    if samples.is_empty() {
        return 0;
    }
    *samples.select_nth_unstable(index).1
}

/// Index of the nearest rank among `count` sorted values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count is a count"
)]
fn nearest_rank(count: usize, quantile: f64) -> usize {
    let rank = (count as f64 * quantile).ceil() as usize;
    rank.clamp(1, count.max(1)) - 1
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let index = nearest_rank(values.len(), 0.5);
    values.get(index).copied().unwrap_or_default()
}

/// One contender's samples, block by block.
pub(crate) type Blocks = [Vec<u64>];

/// A ratio with a 95 % interval from resampling the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How many there were; the interval of fewer than [`ENOUGH`] is none.
    pub(crate) blocks: usize,
}

/// Of five blocks, the least and the greatest enclose the true median with a probability of 94 %.
pub(crate) const ENOUGH: usize = 5;

impl Ratio {
    /// The median of what each block says; `None` without blocks.
    pub(crate) fn of(blocks: &[f64]) -> Option<Self> {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let resampled = (0..RESAMPLINGS)
            .map(|_| {
                let drawn = (0..blocks.len()).filter_map(|_| rng.choice(blocks).copied());
                median(drawn.collect())
            })
            .collect();
        (!blocks.is_empty()).then(|| Self::within(blocks.len(), median(blocks.to_vec()), resampled))
    }

    /// Of both sides' quantiles, block by block.
    pub(crate) fn of_blocks(ours: &Blocks, theirs: &Blocks, share: f64) -> Option<Self> {
        let both = ours.iter().zip(theirs);
        let ratios: Vec<f64> = both
            .filter(|(ours, theirs)| !ours.is_empty() && !theirs.is_empty())
            .map(|(ours, theirs)| quotient(quantile(ours, share), quantile(theirs, share)))
            .collect();
        Self::of(&ratios)
    }

    /// Of both sides' quantiles over all blocks: for blocks with few samples, and for tails.
    pub(crate) fn pooled(ours: &Blocks, theirs: &Blocks, share: f64) -> Option<Self> {
        let count = ours.len().min(theirs.len());
        let samples = ours.iter().chain(theirs).map(Vec::len).sum();
        Self::resampled(count, samples, |drawn| {
            quotient(
                pooled_quantile(ours, drawn, share),
                pooled_quantile(theirs, drawn, share),
            )
        })
    }

    /// What `of` makes of `count` blocks, by their indices, and of resampled ones.
    pub(crate) fn resampled(
        count: usize,
        samples: usize,
        of: impl Fn(&[usize]) -> f64,
    ) -> Option<Self> {
        if count == 0 || samples == 0 {
            return None;
        }
        let resamplings = (POOLED_WORK / samples).clamp(200, RESAMPLINGS);
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut drawn = vec![0; count];
        let resampled = (0..resamplings)
            .map(|_| {
                drawn.fill_with(|| rng.usize(..count));
                of(&drawn)
            })
            .collect();
        let all: Vec<usize> = (0..count).collect();
        Some(Self::within(count, of(&all), resampled))
    }

    fn within(blocks: usize, median: f64, mut resampled: Vec<f64>) -> Self {
        resampled.sort_unstable_by(f64::total_cmp);
        let at = |share| {
            let index = nearest_rank(resampled.len(), share);
            resampled.get(index).copied().unwrap_or(median)
        };
        Self {
            median,
            low: at(0.025),
            high: at(0.975),
            blocks,
        }
    }
}

/// A quantile of the samples of the blocks that were drawn.
pub(crate) fn pooled_quantile(blocks: &Blocks, drawn: &[usize], share: f64) -> u64 {
    let of = drawn.iter().filter_map(|index| blocks.get(*index));
    let mut samples: Vec<u64> = of.flatten().copied().collect();
    take_quantile(&mut samples, share)
}

fn quotient(ours: u64, theirs: u64) -> f64 {
    ours as f64 / theirs.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<u64> = (1..=200).rev().collect();
        let of = |share| quantile(&samples, share);
        assert_eq!([of(0.5), of(0.9), of(0.99), of(1.0)], [100, 180, 198, 200]);
        assert_eq!(quantile(&[], 0.5), 0);
        assert_eq!(quantile(&[7], 0.99), 7);
    }

    #[test]
    fn a_ratio_lies_in_its_interval() {
        let blocks: Vec<f64> = (0..21).map(|n| 0.8 + f64::from(n) / 100.0).collect();
        let ratio = Ratio::of(&blocks).expect("blocks");
        assert!((ratio.median - 0.9).abs() < 1e-9, "{ratio:?}");
        assert!(ratio.low < ratio.median && ratio.median < ratio.high);
        assert!(0.8 <= ratio.low && ratio.high <= 1.0, "{ratio:?}");
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&blocks), Some(ratio), "the same every time");
    }

    #[test]
    fn both_ratios_see_a_side_that_takes_half() {
        let theirs: Vec<Vec<u64>> = (0..20).map(|n| (100 + n..200 + n).collect()).collect();
        let half = |block: &Vec<u64>| block.iter().map(|sample| sample / 2).collect();
        let ours: Vec<Vec<u64>> = theirs.iter().map(half).collect();
        for ratio in [
            Ratio::of_blocks(&ours, &theirs, 0.5),
            Ratio::pooled(&ours, &theirs, 0.99),
        ] {
            let ratio = ratio.expect("blocks");
            let Ratio {
                median, low, high, ..
            } = ratio;
            assert_eq!(ratio.blocks, 20);
            assert!((median - 0.5).abs() < 0.02 && low <= median && median <= high);
            assert!(high - low < 0.2);
        }
        assert_eq!(Ratio::pooled(&[], &theirs, 0.5), None);
    }
}
