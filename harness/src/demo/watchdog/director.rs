// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Watches a scene, gives its cues, and remembers what the promises are held against.

use std::time::Duration;

use kennel_vmm::config::WatchdogAction;
use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::{Command, Ending, News, Notice, WatchdogReport};

use super::{PAUSE, Plot, TIMEOUT_NS};
use crate::demo::{Director, Promise, Review, leading_number, script_failed};
use crate::supervisor::Order;
use crate::supervisor::verdict::Verdict;

/// The guest's init says this once it runs, with the watchdog's boot status behind it.
const UP: &str = "kennel: guest is up";
const BOOT_STATUS: &str = "watchdog boot status ";
/// `WDIOF_CARDRESET` (Linux, include/uapi/linux/watchdog.h).
const CARDRESET: u32 = 32;

#[derive(Clone, Copy, Debug)]
struct Bite {
    /// VM time at which it was due.
    due_ns: u64,
    report: WatchdogReport,
}

/// Watches one scene.
#[derive(Debug)]
pub struct SceneDirector {
    title: &'static str,
    action: WatchdogAction,
    plot: Plot,
    bites: Vec<Bite>,
    resets: Vec<ResetCause>,
    boot_statuses: Vec<u32>,
    paused_at: Vec<u64>,
    resumed_at: Vec<u64>,
    guest_uptimes: Vec<f64>,
    button_pressed: bool,
    nmi_logged: bool,
    ticked_after_bite: bool,
}

impl SceneDirector {
    pub(super) fn new(title: &'static str, action: WatchdogAction, plot: Plot) -> Self {
        Self {
            title,
            action,
            plot,
            bites: vec![],
            resets: vec![],
            boot_statuses: vec![],
            paused_at: vec![],
            resumed_at: vec![],
            guest_uptimes: vec![],
            button_pressed: false,
            nmi_logged: false,
            ticked_after_bite: false,
        }
    }

    /// A scene whose machine doesn't end by itself is over once everything was there to see.
    fn finish_when_seen(&self) -> Vec<Order> {
        let seen = match self.plot {
            Plot::Reset => self.boot_statuses.len() >= 3,
            Plot::Pause => self.paused_at.len() >= 2,
            Plot::Nmi => self.bites.len() >= 2 && self.nmi_logged,
            Plot::EventOnly => self.bites.len() >= 2 && self.ticked_after_bite,
            Plot::PowerOff | Plot::ObeyedShutdown | Plot::IgnoredShutdown => false,
        };
        if seen { vec![Order::Finish] } else { vec![] }
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let seconds = |ns| Duration::from_nanos(ns).as_secs_f64();
        let Some(Bite { report, .. }) = self.bites.first() else {
            return vec![("bites", "none".to_owned())];
        };
        let due = report.since_ping_ns.saturating_sub(report.lateness_ns);
        let lateness = seconds(report.lateness_ns) * 1e3;
        vec![
            (
                "timeout programmed",
                format!("{:.3} s", seconds(report.timeout_ns)),
            ),
            (
                "last ping",
                format!("{:.3} s before the bite", seconds(due)),
            ),
            ("lateness", format!("{lateness:.3} ms")),
            ("action", report.action.name().to_owned()),
        ]
    }

    fn every_action(&self) -> Vec<Promise> {
        let report = self.bites.first().map(|bite| bite.report);
        let is = |check: fn(&WatchdogReport) -> bool| report.as_ref().is_some_and(check);
        vec![
            Promise::new(
                "the driver programmed 10.066 s",
                is(|r| r.timeout_ns == TIMEOUT_NS),
            ),
            Promise::new(
                "the bite was due exactly that long after the last ping",
                is(|r| r.since_ping_ns.checked_sub(r.lateness_ns) == Some(r.timeout_ns)),
            ),
            Promise::new("its action was the one asked for", {
                report.is_some_and(|report| report.action == self.action)
            }),
        ]
    }

    fn reset(&self) -> Vec<Promise> {
        vec![
            Promise::new(
                "the machine was reset by the watchdog",
                self.resets.first() == Some(&ResetCause::Watchdog),
            ),
            Promise::new(
                "the next boot found CARDRESET, the one after it did not",
                self.boot_statuses == [0, CARDRESET, 0],
            ),
        ]
    }

