// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames of the guest.

use kennel_virtio::NetCounters;
use kennel_virtio::net::{FRAMES_PER_ROUND, HEADER_BYTES, TRANSMIT_QUEUE};
use kennel_virtio::spec::*;

use crate::guest::*;

fn counters(guest: &NetGuest) -> NetCounters {
    guest.device.device().counters()
}

#[test]
fn header_and_frame_lie_over_descriptors_in_any_way() {
    let layouts: [&[usize]; 10] = [
        &[12, 60],
        &[72],
        &[5, 67],
        &[5, 7, 60],
        &[11, 2, 59],
        &[13, 59],
        &[12, 1, 58, 1],
        &[0, 12, 0, 60, 0],
        &[1; 72],
        &[3, 3, 3, 3, 20, 20, 20],
    ];
    for lengths in layouts {
        let mut guest = NetGuest::driven();
        let frame = frame(60, 7);
        let head = guest.add_pieces(&[&[0; HEADER_BYTES], &frame[..]].concat(), lengths);
        guest.notify(TRANSMIT_QUEUE);
        assert_eq!(guest.told.sent, [frame], "{lengths:?}");
        assert_eq!(guest.returned(TRANSMIT_QUEUE), [(head, 0)]);
    }
}

#[test]
fn frames_have_14_to_1514_bytes() {
    let mut guest = NetGuest::driven();
    let lengths = [0, 1, 13, 14, 15, 1513, 1514, 1515, 1518, 4084];
    for (length, tag) in lengths.into_iter().zip(0..) {
        guest.add_frame(&frame(length, tag));
    }
    guest.notify(TRANSMIT_QUEUE);
    let passed = [frame(14, 3), frame(15, 4), frame(1513, 5), frame(1514, 6)];
    assert_eq!(guest.told.sent, passed);
    assert_eq!(guest.returned(TRANSMIT_QUEUE).len(), lengths.len());
    let counters = counters(&guest);
    let transmitted = counters.transmitted;
    assert_eq!((transmitted.oversize, transmitted.undersize), (3, 3));
    assert_eq!(transmitted.frames, 4);
    assert_eq!(transmitted.bytes, 14 + 15 + 1513 + 1514);
    assert_eq!((counters.malformed, counters.received.frames), (0, 0));
}

#[test]
fn less_than_a_header_is_too_short() {
    let mut guest = NetGuest::driven();
    for length in [1, 11, 12, 25] {
        guest.send(TRANSMIT_QUEUE, &vec![0; length]);
    }
    assert!(guest.told.sent.is_empty());
    assert_eq!(counters(&guest).transmitted.undersize, 4);
    assert_eq!(guest.returned(TRANSMIT_QUEUE).len(), 4);
    assert_eq!(guest.read8(STATUS), 0x0f, "no fault");
}

#[test]
fn what_can_be_no_frame_goes_back() {
    let mut guest = NetGuest::driven();
    let address = page(TRANSMIT_QUEUE, 200);
    guest.store(address, &[0x5a; 100]);
    let piece = |len, writable| Piece {
        address,
        len,
        writable,
    };
    for pieces in [
        &[piece(100, true)][..],
        &[piece(100, false), piece(1, true)],
        &[piece(1, true), piece(100, false)],
        &[piece(0, false)],
        &[piece(0, false), piece(0, true)],
    ] {
        guest.add(TRANSMIT_QUEUE, pieces);
    }
    guest.notify(TRANSMIT_QUEUE);
    assert!(guest.told.sent.is_empty());
    assert_eq!(counters(&guest).malformed, 5);
    let returned = guest.returned(TRANSMIT_QUEUE);
    assert_eq!(returned.len(), 5);
    assert!(returned.iter().all(|&(_, len)| len == 0));
    assert_eq!(guest.load(address, 100), [0x5a; 100], "nothing was written");
    assert_eq!(guest.read8(STATUS), 0x0f, "no fault");
    guest.add_frame(&frame(64, 1));
    guest.notify(TRANSMIT_QUEUE);
    assert_eq!(guest.told.sent, [frame(64, 1)], "it goes on");
}

#[test]
fn a_part_of_length_0_that_the_device_may_write_harms_nobody() {
    let mut guest = NetGuest::driven();
    let address = page(TRANSMIT_QUEUE, 200);
    guest.store(address, &[&[0; HEADER_BYTES], &frame(64, 1)[..]].concat());
    let piece = |len, writable| Piece {
        address,
        len,
        writable,
    };
    guest.add(TRANSMIT_QUEUE, &[piece(76, false), piece(0, true)]);
    guest.notify(TRANSMIT_QUEUE);
    assert_eq!(guest.told.sent, [frame(64, 1)]);
}

#[test]
fn what_the_header_says_does_not_matter() {
    let mut guest = NetGuest::driven();
    guest.send(TRANSMIT_QUEUE, &[&[0xff; 12], &frame(64, 1)[..]].concat());
    assert_eq!(guest.told.sent, [frame(64, 1)]);
}

#[test]
fn a_short_frame_shows_nothing_of_a_longer_one_before() {
    let mut guest = NetGuest::driven();
    guest.add_frame(&[0xee; 1514]);
    guest.add_frame(&[0x11; 20]);
    guest.notify(TRANSMIT_QUEUE);
    assert_eq!(guest.told.sent[1], [0x11; 20]);
}

#[test]
fn a_round_is_bounded_and_says_that_there_is_more() {
    let mut guest = NetGuest::driven();
    for tag in 0..=255 {
        guest.add_frame(&frame(64, tag));
    }
    let per_round = usize::from(FRAMES_PER_ROUND);
    for round in 1..=256 / per_round {
        let more = guest.round();
        assert_eq!(guest.told.sent.len(), round * per_round);
        assert_eq!(more, round * per_round < 256);
        assert_eq!(guest.returned(TRANSMIT_QUEUE).len(), per_round);
    }
    let expected: Vec<_> = (0..=255).map(|tag| frame(64, tag)).collect();
    assert_eq!(guest.told.sent, expected, "in order");
}

#[test]
fn dropped_frames_count_for_the_round() {
    let mut guest = NetGuest::driven();
    for _ in 0..256 {
        guest.add_frame(&[]);
    }
    assert!(guest.round());
    let seen = u64::from(FRAMES_PER_ROUND);
    assert_eq!(counters(&guest).transmitted.undersize, seen);
}

/// In the steady state: what the first frames needed is used again.
#[test]
fn frames_cost_no_allocation() {
    let mut guest = NetGuest::like_linux();
    let frame = frame(1514, 1);
    let mut allocations = Vec::new();
    for _ in 0..3 {
        for _ in 0..64 {
            guest.add_pieces(&[&[0; HEADER_BYTES], &frame[..]].concat(), &[12, 1514]);
        }
        let mut bytes = 0;
        let taken = allocation_counter::measure(|| {
            let mut sink = |frame: &[u8]| bytes += frame.len();
            let effects = guest.device.transmit(&guest.memory, &mut sink);
            assert!(effects.fault.is_none());
            let frames = (0..64).map(|_| &frame[..]);
            let (taken, effects) = guest.device.receive(&guest.memory, frames);
            assert!(effects.fault.is_none() && taken == 64);
        });
        assert_eq!(bytes, 64 * 1514);
        guest.returned(TRANSMIT_QUEUE);
        allocations.push(taken.count_total);
    }
    // One list of queues to tell of, for each of the two calls.
    assert!(
        allocations[1..].iter().all(|&count| count <= 2),
        "{allocations:?}"
    );
}
