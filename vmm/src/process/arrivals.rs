// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether an agent is there, as it is told: a guest may open and close its port at any rate, and
//! the supervisor hears of it a few times a second at most, the last state always.

use crate::protocol::News;

/// From one telling to the next, at least, in ns.
const INTERVAL_NS: u64 = 250_000_000;

/// The state, and what of it was told.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    is_there: bool,
    told: bool,
    told_at: Option<u64>,
    /// It went away since the last telling, so its return is news.
    went: bool,
}

impl Arrivals {
    /// The port was opened or closed.
    pub(super) fn now_is(&mut self, there: bool, now: u64, news: &mut Vec<News>) {
        self.is_there = there;
        self.went |= !there;
        self.time_passed(now, news);
    }

    /// When to call [`Self::time_passed`].
    pub(super) fn next_due(&self) -> Option<u64> {
        let last = self.told_at.filter(|_| self.has_news())?;
        Some(last.saturating_add(INTERVAL_NS))
    }

    fn has_news(&self) -> bool {
        self.is_there != self.told || (self.told && self.went)
    }

    /// Tells what is to be told by now.
    pub(super) fn time_passed(&mut self, now: u64, news: &mut Vec<News>) {
        let early = self
            .told_at
            .is_some_and(|at| now < at.saturating_add(INTERVAL_NS));
        if early || !self.has_news() {
            return;
        }
        if self.told {
            news.push(News::AgentDisconnected);
        }
        if self.is_there {
            news.push(News::AgentConnected);
        }
        self.told = self.is_there;
        self.told_at = Some(now);
        self.went = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_told_at_once_and_a_flood_by_its_end() {
        let (mut arrivals, mut news) = (Arrivals::default(), vec![]);
        arrivals.now_is(true, 5, &mut news);
        assert_eq!(std::mem::take(&mut news), [News::AgentConnected]);
        assert_eq!(arrivals.next_due(), None);
        for turn in 0..1000 {
            arrivals.now_is(turn % 2 == 1, 6, &mut news);
        }
        assert_eq!(news, [], "too early");
        let due = arrivals.next_due().expect("it had gone");
        assert_eq!(due, 5 + INTERVAL_NS);
        arrivals.time_passed(due, &mut news);
        assert_eq!(
            std::mem::take(&mut news),
            [News::AgentDisconnected, News::AgentConnected]
        );
        arrivals.now_is(false, 10 * due, &mut news);
        assert_eq!(news, [News::AgentDisconnected]);
        assert_eq!(arrivals.next_due(), None);
    }

    #[test]
    fn what_nobody_heard_of_needs_no_correction() {
        let (mut arrivals, mut news) = (Arrivals::default(), vec![]);
        arrivals.now_is(false, 1, &mut news);
        assert_eq!((news, arrivals.next_due()), (vec![], None));
    }
}
