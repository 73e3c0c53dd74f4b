// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Output that never holds its producer up: a bounded backlog, written by a thread of its own.
//!
//! A guest prints byte by byte, and waking a thread for each costs more than the byte. So the thread of
//! a console rests after each write: what comes alone is written at once, and a burst together.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Output that nobody has read yet, in bytes, beyond which more is dropped and counted.
pub const BACKLOG: usize = 256 << 10;
/// From one write to the next, unless so much waits that it should not wait longer.
const REST: Duration = Duration::from_millis(1);
const NO_REST_FROM: usize = BACKLOG / 4;
/// How long [`Outlet::close`] waits for the reader to take the rest.
const DRAIN_BOUND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    dropped: u64,
    closed: bool,
    drained: bool,
    resting: bool,
}

impl Backlog {
    /// The thread should not rest, or no longer.
    const fn presses(&self) -> bool {
        self.closed || self.bytes.len() >= NO_REST_FROM
    }
}

#[derive(Debug, Default)]
struct Pipe {
    backlog: Mutex<Backlog>,
    changed: Condvar,
}

impl Pipe {
    fn rest(&self, rest: Duration) {
        if rest.is_zero() {
            return;
        }
        let mut backlog = self.backlog.lock();
        backlog.resting = true;
        self.changed
            .wait_while_for(&mut backlog, |b| !b.presses(), rest);
        backlog.resting = false;
    }
}

/// Opens an output. It runs on the outlet's thread, as opening may block: a FIFO waits for its reader.
pub type Open = Box<dyn FnOnce() -> io::Result<Box<dyn Write + Send>> + Send>;

/// Hears of the first bytes that could not be written. A reader that went away is no such failure.
pub type OnFailure = Box<dyn FnOnce(&io::Error) + Send>;

/// The producer's end: every write is taken at once, whole or not at all.
#[derive(Clone, Debug)]
pub struct OutletWriter(Arc<Pipe>);

