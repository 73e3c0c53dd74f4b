// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Exactness in time: never early, late timers delay nothing, and bites that come for ever cost the host little.

use i6300esb::{
    AfterBite, Bite, ClockRate, Config, Event, I6300Esb, ResetKind, TimerRequest, VmInstant,
};
use proptest::prelude::*;

use crate::machine::{MS, Machine, PING, SECOND};

const TICK: u64 = 983_040;

#[test]
fn a_ping_moves_no_timer() {
    let mut machine = Machine::new(Config::default());
    machine.start(0x3c00, 0x3c00, 3);
    assert_eq!(machine.timer_moves, 1);
    for _ in 0..10_000 {
        machine.now = machine.now.saturating_add(MS);
        machine.ping();
    }
    assert_eq!(machine.timer_moves, 1, "10,000 pings");
    let pinged = machine.now;
    machine.advance(31 * SECOND);
    assert_eq!(machine.bites()[0].due.nanos_since(pinged), 30_198_988_800);
}

#[test]
fn a_deadline_moved_earlier_moves_the_timer() {
    let mut machine = Machine::new(Config::default());
    machine.start(1000, 1000, 3);
    machine.set_preloads(10, 10);
    assert_eq!(
        machine.timer,
        Some(VmInstant::from_nanos(1000 * TICK)),
        "not before the next load"
    );
    machine.ping();
    assert_eq!(machine.timer, Some(VmInstant::from_nanos(10 * TICK)));
    machine.advance(20 * TICK);
    assert_eq!(machine.bites().len(), 1);
}

#[test]
fn keys_count_at_whatever_time_and_nothing_else_does() {
    for after_bite in [AfterBite::Rearm, AfterBite::Halt, AfterBite::Disarm] {
        let mut machine = Machine::new(Config {
            after_bite,
            ..Config::default()
        });
        machine.start(10, 10, 3);
        // The host has not served the bite, which resets the device if it disarms.
        machine.stall(21 * TICK);
        for (key, is_next) in [(0x80, true), (0x86, true), (0x86, false), (0x100, false)] {
            let done = machine.device.unlock_step(0x0c, &u16::to_le_bytes(key));
            let wanted = is_next && after_bite != AfterBite::Disarm;
            assert_eq!(done, wanted, "{after_bite:?}, {key:#x}");
            if !done && is_next {
                machine.write(0x0c, 2, key.into());
            }
        }
        // Done or refused, a key that was not the next one has left no mark.
        machine.write(0x00, 4, 7);
        assert_eq!(machine.read(0x00, 4), 7, "{after_bite:?}");
    }
}

#[test]
fn a_late_ping_does_not_rescue() {
    let mut machine = Machine::new(Config::default());
    machine.start(10, 10, 3);
    let due = VmInstant::from_nanos(20 * TICK);
    machine.stall(20 * TICK + 5);
    assert!(
        machine.status().timed_out,
        "a read shows it before the timer is served"
    );
    machine.ping();
    let [bite] = machine.bites()[..] else {
        unreachable!("{:?}", machine.events)
    };
    assert_eq!((bite.due, bite.lateness_ns(machine.now)), (due, 5));
    assert_eq!(
        machine.status().time_left_ns,
        Some(20 * TICK),
        "and the ping counts for the next round"
    );

    let mut exact = Machine::new(Config::default());
    exact.start(10, 10, 3);
    exact.stall(20 * TICK);
    exact.ping();
    assert_eq!(exact.bites().len(), 1, "at the very instant it is too late");
    let mut early = Machine::new(Config::default());
    early.start(10, 10, 3);
    early.stall(20 * TICK - 1);
    early.ping();
    assert_eq!(early.bites().len(), 0, "a nanosecond before it is not");
}

#[test]
fn a_ping_at_the_very_end_of_a_stage_is_too_late() {
    for served in [0, 10] {
        let mut machine = Machine::new(Config::default());
        machine.start(10, 10, 3);
        machine.advance(served * TICK);
        machine.stall(10 * TICK);
        machine.ping();
        let status = machine.status();
        let ended = if served == 0 { (1, 0) } else { (1, 1) };
        assert_eq!(
            (status.first_stages, status.bites),
            ended,
            "served until {served}"
        );
        assert_eq!(status.time_left_ns, Some(20 * TICK));
    }
}

#[test]
fn one_late_timer_ends_both_stages() {
    let mut machine = Machine::new(Config::default());
    machine.start(10, 10, 3);
    machine.stall(25 * TICK);
    machine.advance(0);
    assert_eq!(machine.event_names(), ["Armed", "FirstStage", "Bite"]);
    assert_eq!(
        machine.status().time_left_ns,
        Some(15 * TICK),
        "the second round began at the bite"
    );
}

