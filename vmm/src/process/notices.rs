// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Notices that wait until the supervisor reads: at most one of each kind, so that a supervisor that
//! is stopped for minutes costs the machine nothing.

use std::collections::VecDeque;
use std::mem::{Discriminant, discriminant};

use crate::mailbox::ResetCause;
use crate::protocol::{News, Notice};

/// A queue that merges a notice with the one of its kind that waits already: bites add up, everything
/// else is told as it was last. A merged notice stands where the last of its kind came, so that the
/// last of two opposite kinds (paused, resumed) is the one that holds. But nothing moves over the answer
/// to a [`Sync`](crate::protocol::Command::Sync), which says what has been told before it.
#[derive(Debug, Default)]
pub(super) struct NoticeQueue {
    waiting: VecDeque<Notice>,
    /// The last message has come: nothing follows it.
    complete: bool,
}

/// What is merged. Resets by different causes are different news.
fn kind(news: &News) -> (Discriminant<News>, Option<ResetCause>) {
    let cause = match news {
        News::Reset { cause, .. } => Some(*cause),
        _ => None,
    };
    (discriminant(news), cause)
}

impl NoticeQueue {
    /// Adds a notice, unless the last message of the machine is there already.
    pub(super) fn push(&mut self, mut notice: Notice) {
        if self.complete {
            return;
        }
        self.complete = matches!(notice.news, News::Ended(_) | News::Failed { .. });
        let kind_of_it = kind(&notice.news);
        let same = |other: &Notice| kind(&other.news) == kind_of_it;
        let is_answer = |other: &Notice| matches!(other.news, News::Synced { .. });
        let answer = self.waiting.iter().rposition(is_answer);
        let movable = answer.map_or(0, |at| at.saturating_add(1));
        if let Some(earlier) = self
            .waiting
            .iter()
            .skip(movable)
            .position(same)
            .and_then(|at| self.waiting.remove(at.saturating_add(movable)))
        {
            merge(earlier.news, &mut notice.news);
        }
        self.waiting.push_back(notice);
    }

    /// Takes the oldest notice.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        self.waiting.pop_front()
    }

    /// No notice waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets all: nobody will ever read them.
    pub(super) fn discard(&mut self) {
        self.waiting.clear();
        self.complete = true;
    }
}

