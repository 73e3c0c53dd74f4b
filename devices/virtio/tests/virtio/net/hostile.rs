// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that lies to its network card: nothing fails, nothing grows, each round is bounded, and a driver that starts
//! over finds a card that works.

use std::sync::atomic::{AtomicBool, Ordering};

use kennel_virtio::RingFault;
use kennel_virtio::net::{
    F_MAC, F_STATUS, FRAME_BYTES_MAX, FRAME_BYTES_MIN, FRAMES_PER_ROUND, RECEIVE_QUEUE,
    TRANSMIT_QUEUE,
};
use kennel_virtio::spec::*;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use crate::guest::*;

const FEATURES: u64 = F_MAC | F_STATUS | F_VERSION_1;

/// Three elements in order and one that makes no sense: what was before it counts, the device stops and says so once,
/// and works after a reset.
fn stops(queue: u16, offer: impl FnOnce(&mut NetGuest), expected: RingFault) {
    let mut guest = NetGuest::driven();
    for tag in 0..3 {
        if queue == TRANSMIT_QUEUE {
            guest.add_frame(&frame(64, tag));
        } else {
            guest.add_buffer(LINUX_BUFFER);
        }
    }
    offer(&mut guest);
    guest.give((0..6).map(|tag| frame(64, tag)));
    let faults: Vec<_> = guest
        .faults
        .iter()
        .map(|fault| (fault.queue, fault.fault))
        .collect();
    assert_eq!(faults, [(queue, expected)]);
    assert_eq!(guest.read8(STATUS), 0x4f);
    let (sent, waiting) = if queue == TRANSMIT_QUEUE {
        (3, 6)
    } else {
        (0, 3)
    };
    assert_eq!(guest.told.sent.len(), sent);
    assert_eq!(guest.told.waiting.len(), waiting, "no frame is lost");
    assert_eq!(guest.returned(queue).len(), 3);
    // Nothing is done any more, and nothing more is said about it.
    guest.add_frame(&frame(64, 9));
    guest.notify(TRANSMIT_QUEUE);
    guest.process();
    assert_eq!((guest.told.sent.len(), guest.faults.len()), (sent, 1));
    still_works(&mut guest);
}

fn still_works(guest: &mut NetGuest) {
    let effects = guest.device.reset();
    guest.interrupts(effects.interrupts);
    assert!(!guest.line);
    guest.choose_messages();
    guest.start(FEATURES);
    guest.told = NetTold::default();
    guest.messages.clear();
    guest.add_buffer(LINUX_BUFFER);
    guest.give([frame(64, 1)]);
    assert_eq!(guest.arrived(), [with_header(&frame(64, 1))]);
    guest.add_frame(&frame(64, 2));
    guest.notify(TRANSMIT_QUEUE);
    assert_eq!(guest.told.sent, [frame(64, 2)]);
    assert_eq!(guest.messages, [message(1), message(1)]);
}

const BOTH: [(u16, u16); 2] = [(RECEIVE_QUEUE, WRITE), (TRANSMIT_QUEUE, 0)];

#[test]
fn a_chain_that_loops_stops_the_device() {
    for (queue, flags) in BOTH {
        let offer = |guest: &mut NetGuest| {
            let address = page(queue, 10);
            guest.descriptor(queue, 10, address, 16, flags | NEXT, 11);
            guest.descriptor(queue, 11, address, 16, flags | NEXT, 10);
            guest.offer(queue, 10);
        };
        stops(queue, offer, RingFault::Chain(10));
    }
}

#[test]
fn a_chain_that_leads_out_of_its_table_stops_the_device() {
    for (queue, flags) in BOTH {
        let offer = |guest: &mut NetGuest| {
            guest.descriptor(queue, 10, page(queue, 10), 16, flags | NEXT, 256);
            guest.offer(queue, 10);
        };
        stops(queue, offer, RingFault::Chain(10));
        let offer = |guest: &mut NetGuest| guest.offer(queue, 256);
        stops(queue, offer, RingFault::Head(256));
    }
}

#[test]
fn a_buffer_outside_memory_stops_the_device() {
    for (queue, flags) in BOTH {
        let end = u64::from(MEMORY);
        for (address, len) in [
            (end, 1),
            (end - 1525, 1526),
            (0, u32::MAX),
            (u64::MAX, 1526),
            (u64::MAX - 100, 60),
        ] {
            let offer = |guest: &mut NetGuest| {
                guest.descriptor(queue, 10, address, len, flags, 0);
                guest.offer(queue, 10);
            };
            stops(queue, offer, RingFault::Buffer { address, len });
        }
    }
}

