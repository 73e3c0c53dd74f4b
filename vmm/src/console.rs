// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The serial console at COM1: a 16550 from vm-superio, its output on a thread of its own.
//!
//! *Emulated:* the 16550's data, line and interrupt registers with a 64-byte receive FIFO.
//! *Not emulated:* baud rate, modem lines.
//! *Differs from hardware:* output takes no time; when the reader stops reading, output is dropped
//! and counted rather than the guest held up.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::Serial;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::interrupts::IrqLine;

/// Output that nobody has read yet, in bytes, beyond which more is dropped.
const BACKLOG: usize = 256 << 10;
/// How long the end of the machine waits for the reader to take the rest.
const DRAIN_BOUND: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    dropped: u64,
    closed: bool,
    drained: bool,
}

#[derive(Debug, Default)]
struct Pipe {
    backlog: Mutex<Backlog>,
    changed: Condvar,
}

/// The 16550's transmit side: never blocks.
#[derive(Clone, Debug)]
struct Transmit(Arc<Pipe>);

impl Write for Transmit {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut backlog = self.0.backlog.lock();
        if backlog.bytes.len().saturating_add(data.len()) > BACKLOG {
            let lost = u64::try_from(data.len()).unwrap_or(u64::MAX);
            backlog.dropped = backlog.dropped.saturating_add(lost);
        } else {
            // A writer that has not come for the last bytes yet is awake already.
            let waiting = backlog.bytes.is_empty();
            backlog.bytes.extend_from_slice(data);
            if waiting {
                self.0.changed.notify_one();
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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

type Uart = Serial<IrqLine, RoomForInput, Transmit>;

/// COM1.
pub struct Console {
    uart: Mutex<Uart>,
    irq: IrqLine,
    pipe: Arc<Pipe>,
    room: Arc<EventFd>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Console")
            .field("pipe", &self.pipe)
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
        let pipe = Arc::new(Pipe::default());
        let theirs = Arc::clone(&pipe);
        let writer = std::thread::Builder::new()
            .name("console".into())
            .stack_size(64 << 10)
            .spawn(move || drain(&theirs, output))?;
        let room = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok(Self {
            uart: Mutex::new(uart(&irq, &room, &pipe)),
            irq,
            pipe,
            room,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Power-on state; input that the guest had not read is gone.
    pub fn reset(&self) {
        *self.uart.lock() = uart(&self.irq, &self.room, &self.pipe);
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

    /// Lets the reader take what is left, within a bound.
    pub fn close(&self) {
        let mut backlog = self.pipe.backlog.lock();
        backlog.closed = true;
        self.pipe.changed.notify_all();
        let waited = self
            .pipe
            .changed
            .wait_while_for(&mut backlog, |b| !b.drained, DRAIN_BOUND);
        drop(backlog);
        if !waited.timed_out()
            && let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            log::error!("the console thread panicked");
        }
    }
}

fn uart(irq: &IrqLine, room: &Arc<EventFd>, pipe: &Arc<Pipe>) -> Uart {
    let events = RoomForInput(Arc::clone(room));
    Serial::with_events(irq.clone(), events, Transmit(Arc::clone(pipe)))
}

/// The console thread: writes what the guest printed, as the reader takes it.
fn drain(pipe: &Pipe, mut output: Box<dyn Write + Send>) {
    loop {
        let mut backlog = pipe.backlog.lock();
        pipe.changed.wait_while(&mut backlog, |b| {
            b.bytes.is_empty() && b.dropped == 0 && !b.closed
        });
        if backlog.bytes.is_empty() && backlog.dropped == 0 {
            break;
        }
        let bytes = std::mem::take(&mut backlog.bytes);
        let dropped = std::mem::take(&mut backlog.dropped);
        drop(backlog);
        // A reader that went away must not end the guest.
        let _written = output.write_all(&bytes).and_then(|()| output.flush());
        if dropped > 0 {
            log::warn!("{dropped} bytes of console output dropped: the reader is too slow");
        }
    }
    pipe.backlog.lock().drained = true;
    pipe.changed.notify_all();
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
    use std::sync::mpsc::{Receiver, Sender, channel};

    struct Reader(Sender<Vec<u8>>, Receiver<()>);

    impl Write for Reader {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.1.recv().map_err(io::Error::other)?;
            self.0.send(data.to_vec()).map_err(io::Error::other)?;
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn stuck_reader_loses_output_and_never_blocks_the_guest() {
        let (sent, received) = channel();
        let (allow, allowed) = channel();
        let irq = Interrupts::new().line(4);
        let console = Console::new(irq, Box::new(Reader(sent, allowed))).expect("console");
        for _ in 0..2 * BACKLOG {
            console.pio_write(PioAddress(0x3f8), 0, b"x");
        }
        drop(allow);
        console.close();
        assert!(received.try_recv().is_err());
        assert!(console.pipe.backlog.lock().bytes.len() <= BACKLOG);
    }

    #[test]
    fn close_hands_over_all_that_was_printed() {
        let (sent, received) = channel();
        let (allow, allowed) = channel();
        let irq = Interrupts::new().line(4);
        let console = Console::new(irq, Box::new(Reader(sent, allowed))).expect("console");
        for byte in b"hello" {
            console.pio_write(PioAddress(0x3f8), 0, &[*byte]);
        }
        for _ in 0..5 {
            allow.send(()).expect("reader is there");
        }
        console.close();
        assert_eq!(received.try_iter().flatten().collect::<Vec<_>>(), b"hello");
    }
}
