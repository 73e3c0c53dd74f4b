// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A second watchdog, written from the register map alone and as plainly as possible: registers are bytes, and the
//! counter is decremented once a clock. It shares no code with the device; both must agree after every operation.

use i6300esb::{AfterBite, ClockRate, Config, ResetKind};
use proptest::prelude::*;

use crate::machine::Machine;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counting {
    FirstStage,
    SecondStage,
    FreeRunning,
}

#[derive(Debug)]
struct Oracle {
    after_bite: AfterBite,
    preload: [u32; 2],
    config: u8,
    lock: u8,
    keys: u8,
    interrupt_status: bool,
    timed_out: bool,
    counting: Option<Counting>,
    counter: u64,
    output_active: bool,
    bites: u64,
    muted: u64,
    first_stages: u64,
    pings: u64,
}

impl Oracle {
    fn new(after_bite: AfterBite) -> Self {
        Self {
            after_bite,
            preload: [0xf_ffff; 2],
            config: 0,
            lock: 0,
            keys: 0,
            interrupt_status: false,
            timed_out: false,
            counting: None,
            counter: 0,
            output_active: false,
            bites: 0,
            muted: 0,
            first_stages: 0,
            pings: 0,
        }
    }

    fn reset(&mut self) {
        self.preload = [0xf_ffff; 2];
        self.config = 0;
        self.lock = 0;
        self.keys = 0;
        self.interrupt_status = false;
        self.counting = None;
        self.output_active = false;
    }

    fn load(&mut self, counting: Counting) {
        let preload = self.preload[if counting == Counting::FirstStage {
            0
        } else {
            1
        }];
        let ticks = if preload == 0 { 1 } else { u64::from(preload) };
        self.counter = if self.config & 4 == 4 {
            ticks * 32
        } else {
            ticks * 32_768
        };
        self.counting = Some(counting);
    }

    fn begin(&mut self) {
        let free_running = self.lock & 4 == 4;
        if !free_running {
            self.output_active = false;
        }
        self.load(if free_running {
            Counting::FreeRunning
        } else {
            Counting::FirstStage
        });
    }

    fn clock(&mut self) {
        let Some(counting) = self.counting else {
            return;
        };
        self.counter -= 1;
        if self.counter > 0 {
            return;
        }
        match counting {
            Counting::FirstStage => {
                self.interrupt_status = true;
                self.first_stages += 1;
                self.load(Counting::SecondStage);
            }
            Counting::SecondStage => {
                let acts = self.config & 0x20 == 0;
                self.run_out(acts);
                if !acts && self.after_bite != AfterBite::Rearm {
                    self.counting = None;
                }
                if self.counting.is_some() {
                    self.begin();
                }
            }
            Counting::FreeRunning => {
                self.output_active = !self.output_active;
                if self.output_active {
                    self.run_out(self.config & 0x20 == 0);
                }
                if self.counting.is_some() {
                    self.begin();
                }
            }
        }
    }

    fn run_out(&mut self, acts: bool) {
        if !acts {
            self.muted += 1;
            return;
        }
        self.bites += 1;
        self.timed_out = true;
        match self.after_bite {
            AfterBite::Rearm => {}
            AfterBite::Disarm => self.reset(),
            AfterBite::Halt => {
                self.counting = None;
                self.output_active = false;
            }
        }
    }

    fn mmio_write(&mut self, offset: usize, bytes: &[u8]) {
        for dword in 0..4 {
            let lanes: [Option<u8>; 4] = std::array::from_fn(|lane| {
                (dword * 4 + lane)
                    .checked_sub(offset)
                    .and_then(|index| bytes.get(index).copied())
            });
            if lanes != [None; 4] {
                self.mmio_dword(dword, lanes);
            }
        }
    }

    fn mmio_dword(&mut self, dword: usize, lanes: [Option<u8>; 4]) {
        let bytes = lanes.map(|lane| lane.unwrap_or(0));
        if dword == 2 {
            if bytes[0] & 1 == 1 {
                self.interrupt_status = false;
            }
            return;
        }
        if dword == 3 && bytes == [0x80, 0, 0, 0] {
            self.keys = 1;
            return;
        }
        if dword == 3 && bytes == [0x86, 0, 0, 0] && self.keys == 1 {
            self.keys = 2;
            return;
        }
        let unlocked = self.keys == 2;
        self.keys = 0;
        if !unlocked {
            return;
        }
        if dword < 2 {
            let mut preload = self.preload[dword].to_le_bytes();
            for (byte, lane) in preload.iter_mut().zip(lanes) {
                *byte = lane.unwrap_or(*byte);
            }
            preload[2] &= 0x0f;
            preload[3] = 0;
            self.preload[dword] = u32::from_le_bytes(preload);
            return;
        }
        if bytes[1] & 0x12 != 0 {
            self.timed_out = false;
        }
        if bytes[1] & 1 == 1 && self.lock & 2 == 2 {
            self.pings += 1;
            self.begin();
        }
    }

