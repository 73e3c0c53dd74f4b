// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every point on which the hardware, QEMU and ACRN differ, and what this device does: one test per row of
//! docs/differences.md, in its order.

use i6300esb::{
    AfterBite, ClockRate, Config, I6300Esb, Mode, ResetKind, Stage, TimerRequest, UnlockPhase,
    VmInstant, spec,
};

use crate::machine::{MS, Machine, PING, SECOND};

/// One tick of the slow scale at 30 ns a clock.
const TICK: u64 = 983_040;

fn machine() -> Machine {
    Machine::new(Config::default())
}

fn with(after_bite: AfterBite) -> Machine {
    Machine::new(Config {
        after_bite,
        ..Config::default()
    })
}

#[test]
fn row_01_config_register_takes_any_width() {
    for (offset, size, value, stored) in [
        (0x60, 1, 0x27, 0x27),
        (0x60, 2, 0x27, 0x27),
        (0x60, 4, 0x27, 0x27),
        (0x61, 1, 0xff, 0),
        (0x5f, 2, 0x2700, 0x27),
    ] {
        let mut machine = machine();
        machine.config_write(offset, size, value);
        assert_eq!(
            machine.config_read(0x60, 2),
            stored,
            "{size} bytes at {offset:#x}"
        );
        assert_eq!(machine.config_read(0x60, 1), stored);
        assert_eq!(machine.config_read(0x60, 4), stored);
    }
}

#[test]
fn row_02_lock_register_takes_any_width() {
    for (offset, size, value) in [
        (0x68, 1, 0x02),
        (0x68, 2, 0x02),
        (0x68, 4, 0x02),
        (0x67, 2, 0x0200),
        (0x64, 8, 0x02 << 32),
    ] {
        let mut machine = machine();
        machine.config_write(offset, size, value);
        assert!(machine.status().armed, "{size} bytes at {offset:#x}");
        assert_eq!(machine.config_read(0x68, 4), 2);
    }
    let mut machine = machine();
    machine.config_write(0x69, 2, 0x0202);
    assert!(!machine.status().armed, "lanes beside the register");
}

#[test]
fn row_03_interrupt_type_has_two_bits() {
    let mut machine = machine();
    for int_type in 0..=3 {
        machine.config_write(0x60, 2, 0xffd8 | int_type);
        assert_eq!(
            machine.config_read(0x60, 2),
            int_type,
            "all four types read back; reserved bits do not"
        );
    }
}

#[test]
fn row_04_interrupt_type_resets_to_irq() {
    let mut machine = machine();
    machine.set_preloads(1, 1000);
    machine.config_write(0x68, 1, 2);
    machine.advance(TICK);
    assert!(
        machine.interrupt,
        "without a write to 0x60 the first stage interrupts"
    );
}

#[test]
fn row_05_first_stage_interrupts_only_as_irq() {
    for int_type in 0..=3 {
        let mut machine = machine();
        machine.start(2, 1000, int_type);
        machine.advance(2 * TICK - 1);
        assert!(!machine.interrupt);
        machine.advance(1);
        assert_eq!(machine.interrupt, int_type == 0, "INT_TYPE {int_type}");
        assert_eq!(
            machine.event_names(),
            ["Armed", "FirstStage"],
            "the embedder learns of it in any case"
        );
    }
}

#[test]
fn row_06_interrupt_status_is_sticky_and_cleared_by_writing_1() {
    let mut machine = machine();
    machine.start(2, 1000, 0);
    assert_eq!(machine.read(0x08, 4), 0);
    machine.advance(2 * TICK);
    assert_eq!(
        (
            machine.read(0x08, 4),
            machine.read(0x08, 2),
            machine.read(0x08, 1)
        ),
        (1, 1, 1)
    );
    machine.ping();
    assert!(machine.interrupt, "a ping does not acknowledge");
    machine.write(0x08, 4, 0xffff_fffe);
    assert_eq!(
        machine.read(0x08, 4),
        1,
        "zeros and reserved bits clear nothing"
    );
    // Masking by INT_TYPE takes the level away and keeps the status; no level stays behind.
    machine.config_write(0x60, 2, 3);
    assert!(!machine.interrupt);
    assert_eq!(machine.read(0x08, 4), 1);
    machine.config_write(0x60, 2, 0);
    assert!(machine.interrupt);
    machine.write(0x08, 1, 1);
    assert!(!machine.interrupt, "no unlock needed");
    assert_eq!(machine.read(0x08, 4), 0);
    machine.advance(TICK);
    assert!(!machine.interrupt, "not interrupted twice");
    machine.advance(TICK);
    assert!(machine.interrupt, "the next first stage interrupts again");
}

