// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mistakes that other consoles made, and messages and chains that no driver should send: a test each.

use kennel_virtio::spec::*;
use kennel_virtio::{ConsoleEvent, PortId, RingFault};

use crate::guest::*;

/// Seen: the queues of a port were taken when it was opened, and the second open found none.
#[test]
fn the_agents_port_is_opened_again_and_again() {
    let mut guest = Guest::with_agent();
    for round in 0..200_u32 {
        let text = round.to_le_bytes();
        guest.send(AGENT_TX, &text);
        assert_eq!(guest.take_agent_output(100), text);
        guest.control(1, PORT_OPEN, 0);
        guest.control(1, PORT_OPEN, 1);
        guest.control(1, PORT_OPEN, 1);
    }
    assert_eq!(
        guest.told.events.len(),
        400,
        "an open of an open port is none"
    );
    assert_eq!(
        guest.device.epoch(),
        200 + 1,
        "the probe's reset, and each close"
    );
}

/// Seen: a port number of the guest was an index.
#[test]
fn ports_that_do_not_exist_are_ignored() {
    let mut guest = Guest::with_agent();
    for id in [2, 3, 31, 0x8000_0001, u32::MAX] {
        for event in [PORT_READY, PORT_OPEN] {
            guest.control(id, event, 1);
            guest.control(id, event, 0);
        }
    }
    assert_eq!((guest.hear(), guest.told.events.len()), (vec![], 0));
    assert_eq!(guest.device.device().counters().ignored_messages, 20);
}

/// Seen: the guest's close was ignored, and what was sent on was lost.
#[test]
fn nothing_is_sent_to_a_port_that_the_guest_has_closed() {
    let mut guest = Guest::with_agent();
    guest.control(1, PORT_OPEN, 0);
    assert_eq!(guest.agent_input(b"lost?"), 0);
    assert_eq!(guest.returned(AGENT_RX), []);
    guest.control(1, PORT_OPEN, 1);
    guest.process();
    assert_eq!(guest.returned(AGENT_RX), []);
    assert_eq!(guest.agent_input(b"not lost"), 8);
    assert_eq!(guest.received(AGENT_RX), [b"not lost"]);
}

/// Seen: the list of control messages to the guest grew with each question.
#[test]
fn a_flood_of_questions_is_answered_once() {
    let mut guest = Guest::up();
    guest.returned(CONTROL_IN);
    // Use up the buffers, and ask on.
    for _ in 0..10_000 {
        guest.control(u32::MAX, DEVICE_READY, 1);
        guest.control(0, PORT_READY, 1);
        guest.control(1, PORT_READY, 1);
        guest.returned(CONTROL_OUT);
    }
    assert_eq!(guest.returned(CONTROL_IN).len(), 32);
    guest.post(CONTROL_IN, 32);
    assert_eq!(
        guest.returned(CONTROL_IN).len(),
        6,
        "two ports, three messages each"
    );
}

/// Seen: a sink that was not ready ended the machine, or the bytes were lost.
#[test]
fn a_sink_that_is_not_ready_costs_nothing() {
    let mut guest = Guest::with_agent();
    let head = guest.send(AGENT_TX, b"all of it");
    for _ in 0..1000 {
        guest.process();
        assert_eq!(guest.take_agent_output(0), b"");
    }
    assert_eq!(guest.returned(AGENT_TX), []);
    let bytes: Vec<u8> = (0..9).flat_map(|_| guest.take_agent_output(1)).collect();
    assert_eq!(bytes, b"all of it");
    assert_eq!(guest.returned(AGENT_TX), [(head, 0)]);
}

/// Seen: notifications were left disabled, and the guest waited for ever.
#[test]
fn notifications_are_never_switched_off_and_every_return_is_told() {
    let mut guest = Guest::with_agent();
    for _ in 0..300 {
        guest.messages.clear();
        guest.send(AGENT_TX, b"x");
        assert_eq!(guest.take_agent_output(1), b"x");
        assert_eq!(guest.messages, [message(1)]);
        assert_eq!(
            guest.load(used(AGENT_TX), 2),
            [0, 0],
            "flags of the used ring"
        );
    }
    // One that came without its own notification is found with any other.
    guest.add_bytes(AGENT_TX, b"silent");
    guest.send(CONSOLE_TX, b".");
    assert!(guest.told.agent_output);
    assert_eq!(guest.take_agent_output(100), b"silent");
}

