// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An instance's two probes: both workers, and what keeps them from asking.

use std::time::Duration;

use super::conditions::PausedBy;
use super::plan::Plan;
use crate::moment::Moment;
use crate::probe::suppression::{self, LONGEST_FREEZE, Machine, PauseReason, Suppression};
use crate::probe::worker::{self, Attempt, Worker};
use crate::probe::{Outcome, ProbeKind};
use crate::spec::Handler;
use crate::supervisor::events::{Said, Streak};

/// Both probes, as far as the document has them.
#[derive(Debug)]
pub(super) struct Probes {
    probes: Vec<Probe>,
    paused: Option<PausedBy>,
    /// How often the VM process has been asked about a failure.
    syncs: u64,
    /// Since when the guest's file systems are frozen.
    frozen: Option<Moment>,
    /// `kubevirt.io/pause-guest-agent-probes`.
    agent_probes_paused: bool,
}

#[derive(Debug)]
struct Probe {
    worker: Worker,
    handler: Handler,
    held: Option<Held>,
}

/// A failure that waits until the VM process has told what happened before it.
///
/// An attempt fails when a reset or the machine's end cuts its connection, and the supervisor hears
/// of the two on different ways, in either order. So no failure counts before the VM process, asked
/// after the failure, has answered: by then a reset or an end before it has been told and has made
/// the attempt void. A machine that has ended does not answer.
#[derive(Debug)]
struct Held {
    number: u64,
    outcome: Outcome,
    token: u64,
    since: Moment,
    /// When the VM process was asked last.
    asked: Moment,
}

/// How long an answer is waited for before the VM process is asked again: it may have taken no command.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// An answer that takes longer comes from a VM process that did not run: neither did its guest.
const LONGEST_SYNC: Duration = Duration::from_secs(1);

/// A question for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) probe: ProbeKind,
    pub(super) attempt: Attempt,
    /// The guest has been frozen for so long that it is no excuse any more.
    pub(super) freeze_counts: bool,
}

/// What an attempt led to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Event(Said),
    LivenessFailed,
}

impl Probes {
    pub(super) fn new(plan: &Plan) -> Self {
        let both = [
            (ProbeKind::Liveness, &plan.liveness),
            (ProbeKind::Readiness, &plan.readiness),
        ];
        let probe = |(kind, probe): (_, &Option<crate::spec::Probe>)| {
            let probe = probe.as_ref()?;
            Some(Probe {
                worker: Worker::new(kind, probe),
                handler: probe.handler.clone(),
                held: None,
            })
        };
        Self {
            probes: both.into_iter().filter_map(probe).collect(),
            paused: None,
            syncs: 0,
            frozen: None,
            agent_probes_paused: plan.agent_probes_paused,
        }
    }

    fn workers(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.probes.iter_mut().map(|probe| &mut probe.worker)
    }

    fn readiness(&self) -> Option<&Worker> {
        let mut workers = self.probes.iter().map(|probe| &probe.worker);
        workers.find(|worker| worker.kind() == ProbeKind::Readiness)
    }

    pub(super) fn has_readiness(&self) -> bool {
        self.readiness().is_some()
    }

    /// Whether readiness says Ready; there is nobody to say otherwise without the probe.
    pub(super) fn ready(&self) -> bool {
        self.readiness().is_none_or(Worker::is_ready)
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
        self.drop_held(now);
    }

    /// Ends held attempts, which have become void.
    fn drop_held(&mut self, now: Moment) {
        for probe in &mut self.probes {
            if let Some(held) = probe.held.take() {
                let _void = probe.worker.finished(now, held.number, held.outcome);
            }
        }
    }

    pub(super) fn paused(&mut self, now: Moment, paused: Option<PausedBy>) {
        self.paused = paused;
        self.suspend_or_resume(now);
    }

    pub(super) fn frozen(&mut self, now: Moment, frozen: bool) {
        self.frozen = frozen.then(|| self.frozen.unwrap_or(now));
        self.suspend_or_resume(now);
    }

    fn machine(&self, now: Moment) -> Machine {
        Machine {
            paused: self.paused.map(|by| match by {
                PausedBy::User => PauseReason::User,
                PausedBy::Watchdog => PauseReason::Watchdog,
            }),
            frozen_for: self.frozen.map(|since| now.since(since)),
            agent_probes_paused: self.agent_probes_paused,
        }
    }