#[test]
fn row_07_preloads_read_back() {
    let mut machine = machine();
    assert_eq!(
        (machine.read(0x00, 4), machine.read(0x04, 4)),
        (0xf_ffff, 0xf_ffff)
    );
    machine.set_preloads(0xabc1_2345, 0xfff5_4321);
    assert_eq!(machine.read(0x00, 8), 0x0005_4321_0001_2345);
    assert_eq!(machine.read(0x01, 2), 0x0123, "by lane");
}

#[test]
fn row_08_reload_reads_the_flag_alone_at_every_width() {
    let mut machine = machine();
    machine.start(1, 1, 3);
    machine.advance(2 * TICK);
    assert_eq!(
        (
            machine.read(0x0c, 2),
            machine.read(0x0c, 4),
            machine.read(0x0c, 1),
            machine.read(0x0d, 1)
        ),
        (0x200, 0x200, 0, 2)
    );
}

#[test]
fn row_09_flag_is_cleared_by_bit_9_and_by_bit_12_at_every_width() {
    for (offset, size, value) in [
        (0x0c, 2, 0x200),
        (0x0c, 4, 0x200),
        (0x0d, 1, 0x02),
        (0x0c, 2, 0x1000),
        (0x0c, 4, 0x1000),
    ] {
        let mut machine = machine();
        machine.start(1, 1, 3);
        machine.advance(2 * TICK);
        machine.config_write(0x68, 1, 0);
        machine.write(offset, size, value);
        assert!(machine.status().timed_out, "needs the unlock");
        machine.unlock(2);
        machine.write(offset, size, value);
        assert!(!machine.status().timed_out, "{value:#x} at {offset:#x}");
    }
}

#[test]
fn row_10_ping_works_at_every_width_that_carries_the_bit() {
    for (offset, size, value) in [
        (0x0c, 2, PING),
        (0x0c, 4, PING),
        (0x0d, 1, 1),
        (0x0c, 8, PING),
        (0x08, 8, PING << 32),
    ] {
        let mut machine = machine();
        machine.start(100, 100, 3);
        machine.advance(150 * TICK);
        machine.unlock(2);
        machine.write(offset, size, value);
        assert_eq!(
            machine.status().time_left_ns,
            Some(200 * TICK),
            "{size} bytes at {offset:#x}"
        );
    }
}

#[test]
fn row_11_unlock_works_at_every_width() {
    for first in [1, 2, 4] {
        for second in [1, 2, 4] {
            let mut machine = machine();
            machine.write(0x0c, first, 0x80);
            machine.write(0x0c, second, 0x86);
            machine.write(0x00, 4, 7);
            assert_eq!(machine.read(0x00, 4), 7, "{first} and {second} bytes");
        }
    }
}

#[test]
fn row_12_deviation_restarts_the_unlock_sequence() {
    for (offset, size, value) in [
        (0x0c, 2, 0),
        (0x0c, 2, 0x100),
        (0x00, 4, 7),
        (0x04, 4, 7),
        (0x0c, 1, 0x86),
        (0x0d, 1, 0),
    ] {
        let mut machine = machine();
        if value != 0x86 {
            machine.write(0x0c, 2, 0x80);
        }
        machine.write(offset, size, value);
        machine.write(0x0c, 2, 0x86);
        machine.write(0x00, 4, 7);
        assert_eq!(
            machine.read(0x00, 4),
            0xf_ffff,
            "{value:#x} at {offset:#x} between the keys"
        );
    }
    let mut machine = machine();
    machine.write(0x0c, 2, 0x80);
    machine.write(0x0c, 2, 0x80);
    machine.read(0x0c, 2);
    machine.write(0x0c, 2, 0x86);
    machine.write(0x00, 4, 7);
    assert_eq!(
        machine.read(0x00, 4),
        7,
        "the first key again begins again; reads disturb nothing"
    );
    machine.write(0x04, 4, 7);
    assert_eq!(machine.read(0x04, 4), 0xf_ffff, "one write an unlock");
}