    fn config_write(&mut self, offset: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            match offset + index {
                0x60 => self.config = byte & 0x27,
                0x68 if self.lock & 1 == 0 => {
                    let was_enabled = self.lock & 2 == 2;
                    self.lock = byte & 7;
                    let enabled = self.lock & 2 == 2;
                    if enabled && !was_enabled {
                        self.output_active = false;
                        self.begin();
                    }
                    if !enabled {
                        self.counting = None;
                    }
                }
                _ => {}
            }
        }
    }

    fn mmio(&self) -> [u8; 16] {
        let mut image = [0; 16];
        image[0..4].copy_from_slice(&self.preload[0].to_le_bytes());
        image[4..8].copy_from_slice(&self.preload[1].to_le_bytes());
        image[8] = u8::from(self.interrupt_status);
        image[13] = u8::from(self.timed_out) << 1;
        image
    }

    fn config(&self) -> [u8; 12] {
        let mut image = [0; 12];
        image[0] = self.config;
        if self.counting.is_some() {
            let tick = if self.config & 4 == 4 { 32 } else { 32_768 };
            let left = self.counter.div_ceil(tick).min(0xf_ffff);
            image[4..8].copy_from_slice(&u32::try_from(left).expect("20 bits").to_le_bytes());
        }
        image[8] = self.lock;
        image
    }
}

#[derive(Clone, Debug)]
enum Op {
    Mmio(u64, Vec<u8>),
    Config(u16, Vec<u8>),
    /// Time passes, in units of which both clocks have whole numbers of clocks.
    Pass(u64),
    /// Time passes up to an edge of the running stage, and this many units beyond.
    PassToEdge(u64),
    /// Time passes and the host does not get to serve the timer.
    Stall(u64),
    SpuriousTimer,
    Reset,
    SaveAndRestore,
}

fn bytes(value: u64, size: usize) -> Vec<u8> {
    value.to_le_bytes()[..size].to_vec()
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)]
}

fn unlocked(offset: u64, data: Vec<u8>) -> Vec<Op> {
    vec![
        Op::Mmio(0x0c, vec![0x80, 0]),
        Op::Mmio(0x0c, vec![0x86, 0]),
        Op::Mmio(offset, data),
    ]
}

/// Weighted so that sequences go deep: mostly what drivers do, some of it interrupted, and a little of everything else.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let preload = prop_oneof![
        Just(0_u64),
        Just(1),
        Just(2),
        Just(3),
        0..200_u64,
        Just(0xf_ffff),
        any::<u64>()
    ];
    let pass = || prop_oneof![4 => 0..40_u64, 2 => 0..2_000_u64, 1 => 0..20_000_u64];
    let one = |op: Op| vec![op];
    let step = prop_oneof![
        4 => (prop_oneof![Just(0_u64), Just(4)], preload).prop_map(|(offset, value)| unlocked(offset, bytes(value, 4))),
        4 => Just(unlocked(0x0c, vec![0, 1])),
        1 => Just(unlocked(0x0d, vec![3])),
        1 => Just(unlocked(0x0c, vec![0, 0x11, 0, 0])),
        3 => size().prop_map(move |size| one(Op::Mmio(0x0c, bytes(0x80, size)))),
        3 => size().prop_map(move |size| one(Op::Mmio(0x0c, bytes(0x86, size)))),
        2 => size().prop_map(move |size| one(Op::Mmio(0x08, bytes(1, size)))),
        2 => (0..20_u64, any::<u64>(), size()).prop_map(move |(offset, value, size)| one(Op::Mmio(offset, bytes(value, size)))),
        3 => (prop_oneof![Just(0_u64), Just(4), Just(3), Just(7), Just(0x20), Just(0x24)], size())
            .prop_map(move |(value, size)| one(Op::Config(0x60, bytes(value, size)))),
        5 => (prop_oneof![4 => Just(2_u64), 2 => Just(0), 1 => Just(6), 1 => Just(3), 1 => any::<u64>()], size())
            .prop_map(move |(value, size)| one(Op::Config(0x68, bytes(value, size)))),
        1 => (0x58..0x70_u16, any::<u64>(), size()).prop_map(move |(offset, value, size)| one(Op::Config(offset, bytes(value, size)))),
        4 => pass().prop_map(move |units| one(Op::Pass(units))),
        4 => (0..3_u64).prop_map(move |units| one(Op::PassToEdge(units))),
        2 => pass().prop_map(move |units| one(Op::Stall(units))),
        1 => Just(one(Op::SpuriousTimer)),
        1 => Just(one(Op::Reset)),
        1 => Just(one(Op::SaveAndRestore)),
    ];
    proptest::collection::vec(step, 1..40).prop_map(|steps| steps.concat())
}

struct Pair {
    oracle: Oracle,
    machine: Machine,
    /// Keys of the unlock sequence are written without a look at the clock.
    keys_apart: bool,
    /// Nanoseconds and clocks of one unit of time.
    unit: (u64, u64),
}

