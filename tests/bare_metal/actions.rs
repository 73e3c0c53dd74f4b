// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a bite does, action by action; and the end of stage 1.

use std::time::Duration;

use kennel_tests::machine::{Machine, Seen};
use kennel_vmm::config::{AfterBite, PretimeoutAction, WatchdogAction, WatchdogConfig};
use kennel_vmm::protocol::{Command, Ending, News, Notice, WatchdogReport};
use libtest_mimic::Trial;

use crate::registers::ended;
use crate::test;

/// The payload's programs `l` and `n`: 200 ticks a stage, so that a guest on a busy machine has its say first.
const TIMEOUT_NS: u64 = 2 * 200 * 983_040;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("poweroff_is_never_early_and_is_the_end", poweroff),
        test("shutdown_escalates_after_its_grace", shutdown),
        test("pause_freezes_vm_time_and_starts_over", pause),
        test("inject_nmi_reaches_the_guest_again_and_again", inject_nmi),
        test("none_bites_again_one_timeout_later", none),
        test("disarm_bites_once", disarm),
        test("pretimeout_tells_and_injects", pretimeout),
        test("pretimeout_spares_a_healthy_guest", no_pretimeout),
        test("arming_is_told_in_each_boot", arming),
    ]
}

fn watchdog(action: WatchdogAction) -> WatchdogConfig {
    WatchdogConfig {
        action,
        ..WatchdogConfig::default()
    }
}

/// The next bite, and the VM time at which it was due.
fn bite(machine: &mut Machine) -> (u64, WatchdogReport) {
    let (notice, report) = machine.news("bite", |news| match news {
        News::Watchdog(report) => Some(*report),
        _ => None,
    });
    (notice.uptime_ns - report.lateness_ns, report)
}

fn poweroff() {
    let mut machine = Machine::start('l', Some(watchdog(WatchdogAction::Poweroff)));
    let (_, report) = bite(&mut machine);
    assert_eq!(report.timeout_ns, TIMEOUT_NS);
    assert_eq!(report.since_ping_ns - report.lateness_ns, TIMEOUT_NS);
    assert_eq!(report.bites, 1);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::WatchdogPowerOff);
}

fn shutdown() {
    let grace = Duration::from_millis(50);
    let config = WatchdogConfig {
        shutdown_grace: grace,
        ..watchdog(WatchdogAction::Shutdown)
    };
    let mut machine = Machine::start('l', Some(config));
    let (asked, grace_ns) = machine.news("shutdown", |news| match news {
        News::ShutdownAsked { grace_ns } => Some(*grace_ns),
        _ => None,
    });
    assert_eq!(u128::from(grace_ns), grace.as_nanos());
    let (end, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::GraceExpired);
    assert!(
        end.uptime_ns - asked.uptime_ns >= grace_ns,
        "the grace is never cut short"
    );
}

fn pause() {
    let mut machine = Machine::start('l', Some(watchdog(WatchdogAction::Pause)));
    let (first, _) = bite(&mut machine);
    let paused = |news: &News| matches!(news, News::Paused { by_watchdog: true }).then_some(());
    let (stopped, ()) = machine.news("pause", paused);
    machine.tell(&Command::Resume);
    let resumed = |news: &News| matches!(news, News::Resumed).then_some(());
    let (resumed, ()) = machine.news("resume", resumed);
    assert_eq!(resumed.uptime_ns, stopped.uptime_ns, "VM time stood still");
    let (second, _) = bite(&mut machine);
    assert_eq!(second - first, TIMEOUT_NS, "it started over at the bite");
}

fn inject_nmi() {
    let mut machine = Machine::start('n', Some(watchdog(WatchdogAction::InjectNmi)));
    for _ in 0..3 {
        machine.line("nmi");
    }
    let bites = machine.log().iter().filter(|seen| is_bite(seen)).count();
    assert!(bites >= 1, "{:?}", machine.log());
}