#[test]
fn row_13_clock_is_30_ns_or_33_mhz_exactly() {
    for (clock, first, bite) in [
        (ClockRate::NS_30, 15_099_494_400, 30_198_988_800),
        (ClockRate::MHZ_33, 15_252_014_546, 30_504_029_091),
    ] {
        let mut machine = Machine::new(Config {
            clock,
            ..Config::default()
        });
        machine.start(0x3c00, 0x3c00, 3);
        assert_eq!(machine.timer, Some(VmInstant::from_nanos(first)));
        machine.advance(31 * SECOND);
        assert_eq!(
            machine.bites()[0].due,
            VmInstant::from_nanos(bite),
            "rounded once, not once a stage"
        );
    }
    let mut machine = machine();
    machine.start(1000, 1000, 3 | 4);
    assert_eq!(machine.status().timeout_ns, 2 * 960_000, "the fast scale");
}

#[test]
fn row_14_preload_0_counts_as_one_tick() {
    for (config, tick) in [(3, TICK), (7, 960)] {
        let mut machine = machine();
        machine.start(0, 0, config);
        machine.advance(2 * tick - 1);
        assert!(machine.bites().is_empty());
        machine.advance(1);
        assert_eq!(machine.bites().len(), 1);
    }
}

#[test]
fn row_15_free_running_toggles_the_output_on_preload_2() {
    let mut machine = machine();
    machine.set_preloads(500, 10);
    machine.config_write(0x68, 1, 0x02 | 0x04);
    assert_eq!(machine.status().mode, Mode::FreeRunning);
    assert_eq!(machine.status().time_left_ns, Some(10 * TICK));
    machine.advance(10 * TICK);
    assert_eq!(machine.status().bites, 1, "active");
    assert_eq!(machine.status().time_left_ns, Some(20 * TICK));
    machine.advance(10 * TICK);
    assert_eq!(machine.status().bites, 1, "inactive again");
    machine.advance(10 * TICK);
    assert_eq!(machine.status().bites, 2);
    assert!(
        !machine.interrupt && machine.read(0x08, 1) == 0,
        "no first stage, no interrupt"
    );
    assert_eq!(machine.config_read(0x68, 1), 6);
    machine.ping();
    assert_eq!(machine.status().stage_left_ns, Some(10 * TICK));
    // Back to watchdog mode at the next load, not before.
    machine.config_write(0x68, 1, 0x02);
    machine.advance(10 * TICK);
    assert_eq!(machine.status().stage, Some(Stage::First));
    assert_eq!(machine.status().time_left_ns, Some(510 * TICK));
}

#[test]
fn row_16_disabled_output_bites_nobody_and_sets_no_flag() {
    let mut rearm = machine();
    rearm.start(5, 5, 0x20 | 3);
    rearm.advance(10 * TICK);
    assert!(rearm.bites().is_empty() && !rearm.status().timed_out);
    assert_eq!(
        (rearm.status().muted_bites, rearm.status().time_left_ns),
        (1, Some(10 * TICK)),
        "starts over"
    );
    rearm.config_write(0x60, 2, 3);
    rearm.advance(10 * TICK);
    assert_eq!(rearm.bites().len(), 1, "enabled again, it bites");

    for after_bite in [AfterBite::Disarm, AfterBite::Halt] {
        let mut stops = with(after_bite);
        stops.start(5, 5, 0x20 | 3);
        stops.advance(100 * TICK);
        assert_eq!(
            (
                stops.status().stage,
                stops.status().muted_bites,
                stops.timer
            ),
            (None, 1, None)
        );
        assert!(stops.status().armed);
        stops.ping();
        assert_eq!(
            stops.status().time_left_ns,
            Some(10 * TICK),
            "a ping starts it again"
        );
    }
}

