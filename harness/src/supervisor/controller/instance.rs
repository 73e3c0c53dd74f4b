// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One instance, from its creation to its end.

use std::net::IpAddr;
use std::time::Duration;

use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::{Command, Ending, News};

use super::conditions::{PausedBy, State};
use super::happening::{Act, Endpoint, InstanceId, Restart};
use super::ladder::{Ladder, Step};
use super::plan::Plan;
use super::probes::{Probes, Question, Told};
use super::process_watch::{Answers, Finding, Instead, ProcessWatch, Questions, Stuck};
use super::speech::{Speech, Topic};
use crate::moment::Moment;
use crate::probe::{Outcome, ProbeKind};
use crate::supervisor::events::{self, Said};
use crate::supervisor::phase::Phase;
use crate::supervisor::verdict::{Cause, Verdict};

/// An instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) name: String,
    pub(super) created_at: Moment,
    phase: Phase,
    /// Since when its vCPUs have run.
    ran_since: Option<Moment>,
    agent_connected: bool,
    /// The address that its guest has shown: IPv4, else IPv6.
    pub(super) ip: Option<IpAddr>,
    paused: Option<PausedBy>,
    probes: Probes,
    speech: Speech,
    /// Ready as it was last told.
    told_ready: bool,
    told_agent: bool,
    /// Why the supervisor ends it.
    cause: Option<Cause>,
    ladder: Option<Ladder>,
    /// How its machine ended.
    ending: Option<Ending>,
    /// Why its machine could not be built, or not go on.
    broken: Option<String>,
    grace: Duration,
    replaced_if_failed: bool,
    starts_paused: bool,
    /// Over its VM process, if it is one, until its machine ends.
    watch: Option<ProcessWatch>,
    /// Resets that its machine has had.
    resets: u64,
    /// Its VM process was stuck and is killed: its machine goes on in a new one, after a reset by this.
    renewal: Renewal,
}

/// Whether a machine goes on in a new VM process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    None,
    /// Once the old process is gone.
    Due(ResetCause),
    /// The new process is to boot it, with this process ID once it has one.
    Boots(ResetCause, Option<u32>),
}

/// How an instance went.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Over {
    pub(super) verdict: Verdict,
    /// How long its vCPUs have existed; none if they never ran.
    pub(super) ran: Option<Duration>,
}

impl Instance {
    pub(super) fn new(plan: &Plan, id: InstanceId, name: String, now: Moment) -> Self {
        Self {
            id,
            name,
            created_at: now,
            phase: Phase::Pending,
            ran_since: None,
            agent_connected: false,
            ip: None,
            paused: None,
            probes: Probes::new(plan),
            speech: Speech::default(),
            told_ready: false,
            told_agent: false,
            cause: None,
            ladder: None,
            ending: None,
            broken: None,
            grace: plan.grace,
            replaced_if_failed: plan.replaces_failed(),
            starts_paused: plan.starts_paused,
            watch: None,
            resets: 0,
            renewal: Renewal::None,
        }
    }

    /// What its conditions follow from.
    pub(super) fn state(&self) -> State {
        State {
            phase: self.phase,
            stopping: self.ladder.is_some(),
            paused: self.paused,
            agent_connected: self.agent_connected,
            probe_ready: self.probes.ready(),
        }
    }

