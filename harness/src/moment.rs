// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The supervisor's time: monotonic, from the moment it began. State machines are given it; only
//! the outermost edge reads a clock.

use std::fmt;
use std::time::Duration;

/// An instant in ns since the supervisor began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// The instant `nanos` ns after the beginning.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// ns since the beginning.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant this much later; beyond the end of time (584 years), that end.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The time from `earlier` to this, zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.3} s",
            Duration::from_nanos(self.0).as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_both_ends_of_time() {
        let second = Duration::from_secs(1);
        let moment = Moment::ZERO.after(second);
        assert_eq!(moment.as_nanos(), 1_000_000_000);
        assert_eq!(moment.since(Moment::ZERO), second);
        assert_eq!(Moment::ZERO.since(moment), Duration::ZERO);
        assert_eq!(moment.after(Duration::MAX), Moment::from_nanos(u64::MAX));
    }
}
