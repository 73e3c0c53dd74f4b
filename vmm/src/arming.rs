// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the guest has armed its watchdog, as it is told: a guest can change that at any rate, and the supervisor hears of it
//! once a second at most, the last state always.

use i6300esb::VmInstant;

use crate::protocol::News;

/// From one telling to the next, at least, in ns.
const INTERVAL_NS: u64 = 1_000_000_000;
/// From a change to its telling, in ns: Linux arms the watchdog when its device is opened, and programs the timeout that is asked
/// for a moment later.
const SETTLING_NS: u64 = 200_000_000;

/// The state, and what of it was told: the timeout in ns, if it is armed.
#[derive(Debug, Default)]
pub(crate) struct Arming {
    is: Option<u64>,
    told: Option<u64>,
    told_at: Option<VmInstant>,
    /// When it first was another than was told.
    changed_at: Option<VmInstant>,
}

impl Arming {
    /// The watchdog is armed with this timeout, or not at all. Gives what may be told by now.
    pub(crate) fn now_is(&mut self, now: VmInstant, timeout_ns: Option<u64>) -> Option<News> {
        self.is = timeout_ns;
        if self.is != self.told {
            self.changed_at.get_or_insert(now);
        }
        self.next_due().filter(|due| *due <= now)?;
        self.tell(now)
    }

    /// A reset has disarmed it; that is told by its own news.
    pub(crate) const fn reset(&mut self) {
        self.is = None;
        self.told = None;
        self.changed_at = None;
    }

    /// When [`Self::now_is`] has something to tell.
    pub(crate) fn next_due(&self) -> Option<VmInstant> {
        let settled = self.changed_at?.saturating_add(SETTLING_NS);
        let allowed = self.allowed_from();
        Some(allowed.map_or(settled, |allowed| allowed.max(settled)))
    }

    /// It bit: what was to be told first is told now, if that may be told at all.
    pub(crate) fn bitten(&mut self, now: VmInstant) -> Option<News> {
        if self.allowed_from().is_some_and(|allowed| now < allowed) {
            return None;
        }
        self.tell(now)
    }

    fn allowed_from(&self) -> Option<VmInstant> {
        Some(self.told_at?.saturating_add(INTERVAL_NS))
    }

    fn tell(&mut self, now: VmInstant) -> Option<News> {
        self.changed_at = None;
        if self.is == self.told {
            return None;
        }
        self.told = self.is;
        self.told_at = Some(now);
        Some(match self.is {
            Some(timeout_ns) => News::WatchdogArmed { timeout_ns },
            None => News::WatchdogDisarmed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARMED: News = News::WatchdogArmed { timeout_ns: 7 };

    fn at(nanos: u64) -> VmInstant {
        VmInstant::from_nanos(nanos)
    }

    #[test]
    fn a_flood_is_told_once_a_second_and_its_last_state_always() {
        let mut arming = Arming::default();
        let mut told = vec![];
        for millis in 0..2_500 {
            let now = at(millis * 1_000_000);
            told.extend(arming.now_is(now, (millis % 2 == 0).then_some(7)));
        }
        assert!((1..=3).contains(&told.len()), "{told:?}");
        let (is, expected) = match told.last() {
            Some(News::WatchdogDisarmed) => (Some(7), ARMED),
            _ => (None, News::WatchdogDisarmed),
        };
        assert_eq!(arming.now_is(at(2_500_000_000), is), None);
        let due = arming.next_due().expect("it is another than was told");
        assert_eq!(arming.now_is(at(due.as_nanos() - 1), is), None);
        assert_eq!(arming.now_is(due, is), Some(expected));
        assert_eq!(arming.next_due(), None);
    }

    #[test]
    fn what_is_opened_and_then_programmed_is_told_once() {
        let mut arming = Arming::default();
        assert_eq!(arming.now_is(at(0), None), None, "it never was");
        assert_eq!(arming.next_due(), None);
        assert_eq!(arming.now_is(at(5), Some(30)), None);
        assert_eq!(arming.now_is(at(6), Some(7)), None);
        assert_eq!(arming.next_due(), Some(at(5 + SETTLING_NS)));
        assert_eq!(arming.now_is(at(5 + SETTLING_NS), Some(7)), Some(ARMED));
        assert_eq!(arming.now_is(at(INTERVAL_NS * 9), Some(7)), None);
    }

    #[test]
    fn a_bite_comes_after_its_arming() {
        let mut arming = Arming::default();
        assert_eq!(arming.now_is(at(5), Some(7)), None);
        assert_eq!(arming.bitten(at(6)), Some(ARMED));
        assert_eq!(arming.bitten(at(7)), None);
        arming.reset();
        assert_eq!(arming.now_is(at(8), Some(7)), None);
        assert_eq!(arming.bitten(at(9)), None, "too soon again");
        assert_eq!(arming.next_due(), Some(at(6 + INTERVAL_NS)));
    }
}
