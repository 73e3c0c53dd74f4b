// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The supervisor's pure core: told what has happened and when, it says what is to be done.
//!
//! It has no clock, no thread and no file, so `kennel run` and `kennel simulate` are the same code
//! in real and in virtual time. Whoever drives it calls [`Controller::happened`] for each
//! [`Happening`], carries out the [`Act`]s in their order, and calls it again with
//! [`Happening::TimePassed`] at [`Controller::next_due`]; first of all at the very beginning.
//!
//! What it remembers does not grow with time: an instance that is over leaves one line of the table
//! until the next one takes its place.

mod back_off;
mod conditions;
mod happening;
mod instance;
mod ladder;
mod names;
mod plan;
mod policy;
mod probes;
mod process_watch;
mod slot;
mod speech;
mod table;

#[cfg(test)]
mod tests;

use std::time::Duration;

use kennel_vmm::protocol::News;

use crate::moment::Moment;
use crate::spec::{Document, Kind};
use crate::supervisor::events::Said;
use crate::supervisor::verdict::{Cause, Verdict};

pub use conditions::{Condition, NotReady, PausedBy, PrintableStatus};
pub use happening::{Act, Endpoint, Happening, InstanceId, Restart};
pub use plan::Options;
pub use process_watch::{Answers, Questions};
pub use table::{Row, Table};

use instance::{Instance, Over};
use plan::Plan;
use policy::Then;
use slot::{Holder, Remains, Slot};
use speech::Allowance;

/// The instances that a document wants, and what is done to have them.
#[derive(Debug)]
pub struct Controller {
    plan: Plan,
    slots: Vec<Slot>,
    /// How many instances there have been.
    created: u64,
    /// One of them has run.
    has_run: bool,
    /// Somebody wants all of it to end.
    stopping: Option<Cause>,
    finished: bool,
    shown: Option<Table>,
    /// A guest that is Ready and NotReady by turns fills no screen.
    showing: Allowance<()>,
}

impl Controller {
    /// For what `document` wants.
    #[must_use]
    pub fn new(document: &Document, options: Options) -> Self {
        Self::with(Plan::of(document, options))
    }

    fn with(plan: Plan) -> Self {
        let slots = (0..plan.replicas()).map(|_| Slot::new()).collect();
        Self {
            plan,
            slots,
            created: 0,
            has_run: false,
            stopping: None,
            finished: false,
            shown: None,
            showing: Allowance::default(),
        }
    }

    /// For one instance of this name, without probes.
    #[must_use]
    pub fn single(name: &str) -> Self {
        Self::with(Plan::single(name))
    }