#[test]
fn a_bite_tells_all_about_itself() {
    let mut machine = Machine::new(Config::default());
    machine.start(100, 200, 3);
    machine.advance(50 * TICK);
    machine.ping();
    machine.advance(1000 * TICK);
    let Bite {
        due,
        last_due,
        ping_to_due_ns,
        armed_to_due_ns,
        timeout_ns,
        count,
        ..
    } = machine.bites()[0];
    assert_eq!(due, VmInstant::from_nanos(350 * TICK));
    assert_eq!(last_due, due);
    assert_eq!(ping_to_due_ns, Some(300 * TICK));
    assert_eq!(armed_to_due_ns, 350 * TICK);
    assert_eq!(timeout_ns, 300 * TICK);
    assert_eq!(count, 1);
    assert_eq!(
        machine.bites()[0].since_ping_ns(due.saturating_add(9)),
        Some(300 * TICK + 9)
    );
}

#[test]
fn a_preload_takes_effect_when_its_stage_is_entered() {
    let mut machine = Machine::new(Config::default());
    machine.start(100, 100, 3);
    machine.advance(10 * TICK);
    machine.set_preloads(7, 30);
    assert_eq!(machine.status().stage_left_ns, Some(90 * TICK));
    machine.advance(90 * TICK);
    assert_eq!(machine.status().stage_left_ns, Some(30 * TICK));
    machine.advance(30 * TICK);
    assert_eq!(
        machine.bites()[0].timeout_ns,
        130 * TICK,
        "as it was programmed stage by stage"
    );
    assert_eq!(machine.status().time_left_ns, Some(37 * TICK));
}

#[test]
fn a_ping_while_disabled_arms_nothing() {
    let mut machine = Machine::new(Config::default());
    machine.ping();
    assert_eq!(
        (
            machine.status().pings,
            machine.status().stage,
            machine.timer
        ),
        (0, None, None)
    );
    assert_eq!(machine.status().ignored_writes, 0);
}

#[test]
fn one_tick_for_ever_is_counted_exactly_and_reported_once_a_second() {
    for clock in [ClockRate::NS_30, ClockRate::MHZ_33] {
        let mut machine = Machine::new(Config {
            clock,
            ..Config::default()
        });
        machine.start(0, 0, 3 | 4);
        machine.advance(10 * SECOND);
        let round_parts = 64 * u128::from(clock.as_ratio().0);
        let bites = u128::from(10 * SECOND) * u128::from(clock.as_ratio().1) / round_parts;
        assert_eq!(u128::from(machine.status().bites), bites);
        assert!(
            machine.bites().len() <= 11,
            "{} reports",
            machine.bites().len()
        );
        let reported: u64 = machine.bites().iter().map(|bite| bite.count).sum();
        assert!(
            u128::from(reported) <= bites && u128::from(reported) + 600_000 > bites,
            "{reported} of {bites}"
        );
        assert!(
            machine.wakes.len() <= 10_003,
            "{} wakes",
            machine.wakes.len()
        );
        // The first round is exact; from then on a millisecond lies between wakes.
        let gaps: Vec<u64> = machine
            .wakes
            .windows(2)
            .map(|pair| pair[1].nanos_since(pair[0]))
            .collect();
        assert!(gaps[1..].iter().all(|gap| *gap >= MS), "{:?}", &gaps[..5]);
        assert_eq!(machine.bites()[0].count, 1);
        assert_eq!(machine.bites()[0].lateness_ns(machine.wakes[1]), 0);
        for bite in &machine.bites()[1..] {
            let span = bite.last_due.nanos_since(bite.due);
            assert_eq!(span, clock.nanos((bite.count - 1) * 64), "{bite:?}");
        }
    }
}

#[test]
fn a_fresh_bite_takes_along_what_was_held_back() {
    let mut machine = Machine::new(Config::default());
    machine.start(0, 0, 3 | 4);
    machine.advance(100 * MS);
    assert_eq!(machine.event_names(), ["Armed", "FirstStage", "Bite"]);
    machine.set_preloads(1_000, 1_000);
    machine.ping();
    let pinged = machine.now;
    machine.advance(2 * 960_000);
    assert_eq!(
        machine.event_names(),
        ["Armed", "FirstStage", "Bite", "FirstStage", "Bite"],
        "within the second"
    );
    let bite = machine.bites()[1];
    assert_eq!(bite.last_due, pinged.saturating_add(2 * 960_000));
    assert_eq!(bite.count + 1, machine.status().bites);
    assert!(bite.count > 1 && bite.due < pinged);
}

