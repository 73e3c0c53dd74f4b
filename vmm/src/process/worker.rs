// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A thread beside the loop. The machine's end waits for it until a deadline, and no longer.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// The thread.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    thread: JoinHandle<()>,
    /// Disconnected when the thread has done its work.
    running: Receiver<Infallible>,
}

impl Worker {
    pub(super) fn start(
        name: &'static str,
        stack_bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (runs, running) = channel();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .stack_size(stack_bytes)
            .spawn(move || {
                let _runs = runs;
                work();
            })?;
        Ok(Self {
            name,
            thread,
            running,
        })
    }

    /// False once the thread has done its work.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.running.try_recv(), Err(TryRecvError::Empty))
    }

    /// Waits for the end of a thread that was told to end. One that does not ends with the process.
    pub(super) fn end_by(self, deadline: Instant) {
        let Self {
            name,
            thread,
            running,
        } = self;
        let left = deadline.saturating_duration_since(Instant::now());
        match running.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => log::error!("the thread {name} does not end"),
            Err(RecvTimeoutError::Disconnected) => {
                if thread.join().is_err() {
                    log::error!("the thread {name} panicked");
                }
            }
        }
    }
}

/// Does `work`; a panic in it is an error that says so.
pub(super) fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(format!(
            "by a defect of this program, please report it: {}",
            words(&*panic)
        ))
    })
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no word about it")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_does_not_end_is_left_at_the_deadline() {
        let (end, ends) = channel::<()>();
        let worker = Worker::start("stuck", 64 << 10, move || {
            let _ended = ends.recv();
        });
        worker.expect("a thread").end_by(Instant::now());
        // It is still there to take this.
        assert!(end.send(()).is_ok());
    }

    #[test]
    fn a_thread_that_ends_or_panics_is_joined() {
        let later = Instant::now() + Duration::from_secs(600);
        for work in [|| (), || panic!("on purpose")] {
            let worker = Worker::start("short", 64 << 10, work);
            worker.expect("a thread").end_by(later);
        }
    }
}
