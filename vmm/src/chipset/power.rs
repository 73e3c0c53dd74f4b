// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ACPI fixed power-management hardware: the PM1 event and control blocks.
//!
//! *Emulated:* PM1 status (write 1 to clear) and enable, the power button on a level SCI, SCI_EN
//! always set, sleep type 0 with SLP_EN as S5.
//! *Not emulated:* PM timer, general-purpose events, SMI, other sleep states.
//! *Differs from hardware:* the machine is in ACPI mode from power-on (ACPI 6.5, 4.8.2.4: no
//! SMI_CMD, hence no other mode).

use std::sync::Arc;

use parking_lot::Mutex;
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use crate::interrupts::IrqLine;
use crate::mailbox::{Mailbox, Request};

/// Ports the block takes: status and enable (2 bytes each), then control (2 bytes).
pub const PORTS: u16 = 8;

/// Offset of PM1_STS, PM1_EN and PM1_CNT in the block.
const STATUS: usize = 0;
const ENABLE: usize = 2;
const CONTROL: usize = 4;

/// ACPI 6.5, tables 4.11 to 4.13.
const POWER_BUTTON: u16 = 1 << 8;
const STATUS_BITS: u16 = 1 << 15 | 1 << 10 | POWER_BUTTON | 1 << 5 | 1 << 4 | 1;
const ENABLE_BITS: u16 = 1 << 10 | POWER_BUTTON | 1 << 5 | 1;
const SCI_ENABLE: u16 = 1;
const SLEEP_TYPE: u16 = 7 << 10;
const SLEEP_ENABLE: u16 = 1 << 13;

#[derive(Debug, Default)]
struct Registers {
    status: u16,
    enable: u16,
    control: u16,
}

impl Registers {
    fn bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        let words = [self.status, self.enable, self.control | SCI_ENABLE, 0];
        for (lane, word) in bytes.chunks_exact_mut(2).zip(words) {
            lane.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn sci(&self) -> bool {
        self.status & self.enable != 0
    }

    /// Writes one byte lane; true when it puts the machine to sleep.
    fn write_lane(&mut self, offset: usize, value: u8) -> bool {
        let shift = if offset.is_multiple_of(2) { 0 } else { 8 };
        let (mask, value) = (0xff_u16 << shift, u16::from(value) << shift);
        match offset & !1 {
            STATUS => self.status &= !(value & STATUS_BITS),
            ENABLE => self.enable = (self.enable & !mask) | (value & ENABLE_BITS),
            CONTROL => {
                self.control = ((self.control & !mask) | value) & SLEEP_TYPE;
                return value & SLEEP_ENABLE != 0;
            }
            _ => {}
        }
        false
    }
}

/// The PM1 blocks.
#[derive(Debug)]
pub struct PowerManagement {
    registers: Mutex<Registers>,
    sci: IrqLine,
    mailbox: Arc<Mailbox>,
}

impl PowerManagement {
    /// Power-on state.
    #[must_use]
    pub fn new(sci: IrqLine, mailbox: Arc<Mailbox>) -> Self {
        Self {
            registers: Mutex::default(),
            sci,
            mailbox,
        }
    }

    /// Somebody presses the power button. A guest that doesn't look is not disturbed.
    pub fn press_power_button(&self) {
        let mut registers = self.registers.lock();
        registers.status |= POWER_BUTTON;
        self.sci.set(registers.sci());
    }

    /// Power-on state again.
    pub fn reset(&self) {
        *self.registers.lock() = Registers::default();
    }
}

impl DevicePio for PowerManagement {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        let bytes = self.registers.lock().bytes();
        for (value, byte) in data.iter_mut().zip(bytes.iter().skip(offset.into())) {
            *value = *byte;
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let mut registers = self.registers.lock();
        let mut sleep = false;
        for (offset, value) in (usize::from(offset)..).zip(data) {
            sleep |= registers.write_lane(offset, *value);
        }
        // Level before the lock goes, so that two vCPUs cannot leave the older one.
        self.sci.set(registers.sci());
        if sleep && registers.control & SLEEP_TYPE == 0 {
            self.mailbox.post(Request::PowerOff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupts::Interrupts;

    const BASE: PioAddress = PioAddress(0x600);

    fn machine() -> (PowerManagement, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::new().expect("eventfd"));
        (
            PowerManagement::new(Interrupts::new().line(9), Arc::clone(&mailbox)),
            mailbox,
        )
    }

    fn word(pm: &PowerManagement, offset: u16) -> u16 {
        let mut data = [0; 2];
        pm.pio_read(BASE, offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn sci_follows_status_and_enable() {
        let (pm, _mailbox) = machine();
        pm.press_power_button();
        assert_eq!(word(&pm, 0), POWER_BUTTON);
        assert!(!pm.registers.lock().sci(), "not enabled yet");
        pm.pio_write(BASE, 2, &POWER_BUTTON.to_le_bytes());
        assert!(pm.registers.lock().sci());
        pm.pio_write(BASE, 0, &POWER_BUTTON.to_le_bytes());
        assert_eq!(word(&pm, 0), 0, "write 1 clears");
        assert!(!pm.registers.lock().sci());
    }

    #[test]
    fn enable_takes_byte_lanes_and_keeps_reserved_bits_clear() {
        let (pm, _mailbox) = machine();
        pm.pio_write(BASE, 3, &[0xff]);
        assert_eq!(word(&pm, 2), ENABLE_BITS & 0xff00);
        pm.pio_write(BASE, 0, &[0, 0, 0xff, 0]);
        assert_eq!(word(&pm, 2), ENABLE_BITS & 0x00ff);
    }

    #[test]
    fn sci_enable_always_reads_one() {
        let (pm, _mailbox) = machine();
        pm.pio_write(BASE, 4, &0_u16.to_le_bytes());
        assert_eq!(word(&pm, 4), SCI_ENABLE);
    }

    #[test]
    fn s5_needs_sleep_enable_and_sleep_type_0() {
        let (pm, mailbox) = machine();
        // Linux writes twice, the second time with SLP_EN.
        pm.pio_write(BASE, 4, &SCI_ENABLE.to_le_bytes());
        pm.pio_write(BASE, 4, &(SLEEP_ENABLE | 5 << 10).to_le_bytes());
        assert_eq!(mailbox.take(), None);
        pm.pio_write(BASE, 4, &(SLEEP_ENABLE | SCI_ENABLE).to_le_bytes());
        assert_eq!(mailbox.take(), Some(Request::PowerOff));
    }
}
