// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VM process that the host stops for longer than its guest's timeout: SIGSTOP, as a freezer or a debugger does it.

use std::thread;
use std::time::Duration;

use kennel_tests::machine::Machine;
use kennel_vmm::config::{WatchdogAction, WatchdogConfig};
use kennel_vmm::protocol::{Command, Ending, News, WatchdogStatus};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::registers::ended;
use crate::test;

/// Longer than any guest's timeout here.
const STOPPED: Duration = Duration::from_secs(6);

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("healthy_guest_is_not_bitten_for_a_stop", healthy),
        test("hung_guest_is_bitten_after_a_stop", hung),
        test("shutdown_grace_is_not_spent_by_a_stop", grace),
    ]
}

fn watchdog(action: WatchdogAction) -> WatchdogConfig {
    WatchdogConfig {
        action,
        ..WatchdogConfig::default()
    }
}

/// Stops the process for a while.
fn stop(machine: &Machine) {
    let pid = i32::try_from(machine.pid()).ok().and_then(Pid::from_raw);
    let pid = pid.expect("a process");
    kill_process(pid, Signal::STOP).expect("it lives");
    thread::sleep(STOPPED);
    kill_process(pid, Signal::CONT).expect("it lives");
}

/// The stall that is told next.
fn stalled(machine: &mut Machine) -> u64 {
    let (_, stalled_ns) = machine.news("a stall", |news| match news {
        News::StallForgiven { stalled_ns } => Some(*stalled_ns),
        _ => None,
    });
    stalled_ns
}

fn status(machine: &mut Machine) -> WatchdogStatus {
    machine.tell(&Command::Status);
    let (_, status) = machine.news("status", |news| match news {
        News::Status(status) => status.watchdog,
        _ => None,
    });
    status
}

/// Timer and vCPU go on at once: whichever comes first must not bite.
fn healthy() {
    let mut machine = Machine::start('a', Some(watchdog(WatchdogAction::Poweroff))).with_stops();
    machine.line("pinging");
    for _ in 0..2 {
        stop(&machine);
        assert!(stalled(&mut machine) > 1_000_000_000);
        let pings = status(&mut machine).pings;
        // A timeout later, counted by its pings.
        while status(&mut machine).pings < pings + 100 {}
        assert_eq!(status(&mut machine).bites, 0);
    }
    machine.tell(&Command::Stop);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::Stopped);
}

/// Its lateness counts from the deadline that the stop made it miss.
fn hung() {
    let mut machine = Machine::start('l', Some(watchdog(WatchdogAction::Poweroff))).with_stops();
    machine.line("lock=");
    stop(&machine);
    assert!(stalled(&mut machine) > 1_000_000_000);
    let (_, report) = machine.news("bite", |news| match news {
        News::Watchdog(report) => Some(*report),
        _ => None,
    });
    assert_eq!(report.bites, 1);
    assert!(report.lateness_ns > 2_000_000_000, "{report:?}");
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::WatchdogPowerOff);
}

fn grace() {
    let config = WatchdogConfig {
        shutdown_grace: Duration::from_secs(1),
        ..watchdog(WatchdogAction::Shutdown)
    };
    let mut machine = Machine::start('b', Some(config)).with_stops();
    let asked = |news: &News| matches!(news, News::ShutdownAsked { .. }).then_some(());
    machine.news("button", asked);
    stop(&machine);
    let (told, _) = machine.news("a stall", |news| {
        matches!(news, News::StallForgiven { .. }).then_some(())
    });
    let (end, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::GraceExpired);
    assert!(end.uptime_ns - told.uptime_ns >= 1_000_000_000);
}