#[test]
fn lengths_that_add_up_to_more_than_4_gib_stop_the_device() {
    for (queue, flags) in BOTH {
        let offer = |guest: &mut NetGuest| {
            // The first is in memory, the second's length is only added up.
            guest.descriptor(queue, 10, 0, MEMORY, flags | NEXT, 11);
            guest.descriptor(queue, 11, 0, u32::MAX, flags, 0);
            guest.offer(queue, 10);
        };
        stops(queue, offer, RingFault::Chain(10));
    }
}

#[test]
fn an_index_far_ahead_stops_the_device() {
    for (queue, _) in BOTH {
        let mut guest = NetGuest::driven();
        guest.store(available(queue) + 2, &257_u16.to_le_bytes());
        guest.give([frame(64, 1)]);
        let faults: Vec<_> = guest
            .faults
            .iter()
            .map(|fault| (fault.queue, fault.fault))
            .collect();
        assert_eq!(faults, [(queue, RingFault::AvailableIndex)]);
        assert_eq!(guest.told.waiting.len(), 1);
        assert_eq!(guest.messages, [message(0)], "the driver is told");
        still_works(&mut guest);
    }
}

#[test]
fn all_of_memory_is_too_long_for_a_frame_and_more_than_enough_for_a_buffer() {
    let mut guest = NetGuest::driven();
    let whole = |writable| Piece {
        address: 0,
        len: MEMORY,
        writable,
    };
    guest.add(TRANSMIT_QUEUE, &[whole(false); 256]);
    guest.notify(TRANSMIT_QUEUE);
    assert!(guest.told.sent.is_empty());
    assert_eq!(guest.device.device().counters().transmitted.oversize, 1);
    guest.add(RECEIVE_QUEUE, &[whole(true)]);
    guest.give([frame(64, 1)]);
    assert_eq!(guest.load(0, 76), with_header(&frame(64, 1)));
    assert_eq!(guest.read8(STATUS), 0x0f);
}

#[test]
fn queues_that_do_not_exist_are_not_notified() {
    let mut guest = NetGuest::like_linux();
    guest.add_frame(&frame(64, 1));
    for (offset, data) in [(8, &[2, 0][..]), (2, &[0, 0]), (0xffc, &[1, 0]), (4, &[1])] {
        let effects = guest.device.bar_write(u64::from(NOTIFY) + offset, data);
        assert!(effects.is_none(), "{offset}");
    }
    // Which queue it is, the address says.
    let effects = guest.device.bar_write(u64::from(NOTIFY) + 4, &[9, 0]);
    assert_eq!(
        (effects.notified, effects.work),
        (Some(TRANSMIT_QUEUE), true)
    );
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        offset: u64,
        data: Vec<u8>,
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
    Send {
        len: usize,
    },
    Post {
        len: u32,
    },
    Give {
        len: usize,
    },
    Reset,
    Start,
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = |max: usize| prop::collection::vec(any::<u8>(), 0..max);
    let register = prop_oneof![
        4 => 0..0x40_u64,
        1 => (0..12_u64).prop_map(|at| u64::from(DEVICE) + at),
        1 => (0..12_u64).prop_map(|at| u64::from(NOTIFY) + at),
        1 => 0..0x9000_u64,
    ];
    let address = prop_oneof![
        2 => 0x1_0000..0x1_8000_u64,
        8 => 0x10_0000..0x30_0000_u64,
        1 => (u64::from(MEMORY) - 64)..(u64::from(MEMORY) + 64),
        1 => any::<u64>(),
    ];
    let length = prop_oneof![2 => 0..16_u32, 8 => 0..1600_u32, 1 => 0..MEMORY, 1 => any::<u32>()];
    let index = || prop_oneof![20 => 0..8_u16, 4 => 0..256_u16, 1 => 0..260_u16];
    prop_oneof![
        1 => (register, bytes(9)).prop_map(|(offset, data)| Op::Write { offset, data }),
        1 => (0..0x110_u16, bytes(5)).prop_map(|(offset, data)| Op::Config { offset, data }),
        1 => (0x1_0000..0x1_8000_u64, bytes(64)).prop_map(|(address, data)| Op::Store { address, data }),
        8 => (0..2_u16, index(), address, length, 0..8_u16, index()).prop_map(
            |(queue, index, address, len, flags, next)| Op::Descriptor { queue, index, address, len, flags, next }
        ),
        8 => (0..2_u16, index()).prop_map(|(queue, head)| Op::Offer { queue, head }),
        1 => (0..2_u16, any::<u16>()).prop_map(|(queue, index)| Op::AvailableIndex { queue, index }),
        6 => (0..4096_usize).prop_map(|len| Op::Send { len }),
        6 => (0..4097_u32).prop_map(|len| Op::Post { len }),
        8 => (0..2000_usize).prop_map(|len| Op::Give { len }),
        1 => Just(Op::Reset),
        4 => Just(Op::Start),
    ]
}

