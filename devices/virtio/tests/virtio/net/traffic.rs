// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random traffic of a driver that keeps to the rules, beside a model of what must come of it.

use std::collections::VecDeque;

use kennel_virtio::NetCounters;
use kennel_virtio::net::{F_MAC, FRAMES_PER_ROUND, HEADER_BYTES, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use kennel_virtio::spec::*;
use proptest::prelude::*;

use crate::guest::*;

#[derive(Clone, Debug)]
enum Op {
    Send { len: usize, cuts: Vec<usize> },
    Post { len: u32 },
    Give { len: usize },
    Round,
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    let len = || prop_oneof![3 => 14..1515_usize, 1 => 0..20_usize, 1 => 1500..1530_usize];
    let cuts = prop::collection::vec(0..1540_usize, 0..5);
    prop_oneof![
        6 => (len(), cuts).prop_map(|(len, cuts)| Op::Send { len, cuts }),
        4 => Just(Op::Post { len: LINUX_BUFFER }),
        2 => (0..1600_u32).prop_map(|len| Op::Post { len }),
        6 => len().prop_map(|len| Op::Give { len }),
        3 => Just(Op::Round),
        1 => Just(Op::Reset),
    ]
}

/// What must come of it.
#[derive(Debug, Default)]
struct Model {
    sending: VecDeque<Vec<u8>>,
    buffers: VecDeque<(u16, u32)>,
    waiting: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    /// Head, and what is in it.
    arrived: Vec<(u16, Vec<u8>)>,
    counters: NetCounters,
}

impl Model {
    fn round(&mut self) {
        for _ in 0..self.sending.len().min(FRAMES_PER_ROUND.into()) {
            let frame = self.sending.pop_front().expect("counted");
            let counters = &mut self.counters.transmitted;
            match frame.len() {
                0..14 => counters.undersize += 1,
                14..=1514 => {
                    counters.frames += 1;
                    counters.bytes += frame.len() as u64;
                    self.sent.push(frame);
                }
                _ => counters.oversize += 1,
            }
        }
        let budget = self.buffers.len().min(FRAMES_PER_ROUND.into());
        for frame in self.waiting.drain(..budget.min(self.waiting.len())) {
            let counters = &mut self.counters.received;
            match frame.len() {
                0..14 => counters.undersize += 1,
                14..=1514 => {
                    let (head, room) = self.buffers.pop_front().expect("counted");
                    let bytes = with_header(&frame);
                    if bytes.len() <= room as usize {
                        counters.frames += 1;
                        counters.bytes += frame.len() as u64;
                        self.arrived.push((head, bytes));
                    } else {
                        self.counters.no_room += 1;
                        self.arrived.push((head, Vec::new()));
                    }
                }
                _ => counters.oversize += 1,
            }
        }
    }
}

/// Lengths of the pieces that `cuts` leave of `len` bytes.
fn pieces(len: usize, cuts: &[usize]) -> Vec<usize> {
    let mut cuts: Vec<_> = cuts.iter().map(|&cut| cut.min(len)).collect();
    cuts.extend([0, len]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

struct Side {
    guest: NetGuest,
    model: Model,
    /// Descriptors of frames that the guest has not got back.
    descriptors: usize,
}

impl Side {
    fn act(&mut self, op: &Op, tag: u8) {
        match op {
            Op::Send { len, cuts } => {
                let pieces = pieces(len + HEADER_BYTES, cuts);
                if self.descriptors + pieces.len() > 256 {
                    return;
                }
                self.descriptors += pieces.len();
                let frame = frame(*len, tag);
                let bytes = [&[0; HEADER_BYTES], &frame[..]].concat();
                self.guest.add_pieces(&bytes, &pieces);
                self.model.sending.push_back(frame);
            }
            Op::Post { len } => {
                if self.model.buffers.len() < 256 {
                    let head = self.guest.add_buffer(*len);
                    self.model.buffers.push_back((head, *len));
                }
            }
            Op::Give { len } => {
                self.guest.told.waiting.push_back(frame(*len, tag));
                self.model.waiting.push_back(frame(*len, tag));
            }
            Op::Round => self.round(),
            Op::Reset => {
                self.guest.start(F_MAC | F_VERSION_1);
                // Ready and enabled queues are each a reason for a round: there is nothing in them.
                self.model.sending.clear();
                self.model.buffers.clear();
                self.descriptors = 0;
            }
        }
    }

    fn round(&mut self) {
        let (sending, buffers) = (self.model.sending.len(), self.model.buffers.len());
        self.guest.messages.clear();
        self.guest.round();
        self.model.round();
        assert_eq!(self.guest.told.sent, self.model.sent);
        assert_eq!(self.guest.told.waiting, self.model.waiting);
        assert_eq!(self.guest.device.device().counters(), self.model.counters);
        let returned = self.guest.returned(RECEIVE_QUEUE);
        let found = |&(head, len): &(u16, u32)| {
            let bytes = self.guest.load(page(RECEIVE_QUEUE, head), len as usize);
            (head, bytes)
        };
        let arrived: Vec<_> = returned.iter().map(found).collect();
        assert_eq!(arrived, self.model.arrived);
        let back = self.guest.returned(TRANSMIT_QUEUE).len();
        assert_eq!(back, sending - self.model.sending.len());
        let told = usize::from(back > 0) + usize::from(buffers > self.model.buffers.len());
        assert_eq!(self.guest.messages, vec![message(1); told]);
        if self.model.sending.is_empty() {
            self.descriptors = 0;
        }
        self.model.arrived.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_frame_ends_where_the_model_says(ops in prop::collection::vec(op(), 1..200)) {
        let (guest, model) = (NetGuest::driven(), Model::default());
        let mut side = Side { guest, model, descriptors: 0 };
        for (op, tag) in ops.iter().zip((0..=255).cycle()) {
            side.act(op, tag);
        }
        while !side.model.sending.is_empty() {
            side.round();
        }
        prop_assert_eq!(side.guest.read8(STATUS), 0x0f);
    }
}
