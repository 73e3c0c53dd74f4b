// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a replacement waits, as the kubelet's containers do: the first not at all, the next
//! 10 s, then twice as long each time up to 300 s, until one has run for 10 minutes.
//!
//! KubeVirt waits only for instances that never ran, so a machine that its liveness probe kills
//! over and over comes back at full speed there.

use std::time::Duration;

/// The first wait that is one.
pub(super) const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// An instance that ran this long is no crash loop.
pub(super) const FORGIVEN: Duration = Duration::from_secs(600);

/// The back-off of one instance and its replacements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BackOff {
    next: Duration,
}

impl BackOff {
    /// How long the replacement of an instance that has run for `ran` waits.
    pub(super) fn wait(&mut self, ran: Duration) -> Duration {
        let wait = if ran >= FORGIVEN {
            Duration::ZERO
        } else {
            self.next
        };
        self.next = wait.saturating_mul(2).clamp(FIRST, LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_then_ten_seconds_doubling_to_five_minutes() {
        let mut back_off = BackOff::default();
        let mut waits = || back_off.wait(FORGIVEN - Duration::from_nanos(1)).as_secs();
        let seen: Vec<_> = std::iter::repeat_with(&mut waits).take(9).collect();
        assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(back_off.wait(FORGIVEN), Duration::ZERO);
        assert_eq!(back_off.wait(Duration::ZERO), FIRST);
    }
}
