// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver sees of the function: header, capabilities, common configuration.

use kennel_virtio::spec::*;

use crate::guest::*;

#[test]
fn the_header_is_a_modern_consoles() {
    let guest = Guest::off();
    assert_eq!(guest.config_read(0), [0xf4, 0x1a, 0x43, 0x10]);
    assert_eq!(guest.config_read(8), [1, 0x00, 0x80, 0x07]);
    assert_eq!(guest.config_read(0x2c), [0xf4, 0x1a, 0x43, 0x10]);
    assert_eq!(guest.config_read::<1>(6)[0] & 0x10, 0x10, "capability list");
    assert_eq!(guest.config_read(0x3c), [11, 1]);
}

#[test]
fn capabilities_lead_to_the_regions_of_bar_0() {
    let guest = Guest::off();
    let word =
        |bytes: &[u8; 20], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
    let vendor: Vec<_> = guest
        .capabilities()
        .iter()
        .filter(|(_, bytes)| bytes[0] == CAPABILITY_ID)
        .map(|(_, bytes)| {
            assert_eq!(bytes[4], 0, "BAR 0");
            let multiplier = if bytes[2] == 20 { word(bytes, 16) } else { 0 };
            (
                bytes[3],
                bytes[2],
                word(bytes, 8),
                word(bytes, 12),
                multiplier,
            )
        })
        .collect();
    let expected = [
        (CAPABILITY_COMMON, 16, 0, 56, 0),
        (CAPABILITY_ISR, 16, 0x1000, 1, 0),
        (CAPABILITY_DEVICE, 16, 0x2000, 8, 0),
        (CAPABILITY_NOTIFY, 20, 0x3000, 24, 4),
    ];
    assert_eq!(vendor, expected);
    let msix = guest
        .capabilities()
        .into_iter()
        .find(|(_, bytes)| bytes[0] == 0x11);
    let (_, bytes) = msix.expect("MSI-X");
    assert_eq!(bytes[2..12], [1, 0, 0, 0x40, 0, 0, 0, 0x50, 0, 0]);
}