    /// When [`Happening::TimePassed`] has something to do; an instant that has passed means now.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        if self.finished {
            return None;
        }
        let stopping = self.stopping.is_some();
        let slots = self.slots.iter();
        let slots = slots.filter(|slot| !stopping || slot.instance().is_some());
        slots
            .filter_map(Slot::next_due)
            .chain(self.showing.next_due())
            .min()
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Table {
        Table {
            rows: self.slots.iter().filter_map(Slot::row).collect(),
            with_status: matches!(self.plan.kind, Kind::VirtualMachine { .. }),
        }
    }

    /// The instances whose guests can be connected to, in the order of their places.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let instances = self.slots.iter().filter_map(Slot::instance);
        instances.filter_map(Instance::endpoint).collect()
    }

    /// The conditions of an instance that is not over.
    #[must_use]
    pub fn conditions(&self, id: InstanceId) -> Vec<Condition> {
        let found = self
            .slots
            .iter()
            .filter_map(Slot::instance)
            .find(|it| it.id == id);
        found.map_or_else(Vec::new, |instance| instance.state().conditions())
    }

    /// Something has happened at `now`. Instants never go back.
    #[must_use]
    pub fn happened(&mut self, now: Moment, happening: Happening) -> Vec<Act> {
        let mut acts = vec![];
        if self.finished {
            return acts;
        }
        match happening {
            Happening::TimePassed => {}
            Happening::Created { instance, pid } => {
                if let Some(it) = self.find(instance) {
                    it.created(now, pid, &mut acts);
                }
            }
            Happening::News { instance, news } => {
                self.has_run |= news == News::Started;
                if let Some(it) = self.find(instance) {
                    it.news(now, &news, &mut acts);
                }
            }
            Happening::CreateFailed { instance, message } => {
                self.over(now, instance, message, &mut acts);
            }
            Happening::Gone { instance, how } => self.over(now, instance, how, &mut acts),
            Happening::Probed {
                instance,
                probe,
                number,
                outcome,
            } => {
                if let Some(it) = self.find(instance) {
                    it.probed(now, probe, number, outcome, &mut acts);
                }
            }
            Happening::ShutdownAnswered { instance, answer } => {
                if let Some(it) = self.find(instance) {
                    it.shutdown_answered(&answer, &mut acts);
                }
            }
            Happening::Looked { instance, answers } => {
                if let Some(it) = self.find(instance) {
                    it.looked(now, answers, &mut acts);
                }
            }
            Happening::Stop(cause) => self.stop(now, cause, &mut acts),
            Happening::Resume => {
                for it in self.slots.iter_mut().filter_map(Slot::instance_mut) {
                    it.resume(&mut acts);
                }
            }
        }
        self.do_due(now, &mut acts);
        self.show(now, &mut acts);
        acts
    }

    fn find(&mut self, id: InstanceId) -> Option<&mut Instance> {
        let mut instances = self.slots.iter_mut().filter_map(Slot::instance_mut);
        instances.find(|instance| instance.id == id)
    }

    fn do_due(&mut self, now: Moment, acts: &mut Vec<Act>) {
        if self.slots.is_empty() {
            // A set of no replicas has what it wants.
            return self.finish(Verdict::Stopped(Cause::Done), acts);
        }
        for slot in &mut self.slots {
            if let Some(instance) = slot.instance_mut() {
                instance.due(now, acts);
            } else if self.stopping.is_none() && !self.finished && slot.wants_instance(now) {
                let id = InstanceId(self.created);
                let name = self.plan.instance_name(self.created);
                self.created = self.created.saturating_add(1);
                acts.push(Act::Create {
                    instance: id,
                    name: name.clone(),
                });
                slot.place(Instance::new(&self.plan, id, name, now));
            }
        }
    }

    fn stop(&mut self, now: Moment, cause: Cause, acts: &mut Vec<Act>) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(cause);
        for instance in self.slots.iter_mut().filter_map(Slot::instance_mut) {
            instance.stop(now, cause, acts);
        }
        self.finish_if_stopped(None, acts);
    }

    /// An instance is over.
    fn over(&mut self, now: Moment, id: InstanceId, how: String, acts: &mut Vec<Act>) {
        let mut slots = self.slots.iter_mut();
        let Some(slot) = slots.find(|slot| slot.instance().is_some_and(|it| it.id == id)) else {
            return;
        };
        let Some(instance) = slot.instance_mut() else {
            return;
        };
        if instance.begins_anew(acts) {
            return;
        }
        let over = instance.over(now, how, acts);
        let last = Remains::of(instance, &over);
        let then = policy::after(self.plan.kind, over.verdict.phase());
        if self.stopping.is_some() {
            slot.holder = Holder::Left(last);
            return self.finish_if_stopped(Some(over.verdict), acts);
        }
        if then == Then::Leave {
            slot.holder = Holder::Left(last);
            return self.finish(over.verdict, acts);
        }
        let wait = wait(slot, &over, self.has_run);
        if !wait.is_zero() {
            acts.push(Act::Event {
                instance: id,
                said: Said::back_off(wait, slot.restarts.saturating_add(1)),
            });
        }
        slot.holder = Holder::Waiting {
            last,
            due: now.after(wait),
        };
        // What could not be started the first time, and nothing else ever has run or may still run,
        // will not heal: a kernel that is not there, a machine that KVM will not have.
        let may_run = |slot: &Slot| matches!(slot.holder, Holder::Nobody | Holder::Instance(_));
        if !self.has_run && !self.slots.iter().any(may_run) {
            self.finish(over.verdict, acts);
        }
    }

    /// The run is over once every instance is. One that ended by itself before it could be told to
    /// is the verdict of a run that has no other.
    fn finish_if_stopped(&mut self, last: Option<Verdict>, acts: &mut Vec<Act>) {
        let Some(cause) = self.stopping else { return };
        if self.slots.iter().all(|slot| slot.instance().is_none()) {
            let alone = self.plan.kind == Kind::VirtualMachineInstance;
            let by_itself = |verdict: &Verdict| !matches!(verdict, Verdict::Stopped(_));
            let verdict = last.filter(|verdict| alone && by_itself(verdict));
            self.finish(verdict.unwrap_or(Verdict::Stopped(cause)), acts);
        }
    }

    fn finish(&mut self, verdict: Verdict, acts: &mut Vec<Act>) {
        self.finished = true;
        let table = self.table();
        if self.shown.as_ref() != Some(&table) {
            acts.push(Act::ShowTable);
        }
        acts.push(Act::Finish(verdict));
    }

    /// Shows the table if it has changed, unless it did so too often: then when its time comes.
    fn show(&mut self, now: Moment, acts: &mut Vec<Act>) {
        if self.finished {
            return;
        }
        let table = self.table();
        let changed = self.shown.as_ref() != Some(&table) && !table.rows.is_empty();
        let may = if changed {
            self.showing.offer(now, ())
        } else {
            self.showing.due(now)
        };
        if may.is_some() && changed {
            self.shown = Some(table);
            acts.push(Act::ShowTable);
        }
    }
}

/// How long the replacement waits. Before anything has run, nothing is tried again at once.
fn wait(slot: &mut Slot, over: &Over, has_run: bool) -> Duration {
    let wait = slot.back_off.wait(over.ran.unwrap_or_default());
    if has_run {
        wait
    } else {
        wait.max(back_off::FIRST)
    }
}