impl Write for OutletWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let mut backlog = self.0.backlog.lock();
        if backlog.bytes.len().saturating_add(data.len()) > BACKLOG {
            let lost = u64::try_from(data.len()).unwrap_or(u64::MAX);
            backlog.dropped = backlog.dropped.saturating_add(lost);
        } else {
            // A thread that has not come for the last bytes yet is awake already, or will wake.
            let waiting = backlog.bytes.is_empty() && !backlog.resting;
            let pressed = backlog.presses();
            backlog.bytes.extend_from_slice(data);
            if waiting || backlog.presses() && !pressed {
                self.0.changed.notify_all();
            }
        }
        Ok(data.len())
    }

    /// One write, whatever it is made of: what others write to the same place comes before or after it.
    fn write_fmt(&mut self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.write_all(text.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread behind the writers.
#[derive(Debug)]
pub struct Outlet {
    pipe: Arc<Pipe>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Outlet {
    /// Writes to `output` what the writers are given.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no thread.
    pub fn start(name: &str, output: Box<dyn Write + Send>) -> io::Result<Self> {
        Self::start_resting(name, output, Duration::ZERO)
    }

    /// The same for a producer that writes byte by byte: what comes within a millisecond of the last
    /// write is written when that is over.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no thread.
    pub fn start_for_bytes(name: &str, output: Box<dyn Write + Send>) -> io::Result<Self> {
        Self::start_resting(name, output, REST)
    }

    /// Writes to what `open` opens, and tells `failed` once when that cannot be done. What could not be
    /// written is lost; what comes later is tried again, unless the output could not be opened.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no thread.
    pub fn start_opening(name: &str, open: Open, failed: OnFailure) -> io::Result<Self> {
        let of = name.to_owned();
        Self::start_drained(name, move |pipe| {
            let (output, failed): (Box<dyn Write + Send>, OnFailure) = match open() {
                Ok(output) => (output, failed),
                Err(error) => {
                    failed(&error);
                    (Box::new(io::sink()), Box::new(|_| {}))
                }
            };
            drain(&of, pipe, output, Duration::ZERO, failed);
        })
    }

    fn start_resting(
        name: &str,
        output: Box<dyn Write + Send>,
        rest: Duration,
    ) -> io::Result<Self> {
        let of = name.to_owned();
        let what = name.to_owned();
        let failed = move |error: &io::Error| {
            let why = error.kind();
            log::warn!("{what}: output cannot be written, and is lost until it can be: {why}");
        };
        Self::start_drained(name, move |pipe| {
            drain(&of, pipe, output, rest, Box::new(failed));
        })
    }

    fn start_drained(name: &str, drain: impl FnOnce(&Pipe) + Send + 'static) -> io::Result<Self> {
        let pipe = Arc::new(Pipe::default());
        let theirs = Arc::clone(&pipe);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .stack_size(64 << 10)
            .spawn(move || drain(&theirs))?;
        Ok(Self {
            pipe,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A producer's end.
    #[must_use]
    pub fn writer(&self) -> OutletWriter {
        OutletWriter(Arc::clone(&self.pipe))
    }

    /// Lets the reader take what is left, for a second at the most.
    pub fn close(&self) {
        let now = Instant::now();
        self.close_by(now.checked_add(DRAIN_BOUND).unwrap_or(now));
    }

    /// Lets the reader take what is left, until `deadline`; whether it took everything.
    pub fn close_by(&self, deadline: Instant) -> bool {
        let mut backlog = self.pipe.backlog.lock();
        backlog.closed = true;
        self.pipe.changed.notify_all();
        let waited = self
            .pipe
            .changed
            .wait_while_until(&mut backlog, |b| !b.drained, deadline);
        drop(backlog);
        if !waited.timed_out()
            && let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("an output thread panicked");
        }
        !waited.timed_out()
    }
}

fn drain(
    name: &str,
    pipe: &Pipe,
    mut output: Box<dyn Write + Send>,
    rest: Duration,
    failed: OnFailure,
) {
    let mut lost = 0_u64;
    let mut failed = Some(failed);
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
        let written = output.write_all(&bytes).and_then(|()| output.flush());
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
            && let Some(failed) = failed.take()
        {
            failed(&error);
        }
        if dropped > 0 {
            lost = lost.saturating_add(dropped);
            log::warn!("{lost} bytes for the {name} are dropped so far: their reader is too slow");
        }
        pipe.rest(rest);
    }
    pipe.backlog.lock().drained = true;
    pipe.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Takes a write each time it is allowed to.
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
    fn stuck_reader_loses_output_and_never_blocks_the_producer() {
        let (sent, received) = channel();
        let (allow, allowed) = channel();
        let outlet = Outlet::start("test", Box::new(Reader(sent, allowed))).expect("a thread");
        let mut writer = outlet.writer();
        for _ in 0..2 * BACKLOG {
            writer.write_all(b"x").expect("always");
        }
        assert!(outlet.pipe.backlog.lock().bytes.len() <= BACKLOG);
        assert!(outlet.pipe.backlog.lock().dropped > 0);
        // Still stuck: closing is bounded all the same.
        outlet.close();
        assert!(received.try_recv().is_err());
        drop(allow);
    }

    #[test]
    fn a_line_is_written_whole_or_not_at_all() {
        let pipe = Arc::new(Pipe::default());
        let mut writer = OutletWriter(Arc::clone(&pipe));
        let all_but_a_little = vec![b'x'; BACKLOG - 3];
        writer.write_all(&all_but_a_little).expect("always");
        let parts = ["ab", "cd"];
        writeln!(writer, "{}{}", parts[0], parts[1]).expect("always");
        let backlog = pipe.backlog.lock();
        assert_eq!(
            (backlog.bytes.len(), backlog.dropped),
            (BACKLOG - 3, 5),
            "no part of a line that has no room"
        );
    }

    #[test]
    fn a_burst_is_written_together_and_its_first_byte_at_once() {
        let (sent, received) = channel();
        let (allow, allowed) = channel();
        let for_ever = Duration::from_secs(3600);
        let output = Box::new(Reader(sent, allowed));
        let outlet = Outlet::start_resting("test", output, for_ever).expect("a thread");
        let mut writer = outlet.writer();
        (0..4).for_each(|_| allow.send(()).expect("reader is there"));
        writer.write_all(b"a").expect("always");
        assert_eq!(received.recv().expect("at once"), b"a");
        for byte in b"bcd" {
            writer.write_all(&[*byte]).expect("always");
        }
        // So much that it is not left waiting.
        writer.write_all(&[b'x'; NO_REST_FROM]).expect("always");
        let together = received.recv().expect("no rest");
        assert_eq!(
            (&together[..3], together.len()),
            (&b"bcd"[..], 3 + NO_REST_FROM)
        );
        writer.write_all(b"e").expect("always");
        writer.write_all(b"f").expect("always");
        outlet.close();
        assert_eq!(received.try_recv().expect("the rest"), b"ef");
    }

    #[test]
    fn the_first_failure_is_told_and_no_other() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _data: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let cannot_open: fn() -> Open = || Box::new(|| Err(io::ErrorKind::StorageFull.into()));
        let cannot_write: fn() -> Open = || Box::new(|| Ok(Box::new(Full)));
        for open in [cannot_open, cannot_write] {
            let (sent, heard) = channel();
            let failed = move |error: &io::Error| sent.send(error.kind()).expect("a listener");
            let outlet = Outlet::start_opening("test", open(), Box::new(failed)).expect("a thread");
            for _ in 0..3 {
                outlet.writer().write_all(b"x").expect("always");
            }
            assert!(
                outlet.close_by(Instant::now() + Duration::from_secs(60)),
                "nothing waits"
            );
            let told: Vec<_> = heard.try_iter().collect();
            assert_eq!(told, [io::ErrorKind::StorageFull]);
        }
    }

    #[test]
    fn an_output_that_does_not_open_holds_up_nobody() {
        let (opens, opened) = channel::<()>();
        let open = Box::new(move || {
            let _for_ever = opened.recv();
            Ok(Box::new(io::sink()) as Box<dyn Write + Send>)
        });
        let outlet = Outlet::start_opening("test", open, Box::new(|_| {})).expect("a thread");
        outlet.writer().write_all(b"x").expect("always");
        assert!(!outlet.close_by(Instant::now()));
        drop(opens);
    }

    #[test]
    fn close_hands_over_all_that_was_written() {
        let (sent, received) = channel();
        let (allow, allowed) = channel();
        let outlet = Outlet::start("test", Box::new(Reader(sent, allowed))).expect("a thread");
        for byte in b"hello" {
            outlet.writer().write_all(&[*byte]).expect("always");
            allow.send(()).expect("reader is there");
        }
        outlet.close();
        assert_eq!(received.try_iter().flatten().collect::<Vec<_>>(), b"hello");
    }
}