#[test]
fn offered_are_several_ports_and_version_1_and_nothing_else() {
    let mut guest = Guest::off();
    let mut halves = [0; 3];
    for (select, half) in (0..).zip(&mut halves) {
        guest.write32(DEVICE_FEATURE_SELECT, select);
        *half = guest.read32(DEVICE_FEATURE);
    }
    assert_eq!(halves, [1 << 1, 1, 0]);
    assert_eq!(guest.read(DEVICE.into()), [0, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
}

#[test]
fn features_are_agreed_or_not() {
    let cases: [(u64, bool); 5] = [
        (F_VERSION_1, true),
        (F_VERSION_1 | MULTIPORT, true),
        (MULTIPORT, false),
        (F_VERSION_1 | 1, false),
        (F_VERSION_1 | 1 << 63, false),
    ];
    for (features, agreed) in cases {
        let mut guest = Guest::off();
        guest.write8(STATUS, 3);
        for select in [0, 1] {
            guest.write32(DRIVER_FEATURE_SELECT, select);
            guest.write32(DRIVER_FEATURE, half(features, select));
        }
        guest.write8(STATUS, 0x0b);
        assert_eq!(
            guest.read8(STATUS),
            if agreed { 0x0b } else { 0x03 },
            "{features:#x}"
        );
        guest.write8(STATUS, 0x0f);
        assert_eq!(
            guest.read8(STATUS),
            if agreed { 0x0f } else { 0x03 },
            "{features:#x}"
        );
        assert_eq!(guest.changes.len(), usize::from(agreed));
    }
}

#[test]
fn status_bits_stay_until_a_reset() {
    let mut guest = Guest::up();
    guest.write8(STATUS, 1);
    assert_eq!(guest.read8(STATUS), 0x0f);
    guest.write8(STATUS, STATUS_NEEDS_RESET);
    assert_eq!(guest.read8(STATUS), 0x0f, "the device's own");
    guest.write8(STATUS, STATUS_FAILED);
    assert_eq!(guest.read8(STATUS), 0x8f);
    guest.write8(STATUS, 0);
    assert_eq!(guest.read8(STATUS), 0);
}

#[test]
fn features_are_settled_once_they_are_agreed() {
    let mut guest = Guest::up();
    guest.write32(DRIVER_FEATURE_SELECT, 0);
    guest.write32(DRIVER_FEATURE, 0);
    assert_eq!(guest.read32(DRIVER_FEATURE), 1 << 1);
}

#[test]
fn a_queue_that_does_not_exist_is_all_zeroes() {
    let mut guest = Guest::off();
    for queue in [QUEUES, 1000, u16::MAX] {
        guest.write16(QUEUE_SELECT, queue);
        assert_eq!(guest.read16(QUEUE_SELECT), queue);
        assert_eq!(guest.read16(QUEUE_SIZE), 0);
        assert_eq!(guest.read16(QUEUE_VECTOR), NO_VECTOR);
        guest.write16(QUEUE_SIZE, 64);
        guest.write16(QUEUE_VECTOR, 1);
        guest.write16(QUEUE_ENABLE, 1);
        guest.write32(QUEUE_DESCRIPTORS, 0x1000);
        assert_eq!(guest.read::<26>(QUEUE_SIZE + 6), [0; 26]);
        assert_eq!(guest.read16(QUEUE_SIZE), 0);
        assert_eq!(guest.read16(QUEUE_VECTOR), NO_VECTOR);
    }
    assert_eq!(guest.device.counters().ignored_writes, 12);
}

#[test]
fn sizes_are_powers_of_two_up_to_the_largest() {
    let mut guest = Guest::off();
    guest.write16(QUEUE_SELECT, CONTROL_IN);
    assert_eq!(guest.read16(QUEUE_SIZE), 32);
    for (written, read) in [
        (0, 32),
        (3, 32),
        (64, 32),
        (16, 16),
        (0xffff, 16),
        (1, 1),
        (32, 32),
    ] {
        guest.write16(QUEUE_SIZE, written);
        assert_eq!(guest.read16(QUEUE_SIZE), read, "after {written}");
    }
}

#[test]
fn a_queue_in_use_stays_where_it_is() {
    let mut guest = Guest::up();
    guest.write16(QUEUE_SELECT, AGENT_TX);
    guest.write16(QUEUE_SIZE, 4);
    guest.write32(QUEUE_DEVICE, 0);
    guest.write16(QUEUE_ENABLE, 0);
    assert_eq!(guest.read16(QUEUE_SIZE), 128);
    assert_eq!(u64::from(guest.read32(QUEUE_DEVICE)), used(AGENT_TX));
    assert_eq!(guest.read16(QUEUE_ENABLE), 1);
    assert_eq!(guest.device.counters().ignored_writes, 3);
}

#[test]
fn a_vector_that_does_not_exist_is_refused() {
    let mut guest = Guest::off();
    guest.write16(CONFIG_VECTOR, 1);
    assert_eq!(guest.read16(CONFIG_VECTOR), 1);
    guest.write16(CONFIG_VECTOR, 2);
    assert_eq!(guest.read16(CONFIG_VECTOR), NO_VECTOR);
}

#[test]
fn widths_that_a_field_does_not_have_change_nothing() {
    let mut guest = Guest::up();
    let before: [u8; 56] = guest.read(0);
    let ignored = guest.device.counters().ignored_writes;
    for offset in 0..0x38 {
        for data in [&[][..], &[7; 3], &[7; 5], &[7; 8], &[7; 16]] {
            guest.write(offset, data);
        }
    }
    guest.write(STATUS, &[0, 0]);
    guest.write(STATUS, &[0; 4]);
    guest.write(QUEUE_SELECT, &[1]);
    guest.write(CONFIG_VECTOR + 1, &[0, 0]);
    assert_eq!(guest.read::<56>(0), before);
    assert_eq!(guest.device.counters().ignored_writes, ignored + 56 * 5 + 4);
    // Reads of any width are what the bytes say.
    let (whole, part): ([u8; 56], [u8; 7]) = (guest.read(0), guest.read(0x13));
    assert_eq!(part, whole[0x13..0x1a]);
}

#[test]
fn what_is_nowhere_reads_zero_and_takes_no_writes() {
    let mut guest = Guest::up();
    for offset in [
        0x38,
        0xfff,
        0x1001,
        0x2008,
        0x3000,
        0x4020,
        0x5008,
        0x7fff,
        0x8000,
        u64::MAX,
    ] {
        assert_eq!(guest.read(offset), [0; 4], "{offset:#x}");
    }
    for offset in [0x38, 0x1000, 0x5000, 0x6000, u64::MAX] {
        guest.write32(offset, u32::MAX);
    }
    assert_eq!(guest.device.counters().ignored_writes, 5);
}

#[test]
fn notifications_name_their_queue() {
    let mut guest = Guest::up();
    let seen = guest.device.counters().notifications;
    let effects = guest.device.bar_write(u64::from(NOTIFY) + 20, &[5, 0]);
    assert_eq!((effects.notified, effects.work), (Some(5), true));
    for (offset, data) in [(24, &[6, 0][..]), (2, &[0, 0]), (0, &[0]), (0xffc, &[0, 0])] {
        let effects = guest.device.bar_write(u64::from(NOTIFY) + offset, data);
        assert!(effects.is_none(), "{offset}");
    }
    assert_eq!(guest.device.counters().notifications, seen + 1);
    guest.write8(STATUS, 0);
    let effects = guest.device.bar_write(NOTIFY.into(), &[0, 0]);
    assert!(!effects.work, "there is no driver");
}

#[test]
fn steps_out_of_order_do_not_count() {
    let mut guest = Guest::off();
    guest.write32(DRIVER_FEATURE_SELECT, 1);
    guest.write32(DRIVER_FEATURE, 1);
    guest.write8(STATUS, STATUS_FEATURES_OK | STATUS_ACKNOWLEDGE);
    assert_eq!(guest.read8(STATUS), STATUS_ACKNOWLEDGE, "no driver yet");
    guest.write16(QUEUE_ENABLE, 1);
    assert_eq!(guest.read16(QUEUE_ENABLE), 0, "no features yet");
    guest.write8(STATUS, STATUS_DRIVER);
    guest.write8(STATUS, STATUS_FEATURES_OK);
    assert_eq!(guest.read8(STATUS), 0x0b);
    guest.write16(QUEUE_ENABLE, 1);
    assert_eq!(guest.read16(QUEUE_ENABLE), 1);
}

#[test]
fn enabling_a_queue_twice_does_not_begin_it_again() {
    let mut guest = Guest::with_agent();
    guest.send(CONSOLE_TX, b"a");
    guest.write16(QUEUE_SELECT, CONSOLE_TX);
    guest.write16(QUEUE_ENABLE, 1);
    guest.send(CONSOLE_TX, b"b");
    assert_eq!(guest.told.printed, b"ab");
    assert_eq!(guest.returned(CONSOLE_TX).len(), 2);
}
