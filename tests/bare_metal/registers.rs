// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Registers as a guest's instructions reach them: every width, and a BAR that moves.

use kennel_tests::machine::Machine;
use kennel_vmm::config::{WatchdogAction, WatchdogConfig};
use kennel_vmm::protocol::{Ending, News};
use libtest_mimic::Trial;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("every_access_width_in_both_spaces", widths),
        test("bar_moves_while_armed_and_decoding_is_honoured", bar_moves),
        test("lock_cannot_be_undone", lock),
    ]
}

fn watchdog(action: WatchdogAction) -> WatchdogConfig {
    WatchdogConfig {
        action,
        ..WatchdogConfig::default()
    }
}

fn widths() {
    let mut machine = Machine::start('w', Some(watchdog(WatchdogAction::None)));
    for (name, value) in [
        ("timed_out", "00000000"),
        ("id32", "25ab8086"),
        ("id16", "000025ab"),
        ("id8", "00000025"),
        // INT_TYPE, PRE_SEL and WDT_OUTPUT are all there is.
        ("config16", "00000027"),
        ("config32", "00000027"),
        ("config8", "00000027"),
        ("config8_upper", "00000000"),
        ("config_after_8", "00000003"),
        ("config_after_32", "00000024"),
        ("preload32", "00012345"),
        ("preload16", "00002345"),
        ("preload8", "00000001"),
        ("preload2", "000fffff"),
        ("preload2_after_8", "00000777"),
        ("preload2_locked", "00000777"),
        ("enabled32", "00000002"),
        ("disabled8", "00000000"),
        ("beyond_bar", "ffffffff"),
    ] {
        assert_eq!(machine.line(&format!("{name}=")), value, "{name}");
    }
    machine.line("done");
}

fn bar_moves() {
    let mut machine = Machine::start('m', Some(watchdog(WatchdogAction::Poweroff)));
    assert_eq!(machine.line("size="), "fffffff0");
    assert_eq!(
        machine.line("old_place="),
        "ffffffff",
        "nobody is left at the old place"
    );
    assert_eq!(
        machine.line("new_place="),
        "00000064",
        "the preload is where the BAR is now"
    );
    machine.line("moved");
    assert_eq!(
        machine.line("disabled="),
        "ffffffff",
        "a disabled BAR is decoded nowhere"
    );
    machine.line("alone");
    // 20,000 pings at the new place took longer than the timeout of 0.2 s, and kept it away.
    let (_, report) = machine.news("bite", |news| match news {
        News::Watchdog(report) => Some(*report),
        _ => None,
    });
    assert_eq!(report.timeout_ns, 2 * 100 * 983_040);
    assert_eq!(report.since_ping_ns - report.lateness_ns, report.timeout_ns);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::WatchdogPowerOff);
}

fn lock() {
    let mut machine = Machine::start('l', Some(watchdog(WatchdogAction::Poweroff)));
    assert_eq!(machine.line("lock="), "00000003");
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::WatchdogPowerOff);
}

pub(crate) fn ended(news: &News) -> Option<Ending> {
    match news {
        News::Ended(ending) => Some(*ending),
        _ => None,
    }
}
