// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What real drivers do, access by access, each ending in the state its authors meant.
//!
//! The accesses are facts about the drivers (offset, width, value, order), taken from their sources.

use i6300esb::{Config, ResetKind, UnlockPhase};

use crate::machine::{Machine, SECOND};

/// Nanoseconds that `first` plus `second` ticks of the slow scale take at 30 ns a clock.
fn ticks(first: u64, second: u64) -> u64 {
    (first + second) * (1 << 15) * 30
}

/// Linux 6.1, `drivers/watchdog/i6300esb.c`: 16-bit unlock and reload, 32-bit preloads, 8-bit lock register.
struct Linux61 {
    /// Module parameter: `ENABLE` is written together with `LOCK`.
    nowayout: bool,
}

impl Linux61 {
    /// Probe; gives the boot status bit WDIOF_CARDRESET.
    fn probe(&self, machine: &mut Machine, heartbeat_s: u64) -> bool {
        machine.config_write(0x60, 2, 0x0003);
        assert_eq!(
            machine.config_read(0x68, 1) & 1,
            0,
            "Linux would warn that it is locked"
        );
        machine.config_write(0x68, 1, 0x00);
        machine.unlock(2);
        let timed_out = machine.read(0x0c, 2) & (1 << 9) != 0;
        machine.unlock(2);
        machine.write(0x0c, 2, 0x0300);
        self.set_heartbeat(machine, heartbeat_s);
        timed_out
    }

    fn set_heartbeat(&self, machine: &mut Machine, heartbeat_s: u64) {
        machine.unlock(2);
        machine.write(0x00, 4, heartbeat_s << 9);
        machine.unlock(2);
        machine.write(0x04, 4, heartbeat_s << 9);
        self.ping(machine);
    }

    fn ping(&self, machine: &mut Machine) {
        machine.unlock(2);
        machine.write(0x0c, 2, 0x0100);
    }

    fn start(&self, machine: &mut Machine) {
        self.ping(machine);
        machine.config_write(0x68, 1, 0x02 | u64::from(self.nowayout));
    }

    /// True if the driver believes that it stopped the watchdog.
    fn stop(&self, machine: &mut Machine) -> bool {
        self.ping(machine);
        machine.config_write(0x68, 1, 0x00);
        machine.config_read(0x68, 1) & 0x02 == 0
    }
}

#[test]
fn linux_6_1_probes_pings_stops_and_is_bitten() {
    let driver = Linux61 { nowayout: false };
    let mut machine = Machine::new(Config::default());
    assert!(!driver.probe(&mut machine, 30), "no watchdog reset yet");
    assert!(!machine.status().armed);
    assert_eq!(
        machine.status().ignored_writes,
        0,
        "every access of the driver counted"
    );
    driver.start(&mut machine);
    for _ in 0..20 {
        machine.advance(15 * SECOND);
        driver.ping(&mut machine);
    }
    assert!(machine.bites().is_empty());
    assert_eq!(machine.status().timeout_ns, ticks(30 << 9, 30 << 9));
    assert!(driver.stop(&mut machine));
    machine.advance(1_000 * SECOND);
    assert!(
        machine.bites().is_empty(),
        "magic close: {:?}",
        machine.events
    );

    driver.start(&mut machine);
    let started = machine.now;
    machine.advance(31 * SECOND);
    let [bite] = machine.bites()[..] else {
        unreachable!("{:?}", machine.events)
    };
    assert_eq!(bite.due.nanos_since(started), 30_198_988_800);
    assert_eq!(bite.timeout_ns, 30_198_988_800);
    assert!(!machine.interrupt, "INT_TYPE 3: no interrupt");

    // The machine is reset; the next boot is told why, once.
    machine.reset(ResetKind::Platform);
    assert!(driver.probe(&mut machine, 30));
    machine.reset(ResetKind::Platform);
    assert!(!driver.probe(&mut machine, 30));
    assert_eq!(machine.status().ignored_writes, 0);
}