#[test]
fn row_17_after_a_bite_it_starts_over_or_disarms_or_halts() {
    let mut rearm = with(AfterBite::Rearm);
    rearm.start(50, 50, 3);
    rearm.config_write(0x68, 1, 3);
    rearm.advance(100 * TICK);
    assert_eq!(rearm.bites().len(), 1);
    assert!(rearm.status().armed && rearm.status().locked);
    assert_eq!(
        (rearm.status().time_left_ns, rearm.read(0x00, 4)),
        (Some(100 * TICK), 50)
    );

    let mut disarm = with(AfterBite::Disarm);
    disarm.start(50, 50, 3);
    disarm.config_write(0x68, 1, 3);
    disarm.advance(10_000 * TICK);
    assert_eq!(
        disarm.event_names(),
        ["Armed", "Locked", "FirstStage", "Bite", "Disarmed"]
    );
    assert!(!disarm.status().armed && !disarm.status().locked && disarm.status().timed_out);
    assert_eq!(
        (
            disarm.read(0x00, 4),
            disarm.config_read(0x60, 2),
            disarm.timer
        ),
        (0xf_ffff, 0, None)
    );

    let mut halt = with(AfterBite::Halt);
    halt.start(50, 50, 3);
    halt.config_write(0x68, 1, 3);
    halt.advance(10_000 * TICK);
    assert_eq!(
        (halt.bites().len(), halt.status().stage, halt.timer),
        (1, None, None)
    );
    assert!(halt.status().armed && halt.status().locked);
    assert_eq!(halt.read(0x00, 4), 50);
    halt.ping();
    assert_eq!(halt.status().time_left_ns, Some(100 * TICK));
}

#[test]
fn row_18_a_bite_sets_the_flag_whatever_the_embedder_does() {
    let mut machine = machine();
    machine.start(5, 5, 3);
    machine.advance(10 * TICK);
    assert!(
        machine.status().timed_out,
        "the device knows nothing of actions"
    );
}

#[test]
fn row_19_the_lock_covers_the_lock_register_alone() {
    let mut machine = machine();
    machine.start(50, 50, 3);
    machine.config_write(0x68, 1, 3);
    for value in [0, 2, 6, 7] {
        machine.config_write(0x68, 1, value);
        machine.config_write(0x68, 4, value);
        assert_eq!(machine.config_read(0x68, 1), 3);
    }
    machine.set_preloads(7, 8);
    machine.config_write(0x60, 2, 0x27);
    assert_eq!(
        (
            machine.read(0x00, 4),
            machine.read(0x04, 4),
            machine.config_read(0x60, 2)
        ),
        (7, 8, 0x27)
    );
    machine.reset(ResetKind::Platform);
    assert_eq!(
        machine.config_read(0x68, 1),
        0,
        "a reset takes the lock away"
    );
}

#[test]
fn row_20_time_is_the_embedders_so_a_paused_machine_is_not_bitten() {
    let mut machine = machine();
    machine.start(50, 50, 3);
    machine.advance(60 * TICK);
    let paused = machine.status();
    for _ in 0..100 {
        // Spurious calls while VM time stands still.
        let effects = machine.device.timer_fired(machine.now);
        machine.apply(effects);
    }
    assert_eq!(machine.status(), paused);
    machine.advance(40 * TICK);
    assert_eq!(machine.bites().len(), 1);
}

#[test]
fn row_21_suspend_does_nothing_to_the_device() {
    let mut machine = machine();
    machine.start(50, 50, 3);
    machine.advance(30 * TICK);
    // The embedder freezes VM time in S3, or it does not: preloads and time left are the guest's in any case.
    let state = machine.device.save(machine.now);
    let (device, effects) = I6300Esb::restore(Config::default(), &state, VmInstant::from_nanos(5))
        .expect("its own state");
    assert_eq!(
        effects.timer,
        TimerRequest::ArmAt(VmInstant::from_nanos(5 + 20 * TICK))
    );
    assert_eq!(
        device.status(VmInstant::from_nanos(5)).time_left_ns,
        Some(70 * TICK)
    );
}

