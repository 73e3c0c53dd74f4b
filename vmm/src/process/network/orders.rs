// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the machine's loop tells the link's thread, which it never waits for while the machine runs.

use std::io;

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
    /// Readable when there are some.
    pub(super) event: EventFd,
}

impl OrderBox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            orders: Mutex::new(Orders::default()),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Adds to them.
    pub(super) fn add(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock());
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
        std::mem::take(&mut *self.orders.lock())
    }
}
