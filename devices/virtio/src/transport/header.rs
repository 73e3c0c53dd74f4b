// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Configuration header and vendor capabilities: where a driver finds what in BAR 0.

use kennel_pci::{LayoutError, Type0};

use super::TransportError;
use crate::device::VirtioDevice;
use crate::spec;

/// Bytes of a capability without what follows for notifications.
const CAPABILITY_BYTES: u8 = 16;

/// A header without BAR and capabilities. The subsystem IDs repeat vendor and device type, as QEMU's modern functions'
/// do.
pub(super) fn build(device: &impl VirtioDevice) -> Result<Type0, TransportError> {
    let bytes = device.config_bytes();
    if bytes > spec::DEVICE_BYTES_MAX {
        return Err(TransportError::ConfigBytes(bytes));
    }
    let identity = device.identity();
    let device_id = spec::DEVICE_ID_BASE.saturating_add(identity.device_type);
    Ok(Type0::new(kennel_pci::Identity {
        vendor: spec::VENDOR_ID,
        device: device_id,
        class: identity.class,
        revision: spec::REVISION,
        subsystem_vendor: spec::VENDOR_ID,
        subsystem: device_id,
    }))
}

pub(super) fn add_capabilities(
    header: &mut Type0,
    device: &impl VirtioDevice,
) -> Result<(), LayoutError> {
    let queues = u32::try_from(device.queue_sizes().len()).unwrap_or(u32::MAX);
    let notify_bytes = queues.saturating_mul(spec::NOTIFY_MULTIPLIER);
    let config = device.config_bytes();
    let multiplier = Some(spec::NOTIFY_MULTIPLIER);
    add(
        header,
        spec::CAPABILITY_COMMON,
        spec::COMMON,
        spec::COMMON_BYTES,
        None,
    )?;
    add(header, spec::CAPABILITY_ISR, spec::ISR, 1, None)?;
    if config > 0 {
        add(header, spec::CAPABILITY_DEVICE, spec::DEVICE, config, None)?;
    }
    add(
        header,
        spec::CAPABILITY_NOTIFY,
        spec::NOTIFY,
        notify_bytes,
        multiplier,
    )
}

fn add(
    header: &mut Type0,
    kind: u8,
    offset: u32,
    length: u32,
    multiplier: Option<u32>,
) -> Result<(), LayoutError> {
    let extra = multiplier.map(u32::to_le_bytes);
    let total = CAPABILITY_BYTES.saturating_add(if extra.is_some() { 4 } else { 0 });
    // Length, type, BAR 0, no ID among several of the type, padding.
    let mut body = vec![total, kind, 0, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(extra.into_iter().flatten());
    let read_only = vec![0; body.len()];
    header
        .add_capability(spec::CAPABILITY_ID, &body, &read_only)
        .map(|_| ())
}
