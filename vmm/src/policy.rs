// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is done about bites, requests and commands: a pure state machine over VM time.
//!
//! [`Policy`] is told what happened and answers with [`Step`]s, which the machine carries out in
//! their order. It owns no device and reads no clock.

use std::time::Duration;

use i6300esb::{Event, STALL_NS, Status, VmInstant};

use crate::arming::Arming;
use crate::config::{PretimeoutAction, WatchdogAction, WatchdogConfig};
use crate::mailbox::{Request, ResetCause};
use crate::pretimeout::Pretimeout;
use crate::protocol::{Command, Ending, News, WatchdogReport};

/// Something for the machine to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Tell the supervisor.
    Tell(News),
    /// Tell the supervisor how the machine is.
    TellStatus,
    /// Begin a platform reset; none if one is under way, in which no guest has run yet.
    Reset(ResetCause),
    /// The guest is loaded: let it run, and tell [`News::Reset`].
    EndReset,
    /// A reset may be near, and is to be quick.
    KeepSpare,
    /// Stop vCPUs and VM time.
    Freeze,
    /// Let them go on.
    Thaw,
    /// NMI to every vCPU.
    InjectNmi,
    /// Press the power button.
    PressPowerButton,
    /// The machine has ended.
    End(Ending),
    /// The machine cannot go on.
    Fail(String),
}

/// The guest has been asked to shut down.
#[derive(Clone, Copy, Debug)]
struct Grace {
    ends: VmInstant,
    /// A stall has been forgiven: the next one is not.
    forgiven: bool,
}

/// The state.
#[derive(Debug)]
pub struct Policy {
    watchdog: WatchdogConfig,
    frozen: bool,
    grace: Option<Grace>,
    arming: Arming,
    pretimeout: Pretimeout,
    keeps_spare: bool,
}

impl Policy {
    /// A running machine with this watchdog.
    #[must_use]
    pub fn new(watchdog: WatchdogConfig) -> Self {
        let lead = watchdog.pretimeout_lead.map(nanos);
        Self {
            pretimeout: Pretimeout::new(lead),
            watchdog,
            frozen: false,
            grace: None,
            arming: Arming::default(),
            keeps_spare: false,
        }
    }

    /// A vCPU or a device asks for something.
    pub fn request(&mut self, now: VmInstant, request: Request) -> Vec<Step> {
        match request {
            Request::Reset(cause) => vec![Step::Reset(cause)],
            Request::PowerOff => vec![Step::End(Ending::GuestPowerOff)],
            Request::VcpuFailed(message) => vec![Step::Fail(message)],
            Request::Watchdog(event) => self.watchdog_event(now, event),
            Request::Loaded => vec![Step::EndReset],
            // The machine looks at it, and calls `watchdog_is`.
            Request::WatchdogChanged => vec![],
        }
    }

    /// The watchdog as it is `now`. Must follow every request about it, and every [`Self::time_passed`].
    pub fn watchdog_is(&mut self, now: VmInstant, status: &Status) -> Vec<Step> {
        let timeout_ns = status.armed.then_some(status.timeout_ns);
        let news = self.arming.now_is(now, timeout_ns);
        let mut steps: Vec<_> = news.map(Step::Tell).into_iter().collect();
        if status.armed {
            steps.extend(self.first_arming());
        }
        steps.extend(self.check_pretimeout(now, status));
        steps
    }

    /// The platform was reset: its watchdog is disarmed.
    pub fn reset_done(&mut self) {
        self.arming.reset();
        self.pretimeout.start_over();
    }

    /// When to call [`Self::time_passed`].
    #[must_use]
    pub fn next_due(&self) -> Option<VmInstant> {
        let grace = self.grace.map(|grace| grace.ends);
        let news = [self.arming.next_due(), self.pretimeout.next_due()];
        grace.into_iter().chain(news.into_iter().flatten()).min()
    }

    /// Does what is due by now; [`Self::watchdog_is`] does the rest.
    pub fn time_passed(&mut self, now: VmInstant) -> Vec<Step> {
        if self.grace.is_some_and(|grace| grace.ends <= now) {
            return self.grace_over(now);
        }
        vec![]
    }

