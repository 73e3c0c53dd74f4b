// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VM time as the supervisor reckons it between two notices.

use std::time::Instant;

use kennel_vmm::protocol::{News, Notice};

/// The last notice's VM time, and whether it has gone on since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uptime {
    at_ns: u64,
    heard: Instant,
    runs: bool,
}

impl Uptime {
    /// The machine does not run yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            at_ns: 0,
            heard: now,
            runs: false,
        }
    }

    pub(super) fn hear(&mut self, notice: &Notice, now: Instant) {
        self.at_ns = notice.uptime_ns.max(self.at_ns);
        self.heard = now;
        match notice.news {
            News::Started | News::Resumed => self.runs = true,
            News::Paused { .. } | News::Ended(_) | News::Failed { .. } => self.runs = false,
            _ => {}
        }
    }

    /// VM time in ns.
    pub(super) fn ns(&self, now: Instant) -> u64 {
        let since = if self.runs {
            now.saturating_duration_since(self.heard).as_nanos()
        } else {
            0
        };
        self.at_ns
            .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn goes_on_while_the_machine_runs_and_stands_while_it_is_paused() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let notice = |seconds: u64, news| Notice {
            realtime_ns: 0,
            uptime_ns: seconds * 1_000_000_000,
            news,
        };
        let mut uptime = Uptime::new(start);
        assert_eq!(uptime.ns(after(5)), 0);
        uptime.hear(&notice(0, News::Started), after(5));
        assert_eq!(uptime.ns(after(7)), 2_000_000_000);
        uptime.hear(&notice(2, News::Paused { by_watchdog: true }), after(7));
        assert_eq!(uptime.ns(after(100)), 2_000_000_000);
        uptime.hear(&notice(2, News::Resumed), after(100));
        assert_eq!(uptime.ns(after(101)), 3_000_000_000);
    }
}
