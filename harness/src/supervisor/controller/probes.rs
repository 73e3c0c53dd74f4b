// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An instance's two probes: both workers, and what keeps them from asking.

use std::time::Duration;

use super::plan::Plan;
use crate::moment::Moment;
use crate::probe::worker::{self, Attempt, Worker};
use crate::probe::{Outcome, ProbeKind};
use crate::supervisor::events::{Said, Streak};

/// The longest that frozen file systems keep probes from asking: a thaw that never comes must not
/// hide a hung guest.
pub(super) const LONGEST_FREEZE: Duration = Duration::from_secs(60);

/// Both probes, as far as the document has them.
#[derive(Debug)]
pub(super) struct Probes {
    liveness: Option<Worker>,
    readiness: Option<Worker>,
    paused: bool,
    /// Since when the guest's file systems are frozen, if that still counts.
    frozen: Option<Moment>,
}

/// What an attempt led to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Event(Said),
    LivenessFailed,
}

impl Probes {
    pub(super) fn new(plan: &Plan) -> Self {
        let worker = |kind, probe: &Option<_>| probe.as_ref().map(|it| Worker::new(kind, it));
        Self {
            liveness: worker(ProbeKind::Liveness, &plan.liveness),
            readiness: worker(ProbeKind::Readiness, &plan.readiness),
            paused: false,
            frozen: None,
        }
    }

    fn workers(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.liveness.iter_mut().chain(&mut self.readiness)
    }

    pub(super) fn has_readiness(&self) -> bool {
        self.readiness.is_some()
    }

    /// Whether readiness says Ready; there is nobody to say otherwise without the probe.
    pub(super) fn ready(&self) -> bool {
        self.readiness.as_ref().is_none_or(Worker::is_ready)
    }

    /// The vCPUs run.
    pub(super) fn started(&mut self, now: Moment) {
        self.workers().for_each(|worker| worker.started(now));
    }

    /// The guest boots anew: what was frozen is not any more.
    pub(super) fn guest_reset(&mut self, now: Moment) {
        self.frozen(now, false);
        for worker in self.workers() {
            // Whoever owns the probes looks at the result, not at its turns.
            let _turns = worker.guest_reset(now);
        }
    }

    pub(super) fn paused(&mut self, now: Moment, paused: bool) {
        self.paused = paused;
        self.suspend_or_resume(now);
    }

    pub(super) fn frozen(&mut self, now: Moment, frozen: bool) {
        self.frozen = frozen.then(|| self.frozen.unwrap_or(now));
        self.suspend_or_resume(now);
    }

    fn suspend_or_resume(&mut self, now: Moment) {
        let suspended = self.paused || self.frozen.is_some();
        for worker in self.workers() {
            if suspended {
                worker.suspend(now);
            } else {
                worker.resume(now);
            }
        }
    }

    /// The instance is being stopped.
    pub(super) fn stopping(&mut self) {
        for worker in self.workers() {
            let _turns = worker.stopping();
        }
    }

    /// The guest does not run any more.
    pub(super) fn over(&mut self) {
        for worker in self.workers() {
            let _turns = worker.ended();
        }
    }

    pub(super) fn next_due(&self) -> Option<Moment> {
        let workers = self.liveness.iter().chain(&self.readiness);
        let thaw = self.frozen.map(|since| since.after(LONGEST_FREEZE));
        workers.filter_map(Worker::next_due).chain(thaw).min()
    }

    /// The attempts to begin now.
    pub(super) fn due(&mut self, now: Moment) -> Vec<(ProbeKind, Attempt)> {
        if self
            .frozen
            .is_some_and(|since| now >= since.after(LONGEST_FREEZE))
        {
            self.frozen(now, false);
        }
        let attempt = |worker: &mut Worker| Some((worker.kind(), worker.due(now)?));
        self.workers().filter_map(attempt).collect()
    }

    /// An attempt is over; with what it led to, and the next try of it.
    pub(super) fn finished(
        &mut self,
        now: Moment,
        probe: ProbeKind,
        number: u64,
        outcome: Outcome,
    ) -> (Vec<Told>, Option<Attempt>) {
        let worker = match probe {
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        };
        let Some(worker) = worker else {
            return (vec![], None);
        };
        let finished = worker.finished(now, number, outcome);
        let told = finished.said.into_iter();
        (
            told.filter_map(|said| told_of(probe, said)).collect(),
            finished.again,
        )
    }
}

fn told_of(probe: ProbeKind, said: worker::Said) -> Option<Told> {
    Some(match said {
        worker::Said::Unhealthy {
            message,
            failures: run,
            threshold,
        } => {
            let streak = Some(Streak { run, threshold });
            Told::Event(Said::unhealthy(probe, message, streak))
        }
        worker::Said::Errored { message } => Told::Event(Said::unhealthy(probe, message, None)),
        worker::Said::ProbeWarning { message } => Told::Event(Said::probe_warning(probe, message)),
        worker::Said::LivenessFailed { .. } => Told::LivenessFailed,
        // The condition Ready has it, of which this is one part.
        worker::Said::BecameReady | worker::Said::BecameUnready => return None,
    })
}
