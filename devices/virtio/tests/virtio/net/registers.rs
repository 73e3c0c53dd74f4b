// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver sees of the card: header, features, queues, configuration.

use kennel_virtio::net::{F_MAC, F_STATUS};
use kennel_virtio::spec::*;

use crate::guest::*;

#[test]
fn the_header_is_a_modern_network_cards() {
    let guest = NetGuest::no_driver();
    assert_eq!(guest.config_read(0), [0xf4, 0x1a, 0x41, 0x10]);
    assert_eq!(guest.config_read(8), [1, 0x00, 0x00, 0x02]);
    assert_eq!(guest.config_read(0x2c), [0xf4, 0x1a, 0x41, 0x10]);
    let device = guest
        .capabilities()
        .into_iter()
        .find(|(_, bytes)| bytes[0] == CAPABILITY_ID && bytes[3] == CAPABILITY_DEVICE);
    assert_eq!(device.expect("it has one").1[12..16], [8, 0, 0, 0]);
}

#[test]
fn offered_are_mac_status_and_version_1_and_nothing_else() {
    let mut guest = NetGuest::no_driver();
    let mut halves = [0; 3];
    for (select, half) in (0..).zip(&mut halves) {
        guest.write32(DEVICE_FEATURE_SELECT, select);
        *half = guest.read32(DEVICE_FEATURE);
    }
    assert_eq!(halves, [1 << 5 | 1 << 16, 1, 0]);
}

#[test]
fn what_was_not_offered_is_not_agreed() {
    // Checksums, merged buffers, a control queue, event indices; and all that a driver may leave out.
    for (features, agreed) in [
        (F_MAC | F_STATUS, true),
        (0, true),
        (F_MAC | 1, false),
        (F_MAC | 1 << 15, false),
        (F_MAC | 1 << 17, false),
        (F_MAC | 1 << 29, false),
    ] {
        let mut guest = NetGuest::no_driver();
        guest.write8(STATUS, 3);
        for select in [0, 1] {
            guest.write32(DRIVER_FEATURE_SELECT, select);
            guest.write32(DRIVER_FEATURE, half(features | F_VERSION_1, select));
        }
        guest.write8(STATUS, 0x0b);
        let status = if agreed { 0x0b } else { 0x03 };
        assert_eq!(guest.read8(STATUS), status, "{features:#x}");
    }
}

#[test]
fn there_are_two_queues_of_256_entries() {
    let mut guest = NetGuest::no_driver();
    assert_eq!(guest.read16(NUM_QUEUES), 2);
    for (queue, size) in [(0, 256), (1, 256), (2, 0)] {
        guest.write16(QUEUE_SELECT, queue);
        assert_eq!(guest.read16(QUEUE_SIZE), size);
    }
}

#[test]
fn the_configuration_is_address_and_link_and_nothing_changes_it() {
    let mut guest = NetGuest::driven();
    let ignored = guest.device.device().counters().ignored_writes;
    guest.write(DEVICE.into(), &[0xff; 6]);
    guest.write16(u64::from(DEVICE) + 6, 0);
    guest.write8(u64::from(DEVICE) + 0xfff, 1);
    let [a, b, c, d, e, f] = MAC;
    assert_eq!(guest.read(DEVICE.into()), [a, b, c, d, e, f, 1, 0, 0, 0]);
    assert_eq!(guest.read8(u64::from(DEVICE) + 5), f);
    assert_eq!(guest.read16(u64::from(DEVICE) + 6), 1, "up");
    assert_eq!(guest.read32(u64::from(DEVICE) + 8), 0);
    let counters = guest.device.device().counters();
    assert_eq!(counters.ignored_writes, ignored + 3);
    assert_eq!(guest.device.device().mac(), MAC);
}