    /// The supervisor asks for something.
    pub fn command(&mut self, command: Command) -> Vec<Step> {
        match command {
            // A machine is started once; the process has used that message up.
            Command::Start(_) => vec![],
            // Answered by the event loop itself.
            Command::Pulse(_) => vec![],
            Command::Status => vec![Step::TellStatus],
            Command::Sync { token } => vec![Step::Tell(News::Synced { token })],
            Command::Pause if self.frozen => vec![],
            Command::Pause => self.freeze(false),
            Command::Resume if !self.frozen => vec![],
            Command::Resume => {
                self.frozen = false;
                vec![Step::Thaw, Step::Tell(News::Resumed)]
            }
            Command::PressPowerButton => vec![Step::PressPowerButton],
            Command::Reset => vec![Step::Reset(ResetCause::Host)],
            Command::InjectNmi => vec![Step::InjectNmi, Step::Tell(News::NmiInjected)],
            Command::Stop => vec![Step::End(Ending::Stopped)],
        }
    }

    fn grace_over(&mut self, now: VmInstant) -> Vec<Step> {
        let Some(grace) = self.grace.take() else {
            return vec![];
        };
        let stalled_ns = now.nanos_since(grace.ends);
        if grace.forgiven || stalled_ns <= STALL_NS {
            return vec![Step::End(Ending::GraceExpired)];
        }
        let ends = now.saturating_add(self.grace_ns());
        self.grace = Some(Grace {
            ends,
            forgiven: true,
        });
        vec![Step::Tell(News::StallForgiven { stalled_ns })]
    }

    fn grace_ns(&self) -> u64 {
        nanos(self.watchdog.shutdown_grace)
    }

    fn watchdog_event(&mut self, now: VmInstant, event: Event) -> Vec<Step> {
        match event {
            Event::Armed => {
                self.pretimeout.start_over();
                vec![]
            }
            Event::StallForgiven(stall) => {
                let stalled_ns = stall.stalled_ns;
                vec![Step::Tell(News::StallForgiven { stalled_ns })]
            }
            Event::Bite(bite) => {
                let report = WatchdogReport {
                    action: self.watchdog.action,
                    timeout_ns: bite.timeout_ns,
                    since_ping_ns: bite.since_ping_ns(now).unwrap_or_else(|| {
                        bite.armed_to_due_ns.saturating_add(bite.lateness_ns(now))
                    }),
                    lateness_ns: bite.lateness_ns(now),
                    bites: bite.count,
                };
                self.bite(now, report)
            }
            _ => vec![],
        }
    }

    /// Not earlier, so that no machine pays for it that is never reset by its watchdog.
    fn first_arming(&mut self) -> Option<Step> {
        let resets = self.watchdog.action == WatchdogAction::Reset;
        (resets && !std::mem::replace(&mut self.keeps_spare, true)).then_some(Step::KeepSpare)
    }

    fn check_pretimeout(&mut self, now: VmInstant, status: &Status) -> Vec<Step> {
        let nmi = match self.watchdog.pretimeout {
            PretimeoutAction::None => return vec![],
            PretimeoutAction::Event => false,
            PretimeoutAction::InjectNmi => true,
        };
        let Some(due) = self.pretimeout.check(now, status) else {
            return vec![];
        };
        let mut steps = vec![Step::Tell(News::Pretimeout {
            lead_ns: due.lead_ns,
            lateness_ns: due.lateness_ns,
            nmi,
        })];
        steps.extend(nmi.then_some(Step::InjectNmi));
        steps
    }

    fn bite(&mut self, now: VmInstant, report: WatchdogReport) -> Vec<Step> {
        let armed = self.arming.bitten(now).map(Step::Tell);
        let mut steps: Vec<_> = armed.into_iter().collect();
        steps.push(Step::Tell(News::Watchdog(report)));
        match self.watchdog.action {
            WatchdogAction::Reset => steps.push(Step::Reset(ResetCause::Watchdog)),
            WatchdogAction::Poweroff => steps.push(Step::End(Ending::WatchdogPowerOff)),
            WatchdogAction::Shutdown => steps.extend(self.shut_down(now)),
            WatchdogAction::Pause => steps.extend(self.freeze(true)),
            WatchdogAction::InjectNmi => {
                steps.extend([Step::InjectNmi, Step::Tell(News::NmiInjected)]);
            }
            WatchdogAction::None => {}
        }
        steps
    }

    /// Further bites while the grace runs neither lengthen it nor press again.
    fn shut_down(&mut self, now: VmInstant) -> Vec<Step> {
        if self.grace.is_some() {
            return vec![];
        }
        let grace_ns = self.grace_ns();
        let ends = now.saturating_add(grace_ns);
        self.grace = Some(Grace {
            ends,
            forgiven: false,
        });
        vec![
            Step::PressPowerButton,
            Step::Tell(News::ShutdownAsked { grace_ns }),
        ]
    }

