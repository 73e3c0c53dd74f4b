// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames for the guest.

use kennel_virtio::net::{FRAMES_PER_ROUND, RECEIVE_QUEUE};
use kennel_virtio::spec::*;

use crate::guest::*;

#[test]
fn a_frame_lies_behind_a_header_that_counts_one_buffer() {
    let mut guest = NetGuest::like_linux();
    let frames: Vec<_> = [14, 60, 1513, 1514].map(|len| frame(len, 3)).to_vec();
    guest.give(frames.clone());
    let expected: Vec<_> = frames.iter().map(|frame| with_header(frame)).collect();
    assert_eq!(guest.arrived(), expected);
    let received = guest.device.device().counters().received;
    assert_eq!(received.frames, 4);
    assert_eq!(received.bytes, 14 + 60 + 1513 + 1514);
}

#[test]
fn a_buffer_lies_over_descriptors_in_any_way() {
    let layouts: [&[u32]; 7] = [
        &[12, 60],
        &[72],
        &[5, 67],
        &[11, 2, 59],
        &[0, 12, 0, 60],
        &[1; 72],
        &[13, 59, 1000],
    ];
    for lengths in layouts {
        let mut guest = NetGuest::driven();
        let mut address = page(RECEIVE_QUEUE, 0);
        let mut pieces = Vec::new();
        for &len in lengths {
            let writable = true;
            pieces.push(Piece {
                address,
                len,
                writable,
            });
            address += u64::from(len);
        }
        let head = guest.add(RECEIVE_QUEUE, &pieces);
        guest.give([frame(60, 9)]);
        assert_eq!(guest.returned(RECEIVE_QUEUE), [(head, 72)], "{lengths:?}");
        let found = guest.load(page(RECEIVE_QUEUE, 0), 73);
        assert_eq!(found, [with_header(&frame(60, 9)), vec![0]].concat());
    }
}

#[test]
fn frames_without_a_buffer_stay_with_the_owner() {
    let mut guest = NetGuest::driven();
    guest.give((0..5).map(|tag| frame(64, tag)));
    assert_eq!(guest.told.waiting.len(), 5);
    assert_eq!(guest.messages, []);
    for _ in 0..2 {
        guest.add_buffer(LINUX_BUFFER);
    }
    guest.notify(RECEIVE_QUEUE);
    assert_eq!(guest.told.waiting.len(), 3);
    for _ in 0..8 {
        guest.add_buffer(LINUX_BUFFER);
    }
    guest.notify(RECEIVE_QUEUE);
    assert_eq!(guest.told.waiting.len(), 0);
    let expected: Vec<_> = (0..5).map(|tag| with_header(&frame(64, tag))).collect();
    assert_eq!(guest.arrived(), expected, "in order");
    guest.give([frame(64, 5)]);
    assert_eq!(guest.arrived(), [with_header(&frame(64, 5))]);
}

#[test]
fn a_buffer_without_room_goes_back_and_its_frame_is_dropped() {
    let mut guest = NetGuest::driven();
    let small = guest.add_buffer(12 + 99);
    let fits = guest.add_buffer(12 + 100);
    let header_only = guest.add_buffer(12);
    let nothing = guest.add_buffer(0);
    let last = guest.add_buffer(LINUX_BUFFER);
    guest.give((0..5).map(|tag| frame(100, tag)));
    assert_eq!(guest.told.waiting.len(), 0);
    assert_eq!(
        guest.returned(RECEIVE_QUEUE),
        [
            (small, 0),
            (fits, 112),
            (header_only, 0),
            (nothing, 0),
            (last, 112)
        ]
    );
    let found = |head| guest.load(page(RECEIVE_QUEUE, head), 112);
    assert_eq!(found(small), [0; 112], "not even a part");
    assert_eq!(found(fits), with_header(&frame(100, 1)));
    assert_eq!(found(last), with_header(&frame(100, 4)));
    let counters = guest.device.device().counters();
    assert_eq!((counters.no_room, counters.received.frames), (3, 2));
    assert_eq!(guest.read8(STATUS), 0x0f, "no fault");
}