    fn shutdown(&self, verdict: &Verdict, ending: Ending) -> Vec<Promise> {
        vec![
            Promise::new("the power button was pressed", self.button_pressed),
            ended(verdict, ending),
        ]
    }

    fn pause(&self) -> Vec<Promise> {
        let stood = !self.paused_at.is_empty() && self.paused_at.first() == self.resumed_at.first();
        let largest = self.guest_uptimes.windows(2).map(|pair| match pair {
            [before, after] => after - before,
            _ => 0.0,
        });
        let jumped = largest.fold(0.0, f64::max) >= PAUSE.as_secs_f64();
        vec![
            Promise::new("VM time stood still while paused", stood),
            Promise::new(
                "the guest's own clock did not see the pause",
                !jumped && self.guest_uptimes.len() > 2,
            ),
            self.bitten_again(),
        ]
    }

    /// The second bite is due one whole timeout of VM time after the first.
    fn bitten_again(&self) -> Promise {
        let exact = match self.bites.as_slice() {
            [first, second, ..] => second.due_ns.checked_sub(first.due_ns) == Some(TIMEOUT_NS),
            _ => false,
        };
        Promise::new(
            "the watchdog started over and bit again exactly one timeout later",
            exact,
        )
    }
}

impl Director for SceneDirector {
    fn news(&mut self, notice: &Notice) -> Vec<Order> {
        match &notice.news {
            News::Watchdog(report) => {
                let due_ns = notice.uptime_ns.saturating_sub(report.lateness_ns);
                self.bites.push(Bite {
                    due_ns,
                    report: *report,
                });
            }
            News::Reset { cause, .. } => self.resets.push(*cause),
            News::ShutdownAsked { .. } => self.button_pressed = true,
            News::Resumed => self.resumed_at.push(notice.uptime_ns),
            News::Paused { .. } => {
                self.paused_at.push(notice.uptime_ns);
                if self.paused_at.len() == 1 {
                    return vec![Order::After(PAUSE, Command::Resume)];
                }
            }
            _ => {}
        }
        self.finish_when_seen()
    }

    fn console_line(&mut self, line: &str) -> Vec<Order> {
        if line.contains(UP) {
            let status = line.split_once(BOOT_STATUS);
            self.boot_statuses
                .extend(status.and_then(|(_, status)| leading_number(status)));
        }
        if let Some((_, uptime)) = line.split_once("demo: guest uptime ") {
            self.guest_uptimes.extend(uptime.parse::<f64>());
            self.ticked_after_bite |= !self.bites.is_empty();
        }
        self.nmi_logged |= line.contains("NMI received");
        if script_failed(line) {
            return vec![Order::Finish];
        }
        self.finish_when_seen()
    }

    fn review(&self, verdict: &Verdict) -> Review {
        let mut promises = self.every_action();
        promises.extend(match self.plot {
            Plot::PowerOff => vec![ended(verdict, Ending::WatchdogPowerOff)],
            Plot::ObeyedShutdown => self.shutdown(verdict, Ending::GuestPowerOff),
            Plot::IgnoredShutdown => self.shutdown(verdict, Ending::GraceExpired),
            Plot::Reset => self.reset(),
            Plot::Pause => self.pause(),
            Plot::Nmi => vec![
                Promise::new("the guest logged the NMI", self.nmi_logged),
                self.bitten_again(),
            ],
            Plot::EventOnly => vec![
                Promise::new("the guest ran on", self.ticked_after_bite),
                self.bitten_again(),
            ],
        });
        Review {
            title: self.title,
            figures: self.figures(),
            verdict: verdict.clone(),
            promises,
        }
    }
}

fn ended(verdict: &Verdict, ending: Ending) -> Promise {
    Promise::new(
        match ending {
            Ending::GuestPowerOff => "the guest powered itself off",
            Ending::GraceExpired => "it was powered off once its grace was over",
            _ => "the machine was powered off",
        },
        *verdict == Verdict::Ended(ending),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_statuses_are_read_off_the_console() {
        let mut director = SceneDirector::new("", WatchdogAction::Reset, Plot::Reset);
        for (status, orders) in [(0, vec![]), (32, vec![]), (0, vec![Order::Finish])] {
            let line = format!("kennel: guest is up: Linux 6.1, watchdog boot status {status}");
            assert_eq!(director.console_line(&line), orders);
        }
        assert_eq!(director.boot_statuses, [0, CARDRESET, 0]);
    }
}
