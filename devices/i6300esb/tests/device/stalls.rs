// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Time that nobody ran: a guest that pings whenever it can is never bitten for it, and one that hangs always is.

use i6300esb::{AfterBite, Config, Event, STALL_NS, StallForgiven, TimerRequest};
use proptest::prelude::*;

use crate::machine::{MS, Machine, SECOND};

/// One tick of the slow scale.
const TICK: u64 = 983_040;
/// Ticks of a stage of about 2 s.
const TWO_SECONDS: u64 = 2_034;

fn machine(first: u64, second: u64) -> Machine {
    let mut machine = Machine::new(Config {
        forgive_stalls: true,
        ..Config::default()
    });
    machine.start(first, second, 0);
    machine
}

fn stalls(machine: &Machine) -> Vec<StallForgiven> {
    let stall = |(_, event): &(_, Event)| match event {
        Event::StallForgiven(stall) => Some(*stall),
        _ => None,
    };
    machine.events.iter().filter_map(stall).collect()
}

/// Who finds first that the process runs again.
#[derive(Clone, Copy, Debug)]
enum Finds {
    Timer,
    Read,
    ConfigRead,
    ConfigWrite,
    Acknowledge,
    Program,
    Key,
}

const FINDERS: [Finds; 7] = [
    Finds::Timer,
    Finds::Read,
    Finds::ConfigRead,
    Finds::ConfigWrite,
    Finds::Acknowledge,
    Finds::Program,
    Finds::Key,
];

/// The process was stopped for so long, and goes on.
fn stop(machine: &mut Machine, nanos: u64, finds: Finds) {
    machine.stall(nanos);
    match finds {
        Finds::Timer => {}
        Finds::Read => assert_eq!(machine.read(0x0c, 2) & 0x200, 0, "no bite is seen"),
        Finds::ConfigRead => assert!(machine.config_read(0x64, 4) > 0),
        Finds::ConfigWrite => machine.config_write(0x60, 2, 0),
        Finds::Acknowledge => machine.write(0x08, 4, 1),
        Finds::Program => machine.write(0x00, 4, 1),
        Finds::Key => machine.write(0x0c, 2, 0x80),
    }
    machine.advance(0);
}

#[test]
fn a_stall_is_forgiven_by_whoever_finds_it_first() {
    for finds in FINDERS {
        let mut machine = machine(TWO_SECONDS, TWO_SECONDS);
        machine.ping();
        stop(&mut machine, 60 * SECOND, finds);
        let stage = TWO_SECONDS * TICK;
        let told = stalls(&machine);
        assert_eq!(told.len(), 1, "{finds:?}");
        assert_eq!(told[0].due.as_nanos(), stage);
        assert_eq!(told[0].stalled_ns, 60 * SECOND - stage);
        assert_eq!(machine.status().time_left_ns, Some(2 * stage));
        assert_eq!(
            (machine.status().bites, machine.status().first_stages),
            (0, 0)
        );
        machine.ping();
        assert_eq!(machine.event_names(), ["Armed", "StallForgiven"]);
    }
}

#[test]
fn a_hung_guest_is_bitten_one_round_after_a_stall_and_its_lateness_counts_from_before() {
    let mut machine = machine(TWO_SECONDS, TWO_SECONDS);
    machine.advance(SECOND);
    machine.ping();
    stop(&mut machine, 60 * SECOND, Finds::Timer);
    let round = 2 * TWO_SECONDS * TICK;
    machine.advance(round - 1);
    assert_eq!(machine.bites(), []);
    machine.advance(1);
    let [bite] = machine.bites()[..] else {
        panic!("{:?}", machine.events)
    };
    assert_eq!(bite.due.as_nanos(), SECOND + round);
    assert_eq!(bite.lateness_ns(machine.now), 60 * SECOND);
    assert_eq!(bite.since_ping_ns(machine.now), Some(60 * SECOND + round));
    assert_eq!((bite.timeout_ns, bite.count), (round, 1));
    let stage_1 = machine.events.iter().find_map(|(_, event)| match event {
        Event::FirstStage(stage) => Some(stage.due.as_nanos()),
        _ => None,
    });
    assert_eq!(stage_1, Some(SECOND + round / 2));
}

