// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that lies: random registers, rings, descriptors and messages. The device neither fails nor grows, each call
//! takes a bounded number of steps, and a driver that resets it finds it as new.

use std::sync::atomic::{AtomicBool, Ordering};

use kennel_virtio::console::{
    AGENT_INPUT_BYTES, CONSOLE_INPUT_BYTES, CONSOLE_OUTPUT_BYTES, CONTROL_MESSAGES,
};
use kennel_virtio::spec::*;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use crate::guest::*;

#[derive(Clone, Debug)]
enum Op {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    Read {
        offset: u64,
        len: usize,
    },
    Config {
        offset: u16,
        data: Vec<u8>,
    },
    Store {
        address: u64,
        data: Vec<u8>,
    },
    Descriptor {
        queue: u16,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    },
    Offer {
        queue: u16,
        head: u16,
    },
    AvailableIndex {
        queue: u16,
        index: u16,
    },
    Control {
        id: u32,
        event: u16,
        value: u16,
    },
    Send {
        queue: u16,
        len: usize,
    },
    Post {
        queue: u16,
        len: u32,
    },
    Notify {
        queue: u16,
    },
    Input {
        len: usize,
    },
    ConsoleInput {
        len: usize,
    },
    TakeOutput {
        room: usize,
    },
    Reset,
    Probe {
        features: u64,
    },
}

fn queue() -> impl Strategy<Value = u16> {
    0..QUEUES
}

fn register() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..0x40_u64,
        1 => (0..24_u64).prop_map(|at| u64::from(NOTIFY) + at),
        1 => (0..40_u64).prop_map(|at| u64::from(MSIX_TABLE) + at),
        1 => 0..0x9000_u64,
        1 => any::<u64>(),
    ]
}

/// Addresses around the rings, the pages and the end of memory, and anywhere.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0x1_0000..0x2_8000_u64,
        4 => 0x10_0000..0x40_0000_u64,
        1 => (u64::from(MEMORY) - 64)..(u64::from(MEMORY) + 64),
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![2 => 0..16_u32, 4 => 0..5000_u32, 1 => 0..MEMORY, 1 => any::<u32>()]
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = |max: usize| prop::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        4 => (register(), bytes(9)).prop_map(|(offset, data)| Op::Write { offset, data }),
        2 => (register(), 0..80_usize).prop_map(|(offset, len)| Op::Read { offset, len }),
        1 => (0..0x110_u16, bytes(5)).prop_map(|(offset, data)| Op::Config { offset, data }),
        2 => (0x1_0000..0x2_8000_u64, bytes(64)).prop_map(|(address, data)| Op::Store { address, data }),
        6 => (queue(), 0..130_u16, address(), length(), 0..8_u16, 0..130_u16).prop_map(
            |(queue, index, address, len, flags, next)| Op::Descriptor { queue, index, address, len, flags, next }
        ),
        6 => (queue(), 0..130_u16).prop_map(|(queue, head)| Op::Offer { queue, head }),
        1 => (queue(), any::<u16>()).prop_map(|(queue, index)| Op::AvailableIndex { queue, index }),
        8 => (0..3_u32, 0..9_u16, 0..3_u16).prop_map(|(id, event, value)| Op::Control { id, event, value }),
        6 => (queue(), 0..4096_usize).prop_map(|(queue, len)| Op::Send { queue, len }),
        4 => (queue(), 0..4097_u32).prop_map(|(queue, len)| Op::Post { queue, len }),
        4 => queue().prop_map(|queue| Op::Notify { queue }),
        2 => (0..100_000_usize).prop_map(|len| Op::Input { len }),
        1 => (0..10_000_usize).prop_map(|len| Op::ConsoleInput { len }),
        4 => (0..10_000_usize).prop_map(|room| Op::TakeOutput { room }),
        1 => Just(Op::Reset),
        3 => prop_oneof![Just(MULTIPORT | F_VERSION_1), Just(F_VERSION_1)]
            .prop_map(|features| Op::Probe { features }),
    ]
}

impl Guest {
    /// One round, held to its bounds.
    fn bounded_round(&mut self) {
        self.told.printed.clear();
        self.told.events.clear();
        let before = self.device.device().counters();
        self.round();
        let after = self.device.device().counters();
        assert!(self.told.printed.len() <= CONSOLE_OUTPUT_BYTES);
        assert!(self.told.events.len() <= CONTROL_MESSAGES + 2);
        let ignored = after.ignored_messages - before.ignored_messages;
        assert!(ignored <= CONTROL_MESSAGES as u64);
        assert!(self.told.room <= AGENT_INPUT_BYTES);
        self.messages.clear();
        self.changes.clear();
        self.faults.clear();
    }

    fn hostile(&mut self, op: Op) {
        let effects = match op {
            Op::Write { offset, data } => self.device.bar_write(offset, &data),
            Op::Read { offset, len } => self.device.bar_read(offset, &mut vec![0; len]),
            Op::Config { offset, data } => self.device.config_write(offset, &data),
            Op::Reset => self.device.reset(),
            Op::Notify { queue } => self
                .device
                .bar_write(u64::from(NOTIFY) + 4 * u64::from(queue), &[0, 0]),
            Op::Input { len } => {
                let taken = self.device.agent_input(self.device.epoch(), &vec![1; len]);
                assert!(taken <= len.min(AGENT_INPUT_BYTES));
                return;
            }
            Op::ConsoleInput { len } => {
                assert!(self.device.console_input(&vec![1; len]) <= CONSOLE_INPUT_BYTES);
                return;
            }
            Op::TakeOutput { room } => {
                self.take_agent_output(room);
                return;
            }
            memory => return self.hostile_memory(memory),
        };
        self.interrupts(effects.interrupts);
    }

