// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A place for one instance at a time: who is in it, and when the next one comes.

use super::back_off::BackOff;
use super::conditions::PrintableStatus;
use super::instance::{Instance, Over};
use super::table::Row;
use crate::moment::Moment;
use crate::supervisor::phase::Phase;

/// A replica's place, or the only one.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) holder: Holder,
    pub(super) back_off: BackOff,
    /// Instances that have been replaced.
    pub(super) restarts: u64,
}

/// Who is in the place.
#[derive(Debug)]
pub(super) enum Holder {
    /// Nobody yet.
    Nobody,
    /// An instance that is not over.
    Instance(Box<Instance>),
    /// One that is over and will be replaced.
    Waiting { last: Remains, due: Moment },
    /// One that is over and stays.
    Left(Remains),
}

/// What is remembered of an instance that is over.
#[derive(Clone, Debug)]
pub(super) struct Remains {
    name: String,
    created_at: Moment,
    phase: Phase,
}

impl Remains {
    pub(super) fn of(instance: &Instance, over: &Over) -> Self {
        Self {
            name: instance.name.clone(),
            created_at: instance.created_at,
            phase: over.verdict.phase(),
        }
    }

    fn row(&self, restarts: u64, status: PrintableStatus) -> Row {
        Row {
            name: self.name.clone(),
            created_at: self.created_at,
            phase: self.phase,
            ip: None,
            ready: false,
            restarts,
            status,
        }
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            holder: Holder::Nobody,
            back_off: BackOff::default(),
            restarts: 0,
        }
    }

    pub(super) fn instance(&self) -> Option<&Instance> {
        match &self.holder {
            Holder::Instance(instance) => Some(instance),
            _ => None,
        }
    }

    pub(super) fn instance_mut(&mut self) -> Option<&mut Instance> {
        match &mut self.holder {
            Holder::Instance(instance) => Some(instance),
            _ => None,
        }
    }

    /// When something is to be done here.
    pub(super) fn next_due(&self) -> Option<Moment> {
        match &self.holder {
            Holder::Nobody => Some(Moment::ZERO),
            Holder::Instance(instance) => instance.next_due(),
            Holder::Waiting { due, .. } => Some(*due),
            Holder::Left(_) => None,
        }
    }

    /// Whether a new instance is due.
    pub(super) fn wants_instance(&self, now: Moment) -> bool {
        match &self.holder {
            Holder::Nobody => true,
            Holder::Waiting { due, .. } => *due <= now,
            Holder::Instance(_) | Holder::Left(_) => false,
        }
    }

    /// Puts a new instance here.
    pub(super) fn place(&mut self, instance: Instance) {
        if matches!(self.holder, Holder::Waiting { .. }) {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.holder = Holder::Instance(Box::new(instance));
    }

    /// Its line in the table, once there is something to tell.
    pub(super) fn row(&self) -> Option<Row> {
        Some(match &self.holder {
            Holder::Nobody => return None,
            Holder::Instance(instance) => {
                let state = instance.state();
                Row {
                    name: instance.name.clone(),
                    created_at: instance.created_at,
                    phase: state.phase,
                    ip: instance.ip,
                    ready: state.ready().is_ok(),
                    restarts: self.restarts,
                    status: state.printable(),
                }
            }
            Holder::Waiting { last, .. } => {
                last.row(self.restarts, PrintableStatus::CrashLoopBackOff)
            }
            Holder::Left(last) => last.row(self.restarts, PrintableStatus::Stopped),
        })
    }
}
