// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine's loop tells the link's thread, which it never waits for while the machine runs.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What has happened since the thread last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// The machine was reset.
    pub(super) reset: bool,
    /// The vCPUs stand still, or go on.
    pub(super) paused: Option<bool>,
    /// The machine has ended.
    pub(super) stop: bool,
}

/// Where they lie until then.
#[derive(Debug)]
pub(super) struct OrderBox {
    orders: Mutex<Orders>,
    /// A reset was told, and the thread has not looked since.
    reset_waits: AtomicBool,
    resets_seen: AtomicU16,
    /// Readable when there are some.
    pub(super) event: EventFd,
}

impl OrderBox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            orders: Mutex::new(Orders::default()),
            reset_waits: AtomicBool::new(false),
            resets_seen: AtomicU16::new(0),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Adds to them.
    pub(super) fn add(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = self.orders.lock();
        change(&mut orders);
        self.reset_waits.store(orders.reset, Ordering::Release);
        drop(orders);
        // Only a full counter fails, and then the thread is awake already.
        let _woken = self.event.write(1);
    }

    /// The event was seen.
    pub(super) fn seen(&self) {
        let _count = self.event.read();
    }

    /// Takes them, in which a reset is older than anything else. No system call: it is done at each
    /// turn.
    pub(super) fn take(&self) -> Orders {
        let orders = std::mem::take(&mut *self.orders.lock());
        if orders.reset {
            self.resets_seen.fetch_add(1, Ordering::Release);
            self.reset_waits.store(false, Ordering::Release);
        }
        orders
    }

    /// How often the thread has looked at a reset, if one was told since.
    pub(super) fn resets_seen(&self) -> Option<u16> {
        let waits = self.reset_waits.load(Ordering::Acquire);
        waits.then(|| self.resets_seen.load(Ordering::Acquire))
    }
}