impl NetGuest {
    /// One round, held to its bounds.
    fn bounded_round(&mut self) {
        self.told.sent.clear();
        let (driven, waiting) = (self.device.is_driven(), self.told.waiting.len());
        self.round();
        let taken = waiting - self.told.waiting.len();
        let sent = &self.told.sent;
        assert!(taken <= FRAMES_PER_ROUND.into() && sent.len() <= FRAMES_PER_ROUND.into());
        assert!(driven || taken == 0 && sent.is_empty());
        let whole = |frame: &Vec<u8>| (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame.len());
        assert!(sent.iter().all(whole));
        self.messages.clear();
        self.changes.clear();
        self.faults.clear();
    }

    fn hostile(&mut self, op: Op) {
        match op {
            Op::Write { offset, data } => {
                let effects = self.device.bar_write(offset, &data);
                self.interrupts(effects.interrupts);
            }
            Op::Config { offset, data } => {
                let effects = self.device.config_write(offset, &data);
                self.interrupts(effects.interrupts);
            }
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
            Op::Offer { queue, head } => self.offer(queue, head),
            Op::AvailableIndex { queue, index } => {
                self.store(available(queue) + 2, &index.to_le_bytes());
            }
            Op::Send { len } => {
                self.add_bytes(TRANSMIT_QUEUE, &vec![b's'; len]);
            }
            Op::Post { len } => {
                self.add_buffer(len);
            }
            Op::Give { len } => self.told.waiting.push_back(frame(len, 1)),
            Op::Reset => {
                let effects = self.device.reset();
                self.interrupts(effects.interrupts);
            }
            Op::Start => {
                let effects = self.device.reset();
                self.interrupts(effects.interrupts);
                self.choose_messages();
                self.start(FEATURES);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_hostile_guest_hurts_nobody(ops in prop::collection::vec(op(), 1..120)) {
        let mut guest = NetGuest::driven();
        for op in ops {
            guest.hostile(op);
            guest.bounded_round();
        }
        still_works(&mut guest);
    }
}

#[test]
fn a_flood_at_full_speed_takes_no_memory() {
    let mut guest = NetGuest::driven();
    let kept = |guest: &NetGuest| format!("{:?}", guest.device).len();
    guest.add_pieces(&[0; 256], &[1; 256]);
    guest.bounded_round();
    guest.returned(TRANSMIT_QUEUE);
    let before = kept(&guest);
    for round in 0..3000_usize {
        for length in 0..16 {
            guest.add_bytes(TRANSMIT_QUEUE, &vec![1; (round + length * 100) % 2000]);
            guest.add_buffer(4);
            guest.told.waiting.push_back(frame(64, 1));
        }
        guest.bounded_round();
        guest.returned(TRANSMIT_QUEUE);
        guest.returned(RECEIVE_QUEUE);
    }
    let counters = guest.device.device().counters();
    assert_eq!(counters.no_room, 48_000);
    assert!(counters.transmitted.oversize > 1000, "{counters:?}");
    assert!(kept(&guest) < before + 100, "numbers with more digits");
    assert_eq!(guest.read8(STATUS), 0x0f, "nothing of this is a fault");
}

/// Ends the other thread, also when this one panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Rings and frames change while the device reads them.
#[test]
fn a_guest_that_writes_at_the_same_time_hurts_nobody() {
    let mut guest = NetGuest::like_linux();
    let memory = guest.memory.clone();
    let done = AtomicBool::new(false);
    let mut stops = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 1_u32;
            while !done.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [_, low, high, top] = seed.to_le_bytes();
                let queue = u16::from(top) % 2;
                let value = u16::from_le_bytes([low, high]);
                let (address, value) = match high >> 5 {
                    0..=3 => (available(queue) + 2, value % 8),
                    4 => (available(queue) + 4, value % 260),
                    // Flags, next and length of the first descriptors.
                    5 => (descriptors(queue) + 12, value % 4),
                    6 => (descriptors(queue) + 14, value % 4),
                    _ => (descriptors(queue) + 8, value % 2000),
                };
                let written = memory.write_obj(value, GuestAddress(address));
                written.expect("in memory");
            }
        });
        let _ends = Ends(&done);
        for _ in 0..20_000 {
            guest.told.waiting.push_back(frame(64, 1));
            guest.bounded_round();
            guest.told.waiting.truncate(64);
            if !guest.device.is_driven() {
                stops += 1;
                let effects = guest.device.reset();
                guest.interrupts(effects.interrupts);
                guest.choose_messages();
                guest.start(FEATURES);
            }
        }
    });
    assert!(stops > 0, "it did make no sense at times");
}
