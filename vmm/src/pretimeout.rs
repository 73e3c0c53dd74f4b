// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When the pretimeout is told: so long before the bite, whatever the stages are.
//!
//! Linux halves the timeout between the stages, and its clients ping at half of it: the end of stage 1 comes to healthy guests. So
//! the host counts back from the bite. A ping moves nothing here: the check that comes too early is put off.

use i6300esb::{Status, VmInstant};

/// The lead is at most this part of the timeout: a client that pings at half of it has as much again to be late.
const LARGEST_PART: u64 = 4;
/// It is told at most this often, and what has a shorter timeout is checked no more often either: there it may come late, or not
/// at all.
const SPACING_NS: u64 = 100_000_000;

/// The state.
#[derive(Debug, Default)]
pub(crate) struct Pretimeout {
    /// As configured; none is the longest possible.
    lead_ns: Option<u64>,
    check_at: Option<VmInstant>,
    not_before: VmInstant,
    /// How often the watchdog had been pinged when this was last told: again only after a ping or an arming.
    told_at_ping: Option<u64>,
}

/// It is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// From the exact instant to now.
    pub(crate) lateness_ns: u64,
    /// From the exact instant to the bite.
    pub(crate) lead_ns: u64,
}

impl Pretimeout {
    /// A pretimeout with this lead, if one is given.
    pub(crate) fn new(lead_ns: Option<u64>) -> Self {
        Self {
            lead_ns,
            ..Self::default()
        }
    }

    /// The guest has armed the watchdog, or a reset disarmed it.
    pub(crate) const fn start_over(&mut self) {
        self.told_at_ping = None;
    }

    /// When to [`Self::check`] again.
    pub(crate) const fn next_due(&self) -> Option<VmInstant> {
        self.check_at
    }

    /// Looks at the watchdog as it is `now`. Must follow every arming and every change of the timeout; between these no ping
    /// brings the instant forward.
    pub(crate) fn check(&mut self, now: VmInstant, status: &Status) -> Option<Due> {
        let left_ns = status.time_left_ns.filter(|_| status.output_enabled);
        let Some(left_ns) = left_ns else {
            self.check_at = None;
            return None;
        };
        let lead_ns = self.lead_of(status.timeout_ns);
        // Whatever ping comes from now on, its pretimeout comes no sooner.
        let after_a_ping = now.saturating_add(status.timeout_ns.saturating_sub(lead_ns));
        let at = now.saturating_add(left_ns).saturating_sub(lead_ns);
        let told = self.told_at_ping == Some(status.pings);
        let next = if told {
            after_a_ping
        } else if at > now {
            at.min(after_a_ping)
        } else if now < self.not_before {
            now
        } else {
            self.told_at_ping = Some(status.pings);
            self.not_before = now.saturating_add(SPACING_NS);
            self.check_at = Some(after_a_ping.max(self.not_before));
            let lateness_ns = now.nanos_since(at);
            return Some(Due {
                lateness_ns,
                lead_ns,
            });
        };
        let soonest = match status.timeout_ns {
            0..SPACING_NS => now.saturating_add(SPACING_NS),
            _ => self.not_before,
        };
        self.check_at = Some(next.max(soonest));
        None
    }

    fn lead_of(&self, timeout_ns: u64) -> u64 {
        let longest = timeout_ns / LARGEST_PART;
        self.lead_ns.map_or(longest, |lead| lead.min(longest))
    }
}

#[cfg(test)]
mod tests {
    use i6300esb::{Config, I6300Esb, spec};

    use super::*;

    const TICK_NS: u64 = 983_040;

    /// A real device in virtual time, whose pretimeout is checked when it asks for it.
    struct Bench {
        device: I6300Esb,
        pretimeout: Pretimeout,
        now: VmInstant,
        told: Vec<(u64, Due)>,
        checks: u32,
    }

    impl Bench {
        fn new(stages: [u32; 2], lead_ns: Option<u64>) -> Self {
            let mut bench = Self {
                device: I6300Esb::new(Config::default()),
                pretimeout: Pretimeout::new(lead_ns),
                now: VmInstant::ZERO,
                told: vec![],
                checks: 0,
            };
            bench.program(stages);
            bench.arm();
            bench
        }