    fn freeze(&mut self, by_watchdog: bool) -> Vec<Step> {
        if std::mem::replace(&mut self.frozen, true) {
            return vec![];
        }
        vec![Step::Freeze, Step::Tell(News::Paused { by_watchdog })]
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use i6300esb::{Config, I6300Esb, spec};

    /// Everything a real device says over one bite of both stages at their shortest.
    fn bite() -> (VmInstant, Event) {
        let mut device = I6300Esb::new(Config::default());
        for offset in [spec::PRELOAD1, spec::PRELOAD2] {
            for key in [spec::UNLOCK_KEY1, spec::UNLOCK_KEY2] {
                let _ = device.mmio_write(VmInstant::ZERO, spec::RELOAD, &key.to_le_bytes());
            }
            let _ = device.mmio_write(VmInstant::ZERO, offset, &1_u32.to_le_bytes());
        }
        let _ = device.config_write(VmInstant::ZERO, spec::CONFIG_LOCK, &[spec::ENABLE]);
        let first = device.deadline().expect("armed");
        let _ = device.timer_fired(first);
        let second = device.deadline().expect("in stage 2");
        let late = second.saturating_add(7);
        let effects = device.timer_fired(late);
        (late, Event::Bite(effects.events.bite().expect("a bite")))
    }

    fn policy(action: WatchdogAction) -> Policy {
        let shutdown_grace = Duration::from_nanos(100);
        Policy::new(WatchdogConfig {
            action,
            shutdown_grace,
            ..WatchdogConfig::default()
        })
    }

    fn bitten(policy: &mut Policy) -> (VmInstant, Vec<Step>) {
        let (now, event) = bite();
        (now, policy.request(now, Request::Watchdog(event)))
    }

    #[test]
    fn every_action_tells_first_then_acts() {
        for (action, acts) in [
            (
                WatchdogAction::Reset,
                vec![Step::Reset(ResetCause::Watchdog)],
            ),
            (
                WatchdogAction::Poweroff,
                vec![Step::End(Ending::WatchdogPowerOff)],
            ),
            (
                WatchdogAction::Pause,
                vec![Step::Freeze, Step::Tell(News::Paused { by_watchdog: true })],
            ),
            (
                WatchdogAction::InjectNmi,
                vec![Step::InjectNmi, Step::Tell(News::NmiInjected)],
            ),
            (WatchdogAction::None, vec![]),
        ] {
            let (now, steps) = bitten(&mut policy(action));
            let Some((Step::Tell(News::Watchdog(report)), rest)) = steps.split_first() else {
                panic!("{action:?}: {steps:?}");
            };
            assert_eq!(rest, acts);
            assert_eq!(
                (report.action, report.lateness_ns, report.bites),
                (action, 7, 1)
            );
            assert_eq!(report.timeout_ns, 2 * 32_768 * 30);
            assert_eq!(report.since_ping_ns, now.as_nanos());
        }
    }

    #[test]
    fn shutdown_escalates_once_its_grace_is_over() {
        let mut policy = policy(WatchdogAction::Shutdown);
        let (now, steps) = bitten(&mut policy);
        assert_eq!(
            steps[1..],
            [
                Step::PressPowerButton,
                Step::Tell(News::ShutdownAsked { grace_ns: 100 }),
            ]
        );
        let (_, again) = bitten(&mut policy);
        assert_eq!(again.len(), 1, "told, and nothing else: {again:?}");
        assert_eq!(policy.next_due(), Some(now.saturating_add(100)));
        assert_eq!(policy.time_passed(now.saturating_add(99)), []);
        let end = now.saturating_add(100 + STALL_NS);
        assert_eq!(policy.time_passed(end), [Step::End(Ending::GraceExpired)]);
        assert_eq!(policy.time_passed(end), []);
    }

    #[test]
    fn a_grace_that_ran_out_while_nobody_ran_begins_again_once() {
        let mut policy = policy(WatchdogAction::Shutdown);
        let (now, _) = bitten(&mut policy);
        let found = now.saturating_add(101 + STALL_NS);
        let stalled_ns = 1 + STALL_NS;
        let told = [Step::Tell(News::StallForgiven { stalled_ns })];
        assert_eq!(policy.time_passed(found), told);
        assert_eq!(policy.next_due(), Some(found.saturating_add(100)));
        let late = found.saturating_add(3 * STALL_NS);
        assert_eq!(policy.time_passed(late), [Step::End(Ending::GraceExpired)]);
    }

    #[test]
    fn guest_that_powers_off_within_the_grace_has_done_it_itself() {
        let mut policy = policy(WatchdogAction::Shutdown);
        let (now, _) = bitten(&mut policy);
        assert_eq!(
            policy.request(now, Request::PowerOff),
            [Step::End(Ending::GuestPowerOff)]
        );
    }

    #[test]
    fn pause_and_resume_are_idempotent() {
        let mut policy = policy(WatchdogAction::None);
        assert_eq!(policy.command(Command::Resume), []);
        let paused = [
            Step::Freeze,
            Step::Tell(News::Paused { by_watchdog: false }),
        ];
        assert_eq!(policy.command(Command::Pause), paused);
        assert_eq!(policy.command(Command::Pause), []);
        assert_eq!(
            policy.command(Command::Resume),
            [Step::Thaw, Step::Tell(News::Resumed)]
        );
        assert_eq!(policy.command(Command::Resume), []);
    }

    /// A device that was armed at the beginning, with 1000 ticks a stage.
    fn armed() -> I6300Esb {
        let mut device = I6300Esb::new(Config::default());
        for offset in [spec::PRELOAD1, spec::PRELOAD2] {
            for key in [spec::UNLOCK_KEY1, spec::UNLOCK_KEY2] {
                let _ = device.mmio_write(VmInstant::ZERO, spec::RELOAD, &key.to_le_bytes());
            }
            let _ = device.mmio_write(VmInstant::ZERO, offset, &1_000_u32.to_le_bytes());
        }
        let _ = device.config_write(VmInstant::ZERO, spec::CONFIG_LOCK, &[spec::ENABLE]);
        device
    }

    const ROUND_NS: u64 = 2_000 * 32_768 * 30;

    #[test]
    fn pretimeout_actions() {
        for (pretimeout, nmi) in [
            (PretimeoutAction::Event, Some(false)),
            (PretimeoutAction::InjectNmi, Some(true)),
            (PretimeoutAction::None, None),
        ] {
            let mut policy = Policy::new(WatchdogConfig {
                action: WatchdogAction::None,
                pretimeout,
                ..WatchdogConfig::default()
            });
            let device = armed();
            for now in [0, 300_000_000].map(VmInstant::from_nanos) {
                let _armed = policy.watchdog_is(now, &device.status(now));
            }
            let at = VmInstant::from_nanos(ROUND_NS / 4 * 3);
            let late = at.saturating_add(3);
            let mut expected = vec![];
            if let Some(nmi) = nmi {
                expected.push(Step::Tell(News::Pretimeout {
                    lead_ns: ROUND_NS / 4,
                    lateness_ns: 3,
                    nmi,
                }));
                expected.extend(nmi.then_some(Step::InjectNmi));
            }
            assert_eq!(policy.watchdog_is(late, &device.status(late)), expected);
        }
    }

    #[test]
    fn a_watchdog_that_resets_keeps_a_spare_from_its_first_arming_on() {
        for (action, expected) in [(WatchdogAction::Reset, 1), (WatchdogAction::Pause, 0)] {
            let mut policy = policy(action);
            let device = armed();
            let mut kept = 0;
            for millis in 0..10 {
                let now = VmInstant::from_nanos(millis * 700_000_000);
                let steps = policy.watchdog_is(now, &device.status(now));
                kept += steps.iter().filter(|s| **s == Step::KeepSpare).count();
            }
            assert_eq!(kept, expected, "{action:?}");
        }
    }

    #[test]
    fn an_arming_is_told_with_its_timeout_and_again_after_a_reset() {
        let mut policy = policy(WatchdogAction::None);
        let device = armed();
        let told = [Step::Tell(News::WatchdogArmed {
            timeout_ns: ROUND_NS,
        })];
        let at = |seconds: u64| VmInstant::from_nanos(seconds * 1_000_000_000);
        assert_eq!(policy.watchdog_is(at(1), &device.status(at(1))), []);
        assert_eq!(policy.watchdog_is(at(2), &device.status(at(2))), told);
        policy.reset_done();
        assert_eq!(policy.watchdog_is(at(5), &device.status(at(5))), []);
        assert_eq!(policy.watchdog_is(at(6), &device.status(at(6))), told);
    }
}