#[test]
fn a_stall_in_stage_2_starts_stage_2_over() {
    let mut machine = machine(TWO_SECONDS, TWO_SECONDS);
    machine.advance(TWO_SECONDS * TICK + SECOND);
    assert!(machine.interrupt);
    stop(&mut machine, 10 * SECOND, Finds::Read);
    assert_eq!(machine.status().time_left_ns, Some(TWO_SECONDS * TICK));
    assert_eq!(machine.status().first_stages, 1, "it is not run again");
    machine.advance(TWO_SECONDS * TICK);
    assert_eq!(machine.bites().len(), 1);
}

#[test]
fn the_next_grace_takes_a_ping() {
    let mut machine = machine(TWO_SECONDS, TWO_SECONDS);
    stop(&mut machine, 10 * SECOND, Finds::Timer);
    machine.save_and_restore();
    stop(&mut machine, 10 * SECOND, Finds::Timer);
    assert_eq!((stalls(&machine).len(), machine.bites().len()), (1, 1));
    machine.ping();
    stop(&mut machine, 10 * SECOND, Finds::Timer);
    assert_eq!((stalls(&machine).len(), machine.bites().len()), (2, 1));
}

/// Every round that nobody ran would be a bite: there is one, however long that was.
#[test]
fn a_hung_guest_is_not_bitten_for_rounds_that_nobody_ran() {
    for finds in [Finds::Timer, Finds::ConfigWrite] {
        for mode in [2, 6] {
            let mut machine = Machine::new(Config {
                forgive_stalls: true,
                ..Config::default()
            });
            machine.set_preloads(100, 100);
            machine.config_write(0x68, 1, mode);
            machine.advance(210 * TICK);
            let before = machine.status();
            stop(&mut machine, 3_600 * SECOND, finds);
            machine.advance(SECOND);
            let after = machine.status();
            assert_eq!(stalls(&machine), [], "{mode}");
            let bites = after.bites - before.bites;
            assert!(bites <= 1 + SECOND / (100 * TICK), "{bites} bites");
        }
    }
}

#[test]
fn a_stall_is_told_with_a_reset_and_changes_nothing_about_it() {
    let mut machine = machine(TWO_SECONDS, TWO_SECONDS);
    machine.stall(60 * SECOND);
    machine.reset(i6300esb::ResetKind::Platform);
    assert_eq!(
        machine.event_names(),
        ["Armed", "StallForgiven", "Disarmed"]
    );
    assert!(!machine.status().timed_out);
}

#[test]
fn a_little_late_is_no_stall() {
    for late in [99 * MS, STALL_NS] {
        let mut machine = machine(TWO_SECONDS, TWO_SECONDS);
        machine.stall(TWO_SECONDS * TICK + late);
        machine.advance(0);
        assert_eq!(machine.event_names(), ["Armed", "FirstStage"]);
        machine.advance(TWO_SECONDS * TICK - late - 1);
        assert_eq!(machine.bites(), []);
        machine.advance(1);
        let bites = machine.bites();
        assert_eq!(bites[0].due.as_nanos(), 2 * TWO_SECONDS * TICK);
    }
}

#[test]
fn bare_devices_forgive_nothing() {
    let mut machine = Machine::new(Config::default());
    machine.start(TWO_SECONDS, TWO_SECONDS, 0);
    stop(&mut machine, 10 * SECOND, Finds::Timer);
    assert_eq!((stalls(&machine).len(), machine.bites().len()), (0, 1));
}

#[test]
fn one_that_disarms_itself_does_so_once() {
    let mut machine = Machine::new(Config {
        forgive_stalls: true,
        after_bite: AfterBite::Disarm,
        ..Config::default()
    });
    machine.start(TWO_SECONDS, TWO_SECONDS, 0);
    stop(&mut machine, 10 * SECOND, Finds::Key);
    machine.advance(60 * SECOND);
    assert_eq!(
        machine.event_names(),
        ["Armed", "StallForgiven", "FirstStage", "Bite", "Disarmed"]
    );
}