#[test]
fn free_running_for_ever_costs_no_more() {
    let mut machine = Machine::new(Config::default());
    machine.config_write(0x60, 2, 4);
    machine.set_preloads(0, 0);
    machine.config_write(0x68, 1, 6);
    machine.advance(10 * SECOND);
    assert_eq!(machine.status().bites, (10 * SECOND / 960).div_ceil(2));
    assert!(
        machine.bites().len() <= 11,
        "{} reports",
        machine.bites().len()
    );
    assert!(
        machine.wakes.len() <= 10_003,
        "{} wakes",
        machine.wakes.len()
    );
}

#[test]
fn free_running_tells_the_first_bite_after_a_ping_at_once() {
    let mut machine = Machine::new(Config::default());
    machine.set_preloads(0, 10);
    machine.config_write(0x68, 1, 6);
    machine.advance(25 * TICK);
    assert_eq!(
        (machine.bites().len(), machine.status().bites),
        (1, 1),
        "active, and inactive again"
    );
    machine.ping();
    machine.advance(10 * TICK);
    assert_eq!(machine.bites().len(), 2, "told within the same second");
    assert_eq!(machine.bites()[1].ping_to_due_ns, Some(10 * TICK));
}

#[test]
fn a_stall_of_a_year_is_accounted_by_division() {
    let year = 365 * 24 * 3600 * SECOND;
    let mut machine = Machine::new(Config::default());
    machine.start(0, 0, 4);
    machine.stall(year);
    machine.advance(0);
    assert_eq!(machine.status().bites, year / (2 * 960));
    assert_eq!(machine.bites()[0].count, year / (2 * 960));
    let mut free = Machine::new(Config::default());
    free.set_preloads(0, 0);
    free.config_write(0x60, 2, 4);
    free.config_write(0x68, 1, 6);
    free.stall(year);
    free.advance(0);
    assert_eq!(free.status().bites, (year / 960).div_ceil(2));
}

#[test]
fn the_end_of_time_is_reached_without_a_panic() {
    for mode in [2, 6] {
        let mut machine = Machine::new(Config::default());
        machine.now = VmInstant::MAX.saturating_sub(5);
        machine.config_write(0x68, 1, mode);
        machine.now = VmInstant::MAX;
        for _ in 0..10 {
            let effects = machine.device.timer_fired(machine.now);
            machine.apply(effects);
            machine.ping();
        }
        let _ = (
            machine.status(),
            machine.device.save(machine.now),
            machine.config_read(0x64, 4),
        );
    }
}

#[test]
fn a_guest_that_pings_and_is_bitten_in_a_loop_does_not_flood() {
    let mut machine = Machine::new(Config::default());
    machine.start(0, 0, 3 | 4);
    for _ in 0..100_000 {
        machine.ping();
        machine.advance(2 * 960);
    }
    assert_eq!(machine.status().bites, 100_000);
    assert_eq!(machine.bites().len(), 1_001, "in 0.2 s");
    assert!(machine.bites().iter().all(|bite| bite.count == 1));
    machine.config_write(0x68, 1, 0);
    machine.advance(2 * SECOND);
    let reported: u64 = machine.bites().iter().map(|bite| bite.count).sum();
    assert_eq!(
        reported, 100_000,
        "the rest comes once the second is over, also when the watchdog is off by then"
    );
    assert_eq!(machine.timer, None);
}

#[test]
fn what_is_held_back_is_told_by_the_first_access_that_may() {
    let mut machine = Machine::new(Config::default());
    machine.start(0, 0, 3 | 4);
    machine.advance(100 * MS);
    machine.config_write(0x68, 1, 0);
    assert_eq!(machine.bites().len(), 1);
    // The host does not get to serve the timer; a key is written, which by itself asks for nothing.
    machine.stall(SECOND);
    machine.write(0x0c, 2, 0x80);
    let reported: u64 = machine.bites().iter().map(|bite| bite.count).sum();
    assert_eq!(reported, machine.status().bites);
}

#[test]
fn a_reset_reports_what_was_due_and_drops_what_was_held_back() {
    let mut due = Machine::new(Config::default());
    due.start(10, 10, 0);
    due.stall(20 * TICK);
    due.reset(ResetKind::Platform);
    assert_eq!(
        due.event_names(),
        ["Armed", "FirstStage", "Bite", "Disarmed"]
    );
    assert!(due.status().timed_out, "it bit before the reset");
    assert!(!due.interrupt && due.timer.is_none());

    let mut held_back = Machine::new(Config::default());
    held_back.start(0, 0, 3 | 4);
    held_back.advance(100 * MS);
    assert_eq!(held_back.bites().len(), 1);
    let counted = held_back.status().bites;
    held_back.reset(ResetKind::Platform);
    held_back.advance(10 * SECOND);
    assert_eq!(
        (held_back.bites().len(), held_back.status().bites),
        (1, counted)
    );
}