#[test]
fn row_22_the_interrupt_is_one_level() {
    let mut machine = machine();
    machine.start(5, 500, 0);
    machine.advance(5 * TICK);
    assert!(machine.interrupt);
    let effects = machine.device.mmio_write(machine.now, 0x08, &[1]);
    assert_eq!(effects.interrupt, Some(false));
    let effects = machine.device.mmio_write(machine.now, 0x08, &[1]);
    assert_eq!(
        effects.interrupt, None,
        "named only when it changes, so MSI is one message on Some(true)"
    );
}

#[test]
fn row_23_instances_are_independent() {
    let mut machines: Vec<Machine> = (0..100).map(|_| machine()).collect();
    for (first, machine) in (1..).zip(&mut machines) {
        machine.start(first, 1, 3);
    }
    for (first, machine) in (1..).zip(&mut machines) {
        machine.advance((first + 1) * TICK - 1);
        assert!(machine.bites().is_empty());
        machine.advance(1);
        assert_eq!(machine.bites().len(), 1);
    }
}

#[test]
fn row_24_the_pci_header_is_the_embedders() {
    let mut machine = machine();
    for offset in [0x00, 0x04, 0x10, 0x3c, 0x5c, 0x6c, 0xf8, 0xfc] {
        let mut data = [0x5a; 4];
        machine.device.config_read(machine.now, offset, &mut data);
        assert_eq!(data, [0x5a; 4], "{offset:#x} is left alone");
        machine.config_write(offset, 4, 0xffff_ffff);
    }
    assert_eq!(
        machine.device.save(machine.now),
        I6300Esb::new(Config::default()).save(machine.now)
    );
    assert_eq!(
        (
            spec::VENDOR_ID,
            spec::DEVICE_ID,
            spec::CLASS_CODE,
            spec::BAR_SIZE
        ),
        (0x8086, 0x25ab, 0x08_8000, 16)
    );
    assert_eq!(
        I6300Esb::new(Config {
            revision: 2,
            ..Config::default()
        })
        .config()
        .revision,
        2
    );
}

#[test]
fn row_25_saved_in_the_middle_it_goes_on_exactly() {
    let mut machine = machine();
    machine.start(50, 50, 0);
    machine.advance(70 * TICK + 123);
    machine.write(0x0c, 2, 0x80);
    let state = machine.device.save(machine.now);
    let later = VmInstant::from_nanos(77 * MS);
    let (device, effects) =
        I6300Esb::restore(Config::default(), &state, later).expect("its own state");
    assert_eq!(effects.interrupt, Some(true));
    assert_eq!(
        effects.timer,
        TimerRequest::ArmAt(later.saturating_add(30 * TICK - 123))
    );
    assert_eq!(device.save(later), state);
    assert_eq!(state.unlock, UnlockPhase::FirstKey);
}

#[test]
fn row_26_time_that_nobody_ran_counts_or_is_forgiven() {
    for (forgive_stalls, bites, left) in [(false, 1, 200 * TICK), (true, 0, 400 * TICK)] {
        let mut machine = Machine::new(Config {
            forgive_stalls,
            ..Config::default()
        });
        machine.start(200, 200, 0);
        machine.stall(600 * TICK);
        machine.advance(0);
        assert_eq!(machine.status().bites, bites);
        assert_eq!(machine.status().time_left_ns, Some(left));
    }
}

#[test]
fn a_device_can_begin_with_the_timed_out_flag_of_the_one_before_it() {
    let mut machine = Machine::new(Config {
        timed_out: true,
        ..Config::default()
    });
    assert_eq!(machine.read(0x0c, 2), 0x200);
    assert_eq!(machine.status().bites, 0, "not this device's bite");
    machine.reset(ResetKind::Platform);
    machine.save_and_restore();
    assert_eq!(machine.read(0x0c, 2), 0x200, "until the guest clears it");
    machine.unlock(2);
    machine.write(0x0c, 2, 0x200);
    machine.save_and_restore();
    assert_eq!(machine.read(0x0c, 2), 0, "a restored state brings its own");
    let mut machine = Machine::new(*machine.device.config());
    machine.reset(ResetKind::PowerOn);
    assert_eq!(machine.read(0x0c, 2), 0);
}
