// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest does, weighted: mostly what drivers do, so that a few bytes go deep, and the rest is anything.

use kennel_virtio::spec::*;

use crate::bytes::Bytes;
use crate::owner::{Fuzzed, MEMORY, MSIX_CONTROL, Owner, SIZE, available, descriptors, page, used};

pub(crate) const LENGTHS: [u32; 12] = [
    0,
    1,
    7,
    8,
    9,
    64,
    4096,
    0x1_0000,
    0x2_0000,
    MEMORY as u32,
    0x8000_0000,
    u32::MAX,
];
/// Registers and their widths.
const FIELDS: [(u64, usize); 18] = [
    (DEVICE_FEATURE_SELECT, 4),
    (DRIVER_FEATURE_SELECT, 4),
    (DRIVER_FEATURE, 4),
    (CONFIG_VECTOR, 2),
    (STATUS, 1),
    (QUEUE_SELECT, 2),
    (QUEUE_SIZE, 2),
    (QUEUE_VECTOR, 2),
    (QUEUE_ENABLE, 2),
    (QUEUE_DESCRIPTORS, 4),
    (QUEUE_DRIVER, 4),
    (QUEUE_DEVICE, 4),
    (QUEUE_DEVICE + 4, 4),
    (NOTIFY as u64, 2),
    (NOTIFY as u64 + 20, 2),
    (MSIX_TABLE as u64 + 12, 4),
    (MSIX_TABLE as u64 + 16, 4),
    (MSIX_TABLE as u64 + 28, 4),
];
const VALUES: [u32; 14] = [
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    0x0b,
    0x0f,
    0xffff,
    0x1000,
    0x1400,
    0x1800,
    u32::MAX,
];

pub(crate) fn queue<D: Fuzzed>(bytes: &mut Bytes<'_>) -> u16 {
    u16::from(bytes.byte()) % D::QUEUES
}

pub(crate) fn address<D: Fuzzed>(bytes: &mut Bytes<'_>) -> u64 {
    let choice = bytes.byte();
    let queue = u16::from(choice) % D::QUEUES;
    match choice {
        0..=199 => page(choice.into()),
        200..=219 => descriptors(queue),
        220..=229 => available(queue),
        230..=239 => used(queue),
        240..=250 => MEMORY + 242 - u64::from(choice),
        _ => bytes.u64(),
    }
}

/// One step on a ring: any descriptor, or an element that begins with any.
pub(crate) fn ring_step<D: Fuzzed>(owner: &mut Owner<D>, bytes: &mut Bytes<'_>, offer: bool) {
    let (queue, index) = (queue::<D>(bytes), u16::from(bytes.byte()) % (SIZE + 1));
    if offer {
        owner.offer(queue, index);
        return;
    }
    let (address, len) = (address::<D>(bytes), bytes.pick(&LENGTHS));
    let (flags, next) = (
        u16::from(bytes.below(8)),
        u16::from(bytes.byte()) % (SIZE + 1),
    );
    owner.descriptor(queue, index, address, len, flags, next);
}

/// One access to a register, or a round.
pub(crate) fn register_step<D: Fuzzed>(owner: &mut Owner<D>, bytes: &mut Bytes<'_>) {
    match bytes.byte() {
        0..=149 => {
            let ((offset, width), value) = (bytes.pick(&FIELDS), bytes.pick(&VALUES));
            owner.write(offset, &value.to_le_bytes()[..width]);
        }
        150..=174 => {
            let (offset, data) = (bytes.u16(), bytes.array::<8>());
            let width = usize::from(bytes.below(9));
            owner.write(offset.into(), &data[..width]);
        }
        175..=189 => {
            let (offset, width) = (bytes.u16(), usize::from(bytes.byte()));
            let effects = owner.device.bar_read(offset.into(), &mut vec![0; width]);
            owner.apply(effects);
        }
        190..=209 => {
            let (offset, data) = (bytes.byte(), bytes.array::<4>());
            let width = usize::from(bytes.below(5));
            let effects = owner.device.config_write(offset.into(), &data[..width]);
            owner.apply(effects);
        }
        // Command and MSI-X control, with values that matter.
        210..=219 => {
            let value = bytes.pick(&[0x0000_u16, 0x0006, 0x0406, 0x0002]);
            let effects = owner.device.config_write(4, &value.to_le_bytes());
            owner.apply(effects);
        }
        220..=229 => {
            let value = bytes.pick(&[0x0000_u16, 0x8000, 0xc000]);
            let effects = owner
                .device
                .config_write(MSIX_CONTROL, &value.to_le_bytes());
            owner.apply(effects);
        }
        230..=234 => {
            let effects = owner.device.reset();
            owner.apply(effects);
        }
        235..=239 => {
            let offset = bytes.u64();
            owner.write(offset, &[1, 2, 3, 4]);
        }
        240..=242 => owner.start_over(bytes.below(2) == 0),
        // Something to interrupt for.
        243..=247 => {
            owner.send(1, b"printed");
            owner.round();
        }
        _ => {
            owner.round();
        }
    }
}
