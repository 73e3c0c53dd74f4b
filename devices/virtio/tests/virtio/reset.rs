// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resets and closes: what an agent or a boot leaves behind reaches no other.

use kennel_virtio::spec::*;
use kennel_virtio::{ConsoleEvent, DriverChange, PortId};

use crate::guest::*;

fn closed(port: PortId, reset: bool) -> ConsoleEvent {
    ConsoleEvent::PortClosed { port, reset }
}

#[test]
fn a_driver_reset_clears_everything_at_once() {
    let mut guest = Guest::with_agent();
    guest.send(AGENT_TX, b"half of a reply");
    assert_eq!(guest.take_agent_output(4), b"half");
    assert_eq!(
        guest
            .device
            .agent_input(guest.device.epoch(), &[b'x'; 70_000]),
        65_536
    );
    let epoch = guest.device.epoch();
    guest.write8(STATUS, 0);
    assert_eq!(guest.read8(STATUS), 0);
    assert_eq!(guest.changes.last(), Some(&DriverChange::Reset));
    assert_ne!(guest.device.epoch(), epoch);
    assert_eq!(
        guest.told.events,
        [closed(PortId::Console, true), closed(PortId::Agent, true)]
    );
    assert_eq!(guest.read16(CONFIG_VECTOR), NO_VECTOR);
    for queue in 0..QUEUES {
        guest.write16(QUEUE_SELECT, queue);
        assert_eq!(guest.read16(QUEUE_ENABLE), 0);
        assert_eq!(guest.read16(QUEUE_VECTOR), NO_VECTOR);
        assert_eq!(guest.read32(QUEUE_DESCRIPTORS), 0);
    }
    assert_eq!(guest.read32(DRIVER_FEATURE), 0);
    assert_eq!(guest.device.device().counters().dropped_input_bytes, 65_536);
}

#[test]
fn what_was_for_the_last_boot_does_not_reach_the_next() {
    let mut guest = Guest::with_agent();
    guest.send(AGENT_TX, b"half of a reply");
    assert_eq!(guest.take_agent_output(4), b"half");
    let old = guest.device.epoch();
    assert_eq!(guest.device.agent_input(old, b"guest-exec"), 10);
    guest.probe(MULTIPORT | F_VERSION_1);
    guest.post(AGENT_RX, 4);
    guest.control(1, PORT_OPEN, 1);
    assert_eq!(
        guest.device.agent_input(old, b"guest-exec"),
        0,
        "its agent is gone"
    );
    guest.process();
    assert_eq!(guest.returned(AGENT_RX), []);
    assert_eq!(guest.take_agent_output(100), b"");
    guest.send(AGENT_TX, b"new");
    assert_eq!(guest.take_agent_output(100), b"new");
}

#[test]
fn a_held_element_goes_back_when_the_guest_closes() {
    let mut guest = Guest::with_agent();
    let first = guest.send(AGENT_TX, b"half of a reply");
    let second = guest.send(AGENT_TX, b"the rest");
    assert_eq!(guest.take_agent_output(4), b"half");
    assert_eq!(
        guest.device.agent_input(guest.device.epoch(), b"request"),
        7
    );
    let epoch = guest.device.epoch();
    guest.control(1, PORT_OPEN, 0);
    assert_eq!(guest.returned(AGENT_TX), [(first, 0), (second, 0)]);
    assert_eq!(guest.take_agent_output(100), b"");
    assert_eq!(guest.device.epoch(), epoch + 1);
    assert_eq!(guest.told.events, [closed(PortId::Agent, false)]);
    let counters = guest.device.device().counters();
    assert_eq!(
        (counters.discarded_elements, counters.dropped_input_bytes),
        (2, 7)
    );
}

#[test]
fn bytes_around_a_close_keep_to_their_side() {
    let mut guest = Guest::with_agent();
    // All in one go, and the owner reads before it has looked at the messages.
    guest.add_bytes(AGENT_TX, b"old");
    guest.add_bytes(CONTROL_OUT, &control_bytes(1, PORT_OPEN, 0));
    assert_eq!(guest.take_agent_output(100), b"", "the message first");
    guest.process();
    guest.add_bytes(CONTROL_OUT, &control_bytes(1, PORT_OPEN, 1));
    guest.add_bytes(AGENT_TX, b"new");
    guest.process();
    assert_eq!(guest.take_agent_output(100), b"new");
    assert_eq!(guest.device.device().counters().discarded_elements, 1);
}

#[test]
fn a_close_and_an_open_in_one_go_leave_nothing_of_before() {
    let mut guest = Guest::with_agent();
    guest.add_bytes(AGENT_TX, b"old");
    guest.add_bytes(CONTROL_OUT, &control_bytes(1, PORT_OPEN, 0));
    guest.add_bytes(CONTROL_OUT, &control_bytes(1, PORT_OPEN, 1));
    guest.process();
    assert_eq!(guest.told.events.len(), 2);
    guest.send(AGENT_TX, b"new");
    assert_eq!(guest.take_agent_output(100), b"new");
}

#[test]
fn what_is_said_on_a_closed_port_goes_back_unread() {
    let mut guest = Guest::up();
    let head = guest.send(AGENT_TX, b"nobody hears");
    assert_eq!(guest.returned(AGENT_TX), [(head, 0)]);
    guest.control(1, PORT_OPEN, 1);
    assert_eq!(guest.take_agent_output(100), b"");
}

#[test]
fn a_platform_reset_is_a_driver_reset_and_more() {
    let mut guest = Guest::with_agent();
    guest.mask(1, true);
    guest.send(CONSOLE_TX, b"x");
    let effects = guest.device.reset();
    assert_eq!(effects.driver, Some(DriverChange::Reset));
    assert_eq!(effects.config.bar_changes().count(), 1, "decoded no more");
    guest.apply(effects);
    assert_eq!(guest.config_read(4), [0, 0]);
    assert_eq!(guest.read8(STATUS), 0);
    assert_eq!(guest.read8(MSIX_PENDING.into()), 0);
    assert_eq!(guest.read32(vector_entry(0) + 12), 1, "masked");
    assert_eq!(
        guest.told.events,
        [closed(PortId::Console, true), closed(PortId::Agent, true)]
    );
    let mut effects = guest.device.reset();
    effects.driver = None;
    effects.work = false;
    assert!(effects.is_none(), "a second one has nothing to do");
}

#[test]
fn resets_without_a_loop_in_between_leave_nothing_behind() {
    let mut guest = Guest::with_agent();
    for _ in 0..10_000 {
        let effects = guest.device.bar_write(STATUS, &[0]);
        assert_eq!(effects.driver, Some(DriverChange::Reset));
    }
    guest.process();
    assert_eq!(guest.told.events.len(), 2);
}

#[test]
fn rings_of_before_a_reset_are_left_alone() {
    let mut guest = Guest::with_agent();
    guest.add_bytes(CONSOLE_TX, b"old");
    guest.write8(STATUS, 0);
    guest.write8(STATUS, 3);
    guest.write32(DRIVER_FEATURE_SELECT, 1);
    guest.write32(DRIVER_FEATURE, 1);
    guest.write8(STATUS, 0x0b);
    guest.write8(STATUS, 0x0f);
    guest.process();
    assert_eq!(guest.returned(CONSOLE_TX), []);
    assert_eq!((guest.told.printed.len(), guest.read8(STATUS)), (0, 0x0f));
}
