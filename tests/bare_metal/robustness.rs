// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VM process survives, and what it doesn't outlive.

use std::fs;

use kennel_tests::machine::{Machine, Seen};
use kennel_vmm::protocol::{Command, Ending, News};
use libtest_mimic::Trial;

use crate::registers::ended;
use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test(
            "a_guest_that_floods_requests_is_still_obeyed_by_nobody",
            flood,
        ),
        test("process_ends_when_its_supervisor_is_gone", orphan),
        test("broken_kernel_is_one_clear_message", broken_kernel),
    ]
}

/// Arming and disarming without end neither fills memory nor keeps the host's commands out.
fn flood() {
    let mut machine = Machine::start('f', Some(kennel_vmm::config::WatchdogConfig::default()));
    machine.line("flooding");
    let arming = |news: &News| match news {
        News::WatchdogArmed { .. } | News::WatchdogDisarmed => Some(()),
        _ => None,
    };
    machine.news("arming", arming);
    for _ in 0..20 {
        machine.tell(&Command::Pause);
        machine.news("pause", |news| {
            matches!(news, News::Paused { .. }).then_some(())
        });
        machine.tell(&Command::Resume);
        machine.news("resume", |news| matches!(news, News::Resumed).then_some(()));
    }
    machine.tell(&Command::Stop);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::Stopped);
    let told = |seen: &&Seen| match seen {
        Seen::Notice(notice) => arming(&notice.news).is_some(),
        _ => false,
    };
    let seconds = machine.log().iter().filter_map(|seen| match seen {
        Seen::Notice(notice) => Some(notice.uptime_ns / 1_000_000_000),
        _ => None,
    });
    let seconds = usize::try_from(seconds.max().unwrap_or(0)).expect("a short test");
    let told = machine.log().iter().filter(told).count();
    assert!(
        (1..=seconds + 1).contains(&told),
        "{told} times in {seconds} s"
    );
}

fn orphan() {
    let mut machine = Machine::start('w', None);
    machine.line("done");
    assert_eq!(machine.orphaned().code(), Some(0), "it went by itself");
}

fn broken_kernel() {
    let mut machine = Machine::start_with("/dev/null".as_ref());
    let (_, message) = machine.news("failure", |news| match news {
        News::Failed { message } => Some(message.clone()),
        _ => None,
    });
    assert!(message.contains("/dev/null"), "{message}");
    assert!(!message.contains("os error"), "{message}");
    assert!(fs::metadata("/dev/null").is_ok());
}
