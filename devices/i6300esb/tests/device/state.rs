// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Saved state as others see it: golden bytes, and what is refused.

use i6300esb::{
    ClockRate, Config, DecodeError, Event, I6300Esb, Mode, RestoreError, STATE_BYTES, Stage, State,
    VmInstant,
};

use crate::machine::{MS, Machine, SECOND};

/// A state in which every field is used: second stage, locked, half unlocked, interrupt pending, bites unreported.
fn rich() -> State {
    let mut machine = Machine::new(Config {
        clock: ClockRate::MHZ_33,
        ..Config::default()
    });
    machine.write(0x00, 4, 1);
    machine.start(0, 0, 0);
    machine.ping();
    machine.advance(10 * MS);
    machine.set_preloads(0x3c00, 0x7800);
    machine.ping();
    machine.advance(16 * SECOND + 1);
    machine.config_write(0x68, 1, 3);
    machine.write(0x0c, 2, 0x80);
    machine.device.save(machine.now)
}

/// One with reports held back.
fn flooded() -> State {
    let mut machine = Machine::new(Config::default());
    machine.start(0, 0, 4);
    machine.ping();
    machine.advance(500 * MS);
    machine.device.save(machine.now)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

#[test]
fn golden_bytes_of_version_1() {
    for (state, golden) in [
        (rich(), include_str!("golden/v1-rich.hex")),
        (flooded(), include_str!("golden/v1-flooded.hex")),
    ] {
        assert_eq!(
            hex(&state.to_bytes()),
            golden.trim(),
            "a state of version 1 is written as ever"
        );
        assert_eq!(
            State::from_bytes(&bytes(golden.trim())),
            Ok(state),
            "and read"
        );
    }
}

#[test]
fn rich_and_flooded_use_every_field() {
    let state = rich();
    let round = state.round.expect("it runs");
    assert_eq!(
        (round.mode, round.stage, round.repeated),
        (Mode::Watchdog, Stage::Second, false)
    );
    assert!(round.ahead > 0 && round.remaining_ns > 0 && round.clocks > 0);
    assert!(state.interrupt_active && state.timed_out && state.lock == 3);
    assert!(
        state.last_ping_age_ns.is_some()
            && state.pings == 2
            && state.bites > 0
            && state.ignored_writes > 0
    );
    let state = flooded();
    assert!(state.round.expect("it runs").repeated);
    let unreported = state.unreported_bites.expect("held back");
    assert!(unreported.count > 100_000 && unreported.due_age_ns > unreported.last_due_age_ns);
    assert!(state.unreported_first_stage.expect("held back").count > 100_000);
}

#[test]
fn what_was_not_reported_before_is_reported_after() {
    let state = flooded();
    let at = VmInstant::from_nanos(700 * SECOND);
    let (device, effects) =
        I6300Esb::restore(Config::default(), &state, at).expect("its own state");
    let bite = effects.events.bite().expect("held back");
    assert_eq!(bite.count, state.unreported_bites.expect("held back").count);
    assert_eq!(
        bite.lateness_ns(at),
        state.unreported_bites.expect("held back").due_age_ns
    );
    assert!(
        effects
            .events
            .iter()
            .any(|event| matches!(event, Event::FirstStage(first) if first.count > 100_000))
    );
    assert_eq!(device.status(at).bites, state.bites, "counted once");
}

#[test]
fn truncated_foreign_and_unknown_bytes_are_refused() {
    let golden = rich().to_bytes();
    for length in 0..STATE_BYTES {
        assert_eq!(
            State::from_bytes(&golden[..length]),
            Err(DecodeError::Length { found: length })
        );
    }
    let mut long = golden.to_vec();
    long.push(0);
    assert_eq!(
        State::from_bytes(&long),
        Err(DecodeError::Length {
            found: STATE_BYTES + 1
        })
    );
    assert_eq!(
        State::from_bytes(&[0; STATE_BYTES]),
        Err(DecodeError::Foreign)
    );
    let mut newer = golden;
    newer[8] = 2;
    assert_eq!(
        State::from_bytes(&newer),
        Err(DecodeError::Version { found: 2 })
    );
    let mut unlock = golden;
    unlock[29] = 3;
    assert_eq!(
        State::from_bytes(&unlock),
        Err(DecodeError::Value {
            field: "unlock",
            value: 3
        })
    );
}

#[test]
fn every_damaged_byte_is_refused_or_makes_a_device_that_runs() {
    for golden in [rich().to_bytes(), flooded().to_bytes()] {
        for index in 0..STATE_BYTES {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut damaged = golden;
                damaged[index] = value;
                let Ok(state) = State::from_bytes(&damaged) else {
                    continue;
                };
                let config = Config {
                    clock: ClockRate::MHZ_33,
                    ..Config::default()
                };
                let at = VmInstant::from_nanos(5);
                let Ok((mut device, _)) = I6300Esb::restore(config, &state, at) else {
                    continue;
                };
                assert_eq!(
                    State::from_bytes(&device.save(at).to_bytes()),
                    Ok(device.save(at))
                );
                let _ = device.timer_fired(VmInstant::from_nanos(u64::MAX / 2));
                let _ = device.timer_fired(VmInstant::MAX);
            }
        }
    }
}

