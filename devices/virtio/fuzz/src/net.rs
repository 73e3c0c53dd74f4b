// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The network card: its owner's promises, and a guest that does anything to its rings.

use kennel_virtio::net::{
    FRAME_BYTES_MAX, FRAME_BYTES_MIN, FRAMES_PER_ROUND, HEADER_BYTES, RECEIVE_QUEUE, TRANSMIT_QUEUE,
};
use kennel_virtio::spec::*;
use kennel_virtio::{FrameCounters, Net, NetCounters, NetEffects};

use crate::bytes::Bytes;
use crate::guest::{LENGTHS, address, queue, register_step, ring_step};
use crate::owner::{Fuzzed, MEMORY, Owner, SIZE, page, used};

/// Lengths of frames around what matters.
const FRAMES: [u16; 12] = [
    0,
    1,
    13,
    14,
    60,
    1500,
    1513,
    1514,
    1515,
    1518,
    4096,
    u16::MAX,
];
/// Lengths of buffers around what matters.
const BUFFERS: [u32; 12] = [
    0,
    11,
    12,
    25,
    26,
    72,
    1525,
    1526,
    1530,
    4096,
    MEMORY as u32,
    u32::MAX,
];
/// Frames for the guest that wait, at most.
const WAITING: usize = 256;
static FRAME: [u8; u16::MAX as usize] = [0x77; u16::MAX as usize];

/// What the owner has for the guest.
#[derive(Default)]
pub(crate) struct Frames {
    /// Lengths.
    waiting: Vec<u16>,
    sent: Vec<Vec<u8>>,
}

impl Fuzzed for Net {
    const QUEUES: u16 = 2;
    const FEATURES: u32 = 1 << 5 | 1 << 16;
    type Knows = Frames;

    fn new() -> Self {
        Self::new([2, 0, 0, 0, 0, 1])
    }

    fn round(owner: &mut Owner<Self>) -> bool {
        let sent = transmit(owner);
        let received = receive(owner);
        sent.more || received.more && !owner.knows.waiting.is_empty()
    }

    fn check_it_still_works(owner: &mut Owner<Self>) {
        owner.start_over(true);
        owner.knows = Frames::default();
        assert!(!owner.round());
        owner.post(RECEIVE_QUEUE, 72);
        owner.send(
            TRANSMIT_QUEUE,
            &[[0; HEADER_BYTES].as_slice(), &[0x33; 60]].concat(),
        );
        owner.knows.waiting.push(60);
        assert!(!owner.round());
        assert_eq!(owner.knows.sent, [[0x33; 60]]);
        assert!(owner.knows.waiting.is_empty());
        let [received, transmitted] = [RECEIVE_QUEUE, TRANSMIT_QUEUE].map(used);
        assert_eq!(owner.load16(transmitted + 2), 1);
        assert_eq!(owner.load16(received + 2), 1);
        assert_eq!(owner.load16(received + 8), 72);
        assert_eq!(owner.load16(page(0) + 10), 1, "one buffer");
        assert_eq!(owner.load16(page(0) + 12), 0x7777);
    }
}

/// What is counted of frames, whatever became of them.
fn seen(counters: FrameCounters) -> u64 {
    counters.frames + counters.oversize + counters.undersize
}

fn counters(owner: &Owner<Net>) -> NetCounters {
    owner.device.device().counters()
}

fn transmit(owner: &mut Owner<Net>) -> NetEffects {
    let (driven, before) = (owner.device.is_driven(), counters(owner));
    let sent = &mut owner.knows.sent;
    sent.clear();
    let mut sink = |frame: &[u8]| sent.push(frame.to_vec());
    let effects = owner.device.transmit(&owner.memory, &mut sink);
    owner.interrupts(effects.interrupts);
    check(owner, driven, effects);
    let (sent, after) = (&owner.knows.sent, counters(owner));
    let whole = |frame: &Vec<u8>| (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame.len());
    assert!(sent.iter().all(whole));
    let bytes: usize = sent.iter().map(Vec::len).sum();
    let (frames_before, frames) = (before.transmitted, after.transmitted);
    assert_eq!(frames.frames - frames_before.frames, sent.len() as u64);
    assert_eq!(frames.bytes - frames_before.bytes, bytes as u64);
    let looked_at = seen(frames) - seen(frames_before) + after.malformed - before.malformed;
    assert!(looked_at <= FRAMES_PER_ROUND.into());
    assert!(driven || looked_at == 0);
    assert_eq!(
        (before.received, before.no_room),
        (after.received, after.no_room)
    );
    effects
}

