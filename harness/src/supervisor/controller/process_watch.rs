// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a VM process lives: a watchdog for the thread that acts on the watchdog's bites.
//!
//! That thread, the VM process' event loop, is asked for a sign of life every [`PERIOD`]. While it owes
//! one, a second thread of the process is asked as well, every [`TICK`]: its answer shows that the process
//! runs, and how far the event loop has come. The event loop is stuck once it has made no progress for
//! [`BOUND`] and the process was seen to run for the last [`PROOF`] of that. A process whose second thread
//! is silent, too, does not run, which is no fault of its own.
//!
//! Only time counts in which the supervisor itself ran: a look that comes late counts as if it had come
//! when it was due. And a process that did not run begins anew once it does.

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "spans of time, of which there may be one"
)]
mod tests;

use std::time::Duration;

use kennel_vmm::config::WatchdogAction;
use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::News;
use kennel_vmm::pulse::{Phase, Pulse};

use serde_json::json;

use crate::moment::Moment;
use crate::supervisor::events::Said;

/// From one question to the event loop to the next, when all is well.
const PERIOD: Duration = Duration::from_secs(5);
/// How soon after a question its answer is looked for.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// From one look to the next while an answer is owed, or an action is under way.
const TICK: Duration = Duration::from_millis(500);
/// How long there may be no progress.
pub(super) const BOUND: Duration = Duration::from_secs(10);
/// How long of it the process must have been seen to run.
const PROOF: Duration = Duration::from_secs(4);
/// How long the second thread may be silent before the process is taken not to run.
const DEAF: Duration = Duration::from_secs(2);

/// Whom to ask for a sign of life, by the number of the question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The event loop.
    pub to_loop: Option<u64>,
    /// The thread that only answers.
    pub to_second_thread: Option<u64>,
}

/// The newest signs of life since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Of the event loop.
    pub from_loop: Option<Pulse>,
    /// Of the thread that only answers.
    pub from_second_thread: Option<Pulse>,
    /// What the kernel says of the process, as ps(1) shows it.
    pub state: Option<char>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The process does not run.
    DoesNotRun {
        /// What the kernel says of it.
        state: Option<char>,
        /// Since its last sign of life.
        silent: Duration,
    },
    /// The process runs and its event loop gets nowhere.
    Stuck(Stuck),
}

/// Where an event loop is stuck, and what it would be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    /// What it is at.
    pub(super) phase: Phase,
    /// Since its last progress.
    pub(super) silent: Duration,
    /// What is to be done in its stead.
    pub(super) duty: Duty,
}

/// What a VM process that is stuck owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// The action of a bite: told, or sure to come since nobody acts on the next one.
    Bite(WatchdogAction),
    /// A reset that somebody else asked for.
    Reset(ResetCause),
    /// Nothing: there is no watchdog, or it is not armed.
    Nothing,
}

/// What is done in the stead of a VM process that is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// The machine is reset, in a new process.
    Reset(ResetCause),
    /// The machine ends, as by the watchdog's poweroff.
    PowerOff,
    /// The machine fails.
    End,
}

impl Instead {
    /// For a process that owes `duty`. A machine that has not run cannot be reset: what it hung at, it
    /// would hang at again.
    pub(super) const fn of(duty: Duty, has_run: bool) -> Self {
        match duty {
            _ if !has_run => Self::End,
            Duty::Bite(WatchdogAction::Reset) => Self::Reset(ResetCause::Watchdog),
            // The grace of a shutdown is over by now.
            Duty::Bite(WatchdogAction::Poweroff | WatchdogAction::Shutdown) => Self::PowerOff,
            // Nothing of a machine without a process can be paused or go on.
            Duty::Bite(_) | Duty::Nothing => Self::End,
            Duty::Reset(cause) => Self::Reset(cause),
        }
    }

    /// In events.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Reset(_) => "reset",
            Self::PowerOff => "poweroff",
            Self::End => "end",
        }
    }

    /// Behind "the process is killed".
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Reset(_) => "the machine is reset in a new one",
            Self::PowerOff => "the machine is powered off",
            Self::End => "the machine ends",
        }
    }
}

