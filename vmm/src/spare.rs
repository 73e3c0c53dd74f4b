// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Something that the next reset needs, built before it comes, and the end of what the last one left
//! behind: both take long, and nobody has to wait for them.
//!
//! For a machine it is a KVM VM. Building one, and ending one, is some ten milliseconds of waiting
//! inside the kernel. A thread lives as long as that takes, so at rest there is none; there is at most
//! one spare and one old VM beside the running one.
//!
//! Nothing depends on a spare: without one, [`Spare::take`] gives none and the caller builds its own.

use std::sync::Arc;
use std::thread::JoinHandle;

/// How a `T` is built; `None` if it cannot be.
type Build<T> = Arc<dyn Fn() -> Option<T> + Send + Sync>;

/// At most one `T` in reserve.
pub(crate) struct Spare<T> {
    build: Build<T>,
    kept: bool,
    thread: Option<JoinHandle<Option<T>>>,
}

impl<T: Send + 'static> Spare<T> {
    /// None until [`Spare::keep`].
    pub(crate) fn new(build: impl Fn() -> Option<T> + Send + Sync + 'static) -> Self {
        Self {
            build: Arc::new(build),
            kept: false,
            thread: None,
        }
    }

    /// One is to be in reserve from now on: it is begun now, and anew at each [`Spare::replace`].
    pub(crate) fn keep(&mut self) {
        if !std::mem::replace(&mut self.kept, true) {
            // What is being ended at this moment comes first, so that there is one thread at most.
            self.take();
            self.replace(());
        }
    }

    /// The spare, waited for if it is not ready yet; none if there is none, or it could not be built.
    pub(crate) fn take(&mut self) -> Option<T> {
        let built = self.thread.take()?.join();
        built.unwrap_or_else(|_| {
            log::error!("the thread that built a spare panicked");
            None
        })
    }

    /// Ends the spare and keeps none. It takes as long as ending an old one, and the owner's end waits
    /// for it.
    pub(crate) fn discard(&mut self) {
        if std::mem::take(&mut self.kept)
            && let Some(thread) = self.thread.take()
        {
            let build = Arc::clone(&self.build);
            self.replace(Self {
                build,
                kept: false,
                thread: Some(thread),
            });
        }
    }

    /// Ends `old`, then builds the next spare if one is kept. Must follow a [`Spare::take`].
    pub(crate) fn replace(&mut self, old: impl Send + 'static) {
        let build = self.kept.then(|| Arc::clone(&self.build));
        let work = move || {
            drop(old);
            build.and_then(|build| build())
        };
        let thread = std::thread::Builder::new()
            .name("spare".into())
            .stack_size(128 << 10)
            .spawn(work);
        // Without a thread, `old` has ended on this one, with the closure.
        self.thread = thread
            .inspect_err(|error| log::debug!("no thread for a spare: {error}"))
            .ok();
    }
}

impl<T> std::fmt::Debug for Spare<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            build: _,
            kept,
            thread,
        } = self;
        formatter
            .debug_struct("Spare")
            .field("kept", kept)
            .field("thread", thread)
            .finish()
    }
}

/// Nothing of it outlives its owner.
impl<T> Drop for Spare<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{Sender, channel};

    /// Counts from 1.
    fn counting() -> Spare<u32> {
        let built = AtomicU32::new(0);
        Spare::new(move || Some(built.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// Says so when it goes.
    struct Old(Sender<&'static str>);

    impl Drop for Old {
        fn drop(&mut self) {
            self.0.send("old ended").expect("the test listens");
        }
    }

    #[test]
    fn one_is_built_for_each_reset_once_it_is_kept() {
        let mut spare = counting();
        spare.replace(());
        assert_eq!(spare.take(), None, "not kept yet");
        spare.keep();
        spare.keep();
        assert_eq!(spare.take(), Some(1));
        assert_eq!(spare.take(), None, "taken");
        spare.keep();
        assert_eq!(spare.take(), None, "the next one is begun by a reset");
        for number in 2..5 {
            spare.replace(());
            assert_eq!(spare.take(), Some(number));
        }
    }

    #[test]
    fn the_old_one_has_ended_before_the_next_is_built() {
        let (seen, order) = channel();
        let built = seen.clone();
        let mut spare = Spare::new(move || built.send("built").ok());
        spare.keep();
        assert_eq!(spare.take(), Some(()));
        spare.replace(Old(seen));
        assert_eq!(spare.take(), Some(()));
        let order: Vec<_> = order.try_iter().collect();
        assert_eq!(order, ["built", "old ended", "built"]);
    }

    #[test]
    fn one_that_cannot_be_built_is_tried_again_after_the_next_reset() {
        let attempts = AtomicU32::new(0);
        let mut spare =
            Spare::new(move || (attempts.fetch_add(1, Ordering::Relaxed) == 1).then_some('x'));
        spare.keep();
        assert_eq!(spare.take(), None);
        spare.replace(());
        assert_eq!(spare.take(), Some('x'));
    }

    #[test]
    fn what_ends_has_ended_with_its_owner() {
        let (seen, order) = channel();
        let mut spare = counting();
        spare.replace(Old(seen));
        drop(spare);
        assert_eq!(order.try_recv(), Ok("old ended"));
    }

    #[test]
    fn a_discarded_one_ends_and_has_no_successor() {
        let (seen, order) = channel();
        let mut spare = Spare::new(move || Some(Old(seen.clone())));
        spare.keep();
        spare.discard();
        spare.discard();
        assert!(spare.take().is_none());
        assert_eq!(order.try_recv(), Ok("old ended"));
        spare.replace(());
        assert!(spare.take().is_none(), "none is kept any more");
    }
}