#[test]
fn short_messages_are_ignored_and_given_back() {
    let mut guest = Guest::with_agent();
    for len in 0..8 {
        let head = guest.send(CONTROL_OUT, &control_bytes(1, PORT_OPEN, 0)[..len]);
        assert_eq!(guest.returned(CONTROL_OUT).last(), Some(&(head, 0)));
    }
    assert_eq!(guest.told.events, []);
    assert_eq!(guest.device.device().counters().ignored_messages, 8);
}

#[test]
fn a_message_in_pieces_and_with_more_behind_it_is_one() {
    let mut guest = Guest::with_agent();
    guest.store(0x70_0000, &control_bytes(1, PORT_OPEN, 0));
    let piece = |address, len| Piece {
        address,
        len,
        writable: false,
    };
    guest.add(
        CONTROL_OUT,
        &[
            piece(0x70_0000, 3),
            piece(0x70_0003, 5),
            piece(0x70_0100, 999),
        ],
    );
    guest.notify(CONTROL_OUT);
    let port = PortId::Agent;
    assert_eq!(
        guest.told.events,
        [ConsoleEvent::PortClosed { port, reset: false }]
    );
}

#[test]
fn unknown_messages_are_ignored() {
    let mut guest = Guest::with_agent();
    // What only the host says, and what nobody says.
    for event in [PORT_ADD, 2, CONSOLE_PORT, 5, PORT_NAME, 8, 0xffff] {
        guest.control(1, event, 1);
    }
    assert_eq!((guest.hear(), guest.told.events.len()), (vec![], 0));
    assert_eq!(guest.device.device().counters().ignored_messages, 7);
}

#[test]
fn values_other_than_0_and_1_are_ignored() {
    let mut guest = Guest::with_agent();
    for value in [2, 0x100, 0xffff] {
        for event in [DEVICE_READY, PORT_READY, PORT_OPEN] {
            guest.control(1, event, value);
        }
    }
    assert_eq!((guest.hear(), guest.told.events.len()), (vec![], 0));
    assert_eq!(guest.device.device().counters().ignored_messages, 9);
}

#[test]
fn port_ready_twice_is_answered_twice() {
    let mut guest = Guest::with_agent();
    guest.control(1, PORT_READY, 1);
    guest.control(1, PORT_READY, 1);
    let events: Vec<_> = guest.hear().into_iter().map(|heard| heard.1).collect();
    assert_eq!(events, [PORT_NAME, PORT_OPEN, PORT_NAME, PORT_OPEN]);
    assert_eq!(guest.told.events, [], "the guest's end is as it was");
    assert_eq!(guest.agent_input(b"x"), 1);
}

#[test]
fn writable_parts_of_output_are_left_alone() {
    let mut guest = Guest::with_agent();
    for queue in [AGENT_TX, CONSOLE_TX, CONTROL_OUT] {
        guest.store(0x70_0000, &control_bytes(1, PORT_READY, 1));
        let piece = |address, len, writable| Piece {
            address,
            len,
            writable,
        };
        let pieces = [piece(0x70_0000, 8, false), piece(0x70_1000, 64, true)];
        let head = guest.add(queue, &pieces);
        guest.notify(queue);
        let taken = guest.take_agent_output(100);
        assert_eq!(taken.len(), if queue == AGENT_TX { 8 } else { 0 });
        assert_eq!(guest.returned(queue).last(), Some(&(head, 0)));
        assert_eq!(guest.load(0x70_1000, 64), [0; 64]);
    }
    assert_eq!(guest.told.printed.len(), 8);
    assert_eq!(guest.hear().len(), 2);
}

#[test]
fn output_with_nothing_to_read_comes_back() {
    let mut guest = Guest::with_agent();
    let writable = |len| Piece {
        address: 0x70_0000,
        len,
        writable: true,
    };
    let heads = [
        guest.add(AGENT_TX, &[writable(16)]),
        guest.add(AGENT_TX, &[writable(0)]),
        guest.add(
            AGENT_TX,
            &[Piece {
                address: u64::MAX,
                len: 0,
                writable: false,
            }],
        ),
    ];
    guest.notify(AGENT_TX);
    assert_eq!(guest.take_agent_output(100), b"");
    assert_eq!(guest.returned(AGENT_TX), heads.map(|head| (head, 0)));
    assert_eq!(guest.faults, []);
}

