// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every combination of stage, lock, unlock phase and pending interrupt, through every kind of reset and a restore; and
//! accesses of every width at every offset.

use i6300esb::{
    AfterBite, Config, I6300Esb, ResetKind, Stage, TimerRequest, UnlockPhase, VmInstant, spec,
};

use crate::machine::Machine;

const TICK: u64 = 983_040;
const PHASES: [UnlockPhase; 3] = [
    UnlockPhase::Locked,
    UnlockPhase::FirstKey,
    UnlockPhase::Unlocked,
];

#[derive(Clone, Copy, Debug)]
struct Case {
    stage: Option<Stage>,
    locked: bool,
    unlock: UnlockPhase,
    interrupt: bool,
    timed_out: bool,
    free_running: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for stage in [None, Some(Stage::First), Some(Stage::Second)] {
        for locked in [false, true] {
            for unlock in PHASES {
                for interrupt in [false, true] {
                    for timed_out in [false, true] {
                        cases.push(Case {
                            stage,
                            locked,
                            unlock,
                            interrupt,
                            timed_out,
                            free_running: false,
                        });
                    }
                }
                cases.push(Case {
                    stage,
                    locked,
                    unlock,
                    interrupt: false,
                    timed_out: stage.is_some(),
                    free_running: true,
                });
            }
        }
    }
    cases.retain(|case| !(case.free_running && case.stage == Some(Stage::First)));
    cases
}

/// Brings a machine into `case` by guest accesses alone.
fn machine_in(case: Case) -> Machine {
    let mut machine = Machine::new(Config::default());
    if case.timed_out || case.interrupt {
        machine.start(5, 5, 0);
        machine.advance(if case.timed_out { 10 } else { 5 } * TICK);
        machine.config_write(0x68, 1, 0);
        if !case.interrupt {
            machine.write(0x08, 1, 1);
        }
    }
    machine.set_preloads(100, 200);
    let lock = u64::from(case.locked)
        | u64::from(case.free_running) << 2
        | u64::from(case.stage.is_some()) << 1;
    machine.config_write(0x68, 1, lock);
    match case.stage {
        Some(Stage::Second) if !case.free_running => {
            machine.advance(150 * TICK);
            if !case.interrupt {
                machine.write(0x08, 1, 1);
            }
        }
        _ => machine.advance(7),
    }
    match case.unlock {
        UnlockPhase::Locked => {}
        UnlockPhase::FirstKey => machine.write(0x0c, 1, 0x80),
        UnlockPhase::Unlocked => machine.unlock(1),
    }
    let status = machine.status();
    assert_eq!(
        (status.stage, status.locked),
        (case.stage, case.locked),
        "{case:?}"
    );
    assert_eq!(
        (status.interrupt, status.timed_out),
        (case.interrupt, case.timed_out),
        "{case:?}"
    );
    assert_eq!(
        machine.device.save(machine.now).unlock,
        case.unlock,
        "{case:?}"
    );
    machine
}

#[test]
fn the_cases_cover_the_matrix() {
    assert_eq!(cases().len(), 3 * 2 * 3 * 2 * 2 + 2 * 2 * 3);
}

#[test]
fn platform_reset_keeps_the_flag_and_stops_the_timer_from_everywhere() {
    for case in cases() {
        let mut machine = machine_in(case);
        machine.reset(ResetKind::Platform);
        let fresh = Machine::new(Config::default());
        assert_eq!(machine.read(0x00, 8), fresh.read(0x00, 8), "{case:?}");
        assert_eq!(machine.read(0x08, 4), 0);
        assert_eq!(
            machine.read(0x0c, 4),
            if case.timed_out { 0x200 } else { 0 },
            "{case:?}"
        );
        assert_eq!(
            (machine.config_read(0x60, 8), machine.config_read(0x68, 1)),
            (0, 0)
        );
        assert_eq!(machine.device.save(machine.now).unlock, UnlockPhase::Locked);
        assert_eq!(
            (machine.timer, machine.device.deadline(), machine.interrupt),
            (None, None, false),
            "{case:?}"
        );
        let events = machine.events.len();
        machine.advance(10_000 * TICK);
        assert_eq!(machine.events.len(), events, "{case:?}");
    }
}

#[test]
fn power_on_clears_everything_from_everywhere() {
    for case in cases() {
        let mut machine = machine_in(case);
        machine.reset(ResetKind::PowerOn);
        let fresh = I6300Esb::new(Config::default());
        assert_eq!(machine.status(), fresh.status(machine.now), "{case:?}");
        let saved = machine.device.save(machine.now);
        assert_eq!(saved, fresh.save(machine.now), "{case:?}");
        assert_eq!((machine.timer, machine.interrupt), (None, false));
    }
}

#[test]
fn a_reset_is_idempotent() {
    for case in cases() {
        let mut machine = machine_in(case);
        machine.reset(ResetKind::Platform);
        let once = machine.device.save(machine.now);
        let effects = machine.device.reset(machine.now, ResetKind::Platform);
        assert_eq!(effects, i6300esb::Effects::NONE);
        assert_eq!(machine.device.save(machine.now), once);
    }
}

