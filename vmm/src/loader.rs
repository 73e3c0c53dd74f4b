// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that loads the guest at a reset: files and unpacking take their time, and the loop that
//! acts on bites and commands does not wait for them.
//!
//! Once started, the thread is there for the next reset. It is never joined: a load that hangs on a
//! dead disk holds up neither the loop nor the machine's end, and ends with the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

use crate::mailbox::{Mailbox, Request};

type Work = Box<dyn FnOnce() + Send>;

/// Room for the decompressors.
const STACK_BYTES: usize = 512 << 10;

/// The thread, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Loader {
    work: Option<Sender<Work>>,
}

/// What a load gives, when it has ended.
#[derive(Debug)]
pub(crate) struct Load<T>(Arc<Mutex<Option<T>>>);

impl<T> Load<T> {
    /// Its result; none before the end, or if it panicked.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

/// However a load ends, the loop hears of it.
struct Ended(Arc<Mailbox>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.post(Request::Loaded);
    }
}

impl Loader {
    /// Starts the thread, so that the next load need not.
    pub(crate) fn get_ready(&mut self) {
        if self.work.is_some() {
            return;
        }
        let (work, works) = channel::<Work>();
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                for work in works {
                    // The thread outlives a panic, so that no work is sent to one that is about to end;
                    // the panic's message is out already, and its load gives no result.
                    let _panicked = catch_unwind(AssertUnwindSafe(work));
                }
            });
        match thread {
            Ok(_) => self.work = Some(work),
            Err(error) => log::warn!("a reset will hold up the machine's loop: {error}"),
        }
    }

    /// Does `load` on the thread, and posts [`Request::Loaded`] in the present boot at its end. Without
    /// a thread it is done here.
    pub(crate) fn start<T: Send + 'static>(
        &mut self,
        mailbox: &Arc<Mailbox>,
        load: impl FnOnce() -> T + Send + 'static,
    ) -> Load<T> {
        let result = Arc::new(Mutex::new(None));
        let (ours, ended) = (Load(Arc::clone(&result)), Ended(Arc::clone(mailbox)));
        let work: Work = Box::new(move || {
            let _ended = ended;
            let loaded = load();
            *result.lock() = Some(loaded);
        });
        self.get_ready();
        let refused = match &self.work {
            Some(thread) => thread.send(work).err().map(|unsent| unsent.0),
            None => Some(work),
        };
        if let Some(work) = refused {
            // The thread is gone; the next load has a new one.
            self.work = None;
            work();
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::channel;
    use std::thread::current;

    use super::*;

    fn wait_for_end(mailbox: &Mailbox) {
        // SAFETY: the mailbox owns the descriptor and is still there.
        let wake = unsafe { std::os::fd::BorrowedFd::borrow_raw(mailbox.as_raw_fd()) };
        loop {
            match mailbox.take() {
                Some(request) => return assert_eq!(request, Request::Loaded),
                None => {
                    let mut wait = [rustix::event::PollFd::new(
                        &wake,
                        rustix::event::PollFlags::IN,
                    )];
                    rustix::event::poll(&mut wait, None).expect("poll");
                }
            }
        }
    }

    #[test]
    fn the_caller_goes_on_while_one_thread_loads() {
        let mailbox = Arc::new(Mailbox::new().expect("eventfd"));
        let mut loader = Loader::default();
        let mut threads = vec![];
        for number in 0..3 {
            let (go, may_go) = channel::<()>();
            let load = loader.start(&mailbox, move || {
                may_go.recv().expect("the caller goes on");
                (number, current().id())
            });
            assert!(load.take().is_none() && mailbox.take().is_none());
            go.send(()).expect("it waits");
            wait_for_end(&mailbox);
            let (given, thread) = load.take().expect("a result");
            assert_eq!(given, number);
            threads.push(thread);
        }
        assert!(threads.iter().all(|thread| *thread == threads[0]));
        assert_ne!(threads[0], current().id());
    }

    #[test]
    fn a_panic_ends_the_load_and_not_the_next_one() {
        let mailbox = Arc::new(Mailbox::new().expect("eventfd"));
        let mut loader = Loader::default();
        let load = loader.start::<()>(&mailbox, || panic!("on purpose"));
        wait_for_end(&mailbox);
        assert_eq!(load.take(), None);
        for _ in 0..2 {
            let load = loader.start(&mailbox, || 7);
            wait_for_end(&mailbox);
            assert_eq!(load.take(), Some(7));
        }
    }
}
