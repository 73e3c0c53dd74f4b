// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How often something may be done: a few times at once, then once in an interval.

use std::time::Duration;

/// Tokens, one for each time. `now` is the time since any beginning.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    burst: u32,
    interval: Duration,
    left: u32,
    refilled: Duration,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens, which gets one back in each `interval`.
    pub(crate) const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            left: burst,
            refilled: Duration::ZERO,
        }
    }

    /// Takes a token; false if there is none.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        self.refill(now);
        let token = self.left.checked_sub(1);
        self.left = token.unwrap_or(0);
        token.is_some()
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled).as_nanos();
        let earned = passed
            .checked_div(self.interval.as_nanos())
            .and_then(|earned| u32::try_from(earned).ok())
            .unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned);
        if self.left >= self.burst {
            self.left = self.burst;
            self.refilled = self.refilled.max(now);
        } else {
            let used = self.interval.saturating_mul(earned);
            self.refilled = self.refilled.saturating_add(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_one_in_each_interval() {
        let mut bucket = TokenBucket::new(3, SECOND);
        let taken = |bucket: &mut TokenBucket, millis| {
            let now = Duration::from_millis(millis);
            (0..9).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 999), 0);
        assert_eq!(taken(&mut bucket, 1_000), 1);
        assert_eq!(taken(&mut bucket, 3_500), 2);
        assert_eq!(taken(&mut bucket, 4_000), 1, "half an interval was left");
        assert_eq!(taken(&mut bucket, 60_000), 3);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_time_earned(
            waits in prop::collection::vec(0_u64..3_000, 0..200),
        ) {
            let mut bucket = TokenBucket::new(4, SECOND);
            let (mut now, mut taken) = (0, 0);
            for wait in waits {
                now += wait;
                taken += u64::from(bucket.take(Duration::from_millis(now)));
            }
            prop_assert!(taken <= 4 + now / 1_000);
        }
    }
}