    fn suspend_or_resume(&mut self, now: Moment) {
        let machine = self.machine(now);
        for Probe {
            worker, handler, ..
        } in &mut self.probes
        {
            if suppression::of(handler, &machine) == Suppression::Suspended {
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
    pub(super) fn over(&mut self, now: Moment) {
        for worker in self.workers() {
            let _turns = worker.ended();
        }
        self.drop_held(now);
    }

    pub(super) fn next_due(&self) -> Option<Moment> {
        let workers = self.probes.iter().map(|probe| &probe.worker);
        // Once it is no excuse any more, nobody is suspended for it.
        let suspended = workers.clone().any(Worker::is_suspended);
        let excused = self.frozen.filter(|_| suspended && self.paused.is_none());
        let thaw = excused.map(|since| since.after(LONGEST_FREEZE));
        let held = self.probes.iter().filter_map(|it| it.held.as_ref());
        let silent = held.map(|held| held.asked.after(ASK_AGAIN));
        let due = workers.filter_map(Worker::next_due).chain(thaw);
        due.chain(silent).min()
    }

    /// The attempts to begin now. One that succeeds without being made is over already: a success
    /// is no event, and what it does to readiness shows there.
    pub(super) fn due(&mut self, now: Moment) -> Vec<Question> {
        if self.frozen.is_some() {
            self.suspend_or_resume(now);
        }
        let machine = self.machine(now);
        let mut questions = vec![];
        for Probe {
            worker, handler, ..
        } in &mut self.probes
        {
            let Some(attempt) = worker.due(now) else {
                continue;
            };
            let probe = worker.kind();
            if suppression::of(handler, &machine) == Suppression::Succeeds {
                let _success = worker.finished(now, attempt.number, Outcome::Success);
            } else {
                questions.push(Question {
                    probe,
                    attempt,
                    freeze_counts: machine.frozen_for.is_some(),
                });
            }
        }
        questions
    }

    /// An attempt under way has failed: holds its outcome, and returns the token with which the VM
    /// process is to be asked; [`Self::synced`] goes on.
    pub(super) fn hold(
        &mut self,
        now: Moment,
        probe: ProbeKind,
        number: u64,
        outcome: Outcome,
    ) -> Option<u64> {
        let it = self
            .probes
            .iter_mut()
            .find(|it| it.worker.kind() == probe)?;
        let attempt = it.worker.in_flight()?;
        if attempt.number != number {
            return None;
        }
        // Attempts end at their deadline, unless all of Kennel was stopped.
        let outcome = if now.since(attempt.deadline) > LONGEST_SYNC {
            Outcome::Error("this host did not run Kennel meanwhile".to_owned())
        } else {
            outcome
        };
        self.syncs = self.syncs.saturating_add(1);
        it.held = Some(Held {
            number,
            outcome,
            token: self.syncs,
            since: now,
            asked: now,
        });
        Some(self.syncs)
    }

    /// The tokens with which the VM process is to be asked again.
    pub(super) fn ask_again(&mut self, now: Moment) -> Vec<u64> {
        let held = self.probes.iter_mut().filter_map(|it| it.held.as_mut());
        let silent = held.filter(|held| held.asked.after(ASK_AGAIN) <= now);
        silent
            .map(|held| {
                held.asked = now;
                held.token
            })
            .collect()
    }

    /// The VM process has answered: the failure that waited for this, and whose it is.
    pub(super) fn synced(&mut self, now: Moment, token: u64) -> Option<(ProbeKind, u64, Outcome)> {
        let mut probes = self.probes.iter_mut();
        let probe = probes.find(|it| it.held.as_ref().is_some_and(|held| held.token == token))?;
        let held = probe.held.take()?;
        let outcome = if now.since(held.since) > LONGEST_SYNC {
            let why = "this host did not run the machine's process meanwhile";
            Outcome::Error(why.to_owned())
        } else {
            held.outcome
        };
        Some((probe.worker.kind(), held.number, outcome))
    }

    /// An attempt is over; with what it led to, and the next try of it.
    pub(super) fn finished(
        &mut self,
        now: Moment,
        probe: ProbeKind,
        number: u64,
        outcome: Outcome,
    ) -> (Vec<Told>, Option<Question>) {
        let freeze_counts = self.frozen.is_some();
        let Some(worker) = self.workers().find(|worker| worker.kind() == probe) else {
            return (vec![], None);
        };
        let finished = worker.finished(now, number, outcome);
        let told = finished.said.into_iter();
        let again = finished.again.map(|attempt| Question {
            probe,
            attempt,
            freeze_counts,
        });
        (
            told.filter_map(|said| told_of(probe, said)).collect(),
            again,
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
