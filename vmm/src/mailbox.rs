// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What vCPU threads and devices ask of the machine: a bounded queue that wakes the event loop.
//!
//! Every request carries the epoch of the boot that made it. Linux asks for a reset in several
//! ways at once (ACPI register, then i8042 ten times); what an earlier boot still had to say when
//! the next one began is dropped.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use i6300esb::Event;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// More than every device can have to say between two turns of the event loop.
pub(crate) const CAPACITY: usize = 256;

/// How a reset came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResetCause {
    /// The reset control register, port 0xCF9 (also ACPI's reset register).
    ResetControl,
    /// The keyboard controller's command 0xFE.
    KeyboardController,
    /// A vCPU shut down on a triple fault.
    TripleFault,
    /// The watchdog bit.
    Watchdog,
    /// The host asked.
    Host,
}

/// What a vCPU or a device asks for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// Platform reset.
    Reset(ResetCause),
    /// ACPI S5: the guest has shut down.
    PowerOff,
    /// KVM cannot go on with a vCPU.
    VcpuFailed(String),
    /// The watchdog has something to say.
    Watchdog(Event),
    /// The load of a reset has ended.
    Loaded,
    /// The watchdog may have been armed, disarmed or given another timeout: look at it.
    WatchdogChanged,
}

impl Request {
    /// After it, the boot that made it is over.
    const fn ends_the_boot(&self) -> bool {
        matches!(self, Self::Reset(_) | Self::PowerOff | Self::VcpuFailed(_))
    }

    /// News that a guest can make at any rate. The rest is bounded by itself: a vCPU runs no
    /// further after its last word, and the device reports its stages at most once a second
    /// and a stall only after one.
    const fn may_be_lost(&self) -> bool {
        !self.ends_the_boot()
            && !matches!(
                self,
                Self::Loaded
                    | Self::Watchdog(
                        Event::Bite(_) | Event::FirstStage(_) | Event::StallForgiven(_)
                    )
            )
    }
}

#[derive(Debug, Default)]
struct Queue {
    epoch: u64,
    waiting: VecDeque<(u64, Request)>,
    /// [`Request::WatchdogChanged`] comes after all that waits: once, however often it is asked for.
    watchdog_changed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    boot_over: AtomicBool,
    armed: AtomicBool,
    wake: EventFd,
}

impl Mailbox {
    /// An empty queue.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no eventfd.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            boot_over: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Asks; never blocks.
    pub fn post(&self, request: Request) {
        if request.ends_the_boot() {
            self.boot_over.store(true, Ordering::Release);
        }
        // Kept here, where no lost request and no event loop that hangs can make it wrong.
        match request {
            Request::Watchdog(Event::Armed) => self.armed.store(true, Ordering::Release),
            Request::Watchdog(Event::Disarmed) => self.armed.store(false, Ordering::Release),
            _ => {}
        }
        {
            let mut queue = self.queue.lock();
            if queue.waiting.len() >= CAPACITY && request.may_be_lost() {
                // It is looked at instead.
                queue.watchdog_changed = true;
                return;
            }
            let epoch = queue.epoch;
            queue.waiting.push_back((epoch, request));
        }
        self.wake_again();
    }

    /// Asks for a look at the watchdog; never blocks.
    pub(crate) fn watchdog_changed(&self) {
        let asked_before = std::mem::replace(&mut self.queue.lock().watchdog_changed, true);
        if !asked_before {
            self.wake_again();
        }
    }

    /// True once this boot has asked for its own end: its vCPUs should run no further.
    #[must_use]
    pub fn boot_is_over(&self) -> bool {
        self.boot_over.load(Ordering::Acquire)
    }

    /// True while the guest has its watchdog armed. Takes no lock.
    #[must_use]
    pub fn watchdog_is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    /// Wakes the event loop for what was left in the queue.
    pub(crate) fn wake_again(&self) {
        // Only a full counter fails, and then the loop is awake already.
        let _woken = self.wake.write(1);
    }

    /// Takes the oldest request of the present boot.
    pub fn take(&self) -> Option<Request> {
        // Drained before the queue is looked at, so a post in between wakes the loop again.
        let _drained = self.wake.read();
        let mut queue = self.queue.lock();
        while let Some((epoch, request)) = queue.waiting.pop_front() {
            if epoch == queue.epoch {
                return Some(request);
            }
        }
        std::mem::take(&mut queue.watchdog_changed).then_some(Request::WatchdogChanged)
    }

    /// A new boot begins; no thread of the old one may be running.
    pub fn next_boot(&self) {
        let mut queue = self.queue.lock();
        queue.epoch = queue.epoch.saturating_add(1);
        queue.watchdog_changed = false;
        self.boot_over.store(false, Ordering::Release);
    }
}

impl AsRawFd for Mailbox {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_second_reset_is_dropped() {
        let mailbox = Mailbox::new().expect("eventfd");
        mailbox.post(Request::Reset(ResetCause::ResetControl));
        mailbox.post(Request::Reset(ResetCause::KeyboardController));
        assert!(mailbox.boot_is_over());
        assert_eq!(
            mailbox.take(),
            Some(Request::Reset(ResetCause::ResetControl))
        );
        mailbox.next_boot();
        assert!(!mailbox.boot_is_over());
        assert_eq!(mailbox.take(), None);
        mailbox.post(Request::PowerOff);
        assert_eq!(mailbox.take(), Some(Request::PowerOff));
    }

    #[test]
    fn queue_is_bounded() {
        let mailbox = Mailbox::new().expect("eventfd");
        for _ in 0..CAPACITY * 3 {
            mailbox.post(Request::Watchdog(Event::Armed));
        }
        mailbox.post(Request::PowerOff);
        mailbox.watchdog_changed();
        let taken: Vec<_> = std::iter::from_fn(|| mailbox.take()).collect();
        assert_eq!(taken.len(), CAPACITY + 2);
        assert_eq!(
            taken[CAPACITY..],
            [Request::PowerOff, Request::WatchdogChanged],
            "what was dropped is looked at"
        );
    }
}