#[test]
fn input_buffers_without_room_come_back_empty_and_end() {
    let mut guest = Guest::up();
    guest.control(1, PORT_OPEN, 1);
    for _ in 0..128 {
        guest.add(
            AGENT_RX,
            &[Piece {
                address: 0x70_0000,
                len: 0,
                writable: true,
            }],
        );
    }
    assert_eq!(guest.agent_input(b"wait"), 4);
    assert_eq!(guest.returned(AGENT_RX).len(), 128);
    guest.post(AGENT_RX, 1);
    assert_eq!(guest.received(AGENT_RX), [b"wait"], "not lost");
}

#[test]
fn control_buffers_that_are_too_small_lose_the_message() {
    let mut guest = Guest::off();
    guest.probe(MULTIPORT | F_VERSION_1);
    guest.write8(STATUS, 0);
    guest.probe(MULTIPORT | F_VERSION_1);
    // The probe's 32 pages first.
    for _ in 0..16 {
        guest.control(u32::MAX, DEVICE_READY, 1);
    }
    guest.returned(CONTROL_IN);
    for _ in 0..32 {
        guest.add(
            CONTROL_IN,
            &[Piece {
                address: 0x70_0000,
                len: 7,
                writable: true,
            }],
        );
    }
    guest.control(u32::MAX, DEVICE_READY, 1);
    let returned = guest.returned(CONTROL_IN);
    assert_eq!(returned.len(), 2);
    assert!(returned.iter().all(|&(_, len)| len == 0));
    assert_eq!(guest.device.device().counters().lost_messages, 2);
}

/// Sends what makes no sense and sees that the device stops, says so once, and lives on after a reset.
fn stops(offer: impl FnOnce(&mut Guest), expected: RingFault) {
    let mut guest = Guest::with_agent();
    let epoch = guest.device.epoch();
    offer(&mut guest);
    guest.notify(AGENT_TX);
    guest.take_agent_output(1 << 16);
    let faults: Vec<_> = guest
        .faults
        .iter()
        .map(|fault| (fault.queue, fault.fault))
        .collect();
    assert_eq!(faults, [(AGENT_TX, expected)]);
    assert_eq!(guest.read8(STATUS), 0x4f);
    assert_eq!(guest.messages, [message(0)], "the driver is told");
    guest.process();
    let closed = |port| ConsoleEvent::PortClosed { port, reset: true };
    assert_eq!(
        guest.told.events,
        [closed(PortId::Console), closed(PortId::Agent)]
    );
    assert_eq!(guest.device.epoch(), epoch + 1);

    // Nothing is done any more, and nothing more is said about it.
    guest.send(CONSOLE_TX, b"x");
    guest.take_agent_output(1 << 16);
    assert_eq!(
        (
            guest.told.printed.len(),
            guest.faults.len(),
            guest.messages.len()
        ),
        (0, 1, 1)
    );
    assert_eq!(guest.device.counters().broken_queues, 1);

    guest.probe(MULTIPORT | F_VERSION_1);
    guest.control(1, PORT_OPEN, 1);
    guest.send(AGENT_TX, b"back");
    assert_eq!(guest.take_agent_output(100), b"back");
}

#[test]
fn a_chain_that_loops_stops_the_device() {
    stops(
        |guest| {
            guest.descriptor(AGENT_TX, 0, page(AGENT_TX, 0), 4096, NEXT, 1);
            guest.descriptor(AGENT_TX, 1, page(AGENT_TX, 1), 4096, NEXT, 0);
            guest.offer(AGENT_TX, 0);
        },
        RingFault::Chain(0),
    );
}

#[test]
fn a_chain_out_of_its_table_stops_the_device() {
    stops(
        |guest| {
            guest.descriptor(AGENT_TX, 3, page(AGENT_TX, 0), 1, NEXT, 128);
            guest.offer(AGENT_TX, 3);
        },
        RingFault::Chain(3),
    );
}