fn is_bite(seen: &Seen) -> bool {
    matches!(
        seen,
        Seen::Notice(Notice {
            news: News::Watchdog(_),
            ..
        })
    )
}

fn none() {
    let mut machine = Machine::start('l', Some(watchdog(WatchdogAction::None)));
    let (first, one) = bite(&mut machine);
    // Told at most once a second, and counted all the same.
    let (second, more) = bite(&mut machine);
    assert_eq!(one.bites, 1);
    assert_eq!(
        second - first,
        TIMEOUT_NS,
        "the next bite was due on the beat"
    );
    assert!(more.bites > 1, "{more:?}");
}

fn disarm() {
    let config = WatchdogConfig {
        after_bite: AfterBite::Disarm,
        ..watchdog(WatchdogAction::None)
    };
    let mut machine = Machine::start('l', Some(config));
    bite(&mut machine);
    machine.tell(&Command::Status);
    let (_, watchdog) = machine.news("status", |news| match news {
        News::Status(status) => status.watchdog,
        _ => None,
    });
    assert!(!watchdog.armed && !watchdog.locked, "{watchdog:?}");
    assert_eq!((watchdog.bites, watchdog.time_left_ns), (1, None));
}

/// That long before the bite to a nanosecond, and a quarter of the timeout at most. The machine goes on, as a busy one may
/// reach the first bite before it comes to the pretimeout.
fn pretimeout() {
    for (lead, expected) in [(None, TIMEOUT_NS / 4), (Some(90_000_000), 90_000_000)] {
        let config = WatchdogConfig {
            pretimeout: PretimeoutAction::InjectNmi,
            pretimeout_lead: lead.map(Duration::from_nanos),
            ..watchdog(WatchdogAction::None)
        };
        let mut machine = Machine::start('n', Some(config));
        let (notice, (lead_ns, lateness_ns)) = machine.news("pretimeout", |news| match news {
            News::Pretimeout {
                lead_ns,
                lateness_ns,
                nmi: true,
            } => Some((*lead_ns, *lateness_ns)),
            _ => None,
        });
        assert_eq!(lead_ns, expected);
        let (due, _) = bite(&mut machine);
        assert_eq!(due - (notice.uptime_ns - lateness_ns), expected);
        // The console and the notices come by two ways, in either order.
        if !machine.log().contains(&Seen::Line("nmi".into())) {
            machine.line("nmi");
        }
    }
}

/// What is pinged often enough never sees it.
fn no_pretimeout() {
    let config = WatchdogConfig {
        pretimeout: PretimeoutAction::InjectNmi,
        ..watchdog(WatchdogAction::Poweroff)
    };
    let mut machine = Machine::start('a', Some(config));
    machine.line("pinging");
    let (armed, timeout_ns) = machine.news("arming", |news| match news {
        News::WatchdogArmed { timeout_ns } => Some(*timeout_ns),
        _ => None,
    });
    let ends = armed.uptime_ns + timeout_ns;
    loop {
        machine.tell(&Command::Status);
        let (notice, _) = machine.news("status", |news| match news {
            News::Status(status) => status.watchdog,
            _ => None,
        });
        if notice.uptime_ns > ends {
            break;
        }
    }
    let pretimeout = |seen: &Seen| match seen {
        Seen::Notice(notice) => matches!(notice.news, News::Pretimeout { .. }),
        _ => false,
    };
    assert!(!machine.log().iter().any(pretimeout), "{:?}", machine.log());
}

fn arming() {
    let mut machine = Machine::start('l', Some(watchdog(WatchdogAction::Reset)));
    for _ in 0..2 {
        let (_, timeout_ns) = machine.news("arming", |news| match news {
            News::WatchdogArmed { timeout_ns } => Some(*timeout_ns),
            _ => None,
        });
        assert_eq!(timeout_ns, TIMEOUT_NS);
        machine.news("reset", |news| {
            matches!(news, News::Reset { .. }).then_some(())
        });
    }
}