#[test]
fn linux_6_1_nowayout_cannot_be_stopped() {
    let driver = Linux61 { nowayout: true };
    let mut machine = Machine::new(Config::default());
    driver.probe(&mut machine, 10);
    driver.start(&mut machine);
    assert_eq!(machine.event_names(), ["Armed", "Locked"]);
    assert!(
        !driver.stop(&mut machine),
        "the driver reports that it did not stop"
    );
    machine.advance(11 * SECOND);
    assert_eq!(machine.bites().len(), 1);
    assert!(
        machine.status().locked && machine.status().armed,
        "still protected, and still locked"
    );
}

/// An earlier boot ended in a bite.
fn bitten_and_reset(machine: &mut Machine) {
    machine.start(4, 4, 3);
    machine.advance(SECOND / 50);
    assert_eq!(machine.bites().len(), 1);
    machine.reset(ResetKind::Platform);
    machine.events.clear();
}

/// Linux 2.6: 8-bit unlock, clears the flag with bit 12 beside the reload bit.
#[test]
fn linux_2_6_unlocks_by_bytes_and_clears_with_bit_12() {
    let mut machine = Machine::new(Config::default());
    bitten_and_reset(&mut machine);
    assert!(machine.status().timed_out);

    machine.config_write(0x60, 2, 0x0003);
    machine.config_write(0x68, 1, 0x00);
    machine.unlock(1);
    assert_eq!(machine.read(0x0c, 2) & (1 << 9), 1 << 9);
    machine.unlock(1);
    machine.write(0x0c, 2, 0x1100);
    assert!(!machine.status().timed_out);
    for (offset, value) in [(0x00, 30 << 9), (0x04, 30 << 9)] {
        machine.unlock(1);
        machine.write(offset, 4, value);
    }
    machine.unlock(1);
    machine.write(0x0c, 2, 0x0100);
    machine.config_write(0x68, 1, 0x02);
    assert_eq!(
        machine.config_read(0x64, 4),
        30 << 9,
        "the live count that its GETSTATUS read"
    );
    machine.advance(10 * SECOND);
    machine.unlock(1);
    machine.write(0x0c, 2, 0x0100);
    machine.advance(30 * SECOND);
    assert!(machine.device.deadline().is_some() && machine.bites().is_empty());
    machine.advance(SECOND);
    assert_eq!(machine.bites().len(), 1);
    assert_eq!(machine.bites()[0].ping_to_due_ns, Some(30_198_988_800));
}

/// FreeBSD `sys/dev/ichwd/i6300esbwd.c`: full timeout in both stages, `ENABLE` rewritten on every pat, clears blindly.
#[test]
fn freebsd_programs_the_full_timeout_twice_and_rewrites_enable() {
    let mut machine = Machine::new(Config::default());
    machine.config_write(0x60, 2, 0x0003);
    machine.config_write(0x68, 1, 0x00);
    machine.unlock(2);
    machine.write(0x0c, 2, 0x0200);
    for offset in [0x00, 0x04] {
        machine.unlock(2);
        machine.write(offset, 4, 1 << 14);
    }
    let pat = |machine: &mut Machine| {
        machine.unlock(2);
        machine.write(0x0c, 2, 0x0100);
        machine.config_write(0x68, 1, 0x02);
    };
    pat(&mut machine);
    machine.advance(10 * SECOND);
    machine.config_write(0x68, 1, 0x02);
    assert_eq!(
        machine.status().time_left_ns,
        Some(ticks(1 << 14, 1 << 14) - 10 * SECOND),
        "ENABLE alone restarts nothing"
    );
    pat(&mut machine);
    let patted = machine.now;
    machine.advance(33 * SECOND);
    let [bite] = machine.bites()[..] else {
        unreachable!("{:?}", machine.events)
    };
    assert_eq!(bite.due.nanos_since(patted), 32_212_254_720);
    assert_eq!(machine.status().ignored_writes, 0);
}