/// Adds to `later` what would be lost of `earlier`, which is of the same kind.
fn merge(earlier: News, later: &mut News) {
    match (earlier, later) {
        (News::Watchdog(earlier), News::Watchdog(later)) => {
            later.bites = later.bites.saturating_add(earlier.bites);
            later.lateness_ns = later.lateness_ns.max(earlier.lateness_ns);
        }
        (
            News::Pretimeout {
                lateness_ns, nmi, ..
            },
            News::Pretimeout {
                lateness_ns: later,
                nmi: later_nmi,
                ..
            },
        ) => {
            *later = (*later).max(lateness_ns);
            *later_nmi |= nmi;
        }
        (
            News::StallForgiven { stalled_ns },
            News::StallForgiven {
                stalled_ns: together,
            },
        ) => *together = together.saturating_add(stalled_ns),
        // The count of a reset is of all resets so far, and addresses and states hold as they are last.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WatchdogAction;
    use crate::protocol::{Ending, WatchdogReport};
    use proptest::prelude::*;

    fn notice(uptime_ns: u64, news: News) -> Notice {
        Notice {
            realtime_ns: uptime_ns,
            uptime_ns,
            news,
        }
    }

    fn bite(bites: u64, lateness_ns: u64) -> News {
        News::Watchdog(WatchdogReport {
            action: WatchdogAction::None,
            timeout_ns: 7,
            since_ping_ns: bites,
            lateness_ns,
            bites,
        })
    }

    fn reset(cause: ResetCause, count: u64) -> News {
        News::Reset { cause, count }
    }

    /// What comes out once all of it has gone in.
    fn merged(news: impl IntoIterator<Item = News>) -> Vec<News> {
        let mut queue = NoticeQueue::default();
        for (at, news) in (0..).zip(news) {
            queue.push(notice(at, news));
        }
        std::iter::from_fn(|| queue.pop().map(|notice| notice.news)).collect()
    }

    #[test]
    fn what_does_not_wait_is_told_as_it_came() {
        let mut queue = NoticeQueue::default();
        for count in 0..3 {
            queue.push(notice(count, reset(ResetCause::Host, count)));
            let told = queue.pop().expect("it waits");
            assert_eq!(told, notice(count, reset(ResetCause::Host, count)));
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn bites_add_up_and_resets_keep_their_cause() {
        let news = [
            News::Started,
            bite(1, 50),
            reset(ResetCause::Watchdog, 1),
            reset(ResetCause::TripleFault, 2),
            bite(3, 20),
            reset(ResetCause::Watchdog, 3),
        ];
        let News::Watchdog(mut both) = bite(4, 50) else {
            panic!("a bite");
        };
        both.since_ping_ns = 3;
        assert_eq!(
            merged(news),
            [
                News::Started,
                reset(ResetCause::TripleFault, 2),
                News::Watchdog(both),
                reset(ResetCause::Watchdog, 3),
            ]
        );
    }

    #[test]
    fn the_last_of_opposite_states_is_the_last_told() {
        let paused = News::Paused { by_watchdog: false };
        let flood = [News::Resumed, paused.clone()].into_iter().cycle().take(99);
        assert_eq!(merged(flood), [paused, News::Resumed]);
        let flood = [News::AgentConnected, News::AgentDisconnected];
        assert_eq!(
            merged(flood.into_iter().cycle().take(1_000)),
            [News::AgentConnected, News::AgentDisconnected]
        );
    }

    #[test]
    fn nothing_moves_over_an_answer() {
        let synced = |token| News::Synced { token };
        let news = [
            reset(ResetCause::Host, 1),
            reset(ResetCause::Host, 2),
            synced(1),
            reset(ResetCause::Host, 3),
            synced(2),
            reset(ResetCause::Host, 4),
            reset(ResetCause::Host, 5),
        ];
        assert_eq!(
            merged(news),
            [
                reset(ResetCause::Host, 2),
                synced(1),
                reset(ResetCause::Host, 3),
                synced(2),
                reset(ResetCause::Host, 5),
            ]
        );
    }

    #[test]
    fn nothing_follows_the_last_message() {
        let mut queue = NoticeQueue::default();
        queue.push(notice(1, News::Ended(Ending::Stopped)));
        queue.push(notice(2, News::AgentDisconnected));
        let failed = News::Failed {
            message: "later".into(),
        };
        queue.push(notice(3, failed));
        assert_eq!(queue.pop(), Some(notice(1, News::Ended(Ending::Stopped))));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn stalls_add_up() {
        let stalls = [3, 4].map(|stalled_ns| News::StallForgiven { stalled_ns });
        assert_eq!(merged(stalls), [News::StallForgiven { stalled_ns: 7 }]);
    }

    fn any_news() -> impl Strategy<Value = News> {
        prop_oneof![
            (1_u64..5, 0_u64..100).prop_map(|(bites, late)| bite(bites, late)),
            (0..5_u64).prop_map(|count| {
                let causes = [ResetCause::Host, ResetCause::Watchdog];
                let even = usize::from(count % 2 == 0);
                reset(causes.get(even).copied().expect("one of two"), count)
            }),
            Just(News::Started),
            (1..5_u64).prop_map(|timeout_ns| News::WatchdogArmed { timeout_ns }),
            Just(News::WatchdogDisarmed),
            Just(News::AgentConnected),
            Just(News::AgentDisconnected),
            Just(News::Paused { by_watchdog: true }),
            Just(News::Resumed),
            (0..9_u64).prop_map(|retry| News::UplinkDown {
                message: "x".into(),
                retry_ns: Some(retry),
            }),
            (0..9_u64).prop_map(|lateness_ns| News::Pretimeout {
                lead_ns: 7,
                lateness_ns,
                nmi: lateness_ns == 3,
            }),
        ]
    }

    fn bites(news: &[News]) -> u64 {
        let bites = news.iter().map(|news| match news {
            News::Watchdog(report) => report.bites,
            _ => 0,
        });
        bites.sum()
    }

    proptest! {
        /// A reader takes one after each step that is true.
        #[test]
        fn bounded_and_nothing_that_counts_is_lost(
            steps in prop::collection::vec((any_news(), any::<bool>()), 0..100),
        ) {
            let mut queue = NoticeQueue::default();
            let (mut put, mut told) = (vec![], vec![]);
            for (at, (news, reads)) in (0..).zip(steps) {
                put.push(news.clone());
                queue.push(notice(at, news));
                // Kinds of `any_news`, of which resets have two.
                prop_assert!(queue.waiting.len() <= 12);
                if reads {
                    told.extend(queue.pop());
                }
            }
            told.extend(std::iter::from_fn(|| queue.pop()));
            let stamps: Vec<_> = told.iter().map(|notice| notice.uptime_ns).collect();
            prop_assert!(stamps.is_sorted(), "in the order in which they happened: {stamps:?}");
            let told: Vec<_> = told.into_iter().map(|notice| notice.news).collect();
            prop_assert_eq!(bites(&put), bites(&told));
            let last = |all: &[News], one: &News| {
                let same = |other: &&News| kind(other) == kind(one);
                all.iter().rev().find(same).cloned()
            };
            for one in &put {
                // What holds is told as it was last, at its place.
                if !matches!(one, News::Watchdog(_) | News::Pretimeout { .. }) {
                    prop_assert_eq!(last(&put, one), last(&told, one));
                }
            }
            prop_assert_eq!(put.last().map(kind), told.last().map(kind));
        }
    }
}
