// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long to wait before an uplink is tried again.

/// The first wait in ns; each one after it is twice as long.
const FIRST_NS: u64 = 1_000_000_000;
/// The longest wait, and how long an uplink must have worked to start over with the first.
pub(super) const LONGEST_NS: u64 = 60_000_000_000;

/// Waits of 1, 2, 4 … 60 s.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    last: Option<u64>,
}

impl BackOff {
    /// The next wait in ns, after an uplink that worked for so long.
    pub(super) fn next(&mut self, worked_ns: u64) -> u64 {
        let last = self.last.filter(|_| worked_ns < LONGEST_NS);
        let next = last.map_or(FIRST_NS, |last| last.saturating_mul(2).min(LONGEST_NS));
        self.last = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_over_after_a_minute_of_work() {
        let mut back_off = BackOff::default();
        let waits: Vec<_> = (0..8).map(|_| back_off.next(0) / FIRST_NS).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off.next(LONGEST_NS - 1), 60 * FIRST_NS);
        assert_eq!(back_off.next(LONGEST_NS), FIRST_NS);
    }
}
