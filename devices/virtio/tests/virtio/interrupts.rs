// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts: messages with masks, the line with the status byte, and the driver's wish for none.

use kennel_pci::spec as pci;
use kennel_virtio::spec::*;

use crate::guest::*;

#[test]
fn used_buffers_are_told_by_the_queues_vector() {
    let mut guest = Guest::with_agent();
    guest.send(CONSOLE_TX, b"x");
    assert_eq!(guest.messages, [message(1)]);
    assert_eq!(guest.read8(ISR.into()), 0, "messages leave it alone");
    assert!(!guest.line);
}

#[test]
fn a_masked_vector_pends_and_fires_on_unmask() {
    let mut guest = Guest::with_agent();
    guest.mask(1, true);
    guest.send(CONSOLE_TX, b"x");
    guest.send(CONSOLE_TX, b"y");
    assert_eq!(guest.messages, []);
    assert_eq!(guest.read8(MSIX_PENDING.into()), 0b10);
    guest.mask(1, false);
    assert_eq!(guest.messages, [message(1)]);
    assert_eq!(guest.read8(MSIX_PENDING.into()), 0);
}

#[test]
fn the_line_follows_the_status_byte_which_reading_clears() {
    let mut guest = Guest::off();
    guest.probe(MULTIPORT | F_VERSION_1);
    guest.send(CONSOLE_TX, b"x");
    assert!(guest.line && guest.messages.is_empty());
    guest.send(CONSOLE_TX, b"y");
    assert_eq!(guest.read8(ISR.into()), ISR_QUEUE);
    assert!(!guest.line);
    assert_eq!(guest.read8(ISR.into()), 0);

    guest.send(CONSOLE_TX, b"z");
    assert!(guest.line);
    guest.config_write(pci::COMMAND, &0x0406_u16.to_le_bytes());
    assert!(!guest.line, "disabled in the command register");
    guest.config_write(pci::COMMAND, &0x0006_u16.to_le_bytes());
    assert!(guest.line);
    guest.choose_messages();
    assert!(!guest.line, "messages now");
}

#[test]
fn a_reset_lowers_the_line() {
    let mut guest = Guest::off();
    guest.probe(MULTIPORT | F_VERSION_1);
    guest.send(CONSOLE_TX, b"x");
    assert!(guest.line);
    guest.write8(STATUS, 0);
    assert!(!guest.line);
    assert_eq!(guest.read8(ISR.into()), 0);
}

#[test]
fn a_driver_that_wants_no_interrupt_gets_none() {
    let mut guest = Guest::with_agent();
    guest.store(available(CONSOLE_TX), &1_u16.to_le_bytes());
    guest.send(CONSOLE_TX, b"x");
    assert_eq!(guest.messages, []);
    guest.store(available(CONSOLE_TX), &0_u16.to_le_bytes());
    guest.send(CONSOLE_TX, b"y");
    assert_eq!(guest.messages, [message(1)]);
    assert_eq!(guest.returned(CONSOLE_TX).len(), 2);
}

#[test]
fn a_queue_without_vector_is_silent() {
    let mut guest = Guest::with_agent();
    guest.write16(QUEUE_SELECT, CONSOLE_TX);
    guest.write16(QUEUE_VECTOR, NO_VECTOR);
    guest.send(CONSOLE_TX, b"x");
    assert_eq!(guest.messages, []);
    assert_eq!(guest.returned(CONSOLE_TX).len(), 1);
}

#[test]
fn without_bus_mastering_nothing_is_done_until_it_is_back() {
    let mut guest = Guest::with_agent();
    guest.config_write(pci::COMMAND, &[0x02, 0]);
    guest.send(CONSOLE_TX, b"x");
    assert_eq!(
        (guest.told.printed.len(), guest.returned(CONSOLE_TX).len()),
        (0, 0)
    );
    guest.config_write(pci::COMMAND, &[0x06, 0]);
    assert_eq!(guest.told.printed, b"x");
    assert_eq!(guest.messages, [message(1)]);
}

#[test]
fn a_changed_configuration_is_told_by_the_config_vector() {
    let mut guest = Guest::with_agent();
    let generation = guest.read8(GENERATION);
    let interrupts = guest.device.config_changed();
    guest.interrupts(interrupts);
    assert_eq!(guest.messages, [message(0)]);
    assert_eq!(guest.read8(GENERATION), generation + 1);
    guest.write8(STATUS, 0);
    assert!(guest.device.config_changed().is_none(), "nobody to tell");
}
