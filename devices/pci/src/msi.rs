// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Message-signalled interrupts: the MSI capability with one message and a 64-bit address.
//!
//! *Emulated:* enable, address, data. *Not emulated:* several messages, per-vector masking; the
//! capability says that it has neither.

use crate::config_space::{LayoutError, Type0};

/// Capability ID (PCI Local Bus Specification 3.0, 6.8.1).
const ID: u8 = 0x05;
/// Message control: 64-bit address capable.
const ADDRESS_64: u16 = 1 << 7;
/// Message control: enable.
const ENABLE: u16 = 1;
/// Offsets from the capability's start.
const CONTROL: u16 = 2;
const ADDRESS: u16 = 4;
const DATA: u16 = 12;

/// What to write where, to interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Guest-physical address.
    pub address: u64,
    /// Data; the upper half is zero for [`Msi`].
    pub data: u32,
}

/// The capability of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    offset: u16,
}

impl Msi {
    /// Appends the capability to `header`.
    ///
    /// # Errors
    /// [`LayoutError::NoSpace`].
    pub fn add_to(header: &mut Type0) -> Result<Self, LayoutError> {
        let mut body = [0; 12];
        let mut writable = [0; 12];
        let (control, registers) = (ADDRESS_64.to_le_bytes(), [0xff; 10]);
        for (byte, value) in body.iter_mut().zip(control) {
            *byte = value;
        }
        // The address' two lowest bits are zero.
        let mask = ENABLE
            .to_le_bytes()
            .into_iter()
            .chain([0xfc])
            .chain(registers.into_iter().skip(1));
        for (byte, value) in writable.iter_mut().zip(mask) {
            *byte = value;
        }
        Ok(Self {
            offset: header.add_capability(ID, &body, &writable)?,
        })
    }

    /// Whether the guest has chosen messages instead of the line.
    #[must_use]
    pub fn enabled(&self, header: &Type0) -> bool {
        header.u16_at(self.offset.saturating_add(CONTROL)) & ENABLE != 0
    }

    /// What to send for an interrupt; `None` while the function may not send.
    #[must_use]
    pub fn message(&self, header: &Type0) -> Option<MsiMessage> {
        let at = |offset: u16| self.offset.saturating_add(offset);
        let low = header.u32_at(at(ADDRESS));
        let high = header.u32_at(at(ADDRESS.saturating_add(4)));
        let message = MsiMessage {
            address: u64::from(high) << 32 | u64::from(low),
            data: header.u16_at(at(DATA)).into(),
        };
        (self.enabled(header) && header.bus_master()).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_space::Identity;
    use crate::spec;

    #[test]
    fn a_message_is_sent_once_it_is_enabled_and_the_bus_mastered() {
        let mut header = Type0::new(Identity::default());
        let msi = Msi::add_to(&mut header).expect("room");
        let offset = u16::from(header.u8_at(spec::CAPABILITIES_POINTER));
        assert_eq!(
            header.u32_at(offset),
            0x0080_0005,
            "one message, 64 bits, disabled"
        );
        let _ = header.write(offset + ADDRESS, &0xfee0_1003_u32.to_le_bytes());
        let _ = header.write(offset + DATA, &0x41_u16.to_le_bytes());
        assert_eq!(msi.message(&header), None);
        let _ = header.write(offset + CONTROL, &0xffff_u16.to_le_bytes());
        assert_eq!(
            header.u16_at(offset + CONTROL),
            ADDRESS_64 | ENABLE,
            "the rest is read-only"
        );
        assert!(msi.enabled(&header));
        assert_eq!(msi.message(&header), None, "no bus master yet");
        let _ = header.write(spec::COMMAND, &spec::COMMAND_BUS_MASTER.to_le_bytes());
        let message = MsiMessage {
            address: 0xfee0_1000,
            data: 0x41,
        };
        assert_eq!(msi.message(&header), Some(message));
        let _ = header.reset();
        assert!(!msi.enabled(&header));
    }
}
