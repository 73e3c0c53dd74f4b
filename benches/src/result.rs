// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a run measured, as it is written to JSON and drawn.

use std::ops::RangeInclusive;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::noise::Noise;
use crate::statistics::{ENOUGH, Ratio};

/// The layout of the JSON file.
pub(crate) const FORMAT: u32 = 1;
/// Beyond this share of noisy blocks a metric gives no verdict.
const MOST_NOISY: f64 = 0.3;
/// Bins of a histogram to a factor of ten, at the same places for everybody.
const BINS: f64 = 48.0;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) host: Host,
    pub(crate) quick: bool,
    /// Somebody ended it early: what is there was measured before.
    pub(crate) interrupted: bool,
    pub(crate) metrics: Vec<Measured>,
}

/// One metric's figures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) definition: String,
    /// What the series' `x` is, where they have one.
    pub(crate) axis: Option<String>,
    pub(crate) series: Vec<Series>,
    pub(crate) verdicts: Vec<Verdict>,
    /// What a reader must know, and what is absent.
    pub(crate) notes: Vec<String>,
    pub(crate) blocks: Vec<Noise>,
    pub(crate) seconds: f64,
}

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Kennel,
    Qemu,
    /// Another way to do the same, neither ours nor QEMU's.
    Other,
    /// The smallest program that does only the kernel's part.
    Floor,
}

/// Figures of one contender at one point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Series of one mode are drawn together; empty if there is only one.
    #[serde(default)]
    pub(crate) mode: String,
    pub(crate) x: Option<f64>,
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// Empty unless it is to be drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) histogram: Vec<Bin>,
}

/// Samples from `low` to below `high`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Bin {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) count: u64,
}

impl Series {
    /// Of samples, of which `scale` makes the metric's unit; `None` without samples.
    pub(crate) fn of(name: &str, role: Role, samples: &[u64], scale: f64) -> Option<Self> {
        let mut histogram = Histogram::<u64>::new(3).ok()?;
        for sample in samples {
            histogram.record(*sample).ok()?;
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 * scale;
        (!samples.is_empty()).then(|| Self {
            name: name.to_owned(),
            role,
            mode: String::new(),
            x: None,
            count: histogram.len(),
            min: histogram.min() as f64 * scale,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: histogram.max() as f64 * scale,
            histogram: vec![],
        })
    }

    /// A single figure.
    pub(crate) fn figure(name: &str, role: Role, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            role,
            mode: String::new(),
            x: None,
            count: 1,
            min: value,
            p50: value,
            p90: value,
            p99: value,
            max: value,
            histogram: vec![],
        }
    }

    pub(crate) fn at(mut self, x: f64) -> Self {
        self.x = Some(x);
        self
    }

    pub(crate) fn in_mode(mut self, mode: &str) -> Self {
        mode.clone_into(&mut self.mode);
        self
    }

    /// To be drawn with a histogram of logarithmic bins.
    pub(crate) fn with_histogram(mut self, samples: &[u64], scale: f64) -> Self {
        let bin = |sample: u64| (sample.max(1) as f64).log10().mul_add(BINS, 1e-9).floor();
        let edge = |bin: f64| 10_f64.powf(bin / BINS) * scale;
        let mut bins: Vec<f64> = samples.iter().map(|sample| bin(*sample)).collect();
        bins.sort_unstable_by(f64::total_cmp);
        self.histogram = bins
            .chunk_by(|one, other| one.total_cmp(other).is_eq())
            .filter_map(|same| {
                let first = *same.first()?;
                Some(Bin {
                    low: edge(first),
                    high: edge(first + 1.0),
                    count: u64::try_from(same.len()).ok()?,
                })
            })
            .collect();
        self
    }
}

/// A figure held against its target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    /// With its 95 % interval where it has one; `None` if it could not be measured.
    pub(crate) value: Option<f64>,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) target: Target,
    pub(crate) outcome: Outcome,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The whole interval meets the target.
    Met,
    /// The whole interval misses it.
    Missed,
    /// The target lies within the interval, or there were too few blocks, or too noisy ones.
    Unclear,
    /// The other side is not installed, or this machine cannot run it.
    Absent,
}

impl Outcome {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Unclear => "unclear",
            Self::Absent => "absent",
        }
    }
}

impl Target {
    fn judge(self, interval: RangeInclusive<f64>) -> Outcome {
        let (low, high) = (*interval.start(), *interval.end());
        let (met, missed) = match self {
            Self::AtMost(bound) => (high <= bound, low > bound),
            Self::AtLeast(bound) => (low >= bound, high < bound),
            Self::Exactly(value) => {
                let equal = (low - value).abs() < 1e-9 && (high - value).abs() < 1e-9;
                (equal, !equal)
            }
        };
        match (met, missed) {
            (true, _) => Outcome::Met,
            (_, true) => Outcome::Missed,
            _ => Outcome::Unclear,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(formatter, "≤ {bound}"),
            Self::AtLeast(bound) => write!(formatter, "≥ {bound}"),
            Self::Exactly(value) => write!(formatter, "{value}"),
        }
    }
}