/// OpenBSD `sys/dev/pci/ichwdt.c`: 32-bit everything, also in config space.
#[test]
fn openbsd_uses_32_bit_accesses_for_everything() {
    let mut machine = Machine::new(Config::default());
    bitten_and_reset(&mut machine);

    // Attach: disable the interrupt, report and clear the flag.
    let config = machine.config_read(0x60, 4);
    machine.config_write(0x60, 4, (config & !0xffff) | 0x3);
    assert_eq!(machine.read(0x0c, 4) & 0x200, 0x200, "reboot on timeout");
    machine.unlock(4);
    machine.write(0x0c, 4, 0x200);
    assert_eq!(machine.read(0x0c, 4) & 0x200, 0);

    // A period of 30 s: the second stage is two ticks.
    for (offset, value) in [(0x00, 30_212), (0x04, 2)] {
        machine.unlock(4);
        machine.write(offset, 4, value);
    }
    let tickle = |machine: &mut Machine| {
        machine.unlock(4);
        machine.write(0x0c, 4, 0x100);
    };
    tickle(&mut machine);
    let lock = machine.config_read(0x68, 4);
    machine.config_write(0x68, 4, lock | 0x02);
    assert!(machine.status().armed);
    machine.advance(20 * SECOND);
    tickle(&mut machine);
    let tickled = machine.now;
    machine.advance(29 * SECOND);
    assert!(machine.bites().is_empty());
    machine.advance(SECOND);
    let [bite] = machine.bites()[..] else {
        unreachable!("{:?}", machine.events)
    };
    assert_eq!(bite.due.nanos_since(tickled), ticks(30_212, 2));

    // A period of 0 disables.
    let lock = machine.config_read(0x68, 4);
    machine.config_write(0x68, 4, lock & !0x02);
    assert!(!machine.status().armed);
    assert_eq!(machine.status().ignored_writes, 0);
}

/// EFI Boot Guard: 32-bit unlock, never a ping, locks at once, counts on the reset value of 0x60 and on preload 2 = 0.
#[test]
fn efi_boot_guard_arms_and_locks_without_a_ping() {
    let mut machine = Machine::new(Config::default());
    machine.unlock(4);
    machine.write(0x00, 4, 30_517);
    machine.unlock(4);
    machine.write(0x04, 4, 0);
    machine.config_write(0x68, 1, 0x03);
    assert_eq!(machine.event_names(), ["Armed", "Locked"]);
    assert_eq!(machine.status().ignored_writes, 0);
    let armed = machine.now;
    machine.advance(31 * SECOND);
    assert!(
        machine.interrupt,
        "0x60 is at its reset value: the first stage interrupts"
    );
    let bite = machine.bites()[0];
    assert_eq!(
        bite.due.nanos_since(armed),
        ticks(30_517, 1),
        "preload 2 = 0 is one tick"
    );
    assert_eq!(bite.ping_to_due_ns, None);
    assert_eq!(bite.armed_to_due_ns, ticks(30_517, 1));
}

/// RT-Thread: as Linux, with reads of RELOAD between unlock sequences.
#[test]
fn rt_thread_reads_between_unlock_and_write() {
    let mut machine = Machine::new(Config::default());
    machine.config_write(0x60, 2, 0x0003);
    machine.config_write(0x68, 1, 0x00);
    machine.unlock(2);
    assert_eq!(machine.read(0x0c, 2), 0);
    assert_eq!(
        machine.device.save(machine.now).unlock,
        UnlockPhase::Unlocked,
        "a read takes nothing"
    );
    machine.unlock(2);
    machine.write(0x0c, 2, 0x0300);
    machine.set_preloads(5 << 9, 5 << 9);
    machine.ping();
    machine.ping();
    machine.config_write(0x68, 1, 0x02);
    machine.advance(4 * SECOND);
    machine.ping();
    let pinged = machine.now;
    machine.advance(6 * SECOND);
    let [bite] = machine.bites()[..] else {
        unreachable!("{:?}", machine.events)
    };
    assert_eq!(bite.due.nanos_since(pinged), ticks(5 << 9, 5 << 9));
    machine.ping();
    machine.config_write(0x68, 1, 0x00);
    assert_eq!(machine.config_read(0x68, 1), 0);
}
