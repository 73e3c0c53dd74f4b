// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happened and has not been reported yet.

use crate::effects::{Bite, FirstStage};
use crate::packed::Packed;
use crate::time::VmInstant;

/// Something that happened and has not been reported yet. Seldom there, so it is kept small rather than quick.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending<T: Copy> {
    what: Packed<T>,
    /// It holds a first expiry after a ping or enable, not only repetitions.
    pub(crate) fresh: bool,
}

impl<T: Copy> Pending<T> {
    pub(crate) const fn new(what: T, fresh: bool) -> Self {
        Self {
            what: Packed::new(what),
            fresh,
        }
    }

    pub(crate) const fn what(&self) -> T {
        self.what.get()
    }
}

impl Pending<FirstStage> {
    /// So many ends of the first stage more.
    pub(crate) fn add(&mut self, count: u64, fresh: bool) {
        let mut what = self.what();
        what.count = what.count.saturating_add(count);
        self.what = Packed::new(what);
        self.fresh |= fresh;
    }
}

impl Pending<KeptBite> {
    /// So many bites more, the last of them due at `last_due`.
    pub(crate) fn add(&mut self, count: u64, last_due: VmInstant, fresh: bool) {
        let mut what = self.what();
        what.count = what.count.saturating_add(count);
        what.last_due = last_due;
        self.what = Packed::new(what);
        self.fresh |= fresh;
    }
}

/// A [`Bite`] as it is kept, with its optional value packed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub(crate) struct KeptBite {
    due: VmInstant,
    last_due: VmInstant,
    ping_to_due_ns: Option<Packed<u64>>,
    armed_to_due_ns: u64,
    timeout_ns: u64,
    count: u64,
}

impl From<Bite> for KeptBite {
    fn from(bite: Bite) -> Self {
        let Bite {
            due,
            last_due,
            ping_to_due_ns,
            armed_to_due_ns,
            timeout_ns,
            count,
        } = bite;
        Self {
            due,
            last_due,
            ping_to_due_ns: ping_to_due_ns.map(Packed::new),
            armed_to_due_ns,
            timeout_ns,
            count,
        }
    }
}

impl From<KeptBite> for Bite {
    fn from(kept: KeptBite) -> Self {
        let KeptBite {
            due,
            last_due,
            ping_to_due_ns,
            armed_to_due_ns,
            timeout_ns,
            count,
        } = kept;
        Self {
            due,
            last_due,
            ping_to_due_ns: ping_to_due_ns.map(Packed::get),
            armed_to_due_ns,
            timeout_ns,
            count,
        }
    }
}
