// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resets: what a boot left in its rings reaches nobody, what the owner has for the guest is not lost.

use kennel_virtio::DriverChange;
use kennel_virtio::net::{F_MAC, F_STATUS, TRANSMIT_QUEUE};
use kennel_virtio::spec::*;

use crate::guest::*;

const FEATURES: u64 = F_MAC | F_STATUS | F_VERSION_1;

#[test]
fn frames_of_before_a_reset_are_not_sent_after_it() {
    let mut guest = NetGuest::driven();
    guest.add_frame(&frame(64, 1));
    guest.write8(STATUS, 0);
    assert_eq!(guest.changes.last(), Some(&DriverChange::Reset));
    guest.process();
    guest.start(FEATURES);
    guest.process();
    assert!(guest.told.sent.is_empty());
    guest.add_frame(&frame(64, 2));
    guest.notify(TRANSMIT_QUEUE);
    assert_eq!(guest.told.sent, [frame(64, 2)]);
}

#[test]
fn a_reset_in_the_midst_of_a_batch_leaves_the_rest() {
    let mut guest = NetGuest::driven();
    for tag in 0..100 {
        guest.add_frame(&frame(64, tag));
    }
    assert!(guest.round(), "there is more");
    guest.write8(STATUS, 0);
    assert!(!guest.round());
    assert_eq!(guest.told.sent.len(), 64);
    assert_eq!(guest.messages.len(), 1);
}

#[test]
fn buffers_of_before_a_reset_are_left_alone() {
    let mut guest = NetGuest::like_linux();
    let before = guest.load(0x10_0000, 0x1_0000);
    guest.write8(STATUS, 0);
    guest.give([frame(64, 1)]);
    guest.start(FEATURES);
    guest.process();
    assert_eq!(guest.told.waiting.len(), 1, "it has no buffers any more");
    assert_eq!(guest.load(0x10_0000, 0x1_0000), before);
    guest.add_buffer(LINUX_BUFFER);
    guest.process();
    assert_eq!(guest.arrived(), [with_header(&frame(64, 1))]);
}

#[test]
fn a_platform_reset_leaves_address_and_counters() {
    let mut guest = NetGuest::no_driver();
    guest.start(FEATURES);
    guest.add_frame(&frame(64, 1));
    guest.notify(TRANSMIT_QUEUE);
    assert!(guest.line);
    let counters = guest.device.device().counters();
    assert_eq!(counters.transmitted.frames, 1);
    let effects = guest.device.reset();
    guest.apply(effects);
    assert!(!guest.line && !guest.device.is_driven());
    assert_eq!(guest.device.device().counters(), counters);
    assert_eq!(guest.read::<6>(DEVICE.into()), MAC);
    guest.choose_messages();
    guest.start(FEATURES);
    guest.add_buffer(LINUX_BUFFER);
    guest.give([frame(64, 3)]);
    assert_eq!(guest.arrived(), [with_header(&frame(64, 3))]);
}

#[test]
fn a_driver_may_have_smaller_queues() {
    let mut guest = NetGuest::no_driver();
    guest.choose_messages();
    guest.start_with(FEATURES, 2);
    for round in 0..50 {
        guest.add_buffer(LINUX_BUFFER);
        guest.add_buffer(LINUX_BUFFER);
        guest.give((0..2).map(|tag| frame(64, tag + round)));
        let expected = [round, round + 1].map(|tag| with_header(&frame(64, tag)));
        assert_eq!(guest.arrived(), expected);
        guest.add_frame(&frame(64, round));
        guest.notify(TRANSMIT_QUEUE);
        assert_eq!(guest.returned(TRANSMIT_QUEUE).len(), 1);
    }
    assert_eq!(guest.told.sent.len(), 50);
}