#[test]
fn a_chain_of_more_than_4_gib_stops_the_device() {
    stops(
        |guest| {
            guest.descriptor(AGENT_TX, 0, 0, 0x10_0000, NEXT, 1);
            guest.descriptor(AGENT_TX, 1, 0, u32::MAX, 0, 0);
            guest.offer(AGENT_TX, 0);
        },
        RingFault::Chain(0),
    );
}

#[test]
fn an_indirect_table_longer_than_the_queue_stops_the_device() {
    stops(
        |guest| {
            // 129 descriptors of one byte, each with a next one.
            for index in 0..129_u16 {
                let mut bytes = page(AGENT_TX, 0).to_le_bytes().to_vec();
                bytes.extend(1_u32.to_le_bytes());
                bytes.extend(if index == 128 { 0 } else { NEXT }.to_le_bytes());
                bytes.extend((index + 1).to_le_bytes());
                guest.store(0x70_0000 + u64::from(index) * 16, &bytes);
            }
            guest.descriptor(AGENT_TX, 0, 0x70_0000, 129 * 16, 4, 0);
            guest.offer(AGENT_TX, 0);
        },
        RingFault::Chain(0),
    );
}

#[test]
fn a_head_that_is_no_descriptor_stops_the_device() {
    stops(|guest| guest.offer(AGENT_TX, 128), RingFault::Head(128));
}

#[test]
fn a_buffer_outside_memory_stops_the_device() {
    let address = u64::from(MEMORY) - 1;
    stops(
        |guest| {
            guest.add(
                AGENT_TX,
                &[Piece {
                    address,
                    len: 2,
                    writable: false,
                }],
            );
        },
        RingFault::Buffer { address, len: 2 },
    );
}

#[test]
fn an_index_too_far_ahead_stops_the_device() {
    stops(
        |guest| guest.store(available(AGENT_TX) + 2, &129_u16.to_le_bytes()),
        RingFault::AvailableIndex,
    );
}

#[test]
fn an_owner_that_takes_output_hears_that_the_device_stopped() {
    let mut guest = Guest::with_agent();
    guest.offer(AGENT_TX, 128);
    let output = guest.device.agent_output(&guest.memory, &mut [0; 16]);
    assert!(output.fault.is_some() && output.process_first);
    assert!(!guest.round());
    assert_eq!(
        guest.told.events.len(),
        2,
        "the ports' ends come with the round"
    );
}

/// Rings that are nowhere, or not aligned.
#[test]
fn rings_that_cannot_be_stop_the_device() {
    let cases = [
        (QUEUE_DESCRIPTORS, 0, RingFault::Placement),
        (QUEUE_DESCRIPTORS, 0x1008, RingFault::Alignment),
        (QUEUE_DRIVER, 0x1001, RingFault::Alignment),
        (QUEUE_DEVICE, 0x1002, RingFault::Alignment),
        (QUEUE_DRIVER, MEMORY, RingFault::Placement),
        (QUEUE_DEVICE, MEMORY - 1024, RingFault::Placement),
        (QUEUE_DESCRIPTORS, 0xffff_fff0, RingFault::Placement),
    ];
    for (field, address, expected) in cases {
        let mut guest = Guest::off();
        guest.config_write(4, &[6, 0]);
        guest.write8(STATUS, 3);
        guest.write32(DRIVER_FEATURE_SELECT, 1);
        guest.write32(DRIVER_FEATURE, 1);
        guest.write8(STATUS, 0x0b);
        guest.write16(QUEUE_SELECT, CONSOLE_TX);
        for (at, value) in [
            (QUEUE_DESCRIPTORS, 0x1000),
            (QUEUE_DRIVER, 0x2000),
            (QUEUE_DEVICE, 0x3000),
        ] {
            guest.write32(at, value);
        }
        guest.write32(field, address);
        guest.write16(QUEUE_ENABLE, 1);
        guest.write8(STATUS, 0x0f);
        let faults: Vec<_> = guest
            .faults
            .iter()
            .map(|fault| (fault.queue, fault.fault))
            .collect();
        assert_eq!(faults, [(CONSOLE_TX, expected)], "{field:#x} {address:#x}");
        assert_eq!(guest.read8(STATUS), 0x4f);
    }
}