    fn hostile_memory(&mut self, op: Op) {
        match op {
            Op::Store { address, data } => self.store(address, &data),
            Op::Descriptor {
                queue,
                index,
                address,
                len,
                flags,
                next,
            } => {
                self.descriptor(queue, index, address, len, flags, next);
            }
            Op::AvailableIndex { queue, index } => {
                self.store(available(queue) + 2, &index.to_le_bytes())
            }
            Op::Offer { queue, head } => self.offer(queue, head),
            Op::Control { id, event, value } => {
                self.add_bytes(CONTROL_OUT, &control_bytes(id, event, value));
            }
            Op::Send { queue, len } => {
                self.add_bytes(queue, &vec![b's'; len]);
            }
            Op::Post { queue, len } => {
                let address = page(queue, 0);
                self.add(
                    queue,
                    &[Piece {
                        address,
                        len,
                        writable: true,
                    }],
                );
            }
            Op::Probe { features } => {
                let effects = self.device.reset();
                self.interrupts(effects.interrupts);
                self.choose_messages();
                self.probe(features);
            }
            other => unreachable!("{other:?} is no memory access"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_hostile_guest_hurts_nobody(ops in prop::collection::vec(op(), 1..120)) {
        let mut guest = Guest::up();
        for op in ops {
            guest.hostile(op);
            guest.bounded_round();
        }
        // Whatever it did, a driver that starts over finds a device that works.
        let effects = guest.device.reset();
        guest.interrupts(effects.interrupts);
        prop_assert!(!guest.line);
        guest.choose_messages();
        guest.probe(MULTIPORT | F_VERSION_1);
        guest.control(u32::MAX, DEVICE_READY, 1);
        prop_assert_eq!(guest.hear().len(), 2);
        guest.control(1, PORT_OPEN, 1);
        guest.post(AGENT_RX, 4);
        prop_assert_eq!(guest.agent_input(b"ping"), 4);
        prop_assert_eq!(guest.received(AGENT_RX), [b"ping"]);
        guest.send(AGENT_TX, b"pong");
        prop_assert_eq!(guest.take_agent_output(100), b"pong");
        guest.told.printed.clear();
        guest.send(CONSOLE_TX, b"alive");
        prop_assert_eq!(&guest.told.printed, b"alive");
    }
}

/// All queues full of messages, elements and nonsense, again and again, with the owner reading nothing.
#[test]
fn a_flood_at_full_speed_takes_no_memory() {
    let mut guest = Guest::with_agent();
    // Everything that the device keeps is in here.
    let kept = |guest: &Guest| format!("{:?}", guest.device).len();
    let before = kept(&guest);
    for round in 0..3000_u32 {
        for queue in [CONSOLE_TX, CONTROL_OUT] {
            for _ in 0..16 {
                let value = u16::from(round % 3 == 0);
                guest.add_bytes(queue, &control_bytes(round % 4, (round % 9) as u16, value));
            }
        }
        guest.bounded_round();
        guest.bounded_round();
        guest.returned(CONSOLE_TX);
        guest.returned(CONTROL_OUT);
    }
    let counters = guest.device.device().counters();
    assert!(counters.ignored_messages > 10_000, "{counters:?}");
    assert!(kept(&guest) < before + 100, "numbers with more digits");
    assert_eq!(guest.read8(STATUS), 0x0f, "nothing of this is a fault");
}

/// Rings and buffers change while the device reads them.
#[test]
fn a_guest_that_writes_at_the_same_time_hurts_nobody() {
    let mut guest = Guest::with_agent();
    let memory = guest.memory.clone();
    let done = AtomicBool::new(false);
    let mut stops = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 1_u32;
            while !done.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [_, low, high, top] = seed.to_le_bytes();
                let queue = u16::from(top) % QUEUES;
                let value = u16::from_le_bytes([low, high]);
                let (address, value) = match high >> 5 {
                    0..=3 => (available(queue) + 2, value % 8),
                    4 => (available(queue) + 4, value % 130),
                    // Flags and next of the first descriptors.
                    5 => (descriptors(queue) + 12, value % 8),
                    6 => (descriptors(queue) + 14, value % 4),
                    _ => (descriptors(queue) + 8, value),
                };
                let written = memory.write_obj(value, GuestAddress(address));
                written.expect("in memory");
            }
        });
        for _ in 0..20_000 {
            guest.bounded_round();
            guest.take_agent_output(64);
            if !guest.device.is_driven() {
                stops += 1;
                let effects = guest.device.reset();
                guest.interrupts(effects.interrupts);
                guest.bounded_round();
                guest.choose_messages();
                guest.start(MULTIPORT | F_VERSION_1);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(stops > 0, "it did make no sense at times");
}
