// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How far a machine's event loop has come, for a thread that must not wait for that loop: atomics
//! alone, no lock.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::config::WatchdogAction;
use crate::mailbox::{Mailbox, ResetCause};
use crate::pulse::{Phase, Pulse, Sender};

/// What is known once the machine is built.
#[derive(Debug)]
struct Machine {
    /// Knows whether the watchdog is armed.
    mailbox: Arc<Mailbox>,
    /// What a bite does.
    action: Option<WatchdogAction>,
    /// Pieces that loads have read.
    load_steps: Arc<AtomicU64>,
}

/// What the event loop does at this moment, and a count that grows with each step of it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    count: AtomicU64,
    /// The watchdog has bitten, and its action is not carried out yet.
    bitten: AtomicBool,
    /// Index of the cause of the reset under way, plus 1; 0 for none.
    reset: AtomicU8,
    machine: OnceLock<Machine>,
}

impl Progress {
    /// The machine is built: its mailbox knows whether the watchdog is armed, a bite does `action`, and
    /// `load_steps` counts what loads of its guest read.
    pub fn know_machine(
        &self,
        mailbox: Arc<Mailbox>,
        action: Option<WatchdogAction>,
        load_steps: Arc<AtomicU64>,
    ) {
        let _known = self.machine.set(Machine {
            mailbox,
            action,
            load_steps,
        });
    }

    /// The event loop, or the thread that loads a guest for it, begins with `phase`.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase.index(), Ordering::Release);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// A bite's action begins or is carried out.
    pub fn set_bitten(&self, bitten: bool) {
        self.bitten.store(bitten, Ordering::Release);
    }

    /// A reset begins, or is over.
    pub fn set_reset(&self, cause: Option<ResetCause>) {
        let index = cause.map_or(0, |cause| cause.index().saturating_add(1));
        self.reset.store(index, Ordering::Release);
    }

    fn count(&self) -> u64 {
        let machine = self.machine.get();
        let read = machine.map_or(0, |machine| machine.load_steps.load(Ordering::Acquire));
        self.count.load(Ordering::Acquire).wrapping_add(read)
    }

    /// All of it, as `sender`'s answer to the question `number`.
    #[must_use]
    pub fn pulse(&self, sender: Sender, number: u64) -> Pulse {
        let machine = self.machine.get();
        let reset = self.reset.load(Ordering::Acquire);
        Pulse {
            number,
            sender,
            // Before the phase: a count that is too old says at most that less was done.
            progress: self.count(),
            phase: Phase::at(self.phase.load(Ordering::Acquire)).unwrap_or_default(),
            armed: machine.is_some_and(|machine| machine.mailbox.watchdog_is_armed()),
            bitten: self.bitten.load(Ordering::Acquire),
            action: machine.and_then(|machine| machine.action),
            reset: reset.checked_sub(1).and_then(ResetCause::at),
            behind: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Request;
    use i6300esb::Event;

    #[test]
    fn what_the_loop_does_is_seen_from_outside() {
        let progress = Progress::default();
        let first = progress.pulse(Sender::SecondThread, 7);
        assert_eq!((first.number, first.phase), (7, Phase::Start));
        assert_eq!((first.armed, first.action), (false, None));
        let mailbox = Arc::new(Mailbox::new().expect("eventfd"));
        let (action, steps) = (Some(WatchdogAction::Pause), Arc::<AtomicU64>::default());
        progress.know_machine(Arc::clone(&mailbox), action, Arc::clone(&steps));
        let before = progress.pulse(Sender::SecondThread, 1).progress;
        steps.fetch_add(1, Ordering::Relaxed);
        assert!(
            progress.pulse(Sender::SecondThread, 1).progress > before,
            "a load reads"
        );
        progress.enter(Phase::WaitForVcpus);
        progress.set_reset(Some(ResetCause::Host));
        progress.set_bitten(true);
        mailbox.post(Request::Watchdog(Event::Armed));
        let second = progress.pulse(Sender::EventLoop, 8);
        assert!(second.progress > first.progress);
        assert_eq!(second.phase, Phase::WaitForVcpus);
        assert_eq!(second.reset, Some(ResetCause::Host));
        assert!(second.armed && second.bitten);
        assert_eq!(second.action, Some(WatchdogAction::Pause));
        progress.set_reset(None);
        mailbox.post(Request::Watchdog(Event::Disarmed));
        let third = progress.pulse(Sender::EventLoop, 9);
        assert_eq!((third.reset, third.armed), (None, false));
    }
}