/// What happens between two stops: how long the guest runs, how long nobody does, and who finds it.
fn stops() -> impl Strategy<Value = Vec<(u64, u64, usize)>> {
    let stopped = prop_oneof![0..400 * MS, 0..5 * SECOND, 0..100 * SECOND];
    prop::collection::vec((0..4 * SECOND, stopped, 0..FINDERS.len()), 1..20)
}

proptest! {
    /// It pings within each stage less a stall's bound, counted in the time in which it runs, and at least once between two
    /// stops.
    #[test]
    fn a_guest_that_pings_when_it_can_is_never_bitten(
        first in 1_000..3_000_u64, second in 1_000..3_000_u64, share in 1..=99_u64, stops in stops(),
    ) {
        let mut machine = machine(first, second);
        let every = (first.min(second) * TICK - STALL_NS) * share / 100;
        let mut next = every;
        for (runs, stopped, finds) in stops {
            let mut left = runs;
            let mut pinged = false;
            while left >= next || !pinged {
                machine.advance(next);
                machine.ping();
                left = left.saturating_sub(next);
                next = every;
                pinged = true;
            }
            machine.advance(left);
            next -= left;
            // Those that write would be pings, or need one.
            let finds = match FINDERS[finds] {
                Finds::Program | Finds::Key => Finds::Timer,
                other => other,
            };
            stop(&mut machine, stopped, finds);
            prop_assert_eq!(machine.bites().len(), 0, "stopped for {}", stopped);
        }
        machine.advance(next);
        machine.ping();
        prop_assert_eq!(machine.bites().len(), 0);
    }

    /// However often it is stopped after its last ping, one grace is all it gets.
    #[test]
    fn a_guest_that_hangs_is_always_bitten(
        first in 1_000..3_000_u64, second in 1_000..3_000_u64, stops in stops(),
    ) {
        let mut machine = machine(first, second);
        machine.advance(500 * MS);
        machine.ping();
        let due = machine.now.as_nanos() + (first + second) * TICK;
        for (runs, stopped, finds) in stops {
            machine.advance(runs);
            if machine.bites().is_empty() {
                // Some would see the bite.
                let finds = match FINDERS[finds] {
                    Finds::Read | Finds::ConfigRead => Finds::Timer,
                    other => other,
                };
                stop(&mut machine, stopped, finds);
            }
        }
        if machine.bites().is_empty() {
            let to_due = due.saturating_sub(machine.now.as_nanos());
            machine.advance((first + second) * TICK + to_due);
        }
        prop_assert!(!machine.bites().is_empty(), "{:?}", machine.events);
        prop_assert!(stalls(&machine).len() <= 1);
        prop_assert_eq!(machine.bites()[0].due.as_nanos(), due);
        let told = machine.events.iter().find_map(|(at, event)| {
            matches!(event, Event::Bite(_)).then_some(at.as_nanos())
        });
        prop_assert!(told >= Some(due), "never early");
    }

    /// As long as nobody is later than a stall's bound, forgiving changes nothing at all.
    #[test]
    fn where_nobody_stalls_forgiving_changes_nothing(
        steps in prop::collection::vec((0..500 * MS, 0..STALL_NS, any::<bool>()), 1..60),
    ) {
        let mut twins = [false, true].map(|forgive_stalls| {
            let mut machine = Machine::new(Config { forgive_stalls, ..Config::default() });
            machine.start(300, 200, 0);
            machine
        });
        for (runs, late, pings) in steps {
            for machine in &mut twins {
                machine.advance(runs);
                machine.stall(late);
                machine.advance(0);
                if pings {
                    machine.ping();
                }
            }
        }
        let [one, other] = twins;
        prop_assert_eq!(one.events, other.events);
        prop_assert_eq!(one.device.save(one.now), other.device.save(other.now));
        prop_assert_eq!(one.timer, other.timer);
    }
}

#[test]
fn a_forgiven_stall_leaves_the_lazy_timer_to_find_out() {
    let mut machine = machine(TWO_SECONDS, TWO_SECONDS);
    machine.stall(60 * SECOND);
    let effects = machine.device.mmio_write(machine.now, 0x0c, &[0x80, 0]);
    assert_eq!(effects.timer, TimerRequest::Keep, "it has fired already");
}