#[test]
fn saved_anywhere_it_goes_on_alike() {
    for case in cases() {
        for after_bite in [AfterBite::Rearm, AfterBite::Disarm, AfterBite::Halt] {
            let machine = machine_in(case);
            let state = machine.device.save(machine.now);
            let config = Config {
                after_bite,
                ..Config::default()
            };
            // A clock that begins long before, and one that begins long after.
            for start in [VmInstant::ZERO, VmInstant::from_nanos(1 << 60)] {
                let (device, effects) =
                    I6300Esb::restore(config, &state, start).expect("its own state");
                assert_eq!(device.save(start), state, "{case:?}");
                assert_eq!(effects.interrupt, Some(case.interrupt), "{case:?}");
                let deadline = device.deadline();
                assert_eq!(
                    effects.timer,
                    deadline.map_or(TimerRequest::Disarm, TimerRequest::ArmAt),
                    "{case:?}"
                );
                assert_eq!(
                    deadline.map(|at| at.nanos_since(start)),
                    machine
                        .device
                        .deadline()
                        .map(|at| at.nanos_since(machine.now)),
                    "{case:?}"
                );
                assert_eq!(device.status(start), machine.status(), "{case:?}");
            }
        }
    }
}

#[test]
fn bar_0_reads_alike_at_every_width_and_offset() {
    let mut machine = Machine::new(Config::default());
    machine.start(0x1_2345, 5, 0);
    machine.advance(1);
    machine.set_preloads(5, 0x6_789a);
    machine.ping();
    machine.advance(5 * TICK);
    let mut image = [0; 16];
    machine.device.mmio_read(machine.now, 0, &mut image);
    assert_eq!(
        image,
        [5, 0, 0, 0, 0x9a, 0x78, 6, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    );
    let before = machine.device.save(machine.now);
    for offset in 0..40_usize {
        for size in 0..=16_usize {
            let mut data = [0x5a; 16];
            machine
                .device
                .mmio_read(machine.now, offset as u64, &mut data[..size]);
            for (index, byte) in data[..size].iter().enumerate() {
                let expected = image.get(offset + index).copied().unwrap_or(0xff);
                assert_eq!(*byte, expected, "byte {index} of {size} at {offset:#x}");
            }
        }
    }
    assert_eq!(
        machine.device.save(machine.now),
        before,
        "reads change nothing"
    );
}

#[test]
fn a_write_is_the_same_as_its_data_phases() {
    let bytes: [u8; 16] = [0x11, 0x22, 3, 0, 0x44, 0x55, 6, 0, 1, 0, 0, 0, 0, 1, 0, 0];
    for phase in PHASES {
        for offset in 0..20_u64 {
            for size in 1..=16_usize {
                let case = Case {
                    stage: Some(Stage::First),
                    locked: false,
                    unlock: phase,
                    interrupt: true,
                    timed_out: true,
                    free_running: false,
                };
                let mut whole = machine_in(case);
                let mut split = machine_in(case);
                let effects = whole.device.mmio_write(whole.now, offset, &bytes[..size]);
                whole.apply(effects);
                let mut at = offset;
                let mut left = &bytes[..size];
                while !left.is_empty() {
                    let room = usize::try_from(4 - at % 4).expect("small").min(left.len());
                    // Bytes beyond the BAR are nobody's.
                    if at < 16 || offset >= 16 {
                        let effects = split.device.mmio_write(split.now, at, &left[..room]);
                        split.apply(effects);
                    }
                    if offset >= 16 {
                        break;
                    }
                    at += room as u64;
                    left = &left[room..];
                }
                assert_eq!(
                    whole.device.save(whole.now),
                    split.device.save(split.now),
                    "{size} bytes at {offset:#x}"
                );
            }
        }
    }
}

#[test]
fn extremes_of_offset_and_length_are_ignored() {
    let mut machine = machine_in(cases()[30]);
    let before = machine.device.save(machine.now);
    for offset in [16, 17, 0x1000, u64::MAX - 1, u64::MAX] {
        for size in [1, 3, 8, 16] {
            machine
                .device
                .mmio_read(machine.now, offset, &mut [0; 16][..size]);
            let effects = machine
                .device
                .mmio_write(machine.now, offset, &[0xff; 16][..size]);
            assert!(effects.events.is_empty() && effects.interrupt.is_none());
        }
    }
    let ignored = machine.status().ignored_writes - before.ignored_writes;
    assert_eq!(ignored, 20, "and counted");
    for offset in [0, 0x40, 0x5c, 0x6c, 0x70, 0x100, 0xfff, u16::MAX] {
        for size in [0, 1, 3, 4, 8] {
            let mut data = [0x5a; 8];
            machine
                .device
                .config_read(machine.now, offset, &mut data[..size]);
            if usize::from(offset) + size <= usize::from(spec::CONFIG_FIRST)
                || offset > spec::CONFIG_LAST
            {
                assert_eq!(data, [0x5a; 8], "{offset:#x}");
                let effects = machine
                    .device
                    .config_write(machine.now, offset, &[0xff; 8][..size]);
                assert_eq!(effects, i6300esb::Effects::NONE);
            }
        }
    }
    let effects = machine.device.mmio_write(machine.now, 0, &[]);
    assert_eq!(effects, i6300esb::Effects::NONE);
    let mut after = machine.device.save(machine.now);
    after.ignored_writes = before.ignored_writes;
    assert_eq!(after, before);
}