    /// Whether its guest can be connected to.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let ended = self.ending.is_some() || self.broken.is_some();
        (self.phase == Phase::Running && !ended).then(|| Endpoint {
            instance: self.id,
            ready: self.state().ready().is_ok(),
            ip: self.ip,
        })
    }

    /// Its VM process exists.
    pub(super) fn created(&mut self, now: Moment, pid: Option<u32>, acts: &mut Vec<Act>) {
        self.watch = pid.map(|_| ProcessWatch::new(now));
        if let Renewal::Boots(cause, _) = self.renewal {
            self.renewal = Renewal::Boots(cause, pid);
            if self.paused.is_some() {
                self.tell(Command::Pause, acts);
            }
        } else {
            self.phase = Phase::Scheduled;
            self.say(Said::created(pid), acts);
            if self.starts_paused {
                self.tell(Command::Pause, acts);
            }
        }
        // Told to end before it began.
        if self.ladder.is_some() {
            self.tell(Command::Stop, acts);
        }
    }

    /// Its VM process tells something.
    pub(super) fn news(&mut self, now: Moment, news: &News, acts: &mut Vec<Act>) {
        if let Some(watch) = &mut self.watch {
            watch.heard(now, news);
        }
        match news {
            News::Started => self.started(now, acts),
            News::Paused { by_watchdog } => {
                let watchdog = by_watchdog.then_some(PausedBy::Watchdog);
                self.paused = Some(watchdog.unwrap_or(PausedBy::User));
                self.probes.paused(now, self.paused);
            }
            News::Resumed => {
                self.paused = None;
                self.probes.paused(now, None);
            }
            News::Reset { count, .. } => {
                self.resets = *count;
                self.probes.guest_reset(now);
            }
            News::AgentConnected => self.agent_connected = true,
            News::AgentDisconnected => self.agent_connected = false,
            News::GuestAddresses { ipv4, ipv6 } => {
                self.ip = ipv4.map(IpAddr::V4).or(ipv6.map(IpAddr::V6));
            }
            News::FilesystemsFrozen => self.probes.frozen(now, true),
            News::FilesystemsThawed => self.probes.frozen(now, false),
            News::Synced { token } => {
                if let Some((probe, number, outcome)) = self.probes.synced(now, *token) {
                    self.count(now, probe, number, outcome, acts);
                }
            }
            News::Ended(ending) => {
                self.ending = Some(*ending);
                self.machine_ended(now);
            }
            News::Failed { message } => {
                self.broken = Some(message.clone());
                self.machine_ended(now);
            }
            _ => {}
        }
        self.pass_on(now, news, acts);
        self.tell_agent(now, acts);
        self.tell_ready(now, acts);
    }

    fn started(&mut self, now: Moment, acts: &mut Vec<Act>) {
        if let Renewal::Boots(cause, pid) = self.renewal {
            self.renewal = Renewal::None;
            self.probes.guest_reset(now);
            self.probes.paused(now, self.paused);
            // Never held back: the next reset does not tell of another process.
            self.speech.supersede(Topic::Reset);
            return self.say(Said::reset_in_new_process(cause, self.resets, pid), acts);
        }
        if self.phase != Phase::Scheduled {
            return;
        }
        self.phase = Phase::Running;
        self.ran_since = Some(now);
        if self.ladder.is_none() {
            self.probes.started(now);
        }
    }

    fn machine_ended(&mut self, now: Moment) {
        self.watch = None;
        self.probes.over(now);
        self.ip = None;
        // Stopped will have said it.
        self.agent_connected = false;
        self.told_agent = false;
        self.ladder = Some(Ladder::ended(now));
    }

    /// News as an event, if they are one.
    fn pass_on(&mut self, now: Moment, news: &News, acts: &mut Vec<Act>) {
        let Some(said) = Said::of(news) else { return };
        if *news == News::Started && self.resets > 0 {
            return;
        }
        let topic = match news {
            News::Reset { .. } => Topic::Reset,
            News::WatchdogArmed { .. } | News::WatchdogDisarmed => Topic::Arming,
            News::Pretimeout { .. } => Topic::Pretimeout,
            News::StallForgiven { .. } => Topic::Stall,
            News::Paused { .. } | News::Resumed => Topic::Pause,
            News::UplinkUp | News::UplinkDown { .. } => Topic::Uplink,
            _ => return self.say(said, acts),
        };
        self.offer(now, topic, said, acts);
    }

    /// An attempt is over. A failure counts once the VM process has told what happened before it.
    pub(super) fn probed(
        &mut self,
        now: Moment,
        probe: ProbeKind,
        number: u64,
        outcome: Outcome,
        acts: &mut Vec<Act>,
    ) {
        if matches!(outcome, Outcome::Success | Outcome::Warning(_)) {
            self.count(now, probe, number, outcome, acts);
        } else if let Some(token) = self.probes.hold(now, probe, number, outcome) {
            self.tell(Command::Sync { token }, acts);
        }
    }

    fn count(
        &mut self,
        now: Moment,
        probe: ProbeKind,
        number: u64,
        outcome: Outcome,
        acts: &mut Vec<Act>,
    ) {
        let (told, again) = self.probes.finished(now, probe, number, outcome);
        self.heed(now, probe, told, acts);
        if let Some(question) = again {
            self.ask(question, acts);
        }
        self.tell_ready(now, acts);
    }

    /// What attempts led to.
    fn heed(&mut self, now: Moment, probe: ProbeKind, told: Vec<Told>, acts: &mut Vec<Act>) {
        let topic = match probe {
            ProbeKind::Liveness => Topic::LivenessProbe,
            ProbeKind::Readiness => Topic::ReadinessProbe,
        };
        for told in told {
            match told {
                Told::Event(said) => self.offer(now, topic, said, acts),
                Told::LivenessFailed => self.liveness_failed(now, acts),
            }
        }
    }

    fn liveness_failed(&mut self, now: Moment, acts: &mut Vec<Act>) {
        if self.ladder.is_some() {
            return;
        }
        self.cause = Some(Cause::LivenessFailed);
        self.probes.stopping();
        self.watch = None;
        self.say(
            Said::liveness_killing(&self.name, self.replaced_if_failed, self.grace),
            acts,
        );
        let (ladder, step) = Ladder::graceful(now, self.grace, self.agent_connected);
        self.ladder = Some(ladder);
        self.step(step, acts);
    }

    /// The agent has answered what the ladder asked.
    pub(super) fn shutdown_answered(&mut self, answer: &Result<(), String>, acts: &mut Vec<Act>) {
        if let Err(why) = answer {
            log::debug!(
                "{}: the agent does not shut the guest down: {why}",
                self.name
            );
            if let Some(step) = self.ladder.as_mut().and_then(Ladder::agent_failed) {
                self.step(step, acts);
            }
        }
    }

    /// Ends it without asking the guest.
    pub(super) fn stop(&mut self, now: Moment, cause: Cause, acts: &mut Vec<Act>) {
        if self.ending.is_some() || self.broken.is_some() {
            return;
        }
        // A liveness failure stays what it is while its grace is cut short.
        self.cause.get_or_insert(cause);
        self.watch = None;
        self.probes.over(now);
        let (ladder, step) = Ladder::at_once(now);
        self.ladder = Some(ladder);
        if self.phase != Phase::Pending {
            self.step(step, acts);
        }
        self.say(Said::killing(cause.sentence()), acts);
    }

    /// Lets it go on, if it is paused.
    pub(super) fn resume(&mut self, acts: &mut Vec<Act>) {
        if matches!(self.phase, Phase::Scheduled | Phase::Running) {
            self.tell(Command::Resume, acts);
        }
    }

    /// Its VM process is gone, or could not be made: `how` tells unless better is known.
    pub(super) fn over(&mut self, now: Moment, how: String, acts: &mut Vec<Act>) -> Over {
        let verdict = match (self.cause, self.ending, self.broken.take()) {
            (Some(cause), ..) => Verdict::Stopped(cause),
            (None, Some(ending), _) => Verdict::Ended(ending),
            (None, None, broken) => Verdict::Broken(broken.unwrap_or(how)),
        };
        let said = match &verdict {
            Verdict::Stopped(Cause::LivenessFailed) => {
                let ending = events::ending(self.ending.unwrap_or(Ending::Stopped));
                format!("{ending}, after its liveness probe failed")
            }
            Verdict::Stopped(_) => events::ending(Ending::Stopped).to_owned(),
            Verdict::Ended(ending) => events::ending(*ending).to_owned(),
            Verdict::Broken(message) => message.clone(),
        };
        for held in self.speech.last_words() {
            self.say(held, acts);
        }
        self.phase = verdict.phase();
        self.say(Said::stopped(self.phase, &said, self.cause), acts);
        Over {
            verdict,
            ran: self.ran_since.map(|since| now.since(since)),
        }
    }

    /// When [`Self::due`] has something to do.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let ladder = self.ladder.as_ref().and_then(Ladder::next_due);
        let watch = self.watch.as_ref().map(ProcessWatch::next_due);
        let others = [
            ladder,
            watch,
            self.probes.next_due(),
            self.speech.next_due(),
        ];
        others.into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub(super) fn due(&mut self, now: Moment, acts: &mut Vec<Act>) {
        for said in self.speech.due(now) {
            self.say(said, acts);
        }
        // Not before the edge has said whether there is a process at all.
        let step = self.ladder.as_mut().and_then(|ladder| ladder.due(now));
        if let Some(step) = step {
            self.step(step, acts);
        }
        for token in self.probes.ask_again(now) {
            self.tell(Command::Sync { token }, acts);
        }
        if self.watch.as_mut().is_some_and(|watch| watch.due(now)) {
            acts.push(Act::Look { instance: self.id });
        }
        for question in self.probes.due(now) {
            self.ask(question, acts);
        }
        self.tell_ready(now, acts);
    }

    /// What its VM process has answered.
    pub(super) fn looked(&mut self, now: Moment, answers: Answers, acts: &mut Vec<Act>) {
        let Some(watch) = &mut self.watch else { return };
        let (found, questions) = watch.look(now, answers);
        match found {
            Some(Finding::Stuck(stuck)) => return self.stuck(now, stuck, acts),
            Some(Finding::DoesNotRun { state, silent }) => {
                self.say(Said::process_stopped(state, silent), acts);
            }
            None => {}
        }
        if questions != Questions::default() {
            let instance = self.id;
            acts.push(Act::AskForLife {
                instance,
                questions,
            });
        }
    }

    /// Its VM process runs and gets nowhere: it is killed, and what it owes is done in its stead.
    fn stuck(&mut self, now: Moment, stuck: Stuck, acts: &mut Vec<Act>) {
        let ran = self.phase == Phase::Running && self.renewal == Renewal::None;
        let instead = Instead::of(stuck.duty, ran);
        self.say(stuck.said(instead), acts);
        acts.push(Act::Kill { instance: self.id });
        match instead {
            Instead::Reset(cause) => {
                self.watch = None;
                self.renewal = Renewal::Due(cause);
                // What its guest says meanwhile tells nothing.
                self.probes.guest_reset(now);
                self.probes.paused(now, Some(PausedBy::Watchdog));
            }
            Instead::PowerOff => {
                self.ending = Some(Ending::WatchdogPowerOff);
                self.machine_ended(now);
            }
            Instead::End => {
                self.broken = Some(stuck.failure());
                self.machine_ended(now);
            }
        }
    }

    /// Its VM process is gone. If that was killed so that its machine be reset, a new one is started.
    pub(super) fn begins_anew(&mut self, acts: &mut Vec<Act>) -> bool {
        let Renewal::Due(cause) = self.renewal else {
            return false;
        };
        if self.ladder.is_some() {
            return false;
        }
        self.renewal = Renewal::Boots(cause, None);
        self.resets = self.resets.saturating_add(1);
        (self.agent_connected, self.ip) = (false, None);
        acts.push(Act::Recreate {
            instance: self.id,
            start: Restart {
                timed_out: cause == ResetCause::Watchdog,
                resets: self.resets,
            },
        });
        true
    }

    fn ask(&self, question: Question, acts: &mut Vec<Act>) {
        acts.push(Act::Attempt {
            instance: self.id,
            probe: question.probe,
            number: question.attempt.number,
            deadline: question.attempt.deadline,
            freeze_counts: question.freeze_counts,
        });
    }

    fn step(&mut self, step: Step, acts: &mut Vec<Act>) {
        let instance = self.id;
        match step {
            Step::AskAgent { deadline } => acts.push(Act::AskShutdown { instance, deadline }),
            Step::PressButton => self.tell(Command::PressPowerButton, acts),
            Step::Stop => self.tell(Command::Stop, acts),
            Step::Kill => acts.push(Act::Kill { instance }),
        }
    }

    fn tell(&self, command: Command, acts: &mut Vec<Act>) {
        acts.push(Act::Tell {
            instance: self.id,
            command,
        });
    }

    fn tell_agent(&mut self, now: Moment, acts: &mut Vec<Act>) {
        if self.told_agent != self.agent_connected {
            self.told_agent = self.agent_connected;
            self.offer(now, Topic::Agent, Said::agent(self.agent_connected), acts);
        }
    }

    /// Ready and NotReady are told of instances with a readiness probe: without one, Started and
    /// Paused have said it.
    fn tell_ready(&mut self, now: Moment, acts: &mut Vec<Act>) {
        let ready = self.state().ready();
        if self.probes.has_readiness() && self.told_ready != ready.is_ok() {
            self.told_ready = ready.is_ok();
            self.offer(now, Topic::Ready, Said::ready(ready), acts);
        }
    }

    /// Says it, or holds it back for a while if too much has been said of it.
    fn offer(&mut self, now: Moment, topic: Topic, said: Said, acts: &mut Vec<Act>) {
        let said = match topic {
            Topic::Agent | Topic::Ready | Topic::Pause => {
                said.with_conditions(&self.state().conditions())
            }
            Topic::Reset
            | Topic::Arming
            | Topic::Pretimeout
            | Topic::Stall
            | Topic::Uplink
            | Topic::LivenessProbe
            | Topic::ReadinessProbe => said,
        };
        if let Some(said) = self.speech.offer(now, topic, said) {
            self.say(said, acts);
        }
    }

    fn say(&self, said: Said, acts: &mut Vec<Act>) {
        acts.push(Act::Event {
            instance: self.id,
            said,
        });
    }
}