#[test]
fn the_next_boot_is_bitten_at_once_again() {
    let mut machine = Machine::new(Config::default());
    for boot in 1..=50 {
        machine.start(5, 5, 3);
        machine.advance(10 * TICK);
        assert_eq!(
            machine.bites().len(),
            boot,
            "reports are not held back across a reset"
        );
        machine.reset(ResetKind::Platform);
    }
}

#[test]
fn deadline_is_what_the_timer_was_asked_for() {
    let mut machine = Machine::new(Config::default());
    assert_eq!(machine.device.deadline(), None);
    machine.start(10, 20, 3);
    assert_eq!(machine.device.deadline(), machine.timer);
    machine.advance(10 * TICK);
    assert_eq!(
        machine.device.deadline(),
        Some(VmInstant::from_nanos(30 * TICK))
    );
    machine.config_write(0x68, 1, 0);
    assert_eq!((machine.device.deadline(), machine.timer), (None, None));
}

#[test]
fn never_early_over_10_000_random_deadlines() {
    let mut machine = Machine::new(Config {
        clock: ClockRate::MHZ_33,
        ..Config::default()
    });
    let mut seed = 0x6300_u64;
    let mut random = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..10_000 {
        let (first, second, scale) = (random(1 << 20), random(1 << 20), random(2) << 2);
        machine.start(first, second, 3 | scale);
        machine.ping();
        let pinged = machine.now;
        let clocks = (first.max(1) + second.max(1)) << if scale == 0 { 15 } else { 5 };
        let exact_33rds = u128::from(clocks) * 1000;
        machine.advance(u64::try_from(exact_33rds / 33).expect("half an hour") - 1);
        assert!(machine.bites().is_empty());
        machine.advance(2);
        let bite = machine.bites()[0];
        assert_eq!(
            u128::from(bite.due.nanos_since(pinged)),
            exact_33rds.div_ceil(33)
        );
        machine.config_write(0x68, 1, 0);
        machine.events.clear();
        machine.advance(random(2 * SECOND));
    }
}

proptest! {
    /// Whatever the timer does, late, early or twice, the device ends up where a timely one would have taken it.
    #[test]
    fn lateness_of_the_timer_changes_nothing(
        (first, second) in (0..2_000_u64, 0..2_000_u64),
        config in prop_oneof![Just(0_u64), Just(3), Just(4), Just(0x20), Just(0x24)],
        lock in prop_oneof![Just(2_u64), Just(3), Just(6)],
        after_bite in prop_oneof![Just(AfterBite::Rearm), Just(AfterBite::Disarm), Just(AfterBite::Halt)],
        stalls in proptest::collection::vec(0..3 * SECOND, 1..6),
    ) {
        let config_of = Config { after_bite, clock: ClockRate::MHZ_33, ..Config::default() };
        let mut late = Machine::new(config_of);
        let mut timely = Machine::new(config_of);
        for machine in [&mut late, &mut timely] {
            machine.config_write(0x60, 2, config);
            machine.set_preloads(first, second);
            machine.config_write(0x68, 1, lock);
        }
        for nanos in stalls {
            late.stall(nanos);
            timely.advance(nanos);
            prop_assert_eq!(late.status(), timely.status());
            prop_assert_eq!(late.read(0x00, 8), timely.read(0x00, 8));
            prop_assert_eq!(late.read(0x08, 8), timely.read(0x08, 8));
            prop_assert_eq!(late.config_read(0x60, 8), timely.config_read(0x60, 8));
        }
        late.advance(0);
        prop_assert_eq!(late.status(), timely.status());
        prop_assert_eq!(late.interrupt, timely.interrupt);
    }
}

#[test]
fn a_spurious_timer_is_harmless_and_arms_itself_again() {
    let mut device = I6300Esb::new(Config::default());
    let at = VmInstant::from_nanos;
    assert_eq!(device.timer_fired(at(1)).timer, TimerRequest::Keep);
    let TimerRequest::ArmAt(deadline) = device.config_write(at(2), 0x68, &[2]).timer else {
        unreachable!()
    };
    assert_eq!(
        device.timer_fired(at(3)).timer,
        TimerRequest::ArmAt(deadline)
    );
    assert_eq!(
        device.timer_fired(at(4)).timer,
        TimerRequest::ArmAt(deadline)
    );
    let effects = device.config_write(at(5), 0x68, &[0]);
    assert_eq!(effects.timer, TimerRequest::Disarm);
    assert_eq!(effects.events.iter().collect::<Vec<_>>(), [Event::Disarmed]);
    assert!(
        device
            .mmio_write(at(6), 0x0c, &PING.to_le_bytes())
            .events
            .is_empty()
    );
}
