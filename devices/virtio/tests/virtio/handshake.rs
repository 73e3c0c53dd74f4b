// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The handshake, message by message, as it goes between QEMU 7.2 and Linux 6.1.

use kennel_virtio::{ConsoleEvent, PortId};

use crate::guest::*;

const NAME: &[u8] = b"org.qemu.guest_agent.0";

#[test]
fn the_handshake_is_that_of_linux() {
    let mut guest = Guest::up();
    assert_eq!(guest.hear(), [], "the device does not speak first");

    guest.control(u32::MAX, DEVICE_READY, 1);
    assert_eq!(
        guest.hear(),
        [(0, PORT_ADD, 1, vec![]), (1, PORT_ADD, 1, vec![])]
    );

    guest.control(1, PORT_READY, 1);
    assert_eq!(
        guest.hear(),
        [(1, PORT_NAME, 1, NAME.to_vec()), (1, PORT_OPEN, 1, vec![])]
    );
    assert_eq!(guest.told.events, []);

    let opened = ConsoleEvent::PortOpened {
        port: PortId::Agent,
    };
    let closed = ConsoleEvent::PortClosed {
        port: PortId::Agent,
        reset: false,
    };
    guest.control(1, PORT_OPEN, 1);
    assert_eq!(guest.told.events, [opened]);
    guest.control(1, PORT_OPEN, 0);
    assert_eq!(guest.told.events, [opened, closed]);
    assert_eq!(guest.hear(), [], "nothing to answer");
    assert_eq!(guest.returned(CONTROL_OUT).len(), 4, "all given back");
    assert_eq!(guest.device.device().counters(), Default::default());
}

#[test]
fn the_console_port_is_said_to_be_one_before_it_is_opened() {
    let mut guest = Guest::up();
    guest.control(u32::MAX, DEVICE_READY, 1);
    guest.hear();
    guest.control(0, PORT_READY, 1);
    assert_eq!(
        guest.hear(),
        [(0, CONSOLE_PORT, 1, vec![]), (0, PORT_OPEN, 1, vec![])]
    );
    guest.control(0, PORT_OPEN, 1);
    let port = PortId::Console;
    assert_eq!(guest.told.events, [ConsoleEvent::PortOpened { port }]);
}

#[test]
fn messages_wait_for_buffers_and_keep_their_order() {
    let mut guest = Guest::up();
    // The driver has taken all its buffers away, as it were: fill them first.
    for _ in 0..16 {
        guest.control(u32::MAX, DEVICE_READY, 1);
    }
    assert_eq!(guest.returned(CONTROL_IN).len(), 32, "all buffers are used");
    guest.control(1, PORT_READY, 1);
    guest.control(u32::MAX, DEVICE_READY, 1);
    assert_eq!(guest.returned(CONTROL_IN), []);
    guest.post(CONTROL_IN, 2);
    let first: Vec<_> = guest
        .hear()
        .into_iter()
        .map(|heard| (heard.0, heard.1))
        .collect();
    assert_eq!(first[..2], [(0, PORT_ADD), (1, PORT_ADD)]);
    let rest: Vec<_> = guest
        .hear()
        .into_iter()
        .map(|heard| (heard.0, heard.1))
        .collect();
    assert_eq!(rest, [(1, PORT_NAME), (1, PORT_OPEN)]);
}

#[test]
fn a_guest_that_could_not_set_up_is_counted() {
    let mut guest = Guest::up();
    guest.control(u32::MAX, DEVICE_READY, 0);
    guest.control(1, PORT_READY, 0);
    assert_eq!(guest.hear(), []);
    assert_eq!(guest.device.device().counters().guest_failures, 2);
}

#[test]
fn a_driver_that_knows_one_port_has_a_console() {
    let mut guest = Guest::off();
    guest.probe(kennel_virtio::spec::F_VERSION_1);
    let port = PortId::Console;
    assert_eq!(guest.told.events, [ConsoleEvent::PortOpened { port }]);
    guest.send(CONSOLE_TX, b"hello");
    assert_eq!(guest.told.printed, b"hello");
    guest.post(CONSOLE_RX, 1);
    assert_eq!(guest.device.console_input(b"ls\n"), 3);
    guest.process();
    assert_eq!(guest.received(CONSOLE_RX), [b"ls\n"]);
    // The queues of what was not negotiated are left alone.
    guest.send(CONTROL_OUT, &control_bytes(1, PORT_OPEN, 1));
    guest.send(AGENT_TX, b"?");
    assert_eq!(
        (guest.returned(CONTROL_OUT), guest.returned(AGENT_TX)),
        (vec![], vec![])
    );
    assert_eq!(guest.take_agent_output(16), b"");
}