impl Stuck {
    /// Whose thread makes no progress.
    pub(super) const fn what(&self) -> &'static str {
        match self.phase {
            Phase::WaitForVcpus => "vCPU",
            Phase::LoadKernel => "kernel load",
            Phase::WaitForLink => "link",
            _ => "event loop",
        }
    }

    /// What happened.
    fn sentence(&self) -> String {
        let seconds = self.silent.as_secs_f64();
        match self.phase {
            Phase::Idle => format!(
                "The VM process is stuck: its event loop has given no sign of life for {seconds:.1} s"
            ),
            phase => format!(
                "The VM process is stuck: its {} has made no progress for {seconds:.1} s, in phase {}",
                self.what(),
                phase.name()
            ),
        }
    }

    /// As an event.
    pub(super) fn said(&self, instead: Instead) -> Said {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let action = match self.duty {
            Duty::Bite(action) => Some(action.name()),
            Duty::Reset(_) | Duty::Nothing => None,
        };
        let message = format!(
            "{}; it is killed, and {}",
            self.sentence(),
            instead.sentence()
        );
        let data = json!({
            "what": self.what(),
            "phase": self.phase.name(),
            "silent_ns": nanos(self.silent),
            "bound_ns": nanos(BOUND),
            "action": action,
            "instead": instead.name(),
        });
        Said::stuck(message, data)
    }

    /// Why the machine has failed, if it has.
    pub(super) fn failure(&self) -> String {
        let why = match self.duty {
            Duty::Bite(action) => format!(
                "the action of its watchdog, {}, needs that process",
                action.name()
            ),
            Duty::Reset(_) | Duty::Nothing => match self.phase {
                Phase::Start | Phase::LoadKernel => {
                    "see whether the file system of its kernel and initrd answers".to_owned()
                }
                _ => {
                    "its watchdog is not armed; this is a defect of this program, please report it"
                        .to_owned()
                }
            },
        };
        format!("{}: {why}", self.sentence())
    }
}

/// The watch over one VM process.
#[derive(Debug)]
pub(super) struct ProcessWatch {
    /// The next look.
    due: Moment,
    /// The wait for it, as it was planned.
    planned: Duration,
    /// The last look.
    last: Moment,
    /// Since the event loop's last progress, the supervisor's own absence left out.
    silent: Duration,
    /// How much of that the process was seen to run at a stretch.
    proven: Duration,
    /// For how long the second thread has not answered.
    deaf: Duration,
    asked_loop: Option<u64>,
    asked_loop_at: Moment,
    asked_second: Option<u64>,
    questions: u64,
    /// An action is under way, as far as is known.
    busy: bool,
    progress: u64,
    newest: Option<Pulse>,
    bite: Option<WatchdogAction>,
    reset: Option<ResetCause>,
    /// Since the event loop's last answer, as [`Self::silent`] counts.
    since_answer: Duration,
    /// The thread that is behind by the event loop's last answer, and for how long it has done nothing.
    behind: Option<(Phase, u16)>,
    behind_for: Duration,
    told_that_it_does_not_run: bool,
}