impl Verdict {
    /// On a figure that was counted, not sampled.
    pub(crate) fn figure(what: impl Into<String>, value: Option<f64>, target: Target) -> Self {
        Self {
            what: what.into(),
            value,
            interval: None,
            target,
            outcome: value.map_or(Outcome::Absent, |value| target.judge(value..=value)),
        }
    }

    /// On a ratio; absent if there is none.
    pub(crate) fn ratio(what: impl Into<String>, ratio: Option<Ratio>, target: Target) -> Self {
        Self {
            what: what.into(),
            value: ratio.map(|ratio| ratio.median),
            interval: ratio.map(|ratio| (ratio.low, ratio.high)),
            target,
            outcome: match ratio {
                None => Outcome::Absent,
                Some(few) if few.blocks < ENOUGH => Outcome::Unclear,
                Some(ratio) => target.judge(ratio.low..=ratio.high),
            },
        }
    }
}

impl Measured {
    /// Share of blocks in which the hypervisor below took CPU time.
    pub(crate) fn noisy_share(&self) -> f64 {
        let noisy = self.blocks.iter().filter(|block| block.is_noisy()).count();
        noisy as f64 / self.blocks.len().max(1) as f64
    }

    /// Withdraws verdicts on times if the machine was too noisy for them.
    pub(crate) fn weigh_noise(&mut self) {
        if self.noisy_share() <= MOST_NOISY {
            return;
        }
        for verdict in &mut self.verdicts {
            if verdict.interval.is_some() {
                verdict.outcome = Outcome::Unclear;
            }
        }
        self.notes.push(format!(
            "{:.0} % of the blocks lost CPU time to the host below: no verdict on times",
            self.noisy_share() * 100.0
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_goes_by_the_whole_interval() {
        let ratio = |low, high| {
            Some(Ratio {
                median: 1.0,
                low,
                high,
                blocks: ENOUGH,
            })
        };
        let judge = |low, high| Verdict::ratio("", ratio(low, high), Target::AtMost(1.1)).outcome;
        assert_eq!(judge(0.9, 1.1), Outcome::Met);
        assert_eq!(judge(0.9, 1.2), Outcome::Unclear);
        assert_eq!(judge(1.11, 1.2), Outcome::Missed);
        let few = Ratio::of(&[1.0; ENOUGH - 1]);
        let few = Verdict::ratio("", few, Target::AtMost(2.0));
        assert_eq!(few.outcome, Outcome::Unclear, "too few blocks");
        let absent = Verdict::ratio("", None, Target::AtMost(1.0));
        assert_eq!(absent.outcome, Outcome::Absent);
        let exactly = |value| Verdict::figure("", Some(value), Target::Exactly(3.0)).outcome;
        assert_eq!(
            (exactly(3.0), exactly(3.1)),
            (Outcome::Met, Outcome::Missed)
        );
        let least = |value| Verdict::figure("", Some(value), Target::AtLeast(0.9)).outcome;
        assert_eq!((least(0.9), least(0.8)), (Outcome::Met, Outcome::Missed));
    }

    #[test]
    fn a_noisy_run_gives_no_verdict_on_times() {
        let noise = |steal| Noise {
            steal,
            ..Noise::default()
        };
        let mut measured = Measured {
            blocks: vec![noise(0.5), noise(0.0)],
            verdicts: vec![
                Verdict::figure("counted", Some(0.0), Target::Exactly(0.0)),
                Verdict::ratio("timed", Ratio::of(&[1.0; ENOUGH]), Target::AtMost(2.0)),
            ],
            ..Measured::default()
        };
        measured.weigh_noise();
        let outcomes: Vec<Outcome> = measured.verdicts.iter().map(|one| one.outcome).collect();
        assert_eq!(outcomes, [Outcome::Met, Outcome::Unclear]);
        assert_eq!(measured.notes.len(), 1);
    }

    #[test]
    fn a_histogram_holds_every_sample_once() {
        let samples: Vec<u64> = (0..1000).map(|n| n * n).collect();
        let series = Series::of("a", Role::Kennel, &samples, 0.5).expect("samples");
        let series = series.with_histogram(&samples, 0.5);
        let total: u64 = series.histogram.iter().map(|bin| bin.count).sum();
        assert_eq!((total, series.count), (1000, 1000));
        assert!(series.p50 < series.p90 && series.p90 < series.p99 && series.p99 <= series.max);
        assert!(Series::of("none", Role::Floor, &[], 1.0).is_none());
    }
}
