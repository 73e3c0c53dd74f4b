// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Control messages: what the guest says, and what it is owed in answer.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, section 5.3.6.2.

use super::{AGENT_PORT_NAME, PortId};

/// Bytes of a message without payload: id 32 bits, event and value 16 bits each, little-endian.
pub(super) const MESSAGE_BYTES: usize = 8;

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// A message of the guest that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromGuest {
    /// The driver is up; ports may be added.
    DeviceReady,
    /// The driver has set up the port.
    PortReady(PortId),
    /// The guest opened (`true`) or closed the port.
    PortOpen(PortId, bool),
    /// Setting up the device or a port failed.
    Failed,
}

impl FromGuest {
    /// `None` for anything a driver should not say.
    pub(super) fn parse(message: [u8; MESSAGE_BYTES]) -> Option<Self> {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
        // With DEVICE_READY it means nothing: Linux has all ones there.
        let port = PortId::from_number(u32::from_le_bytes([i0, i1, i2, i3]));
        let event = u16::from_le_bytes([e0, e1]);
        let value = match u16::from_le_bytes([v0, v1]) {
            0 => false,
            1 => true,
            _ => return None,
        };
        match (event, port, value) {
            (DEVICE_READY, _, true) => Some(Self::DeviceReady),
            (PORT_READY, Some(port), true) => Some(Self::PortReady(port)),
            (DEVICE_READY, _, false) | (PORT_READY, Some(_), false) => Some(Self::Failed),
            (PORT_OPEN, Some(port), open) => Some(Self::PortOpen(port, open)),
            _ => None,
        }
    }
}

/// What the guest is to be told about one port. However often the guest asks, it is owed once: so a flood of
/// questions takes no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    add: bool,
    kind: bool,
    open: bool,
}

impl Owed {
    /// The port is to be announced.
    pub(super) fn announce(&mut self) {
        self.add = true;
    }

    /// The port is to be described, and its host end is open.
    pub(super) fn describe(&mut self) {
        self.kind = true;
        self.open = true;
    }

    /// The next message, and nothing owed for it any more.
    pub(super) fn next(&mut self, port: PortId) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.add) {
            return Some(message(port, PORT_ADD, 1, &[]));
        }
        if std::mem::take(&mut self.kind) {
            return Some(match port {
                PortId::Console => message(port, CONSOLE_PORT, 1, &[]),
                PortId::Agent => message(port, PORT_NAME, 1, AGENT_PORT_NAME.as_bytes()),
            });
        }
        std::mem::take(&mut self.open).then(|| message(port, PORT_OPEN, 1, &[]))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn message(port: PortId, event: u16, value: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = port.number().to_le_bytes().to_vec();
    bytes.extend(event.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(payload);
    bytes
}
