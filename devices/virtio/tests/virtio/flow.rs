// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Flow control: the agent waits for its owner, the console for nobody.

use kennel_virtio::console::{AGENT_INPUT_BYTES, CONSOLE_INPUT_BYTES, CONSOLE_OUTPUT_BYTES};

use crate::guest::*;

#[test]
fn an_element_goes_back_when_its_last_byte_was_taken() {
    let mut guest = Guest::with_agent();
    let head = guest.send(AGENT_TX, b"{\"return\":{}}\n");
    assert!(guest.told.agent_output);
    assert_eq!(guest.returned(AGENT_TX), []);
    assert_eq!(guest.take_agent_output(5), b"{\"ret");
    assert_eq!(guest.returned(AGENT_TX), [], "held");
    assert_eq!(guest.messages, []);
    assert_eq!(guest.take_agent_output(100), b"urn\":{}}\n");
    assert_eq!(guest.returned(AGENT_TX), [(head, 0)]);
    assert_eq!(guest.messages, [message(1)]);
}

#[test]
fn an_owner_that_does_not_read_fills_the_queue_and_no_more() {
    let mut guest = Guest::with_agent();
    let text: Vec<u8> = (0..128 * 4096_u32).map(|at| (at % 251) as u8).collect();
    for part in text.chunks(4096) {
        guest.send(AGENT_TX, part);
    }
    assert_eq!(guest.returned(AGENT_TX), [], "the guest's program waits");

    // Meanwhile the guest lives: its console prints, its control messages are answered.
    for line in 0..1000 {
        guest.send(CONSOLE_TX, format!("line {line}\n").as_bytes());
        assert_eq!(
            guest.returned(CONSOLE_TX).len(),
            1,
            "line {line} came back at once"
        );
    }
    assert!(guest.told.printed.ends_with(b"line 999\n"));
    guest.control(1, PORT_READY, 1);
    assert_eq!(guest.hear().len(), 2);

    // Later, everything is there, in its order.
    let mut taken = Vec::new();
    while guest.told.agent_output {
        taken.extend(guest.take_agent_output(1000));
        guest.process();
    }
    assert_eq!(taken, text);
    assert_eq!(guest.returned(AGENT_TX).len(), 128);
}

#[test]
fn no_room_takes_nothing() {
    let mut guest = Guest::with_agent();
    guest.send(AGENT_TX, b"x");
    assert_eq!(guest.take_agent_output(0), b"");
    assert_eq!(guest.returned(AGENT_TX), []);
    assert_eq!(guest.take_agent_output(1), b"x");
}

#[test]
fn input_waits_for_buffers_up_to_its_bound() {
    let mut guest = Guest::with_agent();
    assert_eq!(guest.agent_input(b"{}"), 2);
    assert_eq!(guest.received(AGENT_RX), [b"{}"]);
    let flood = vec![b'x'; 16 * 4096 + AGENT_INPUT_BYTES + 1];
    assert_eq!(guest.agent_input(&flood), AGENT_INPUT_BYTES);
    assert_eq!(
        guest.agent_input(&flood),
        AGENT_INPUT_BYTES,
        "16 pages are under way"
    );
    assert_eq!(guest.agent_input(&flood), 0);
    assert_eq!(guest.told.room, 0);
    let pages = guest.received(AGENT_RX);
    assert!(pages.len() == 16 && pages.iter().all(|page| page.len() == 4096));
    guest.process();
    assert_eq!(
        guest.told.room, AGENT_INPUT_BYTES,
        "the rest went with the next buffers"
    );
}

#[test]
fn input_is_taken_only_while_the_guest_has_the_port_open() {
    let mut guest = Guest::up();
    guest.post(AGENT_RX, 4);
    assert_eq!(guest.agent_input(b"too early"), 0);
    guest.control(1, PORT_OPEN, 1);
    assert_eq!(guest.agent_input(b"now"), 3);
    assert_eq!(guest.received(AGENT_RX), [b"now"]);
    assert_eq!(
        guest.device.console_input(b"x"),
        0,
        "the console is not open"
    );
}

#[test]
fn input_spreads_over_the_pieces_of_a_chain() {
    let mut guest = Guest::up();
    guest.control(1, PORT_OPEN, 1);
    let piece = |address, len, writable| Piece {
        address,
        len,
        writable,
    };
    let head = guest.add(
        AGENT_RX,
        &[
            piece(0x70_0000, 3, true),
            piece(0x70_1000, 8, false),
            piece(0x70_2000, 0, true),
            piece(0x70_3000, 4, true),
        ],
    );
    assert_eq!(guest.agent_input(b"abcdef"), 6);
    assert_eq!(guest.returned(AGENT_RX), [(head, 6)]);
    assert_eq!(guest.load(0x70_0000, 4), b"abc\0");
    assert_eq!(guest.load(0x70_1000, 1), b"\0", "readable: not written");
    assert_eq!(guest.load(0x70_3000, 4), b"def\0");
}

#[test]
fn console_output_of_one_round_is_bounded() {
    let mut guest = Guest::with_agent();
    // One descriptor over most of guest memory.
    let len = MEMORY - 0x10_0000;
    let head = guest.add(
        CONSOLE_TX,
        &[Piece {
            address: 0x10_0000,
            len,
            writable: false,
        }],
    );
    assert!(guest.round());
    assert_eq!(guest.told.printed.len(), CONSOLE_OUTPUT_BYTES);
    assert_eq!(guest.returned(CONSOLE_TX), []);
    guest.process();
    assert_eq!(guest.told.printed.len(), len as usize);
    assert_eq!(guest.returned(CONSOLE_TX), [(head, 0)]);
}

#[test]
fn console_input_waits_up_to_its_bound() {
    let mut guest = Guest::with_agent();
    let pasted = vec![b'a'; CONSOLE_INPUT_BYTES + 1];
    assert_eq!(guest.device.console_input(&pasted), CONSOLE_INPUT_BYTES);
    assert_eq!(guest.device.console_input(&pasted), 0);
    guest.process();
    assert_eq!(
        guest.received(CONSOLE_RX).concat(),
        &pasted[..CONSOLE_INPUT_BYTES]
    );
}
