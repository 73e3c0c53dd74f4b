// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The serial console at COM1: a 16550 from vm-superio, its output on a thread of its own.
//!
//! *Emulated:* the 16550's data, line and interrupt registers with a 64-byte receive FIFO.
//! *Not emulated:* baud rate, modem lines.
//! *Differs from hardware:* output takes no time; when the reader stops reading, output is dropped
//! and counted rather than the guest held up.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::Serial;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::interrupts::IrqLine;
use crate::outlet::{Outlet, OutletWriter};

/// Tells the event loop that the guest has room for input again.
#[derive(Debug)]
struct RoomForInput(Arc<EventFd>);

impl SerialEvents for RoomForInput {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // Only full counters fail, and then the loop is awake already.
        let _woken = self.0.write(1);
    }
}

type Uart = Serial<IrqLine, RoomForInput, OutletWriter>;

/// COM1.
pub struct Console {
    uart: Mutex<Uart>,
    irq: IrqLine,
    outlet: Outlet,
    room: Arc<EventFd>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Console")
            .field("outlet", &self.outlet)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// A console that prints to `output`.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no eventfd or thread.
    pub fn new(irq: IrqLine, output: Box<dyn Write + Send>) -> io::Result<Self> {
        let outlet = Outlet::start_for_bytes("console", output)?;
        let room = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok(Self {
            uart: Mutex::new(uart(&irq, &room, &outlet)),
            irq,
            outlet,
            room,
        })
    }

    /// Power-on state; input that the guest had not read is gone, so there is room for more.
    pub fn reset(&self) {
        *self.uart.lock() = uart(&self.irq, &self.room, &self.outlet);
        RoomForInput(Arc::clone(&self.room)).in_buffer_empty();
    }

    /// Readable when the guest has emptied its receive FIFO.
    #[must_use]
    pub fn room_for_input(&self) -> &EventFd {
        &self.room
    }

    /// How many bytes [`Console::input`] would take now.
    #[must_use]
    pub fn input_capacity(&self) -> usize {
        self.uart.lock().fifo_capacity()
    }

    /// Gives `data` to the guest; what exceeds the FIFO is dropped.
    pub fn input(&self, data: &[u8]) {
        if let Err(error) = self.uart.lock().enqueue_raw_bytes(data) {
            log::debug!("console input: {error:?}");
        }
    }

    /// Prints what the guest printed elsewhere: its virtio console shows at the same place.
    pub fn print(&self, data: &[u8]) {
        // It takes everything at once, or counts it as dropped.
        let _taken = self.outlet.writer().write(data);
    }

    /// Lets the reader take what is left, within a bound.
    pub fn close(&self) {
        self.outlet.close();
    }
}

fn uart(irq: &IrqLine, room: &Arc<EventFd>, outlet: &Outlet) -> Uart {
    let events = RoomForInput(Arc::clone(room));
    Serial::with_events(irq.clone(), events, outlet.writer())
}

impl DevicePio for Console {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
        if let ([value], Ok(offset)) = (data, u8::try_from(offset)) {
            *value = self.uart.lock().read(offset);
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let Ok(offset) = u8::try_from(offset) else {
            return;
        };
        // More than one byte is a string instruction, whose elements KVM hands over together.
        let mut uart = self.uart.lock();
        for value in data {
            if let Err(error) = uart.write(offset, *value) {
                log::debug!("console output: {error:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupts::Interrupts;

    #[test]
    fn reset_makes_room_for_input() {
        let console =
            Console::new(Interrupts::new().line(4), Box::new(io::sink())).expect("console");
        console.input(&[b'x'; 64]);
        assert_eq!(console.input_capacity(), 0);
        assert!(
            console.room_for_input().read().is_err(),
            "nobody has made room"
        );
        console.reset();
        assert_eq!(console.input_capacity(), 64);
        assert!(
            console.room_for_input().read().is_ok(),
            "and the event loop is told"
        );
    }

    #[test]
    fn status_register_reads_byte_wise_and_wide_reads_are_all_ones() {
        let console =
            Console::new(Interrupts::new().line(4), Box::new(io::sink())).expect("console");
        let (mut one, mut two) = ([0], [0; 2]);
        console.pio_read(PioAddress(0x3f8), 5, &mut one);
        console.pio_read(PioAddress(0x3f8), 5, &mut two);
        assert_eq!((one, two), ([0x60], [0xff; 2]));
    }
}