#[test]
fn only_what_the_device_may_write_is_room() {
    let mut guest = NetGuest::driven();
    let address = page(RECEIVE_QUEUE, 200);
    let piece = |at: u64, len, writable| Piece {
        address: address + at,
        len,
        writable,
    };
    let read_only = guest.add(RECEIVE_QUEUE, &[piece(0, 2000, false)]);
    let behind = guest.add(RECEIVE_QUEUE, &[piece(0, 8, false), piece(8, 72, true)]);
    let too_little = guest.add(
        RECEIVE_QUEUE,
        &[piece(100, 2000, false), piece(100, 71, true)],
    );
    guest.give((0..3).map(|tag| frame(60, tag)));
    assert_eq!(
        guest.returned(RECEIVE_QUEUE),
        [(read_only, 0), (behind, 72), (too_little, 0)]
    );
    assert_eq!(guest.load(address, 8), [0; 8]);
    assert_eq!(guest.load(address + 8, 72), with_header(&frame(60, 1)));
    assert_eq!(guest.load(address + 100, 72), [0; 72]);
    assert_eq!(guest.device.device().counters().no_room, 2);
}

#[test]
fn what_cannot_be_a_frame_takes_no_buffer() {
    let mut guest = NetGuest::driven();
    let buffers = [guest.add_buffer(4096), guest.add_buffer(4096)];
    guest.give([0, 13, 1515, 65_535].map(|len| frame(len, 1)));
    // Two buffers let it look at two at a time; and there is no driver's word without a frame.
    assert_eq!(guest.told.waiting.len(), 0);
    assert_eq!(guest.returned(RECEIVE_QUEUE), []);
    assert_eq!(guest.messages, []);
    let counters = guest.device.device().counters();
    let received = counters.received;
    assert_eq!((received.undersize, received.oversize), (2, 2));
    assert_eq!(counters.no_room, 0);
    guest.give([frame(1514, 2), frame(14, 2)]);
    let expected = [(buffers[0], 1526), (buffers[1], 26)];
    assert_eq!(guest.returned(RECEIVE_QUEUE), expected);
}

#[test]
fn a_round_is_bounded_and_says_that_there_is_more() {
    let mut guest = NetGuest::like_linux();
    let frames: Vec<_> = (0..=255).map(|tag| frame(64, tag)).collect();
    let per_round = usize::from(FRAMES_PER_ROUND);
    let (taken, effects) = guest
        .device
        .receive(&guest.memory, frames.iter().map(Vec::as_slice));
    assert_eq!((taken, effects.more), (per_round, true));
    assert_eq!(guest.arrived().len(), per_round);
    // Frames without end, all of them dropped.
    let (taken, effects) = guest
        .device
        .receive(&guest.memory, std::iter::repeat(&[][..]));
    assert_eq!((taken, effects.more), (per_round, true));
    let (taken, effects) = guest
        .device
        .receive(&guest.memory, frames.iter().map(Vec::as_slice).take(10));
    assert_eq!((taken, effects.more), (10, false), "no more frames");
    for left in [118_usize, 54] {
        let (taken, effects) = guest
            .device
            .receive(&guest.memory, frames.iter().map(Vec::as_slice).cycle());
        assert_eq!((taken, effects.more), (per_round, true), "{left} are left");
    }
    let (taken, effects) = guest
        .device
        .receive(&guest.memory, frames.iter().map(Vec::as_slice).cycle());
    assert_eq!((taken, effects.more), (54, false), "no more buffers");
}

#[test]
fn without_a_driver_nothing_is_taken() {
    let frames = [frame(64, 1)];
    let mut guest = NetGuest::no_driver();
    for step in ["off", "agreed", "driven", "reset"] {
        match step {
            "agreed" => {
                guest.write8(STATUS, 3);
                guest.write32(DRIVER_FEATURE_SELECT, 1);
                guest.write32(DRIVER_FEATURE, 1);
                guest.write8(STATUS, 0x0b);
            }
            "driven" => {
                guest.start(F_VERSION_1);
                guest.add_buffer(LINUX_BUFFER);
                assert!(guest.device.is_driven());
                continue;
            }
            "reset" => guest.write8(STATUS, 0),
            _ => {}
        }
        assert!(!guest.device.is_driven());
        let (taken, effects) = guest
            .device
            .receive(&guest.memory, frames.iter().map(Vec::as_slice));
        assert_eq!(taken, 0, "{step}");
        assert!(effects.interrupts.is_none() && !effects.more && effects.fault.is_none());
    }
    assert_eq!(guest.device.device().counters(), Default::default());
}
