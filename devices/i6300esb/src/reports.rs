// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How often the embedder is told: a guest that lets itself be bitten all the time must not flood a log.

use crate::time::VmInstant;

/// Repeated expiries are reported at most this often, in nanoseconds.
pub(crate) const REPORT_INTERVAL_NS: u64 = 1_000_000_000;
/// First expiries after a ping or enable are reported at once, up to this many with less than the interval between them.
pub(crate) const FRESH_BURST: u16 = 1_000;
/// While rounds repeat without a ping, the host is woken at most this often, in nanoseconds.
pub(crate) const WAKE_INTERVAL_NS: u64 = 1_000_000;

/// Decides whether a report may go out now. Packed, as each watchdog keeps two of them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(Rust, packed(2))]
pub(crate) struct Reports {
    /// A report may go out from here on; instant 0 as long as there was none.
    next_allowed: VmInstant,
    burst: u16,
}

impl Reports {
    /// Takes leave to report at `now`.
    pub(crate) fn admit(&mut self, now: VmInstant, fresh: bool) -> bool {
        if now >= self.next_allowed() {
            self.burst = 0;
        } else if fresh && self.burst < FRESH_BURST {
            self.burst = self.burst.saturating_add(1);
        } else {
            return false;
        }
        self.next_allowed = now.saturating_add(REPORT_INTERVAL_NS);
        true
    }

    /// When a held-back report may go out.
    pub(crate) const fn next_allowed(&self) -> VmInstant {
        self.next_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::{FRESH_BURST, REPORT_INTERVAL_NS, Reports};
    use crate::time::VmInstant;

    #[test]
    fn repetitions_are_admitted_once_a_second() {
        let mut reports = Reports::default();
        assert!(reports.admit(VmInstant::from_nanos(5), false));
        assert!(!reports.admit(VmInstant::from_nanos(4 + REPORT_INTERVAL_NS), false));
        assert!(reports.admit(VmInstant::from_nanos(5 + REPORT_INTERVAL_NS), false));
    }

    #[test]
    fn fresh_ones_are_admitted_at_once_up_to_the_burst() {
        let mut reports = Reports::default();
        let admitted = (0..5_000)
            .filter(|us| reports.admit(VmInstant::from_nanos(us * 1_000), true))
            .count();
        assert_eq!(admitted, usize::from(FRESH_BURST) + 1);
    }
}
