// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Register facts of virtio over PCI: offsets, bits and identifiers, each stated once.
//!
//! Source, unless said otherwise: Virtual I/O Device (VIRTIO) 1.2, section 4.1 (PCI transport).

use virtio_bindings::virtio_config;

/// Vendor ID of every virtio function.
pub const VENDOR_ID: u16 = 0x1af4;
/// Device ID of a modern function: this plus the device type.
pub const DEVICE_ID_BASE: u16 = 0x1040;
/// Revision ID of a modern function: 1 or higher.
pub const REVISION: u8 = 1;

/// Capability ID: vendor-specific.
pub const CAPABILITY_ID: u8 = 0x09;
/// Capability type: common configuration.
pub const CAPABILITY_COMMON: u8 = 1;
/// Capability type: notifications.
pub const CAPABILITY_NOTIFY: u8 = 2;
/// Capability type: interrupt status.
pub const CAPABILITY_ISR: u8 = 3;
/// Capability type: device configuration.
pub const CAPABILITY_DEVICE: u8 = 4;

/// Size of BAR 0, bytes. Where things lie in it is free; QEMU's first four regions lie the same way.
pub const BAR_SIZE: u32 = 0x8000;
/// Offset of the common configuration in BAR 0.
pub const COMMON: u32 = 0;
/// Bytes of the common configuration without the fields of features that are not offered.
pub const COMMON_BYTES: u32 = 0x38;
/// Offset of the interrupt status byte in BAR 0.
pub const ISR: u32 = 0x1000;
/// Offset of the device configuration in BAR 0.
pub const DEVICE: u32 = 0x2000;
/// Largest device configuration, bytes.
pub const DEVICE_BYTES_MAX: u32 = 0x1000;
/// Offset of the notification addresses in BAR 0.
pub const NOTIFY: u32 = 0x3000;
/// Bytes from one queue's notification address to the next one's.
pub const NOTIFY_MULTIPLIER: u32 = 4;
/// Offset of the MSI-X table in BAR 0.
pub const MSIX_TABLE: u32 = 0x4000;
/// Offset of the MSI-X pending bits in BAR 0.
pub const MSIX_PENDING: u32 = 0x5000;
/// MSI-X vectors: one for configuration changes, one for all queues. With so few, Linux 6.1 shares the second
/// among its queues (Linux source).
pub const MSIX_VECTORS: u16 = 2;
/// Most queues of a device: their notification addresses fill one page.
pub const QUEUES_MAX: usize = 1024;

/// Common configuration: which half of the device's features is shown, 32 bits.
pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
/// Common configuration: the device's features, 32 bits, read-only.
pub const DEVICE_FEATURE: u64 = 0x04;
/// Common configuration: which half of the driver's features is written, 32 bits.
pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
/// Common configuration: the driver's features, 32 bits.
pub const DRIVER_FEATURE: u64 = 0x0c;
/// Common configuration: vector of configuration changes, 16 bits.
pub const CONFIG_VECTOR: u64 = 0x10;
/// Common configuration: number of queues, 16 bits, read-only.
pub const NUM_QUEUES: u64 = 0x12;
/// Common configuration: device status, 8 bits.
pub const STATUS: u64 = 0x14;
/// Common configuration: configuration generation, 8 bits, read-only.
pub const GENERATION: u64 = 0x15;
/// Common configuration: which queue the fields below belong to, 16 bits.
pub const QUEUE_SELECT: u64 = 0x16;
/// Common configuration: entries of the queue, 16 bits; 0 if there is no such queue.
pub const QUEUE_SIZE: u64 = 0x18;
/// Common configuration: vector of the queue, 16 bits.
pub const QUEUE_VECTOR: u64 = 0x1a;
/// Common configuration: the queue is in use, 16 bits.
pub const QUEUE_ENABLE: u64 = 0x1c;
/// Common configuration: number of the queue's notification address, 16 bits, read-only.
pub const QUEUE_NOTIFY_OFFSET: u64 = 0x1e;
/// Common configuration: guest-physical address of the descriptor table, 64 bits.
pub const QUEUE_DESCRIPTORS: u64 = 0x20;
/// Common configuration: guest-physical address of the available ring, 64 bits.
pub const QUEUE_DRIVER: u64 = 0x28;
/// Common configuration: guest-physical address of the used ring, 64 bits.
pub const QUEUE_DEVICE: u64 = 0x30;

/// Vector register: no interrupt.
pub const NO_VECTOR: u16 = 0xffff;

/// Interrupt status bit 0: a queue has used buffers.
pub const ISR_QUEUE: u8 = 1 << 0;
/// Interrupt status bit 1: the device's configuration or status has changed.
pub const ISR_CONFIG: u8 = 1 << 1;

/// Status bit: the driver has seen the device.
pub const STATUS_ACKNOWLEDGE: u8 = status(virtio_config::VIRTIO_CONFIG_S_ACKNOWLEDGE);
/// Status bit: the driver knows how to drive the device.
pub const STATUS_DRIVER: u8 = status(virtio_config::VIRTIO_CONFIG_S_DRIVER);
/// Status bit: the driver drives the device.
pub const STATUS_DRIVER_OK: u8 = status(virtio_config::VIRTIO_CONFIG_S_DRIVER_OK);
/// Status bit: driver and device agree about features.
pub const STATUS_FEATURES_OK: u8 = status(virtio_config::VIRTIO_CONFIG_S_FEATURES_OK);
/// Status bit, set by the device: it works no more until it is reset.
pub const STATUS_NEEDS_RESET: u8 = status(virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET);
/// Status bit: the driver has given up.
pub const STATUS_FAILED: u8 = status(virtio_config::VIRTIO_CONFIG_S_FAILED);

/// Feature: the device follows version 1 of the specification.
pub const F_VERSION_1: u64 = 1 << virtio_config::VIRTIO_F_VERSION_1;

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked, in a constant expression"
)]
const fn status(bit: u32) -> u8 {
    assert!(bit <= 0xff);
    bit as u8
}