impl ProcessWatch {
    /// Over a process that has just been started.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            due: now,
            planned: Duration::ZERO,
            last: now,
            silent: Duration::ZERO,
            proven: Duration::ZERO,
            deaf: Duration::ZERO,
            asked_loop: None,
            asked_loop_at: now,
            asked_second: None,
            questions: 0,
            busy: true,
            progress: 0,
            newest: None,
            bite: None,
            reset: None,
            since_answer: Duration::ZERO,
            behind: None,
            behind_for: Duration::ZERO,
            told_that_it_does_not_run: false,
        }
    }

    /// The process has told something.
    pub(super) fn heard(&mut self, now: Moment, news: &News) {
        match news {
            // The event loop has said it, and is now to act: from here on its progress is looked for. An
            // answer to what it was asked before tells nothing of that.
            News::Watchdog(report) => {
                self.count_to(now);
                self.progressed();
                self.bite = Some(report.action);
                self.busy = true;
                self.asked_loop = None;
                self.due = now;
            }
            News::Reset { cause, .. } => self.reset = Some(*cause),
            _ => {}
        }
    }

    /// When the next look is due.
    pub(super) const fn next_due(&self) -> Moment {
        self.due
    }

    /// Whether to look now; [`Self::look`] follows at once.
    pub(super) fn due(&mut self, now: Moment) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.due = now.after(TICK);
        }
        is_due
    }

    fn number(&mut self) -> u64 {
        self.questions = self.questions.wrapping_add(1);
        self.questions
    }

    /// Takes what has been answered by now. Gives what that shows, and whom to ask next.
    pub(super) fn look(&mut self, now: Moment, answers: Answers) -> (Option<Finding>, Questions) {
        let step = self.count_to(now);
        let to_loop = |pulse: &Pulse| Some(pulse.number) == self.asked_loop;
        let from_loop = answers.from_loop.filter(to_loop);
        let to_second = |pulse: &Pulse| Some(pulse.number) == self.asked_second;
        let from_second = answers.from_second_thread.filter(to_second);
        let mut progress = false;
        for pulse in [from_second, from_loop].into_iter().flatten() {
            progress |= pulse.progress != self.progress;
            self.progress = pulse.progress;
            self.newest = Some(pulse);
        }
        if let Some(pulse) = from_loop {
            self.asked_loop = None;
            let idle = pulse.phase == Phase::Idle;
            progress |= idle;
            self.busy = !idle || pulse.behind.is_some();
            if !self.busy {
                (self.bite, self.reset) = (None, None);
            }
            let since = std::mem::take(&mut self.since_answer);
            self.behind_for = match pulse.behind {
                Some(_) if pulse.behind == self.behind => self.behind_for.saturating_add(since),
                _ => Duration::ZERO,
            };
            self.behind = pulse.behind;
        }
        if from_second.is_some() {
            self.asked_second = None;
        }
        let found = if from_loop.is_some() || from_second.is_some() {
            self.answered(step, progress)
        } else {
            self.not_answered(step, answers.state)
        };
        (found, self.ask(now))
    }

    /// Whom to ask now, and when to look again.
    fn ask(&mut self, now: Moment) -> Questions {
        let mut questions = Questions::default();
        let wait = if self.asked_loop.is_some() {
            if self.asked_second.is_none() {
                questions.to_second_thread = Some(self.number());
                self.asked_second = questions.to_second_thread;
            }
            TICK
        } else if self.busy || now >= self.asked_loop_at.after(PERIOD) {
            questions.to_loop = Some(self.number());
            self.asked_loop = questions.to_loop;
            self.asked_loop_at = now;
            FIRST_LOOK
        } else {
            self.asked_loop_at.after(PERIOD).since(now)
        };
        self.planned = wait;
        self.due = now.after(wait);
        questions
    }

    /// The supervisor has run since the last look, but for what it overslept.
    fn count_to(&mut self, now: Moment) -> Duration {
        let step = now.since(self.last).min(self.planned);
        self.last = now;
        self.planned = Duration::ZERO;
        self.silent = self.silent.saturating_add(step);
        self.since_answer = self.since_answer.saturating_add(step);
        step
    }

    fn progressed(&mut self) {
        self.silent = Duration::ZERO;
        self.proven = Duration::ZERO;
    }

    fn answered(&mut self, step: Duration, progress: bool) -> Option<Finding> {
        let did_not_run = self.told_that_it_does_not_run || self.deaf >= DEAF;
        self.told_that_it_does_not_run = false;
        self.deaf = Duration::ZERO;
        if did_not_run {
            self.behind_for = Duration::ZERO;
        }
        if self.behind_for >= BOUND
            && let Some((phase, _)) = self.behind
        {
            return Some(Finding::Stuck(self.stuck(phase, self.behind_for)));
        }
        if progress || did_not_run {
            self.progressed();
            return None;
        }
        self.proven = self.proven.saturating_add(step);
        let is_stuck = self.silent >= BOUND && self.proven >= PROOF;
        let phase = self.newest.map_or(Phase::Start, |pulse| pulse.phase);
        is_stuck.then(|| Finding::Stuck(self.stuck(phase, self.silent)))
    }

    fn not_answered(&mut self, step: Duration, state: Option<char>) -> Option<Finding> {
        // Nobody was asked but the event loop, a moment ago.
        self.asked_second?;
        self.deaf = self.deaf.saturating_add(step);
        if self.deaf >= DEAF {
            self.proven = Duration::ZERO;
        }
        let silent = self.silent;
        let tells = silent >= BOUND && self.deaf >= DEAF && !self.told_that_it_does_not_run;
        self.told_that_it_does_not_run |= tells;
        tells.then_some(Finding::DoesNotRun { state, silent })
    }

    fn stuck(&self, phase: Phase, silent: Duration) -> Stuck {
        let pulse = self.newest;
        let action = pulse.and_then(|pulse| pulse.action);
        let bitten = self
            .bite
            .or(action.filter(|_| pulse.is_some_and(|pulse| pulse.bitten)));
        let armed = action.filter(|_| pulse.is_some_and(|pulse| pulse.armed));
        let reset = pulse.and_then(|pulse| pulse.reset).or(self.reset);
        Stuck {
            phase,
            silent,
            duty: match (bitten, reset, armed) {
                (Some(action), ..) => Duty::Bite(action),
                (None, Some(cause), _) => Duty::Reset(cause),
                (None, None, Some(action)) => Duty::Bite(action),
                (None, None, None) => Duty::Nothing,
            },
        }
    }
}