fn receive(owner: &mut Owner<Net>) -> NetEffects {
    let (driven, before) = (owner.device.is_driven(), counters(owner));
    let frames = owner.knows.waiting.iter().map(|&len| &FRAME[..len.into()]);
    let (taken, effects) = owner.device.receive(&owner.memory, frames);
    owner.interrupts(effects.interrupts);
    check(owner, driven, effects);
    assert!(taken <= FRAMES_PER_ROUND.into() && taken <= owner.knows.waiting.len());
    assert!(driven || taken == 0);
    let after = counters(owner);
    let looked_at = seen(after.received) - seen(before.received) + after.no_room - before.no_room;
    assert_eq!(looked_at, taken as u64, "each frame is counted once");
    let bytes = after.received.bytes - before.received.bytes;
    let given: u64 = owner.knows.waiting.drain(..taken).map(u64::from).sum();
    assert!(bytes <= given);
    assert_eq!(
        (before.transmitted, before.malformed),
        (after.transmitted, after.malformed)
    );
    effects
}

fn check(owner: &Owner<Net>, driven: bool, effects: NetEffects) {
    if !driven {
        assert!(!effects.more && effects.fault.is_none());
    }
    if effects.fault.is_some() {
        assert!(!effects.more && !owner.device.is_driven());
    }
}

/// One step on rings and frames, seldom on registers.
pub(crate) fn step(owner: &mut Owner<Net>, bytes: &mut Bytes<'_>) {
    match bytes.byte() {
        0..=39 => {
            let len = usize::from(bytes.pick(&FRAMES[..11])) + usize::from(bytes.below(14));
            owner.send(TRANSMIT_QUEUE, &vec![0x73; len]);
        }
        40..=69 => chain(owner, bytes),
        70..=99 => owner.post(RECEIVE_QUEUE, bytes.pick(&BUFFERS)),
        100..=139 => {
            let (len, count) = (bytes.pick(&FRAMES), usize::from(bytes.below(80)));
            let waiting = &mut owner.knows.waiting;
            waiting.extend(std::iter::repeat_n(len, count.min(WAITING - waiting.len())));
        }
        140..=154 => ring_step(owner, bytes, false),
        155..=169 => ring_step(owner, bytes, true),
        170..=209 => {
            owner.round();
        }
        210..=214 => {
            let (address, data) = (address::<Net>(bytes), bytes.array::<6>());
            owner.store(address, &data);
        }
        215..=219 => {
            let queue = queue::<Net>(bytes);
            owner.post(queue, bytes.pick(&LENGTHS));
        }
        220..=221 => owner.start_over(bytes.below(2) == 0),
        222..=224 => owner.write(STATUS, &[0]),
        _ => register_step(owner, bytes),
    }
}

/// One element of several descriptors, mostly all readable or all writable.
fn chain(owner: &mut Owner<Net>, bytes: &mut Bytes<'_>) {
    let queue = queue::<Net>(bytes);
    let count = 1 + u16::from(bytes.below(SIZE as u8));
    let head = owner.offered[usize::from(queue)] % SIZE;
    for step in 0..count {
        let index = (head + step) % SIZE;
        let len = match bytes.below(4) {
            0 => u32::from(bytes.below(16)),
            1 => HEADER_BYTES as u32,
            _ => bytes.pick(&BUFFERS[..10]),
        };
        let other = bytes.byte() == 0;
        let writable = (queue == RECEIVE_QUEUE) != other;
        let flags = u16::from(writable) * 2 + u16::from(step + 1 < count);
        let at = page(u64::from(queue * SIZE + index));
        owner.descriptor(queue, index, at, len, flags, (index + 1) % SIZE);
    }
    owner.offer(queue, head);
}
