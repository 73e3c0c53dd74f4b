// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The serial console at COM1: a 16550 from vm-superio, its output on a thread of its own.
//!
//! *Emulated:* the 16550's data, line and interrupt registers with a 64-byte receive FIFO.
//! *Not emulated:* baud rate, modem lines.
//! *Differs from hardware:* output takes no time; when the reader stops reading, output is dropped
//! and counted rather than the guest held up.
//!
//! vm-superio 0.8 takes the received-data interrupt back as soon as one byte is read. A driver that leaves
//! some for its next look (Linux 6.1 reads 256 bytes at a time) would find no reason to look again, so
//! [`Console`] says what is pending by what the FIFO holds.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::Serial;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::interrupts::IrqLine;
use crate::outlet::{Outlet, OutletWriter};

const INTERRUPT_ENABLE: u8 = 1;
const RECEIVED_ENABLED: u8 = 1 << 0;
const INTERRUPT_IDENTIFICATION: u8 = 2;
const NOTHING_PENDING: u8 = 1 << 0;
const RECEIVED_PENDING: u8 = 1 << 2;
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1 << 0;

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
        // What does not fit is dropped, and it takes no more in a mode of the guest's choice.
        let _taken = self.uart.lock().enqueue_raw_bytes(data);
    }

    /// Prints what the guest printed elsewhere: its virtio console shows at the same place.
    pub fn print(&self, data: &[u8]) {
        // It takes everything at once, or counts it as dropped.
        let _taken = self.outlet.writer().write(data);
    }

    /// Lets the reader take what is left, until `deadline`.
    pub fn close_by(&self, deadline: Instant) {
        self.outlet.close_by(deadline);
    }
}

fn uart(irq: &IrqLine, room: &Arc<EventFd>, outlet: &Outlet) -> Uart {
    let events = RoomForInput(Arc::clone(room));
    Serial::with_events(irq.clone(), events, outlet.writer())
}

/// What the guest reads. The interrupt identification names received data as long as there is some.
fn read(uart: &mut Uart, offset: u8) -> u8 {
    let value = uart.read(offset);
    let mut received = || {
        uart.read(INTERRUPT_ENABLE) & RECEIVED_ENABLED != 0
            && uart.read(LINE_STATUS) & DATA_READY != 0
    };
    if offset == INTERRUPT_IDENTIFICATION && value & NOTHING_PENDING != 0 && received() {
        value & !NOTHING_PENDING | RECEIVED_PENDING
    } else {
        value
    }
}

impl DevicePio for Console {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
        if let ([value], Ok(offset)) = (data, u8::try_from(offset)) {
            *value = read(&mut self.uart.lock(), offset);
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let Ok(offset) = u8::try_from(offset) else {
            return;
        };
        // More than one byte is a string instruction, whose elements KVM hands over together.
        let mut uart = self.uart.lock();
        for value in data {
            // Only an interrupt or an output that fails could be an error, and neither does.
            let _written = uart.write(offset, *value);
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

    #[test]
    fn received_data_is_pending_until_the_last_byte_is_read() {
        let console =
            Console::new(Interrupts::new().line(4), Box::new(io::sink())).expect("console");
        let read = |offset: u16| {
            let mut value = [0];
            console.pio_read(PioAddress(0x3f8), offset, &mut value);
            value[0]
        };
        let pending = || read(INTERRUPT_IDENTIFICATION.into()) & 0xf;
        console.input(b"abc");
        assert_eq!(pending(), NOTHING_PENDING, "not enabled");
        console.pio_write(
            PioAddress(0x3f8),
            INTERRUPT_ENABLE.into(),
            &[RECEIVED_ENABLED],
        );
        for byte in b"abc" {
            assert_eq!(pending(), RECEIVED_PENDING);
            assert_eq!(pending(), RECEIVED_PENDING, "asking takes nothing away");
            assert_eq!(read(0), *byte);
        }
        assert_eq!(pending(), NOTHING_PENDING);
    }
}
