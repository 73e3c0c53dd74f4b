// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts: one for all frames of a round, and none for nothing.

use kennel_virtio::net::{F_MAC, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use kennel_virtio::spec::*;

use crate::guest::*;

#[test]
fn one_message_tells_of_a_whole_round() {
    let mut guest = NetGuest::like_linux();
    for tag in 0..40 {
        guest.add_frame(&frame(64, tag));
    }
    guest.notify(TRANSMIT_QUEUE);
    assert_eq!(guest.told.sent.len(), 40);
    assert_eq!(guest.messages, [message(1)]);
    guest.messages.clear();
    guest.give((0..40).map(|tag| frame(64, tag)));
    assert_eq!(guest.arrived().len(), 40);
    assert_eq!(guest.messages, [message(1)]);
    assert!(!guest.line);
}

#[test]
fn the_line_rises_once_for_a_whole_round() {
    let mut guest = NetGuest::no_driver();
    guest.start(F_MAC | F_VERSION_1);
    for tag in 0..40 {
        guest.add_frame(&frame(64, tag));
        guest.add_buffer(LINUX_BUFFER);
    }
    let frames: Vec<_> = (0..40).map(|tag| frame(64, tag)).collect();
    let sent = guest.device.transmit(&guest.memory, &mut |_| {});
    assert_eq!(sent.interrupts.intx(), Some(true));
    guest.interrupts(sent.interrupts);
    let (taken, received) = guest
        .device
        .receive(&guest.memory, frames.iter().map(Vec::as_slice));
    assert_eq!(taken, 40);
    assert!(received.interrupts.is_none(), "it is up already");
    assert_eq!(guest.read8(ISR.into()), ISR_QUEUE);
    assert!(!guest.line && guest.messages.is_empty());
    assert_eq!(guest.read8(ISR.into()), 0);
}

#[test]
fn a_round_without_frames_is_silent() {
    let mut guest = NetGuest::like_linux();
    guest.notify(TRANSMIT_QUEUE);
    guest.notify(RECEIVE_QUEUE);
    guest.process();
    assert_eq!(guest.messages, []);
}

#[test]
fn dropped_frames_give_their_buffers_back_with_an_interrupt() {
    let mut guest = NetGuest::driven();
    guest.add_frame(&[]);
    guest.notify(TRANSMIT_QUEUE);
    assert_eq!(guest.messages, [message(1)]);
    guest.messages.clear();
    guest.add_buffer(20);
    guest.give([frame(64, 1)]);
    assert_eq!(guest.messages, [message(1)]);
}

#[test]
fn a_driver_that_polls_gets_none() {
    let mut guest = NetGuest::like_linux();
    for queue in [RECEIVE_QUEUE, TRANSMIT_QUEUE] {
        guest.store(available(queue), &1_u16.to_le_bytes());
    }
    guest.add_frame(&frame(64, 1));
    guest.notify(TRANSMIT_QUEUE);
    guest.give([frame(64, 2)]);
    assert_eq!(guest.messages, []);
    assert_eq!(guest.returned(TRANSMIT_QUEUE).len(), 1);
    assert_eq!(guest.arrived(), [with_header(&frame(64, 2))]);
}

#[test]
fn without_bus_mastering_frames_wait_on_both_sides() {
    let mut guest = NetGuest::like_linux();
    guest.config_write(kennel_pci::spec::COMMAND, &[0x02, 0]);
    guest.add_frame(&frame(64, 1));
    guest.notify(TRANSMIT_QUEUE);
    guest.give([frame(64, 2)]);
    assert_eq!((guest.told.sent.len(), guest.told.waiting.len()), (0, 1));
    assert_eq!(guest.messages, []);
    guest.config_write(kennel_pci::spec::COMMAND, &[0x06, 0]);
    assert_eq!(guest.told.sent, [frame(64, 1)]);
    assert_eq!(guest.arrived(), [with_header(&frame(64, 2))]);
}
