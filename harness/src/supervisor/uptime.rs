// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VM time as the supervisor reckons it between two notices.

use kennel_vmm::protocol::News;

use crate::moment::Moment;

/// The last notice's VM time, and whether it has gone on since.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uptime {
    at_ns: u64,
    /// VM time of the processes that the machine had before.
    before_ns: u64,
    heard: Moment,
    runs: bool,
}

impl Uptime {
    /// `news` came at `now`, told with its process' VM time `uptime_ns`. Gives the machine's.
    pub fn hear(&mut self, now: Moment, uptime_ns: u64, news: &News) -> u64 {
        let uptime_ns = uptime_ns.saturating_add(self.before_ns);
        self.at_ns = uptime_ns.max(self.at_ns);
        self.heard = now;
        match news {
            News::Started | News::Resumed => self.runs = true,
            News::Paused { .. } | News::Ended(_) | News::Failed { .. } => self.runs = false,
            _ => {}
        }
        uptime_ns
    }

    /// VM time in ns.
    #[must_use]
    pub fn ns(&self, now: Moment) -> u64 {
        let since = if self.runs {
            now.as_nanos().saturating_sub(self.heard.as_nanos())
        } else {
            0
        };
        self.at_ns.saturating_add(since)
    }

    /// The machine begins anew in another process, whose VM time begins at 0.
    pub fn go_on_from(&mut self, now: Moment) {
        self.stop(now);
        self.before_ns = self.at_ns;
    }

    /// VM time goes no further.
    pub fn stop(&mut self, now: Moment) {
        self.at_ns = self.ns(now);
        self.runs = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn goes_on_while_the_machine_runs_and_stands_while_it_is_paused() {
        const SECOND: u64 = 1_000_000_000;
        let after = |seconds| Moment::ZERO.after(Duration::from_secs(seconds));
        let mut uptime = Uptime::default();
        assert_eq!(uptime.ns(after(5)), 0);
        uptime.hear(after(5), 0, &News::Started);
        assert_eq!(uptime.ns(after(7)), 2 * SECOND);
        uptime.hear(after(7), 2 * SECOND, &News::Paused { by_watchdog: true });
        assert_eq!(uptime.ns(after(100)), 2 * SECOND);
        uptime.hear(after(100), 2 * SECOND, &News::Resumed);
        assert_eq!(uptime.ns(after(101)), 3 * SECOND);
        uptime.stop(after(102));
        assert_eq!(uptime.ns(after(200)), 4 * SECOND);
    }
}