#[test]
fn nonsense_is_refused_with_the_field_and_its_value() {
    let config = Config {
        clock: ClockRate::MHZ_33,
        ..Config::default()
    };
    let refused = |damage: &dyn Fn(&mut State)| {
        let mut state = rich();
        damage(&mut state);
        I6300Esb::restore(config, &state, VmInstant::ZERO).err()
    };
    let out_of_range = |field, value, max| Some(RestoreError::OutOfRange { field, value, max });
    let contradiction = |what| Some(RestoreError::Contradiction(what));
    assert_eq!(refused(&|_| {}), None);
    assert_eq!(
        refused(&|state| state.version = 7),
        Some(RestoreError::Version { found: 7 })
    );
    assert_eq!(
        refused(&|state| state.clock = (30, 1)),
        Some(RestoreError::Clock {
            found: (30, 1),
            configured: (1000, 33)
        })
    );
    assert_eq!(
        refused(&|state| state.preload1 = 1 << 20),
        out_of_range("preload1", 1 << 20, 0xf_ffff)
    );
    assert_eq!(
        refused(&|state| state.preload2 = u32::MAX),
        out_of_range("preload2", u64::from(u32::MAX), 0xf_ffff)
    );
    assert_eq!(
        refused(&|state| state.config = 8),
        out_of_range("config", 8, 0x27)
    );
    assert_eq!(refused(&|state| state.lock = 8), out_of_range("lock", 8, 7));
    assert_eq!(
        refused(&|state| state.lock = 1),
        contradiction("the counter runs although ENABLE is 0")
    );
    let longest = ClockRate::MHZ_33.nanos(0xf_ffff << 15);
    let round = |damage: &dyn Fn(&mut i6300esb::RoundState)| {
        refused(&|state| damage(state.round.as_mut().expect("it runs")))
    };
    assert_eq!(round(&|round| round.remaining_ns = longest), None);
    assert_eq!(
        round(&|round| round.remaining_ns = longest + 1),
        out_of_range("round.remaining_ns", longest + 1, longest)
    );
    assert_eq!(round(&|round| round.ahead = 32), None);
    assert_eq!(
        round(&|round| round.ahead = 33),
        out_of_range("round.ahead", 33, 32)
    );
    assert_eq!(
        round(&|round| round.clocks = u64::MAX),
        out_of_range("round.clocks", u64::MAX, 2 * (0xf_ffff << 15))
    );
    assert_eq!(
        round(&|round| (round.mode, round.stage) = (Mode::FreeRunning, Stage::First)),
        contradiction("free-running mode has no first stage")
    );
    assert_eq!(
        round(&|round| round.output_active = true),
        contradiction("only free-running mode holds the output active")
    );

    let unreported = |damage: &dyn Fn(&mut State)| {
        let mut state = flooded();
        damage(&mut state);
        I6300Esb::restore(Config::default(), &state, VmInstant::ZERO).err()
    };
    assert_eq!(unreported(&|_| {}), None);
    let stages =
        contradiction("unreported ends of the first stage are none, or more than there were");
    assert_eq!(
        unreported(&|state| state
            .unreported_first_stage
            .as_mut()
            .expect("held back")
            .count = 0),
        stages
    );
    assert_eq!(unreported(&|state| state.first_stages = 1), stages);
    let bites = contradiction("unreported bites are none, or more than there were");
    assert_eq!(
        unreported(&|state| state.unreported_bites.as_mut().expect("held back").count = 0),
        bites
    );
    assert_eq!(unreported(&|state| state.bites = 1), bites);
    assert_eq!(
        unreported(&|state| state
            .unreported_bites
            .as_mut()
            .expect("held back")
            .last_due_age_ns = u64::MAX),
        contradiction("the last unreported bite is older than the first")
    );
}

#[test]
fn errors_say_what_and_what_to_do() {
    assert_eq!(
        DecodeError::Length { found: 3 }.to_string(),
        "a saved watchdog is 181 bytes long, not 3; the state is truncated or not a watchdog's"
    );
    assert_eq!(
        RestoreError::Version { found: 7 }.to_string(),
        "the saved watchdog has state version 7, this one reads version 1; restore it with the version that saved it"
    );
    assert_eq!(
        RestoreError::OutOfRange {
            field: "lock",
            value: 8,
            max: 7
        }
        .to_string(),
        "the saved watchdog has lock = 0x8, which is above 0x7; the state is damaged"
    );
}

#[cfg(feature = "serde")]
#[test]
fn serde_round_trips_and_refuses_unknown_fields() {
    for state in [rich(), flooded()] {
        let json = serde_json::to_string(&state).expect("plain data");
        assert_eq!(
            serde_json::from_str::<State>(&json).expect("its own text"),
            state
        );
        let unknown = json.replacen("\"preload1\"", "\"preload9\"", 1);
        assert!(serde_json::from_str::<State>(&unknown).is_err());
    }
}
