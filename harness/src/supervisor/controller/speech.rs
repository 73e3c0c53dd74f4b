// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Keeps a guest that changes its state at full speed from flooding events: of each topic a handful
//! at once, then one a second, and always the last.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::moment::Moment;
use crate::supervisor::events::Said;

/// Events of one topic that may come at once.
const BURST: u32 = 5;
/// And then one so often.
const REFILL: Duration = Duration::from_secs(1);

/// What a guest can make the supervisor speak about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Agent,
    Ready,
    Reset,
    Arming,
    Pretimeout,
    Stall,
    Pause,
    Uplink,
    LivenessProbe,
    ReadinessProbe,
}

/// What has been said of each topic, and what is held back.
#[derive(Debug, Default)]
pub(super) struct Speech {
    topics: BTreeMap<Topic, Allowance<Said>>,
}

impl Speech {
    /// Gives `said` back to be told now, or holds it back in place of what was held before.
    pub(super) fn offer(&mut self, now: Moment, topic: Topic, said: Said) -> Option<Said> {
        self.topics.entry(topic).or_default().offer(now, said)
    }

    /// Forgets what is held back of a topic: something newer is said without asking.
    pub(super) fn supersede(&mut self, topic: Topic) {
        if let Some(topic) = self.topics.get_mut(&topic) {
            topic.held = None;
        }
    }

    /// When something that is held back may be told.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.topics.values().filter_map(Allowance::next_due).min()
    }

    /// What may be told by now.
    pub(super) fn due(&mut self, now: Moment) -> Vec<Said> {
        let topics = self.topics.values_mut();
        topics.filter_map(|topic| topic.due(now)).collect()
    }

    /// All that is held back: nothing comes after it.
    pub(super) fn last_words(&mut self) -> Vec<Said> {
        let topics = self.topics.values_mut();
        topics.filter_map(|topic| topic.held.take()).collect()
    }
}

/// How much may be said of one thing, and the newest of what may not be said yet.
#[derive(Debug)]
pub(super) struct Allowance<T> {
    left: u32,
    refilled: Moment,
    held: Option<T>,
}

impl<T> Default for Allowance<T> {
    fn default() -> Self {
        Self {
            left: BURST,
            refilled: Moment::ZERO,
            held: None,
        }
    }
}

impl<T> Allowance<T> {
    /// Gives `what` back to be told now, or holds it back in place of what was held before.
    pub(super) fn offer(&mut self, now: Moment, what: T) -> Option<T> {
        self.held = Some(what);
        self.take(now)
    }

    /// When [`Self::due`] has something to give.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.held.as_ref().map(|_| self.refilled.after(REFILL))
    }

    /// What was held back, once it may be told.
    pub(super) fn due(&mut self, now: Moment) -> Option<T> {
        self.held.is_some().then(|| self.take(now)).flatten()
    }

    fn take(&mut self, now: Moment) -> Option<T> {
        self.refill(now);
        self.left = self.left.checked_sub(1)?;
        self.held.take()
    }

    fn refill(&mut self, now: Moment) {
        let seconds = now.since(self.refilled).as_secs();
        self.left = self
            .left
            .saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX));
        if self.left >= BURST {
            self.left = BURST;
            self.refilled = now;
        } else {
            self.refilled = self.refilled.after(Duration::from_secs(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::ZERO.after(Duration::from_millis(millis))
    }

    fn said(text: &str) -> Said {
        Said::killing(text)
    }

    #[test]
    fn a_flood_is_told_once_a_second_and_its_end_always() {
        let mut speech = Speech::default();
        let mut told = vec![];
        // 10 s of a thousand changes a second.
        for millis in 0..10_000 {
            if speech.next_due().is_some_and(|due| due <= at(millis)) {
                told.extend(speech.due(at(millis)));
            }
            told.extend(speech.offer(at(millis), Topic::Agent, said(&millis.to_string())));
        }
        assert_eq!(told.len(), 5 + 9);
        assert_eq!(speech.next_due(), Some(at(10_000)));
        assert_eq!(speech.due(at(9_999)), []);
        assert_eq!(speech.due(at(10_000)), [said("9999")]);
        assert_eq!(speech.next_due(), None);
    }

    #[test]
    fn topics_do_not_share_and_quiet_earns_a_new_handful() {
        let mut speech = Speech::default();
        let burst = |speech: &mut Speech, millis, topic| {
            (0..8)
                .filter_map(|_| speech.offer(at(millis), topic, said("x")))
                .count()
        };
        assert_eq!(burst(&mut speech, 0, Topic::Agent), 5);
        assert_eq!(burst(&mut speech, 0, Topic::Reset), 5);
        assert_eq!(speech.last_words().len(), 2);
        assert_eq!(speech.last_words(), []);
        assert_eq!(burst(&mut speech, 3_500, Topic::Agent), 3);
        assert_eq!(burst(&mut speech, 60_000, Topic::Agent), 5);
    }
}