        fn unlocked(&mut self, offset: u64, value: u32) {
            for key in [spec::UNLOCK_KEY1, spec::UNLOCK_KEY2] {
                let _ = self
                    .device
                    .mmio_write(self.now, spec::RELOAD, &key.to_le_bytes());
            }
            let _ = self
                .device
                .mmio_write(self.now, offset, &value.to_le_bytes());
        }

        fn program(&mut self, [first, second]: [u32; 2]) {
            self.unlocked(spec::PRELOAD1, first);
            self.unlocked(spec::PRELOAD2, second);
            self.check();
        }

        fn arm(&mut self) {
            let _ = self
                .device
                .config_write(self.now, spec::CONFIG_LOCK, &[spec::ENABLE]);
            self.pretimeout.start_over();
            self.check();
        }

        fn ping(&mut self) {
            self.unlocked(spec::RELOAD, spec::RELOAD_PING);
        }

        fn check(&mut self) {
            self.checks += 1;
            let status = self.device.status(self.now);
            if let Some(due) = self.pretimeout.check(self.now, &status) {
                self.told.push((self.now.as_nanos(), due));
            }
        }

        /// Lets so many ticks pass; a check that is due comes at its instant.
        fn pass(&mut self, ticks: u64) {
            let end = self.now.saturating_add(ticks * TICK_NS);
            while let Some(at) = self.pretimeout.next_due().filter(|at| *at <= end) {
                self.now = at.max(self.now);
                let _ = self.device.timer_fired(self.now);
                self.check();
            }
            self.now = end;
            let _ = self.device.timer_fired(self.now);
        }
    }

    #[test]
    fn it_comes_exactly_that_long_before_the_bite_whatever_the_stages_are() {
        for stages in [[1000, 1000], [1, 1999], [1999, 1]] {
            for (lead, expected) in [
                (None, 500 * TICK_NS),
                (Some(7), 7),
                (Some(3_600 * 1_000_000_000), 500 * TICK_NS),
            ] {
                let mut bench = Bench::new(stages, lead);
                bench.pass(300);
                bench.ping();
                bench.pass(2000);
                let due = Due {
                    lateness_ns: 0,
                    lead_ns: expected,
                };
                let at = 2300 * TICK_NS - expected;
                assert_eq!(bench.told, [(at, due)], "{stages:?} {lead:?}");
            }
        }
    }

    #[test]
    fn a_guest_that_pings_at_half_its_timeout_never_sees_it() {
        let mut bench = Bench::new([1000, 1000], None);
        for _ in 0..500 {
            bench.pass(1000);
            bench.ping();
        }
        assert_eq!(bench.told, []);
        assert!(bench.checks < 600, "{} checks", bench.checks);
    }

    #[test]
    fn it_is_told_once_and_again_after_a_ping_or_an_arming() {
        let mut bench = Bench::new([1000, 1000], None);
        bench.pass(9_000);
        assert_eq!(bench.told.len(), 1, "through four bites");
        bench.ping();
        bench.pass(1_600);
        assert_eq!(bench.told.len(), 2);
        let _ = bench
            .device
            .config_write(bench.now, spec::CONFIG_LOCK, &[0]);
        bench.check();
        assert_eq!(bench.pretimeout.next_due(), None, "disarmed");
        bench.arm();
        bench.pass(1_600);
        assert_eq!(bench.told.len(), 3);
    }

    #[test]
    fn a_shorter_timeout_is_followed() {
        let mut bench = Bench::new([30_000, 30_000], Some(1));
        bench.pass(100);
        bench.program([100, 100]);
        bench.ping();
        bench.pass(200);
        let due = Due {
            lateness_ns: 0,
            lead_ns: 1,
        };
        assert_eq!(bench.told, [(300 * TICK_NS - 1, due)]);
    }

    #[test]
    fn the_shortest_timeout_costs_ten_checks_a_second() {
        let mut bench = Bench::new([0, 0], None);
        let before = bench.checks;
        for _ in 0..1000 {
            bench.pass(1);
            bench.ping();
        }
        assert!(bench.checks - before <= 11, "{} checks", bench.checks);
    }

    #[test]
    fn a_muted_watchdog_has_none() {
        let mut bench = Bench::new([100, 100], None);
        let _ = bench
            .device
            .config_write(bench.now, spec::CONFIG_WDT, &[0x20, 0]);
        bench.check();
        bench.pass(1_000);
        assert_eq!(bench.told, []);
    }
}
