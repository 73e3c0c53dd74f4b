// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Contenders that take turns: in each block all of them, there and back again (F K Q, Q K F), so
//! that a machine that gets slower or faster does so for all alike.

use crate::Trouble;
use crate::noise::Noise;
use crate::result::{Role, Series};
use crate::session::Session;
use crate::statistics::Ratio;

/// One turn: samples, or what went wrong.
type Turn<'a> = Box<dyn FnMut() -> Result<Vec<u64>, Trouble> + 'a>;

struct Contender<'a> {
    name: &'static str,
    role: Role,
    turn: Turn<'a>,
    blocks: Vec<Vec<u64>>,
}

/// Who takes turns.
#[derive(Default)]
pub(crate) struct Contest<'a>(Vec<Contender<'a>>);

impl<'a> Contest<'a> {
    /// Adds a contender, whose `turn` gives its samples.
    pub(crate) fn with(
        mut self,
        name: &'static str,
        role: Role,
        turn: impl FnMut() -> Result<Vec<u64>, Trouble> + 'a,
    ) -> Self {
        self.0.push(Contender {
            name,
            role,
            turn: Box::new(turn),
            blocks: vec![],
        });
        self
    }

    /// Adds a contender unless it is absent.
    pub(crate) fn with_some(
        self,
        name: &'static str,
        role: Role,
        turn: Option<impl FnMut() -> Result<Vec<u64>, Trouble> + 'a>,
    ) -> Self {
        match turn {
            Some(turn) => self.with(name, role, turn),
            None => self,
        }
    }

    /// Lets them take turns in `blocks` blocks.
    pub(crate) fn run(mut self, session: &Session, blocks: usize) -> Result<Outcome, Trouble> {
        let noise = session.blocks(blocks, |_| self.block())?;
        let all = self.0.into_iter().map(|contender| Recorded {
            name: contender.name,
            role: contender.role,
            blocks: contender.blocks,
        });
        Ok(Outcome {
            contenders: all.collect(),
            noise,
        })
    }

    fn block(&mut self) -> Result<(), Trouble> {
        let mut samples: Vec<Vec<u64>> = vec![vec![]; self.0.len()];
        let there = 0..self.0.len();
        for index in there.clone().chain(there.rev()) {
            if let (Some(contender), Some(samples)) =
                (self.0.get_mut(index), samples.get_mut(index))
            {
                samples.extend((contender.turn)()?);
            }
        }
        for (contender, samples) in self.0.iter_mut().zip(samples) {
            contender.blocks.push(samples);
        }
        Ok(())
    }
}

/// One contender's samples.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) blocks: Vec<Vec<u64>>,
}

impl Recorded {
    pub(crate) fn all(&self) -> Vec<u64> {
        self.blocks.concat()
    }
}

/// What all contenders showed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) contenders: Vec<Recorded>,
    pub(crate) noise: Vec<Noise>,
}

impl Outcome {
    pub(crate) fn of(&self, name: &str) -> Option<&Recorded> {
        self.contenders.iter().find(|one| one.name == name)
    }

    /// Median of the blocks' ratios of a quantile.
    pub(crate) fn ratio(&self, ours: &str, theirs: &str, share: f64) -> Option<Ratio> {
        Ratio::of_blocks(&self.of(ours)?.blocks, &self.of(theirs)?.blocks, share)
    }

    /// Ratio of a quantile over all blocks.
    pub(crate) fn pooled(&self, ours: &str, theirs: &str, share: f64) -> Option<Ratio> {
        Ratio::pooled(&self.of(ours)?.blocks, &self.of(theirs)?.blocks, share)
    }

    /// A series of each contender; `scale` makes the metric's unit of a sample.
    pub(crate) fn series(&self, scale: f64) -> Vec<Series> {
        let series = |one: &Recorded| Series::of(one.name, one.role, &one.all(), scale);
        self.contenders.iter().filter_map(series).collect()
    }

    /// The same, each with its histogram.
    pub(crate) fn series_with_histograms(&self, scale: f64) -> Vec<Series> {
        let series = |one: &Recorded| {
            let all = one.all();
            Some(Series::of(one.name, one.role, &all, scale)?.with_histogram(&all, scale))
        };
        self.contenders.iter().filter_map(series).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn contenders_go_there_and_back_again() {
        let session = Session::new(true, None, 1).expect("a session");
        let order = RefCell::new(String::new());
        let turn = |letter: char, sample: u64| {
            let order = &order;
            move || {
                order.borrow_mut().push(letter);
                Ok(vec![sample])
            }
        };
        let absent = Some(turn('Q', 1)).filter(|_| false);
        let outcome = Contest::default()
            .with("floor", Role::Floor, turn('F', 2))
            .with("Kennel", Role::Kennel, turn('K', 3))
            .with_some("QEMU", Role::Qemu, absent)
            .run(&session, 2)
            .expect("no trouble");
        assert_eq!(*order.borrow(), "FKKFFKKF");
        assert_eq!(outcome.noise.len(), 2);
        let ratio = outcome.ratio("Kennel", "floor", 0.5).expect("a ratio");
        assert!((ratio.median - 1.5).abs() < 1e-9);
        assert_eq!(outcome.ratio("Kennel", "QEMU", 0.5), None);
        assert_eq!(outcome.series(1.0).len(), 2);
    }
}
