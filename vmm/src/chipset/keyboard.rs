// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Just enough of the i8042 keyboard controller to reset the machine through it.
//!
//! *Emulated:* command 0xFE (pulse the reset line) and a status that is always ready.
//! *Not emulated:* keyboard, mouse, every other command; data reads are 0.
//! *Differs from hardware:* port 0x61, between its two ports, belongs to KVM's PIT.

use std::sync::Arc;

use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use crate::mailbox::{Mailbox, Request, ResetCause};

/// Ports from the data port to the command port.
pub const PORTS: u16 = 5;
const COMMAND: u16 = 4;
const PULSE_RESET: u8 = 0xfe;

/// The controller.
#[derive(Debug)]
pub struct KeyboardController {
    mailbox: Arc<Mailbox>,
}

impl KeyboardController {
    /// A controller that asks `mailbox` for resets.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox }
    }
}

impl DevicePio for KeyboardController {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        // Status 0: input buffer empty, so Linux doesn't wait 65,536 exits for it.
        data.fill(if offset == COMMAND || offset == 0 {
            0
        } else {
            0xff
        });
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if offset == COMMAND && data.first() == Some(&PULSE_RESET) {
            self.mailbox
                .post(Request::Reset(ResetCause::KeyboardController));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulse_reset_asks_for_a_reset_and_other_commands_do_not() {
        let mailbox = Arc::new(Mailbox::new().expect("eventfd"));
        let keyboard = KeyboardController::new(Arc::clone(&mailbox));
        let base = PioAddress(0x60);
        keyboard.pio_write(base, 0, &[PULSE_RESET]);
        keyboard.pio_write(base, COMMAND, &[0x20]);
        assert_eq!(mailbox.take(), None);
        keyboard.pio_write(base, COMMAND, &[PULSE_RESET]);
        assert_eq!(
            mailbox.take(),
            Some(Request::Reset(ResetCause::KeyboardController))
        );
        let mut status = [0xff];
        keyboard.pio_read(base, COMMAND, &mut status);
        assert_eq!(status, [0]);
    }
}