impl Pair {
    fn new(clock: ClockRate, after_bite: AfterBite, keys_apart: bool) -> Self {
        let unit = if clock == ClockRate::NS_30 {
            (30, 1)
        } else {
            (1_000, 33)
        };
        let config = Config {
            clock,
            after_bite,
            ..Config::default()
        };
        Self {
            oracle: Oracle::new(after_bite),
            machine: Machine::new(config),
            keys_apart,
            unit,
        }
    }

    fn pass(&mut self, units: u64) -> u64 {
        let units = if self.unit.1 == 1 {
            units
        } else {
            units.min(1_500)
        };
        for _ in 0..units * self.unit.1 {
            self.oracle.clock();
        }
        units * self.unit.0
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Mmio(offset, data) => {
                self.oracle
                    .mmio_write(usize::try_from(*offset).expect("small"), data);
                if self.keys_apart && self.machine.device.unlock_step(*offset, data) {
                    return;
                }
                let effects = self
                    .machine
                    .device
                    .mmio_write(self.machine.now, *offset, data);
                self.machine.apply(effects);
            }
            Op::Config(offset, data) => {
                self.oracle.config_write(usize::from(*offset), data);
                let effects = self
                    .machine
                    .device
                    .config_write(self.machine.now, *offset, data);
                self.machine.apply(effects);
            }
            Op::Pass(units) => {
                let nanos = self.pass(*units);
                self.machine.advance(nanos);
            }
            Op::PassToEdge(beyond) => {
                let left = if self.oracle.counting.is_some() {
                    self.oracle.counter / self.unit.1
                } else {
                    0
                };
                let nanos = self.pass(left.min(100_000) + beyond);
                self.machine.advance(nanos);
            }
            Op::Stall(units) => {
                let nanos = self.pass(*units);
                self.machine.stall(nanos);
            }
            Op::SpuriousTimer => {
                let effects = self.machine.device.timer_fired(self.machine.now);
                self.machine.timer = None;
                self.machine.apply(effects);
                let level = self.oracle.interrupt_status && self.oracle.config & 3 == 0;
                assert_eq!(self.machine.interrupt, level, "interrupt level");
            }
            Op::Reset => {
                self.oracle.reset();
                self.machine.reset(ResetKind::Platform);
            }
            Op::SaveAndRestore => self.machine.save_and_restore(),
        }
    }

    fn compare(&self) {
        let Self {
            oracle, machine, ..
        } = self;
        let mut mmio = [0; 16];
        machine.device.mmio_read(machine.now, 0, &mut mmio);
        assert_eq!(mmio, oracle.mmio(), "BAR 0");
        let mut config = [0; 12];
        machine.device.config_read(machine.now, 0x60, &mut config);
        assert_eq!(config, oracle.config(), "config space");
        let status = machine.status();
        assert_eq!(
            (
                status.bites,
                status.muted_bites,
                status.first_stages,
                status.pings
            ),
            (
                oracle.bites,
                oracle.muted,
                oracle.first_stages,
                oracle.pings
            ),
            "bites, muted bites, first stages, pings"
        );
        let nanos = |clocks: u64| (clocks * self.unit.0).div_ceil(self.unit.1);
        assert_eq!(
            status.stage_left_ns,
            oracle.counting.map(|_| nanos(oracle.counter)),
            "time left"
        );
        assert_eq!(
            status.interrupt,
            oracle.interrupt_status && oracle.config & 3 == 0,
            "interrupt"
        );
    }
}

fn agree(clock: ClockRate, after_bite: AfterBite, ops: &[Op]) {
    for keys_apart in [false, true] {
        agree_with(Pair::new(clock, after_bite, keys_apart), ops);
    }
}

fn agree_with(mut pair: Pair, ops: &[Op]) {
    for op in ops {
        pair.run(op);
        pair.compare();
    }
    let reported: u64 = pair.machine.bites().iter().map(|bite| bite.count).sum();
    assert!(
        reported <= pair.oracle.bites,
        "{reported} bites reported, {} happened",
        pair.oracle.bites
    );
}

proptest! {
    #[test]
    fn the_oracle_agrees_at_30_ns_when_it_starts_over(ops in ops()) {
        agree(ClockRate::NS_30, AfterBite::Rearm, &ops);
    }

    #[test]
    fn the_oracle_agrees_at_33_mhz_when_it_starts_over(ops in ops()) {
        agree(ClockRate::MHZ_33, AfterBite::Rearm, &ops);
    }

    #[test]
    fn the_oracle_agrees_at_30_ns_when_it_disarms(ops in ops()) {
        agree(ClockRate::NS_30, AfterBite::Disarm, &ops);
    }

    #[test]
    fn the_oracle_agrees_at_30_ns_when_it_halts(ops in ops()) {
        agree(ClockRate::NS_30, AfterBite::Halt, &ops);
    }
}
