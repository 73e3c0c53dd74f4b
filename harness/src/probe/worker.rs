// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kubelet's probe worker: when a probe is attempted, and what its outcomes add up to.
//!
//! A state machine without clock and I/O. Its owner asks [`Worker::next_due`] when to call
//! [`Worker::due`], has the attempt made, and hands the outcome to [`Worker::finished`].
//!
//! *As the kubelet*: fixed ticks of `periodSeconds`, ticks missed while an attempt runs become one;
//! up to three tries on an error, then it is discarded; results change at their thresholds; nothing
//! is attempted after a liveness failure until a new incarnation.
//!
//! *Not as the kubelet*: the first attempt is made exactly `initialDelaySeconds` after the guest's
//! start (no start jitter, no rounding to whole seconds); the delay counts again after a guest
//! reset, and does not count time in which the probe is suspended; one deadline covers all tries;
//! streaks belong to an incarnation and end with a suspension; once the instance is being stopped
//! it is not ready and no event is said. Startup probes do not exist in KubeVirt's documents.

use std::time::Duration;

use super::{Outcome, ProbeKind};
use crate::moment::Moment;

mod said;
#[cfg(test)]
mod tests;

pub use said::Said;

/// How many times an attempt is tried when it ends in an error, as the kubelet has it.
pub const TRIES: u32 = 3;

/// A probe's five numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// No attempt before the guest has run this long.
    pub initial_delay: Duration,
    /// How long one attempt may take, tries included.
    pub timeout: Duration,
    /// From one attempt's start to the next one's; zero counts as 1 ns.
    pub period: Duration,
    /// Successes in a row that make it succeed; zero counts as one.
    pub success_threshold: u32,
    /// Failures in a row that make it fail; zero counts as one.
    pub failure_threshold: u32,
}

impl From<&crate::spec::Probe> for Timing {
    fn from(probe: &crate::spec::Probe) -> Self {
        Self {
            initial_delay: probe.initial_delay,
            timeout: probe.timeout,
            period: probe.period,
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
        }
    }
}

/// What the probe says about the guest, after thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    /// Alive, or ready.
    Success,
    /// Not alive, or not ready.
    Failure,
}

/// One question to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Names it; each try has its own.
    pub number: u64,
    /// When it must have its outcome; all tries of an attempt share it.
    pub deadline: Moment,
}

/// What a finished attempt leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Finished {
    /// To be told, in this order.
    pub said: Vec<Said>,
    /// To be begun at once: the next try after an error.
    pub again: Option<Attempt>,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    attempt: Attempt,
    tries: u32,
    /// Whatever comes of it says nothing about the guest as it is now.
    void: bool,
}

/// Where the instance is in its life, as far as the probe cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// The guest has not started, or has ended.
    Down,
    Up,
    /// Termination is requested.
    Stopping,
}

/// One probe of one machine.
#[derive(Clone, Debug)]
pub struct Worker {
    kind: ProbeKind,
    timing: Timing,
    life: Life,
    result: ProbeResult,
    /// The last result and how often it came in a row; `None` before the first.
    streak: Option<(ProbeResult, u32)>,
    /// A liveness failure was decided: nothing is attempted until a new incarnation.
    on_hold: bool,
    /// When the next attempt is due, were nothing in its way. On the grid of ticks.
    tick: Moment,
    /// Whether an attempt was made since the delay began to count.
    attempted: bool,
    suspended_since: Option<Moment>,
    flight: Option<Flight>,
    attempts: u64,
}

impl Worker {
    /// The probe `kind` with the numbers `timing`, of a machine whose guest has not started.
    #[must_use]
    pub fn new(kind: ProbeKind, timing: impl Into<Timing>) -> Self {
        Self {
            kind,
            timing: timing.into(),
            life: Life::Down,
            result: ProbeResult::Failure,
            streak: None,
            on_hold: false,
            tick: Moment::ZERO,
            attempted: false,
            suspended_since: None,
            flight: None,
            attempts: 0,
        }
    }

    /// Which probe this is.
    #[must_use]
    pub const fn kind(&self) -> ProbeKind {
        self.kind
    }

    /// What the probe says now. A guest that does not run fails both probes; one that has just
    /// started is alive and not ready; one that is being stopped is not to be killed for its
    /// liveness.
    #[must_use]
    pub const fn result(&self) -> ProbeResult {
        self.result
    }

    /// Whether a readiness probe lets the instance be ready. Not while it is being stopped, whatever
    /// the probe says.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.life == Life::Up && self.result == ProbeResult::Success
    }

    /// The last outcome that counted and how often it came in a row.
    #[must_use]
    pub const fn streak(&self) -> Option<(ProbeResult, u32)> {
        self.streak
    }

    /// Whether a liveness failure was decided, after which nothing is attempted.
    #[must_use]
    pub const fn is_on_hold(&self) -> bool {
        self.on_hold
    }

    /// The attempt under way, whether or not its outcome will count.
    #[must_use]
    pub fn in_flight(&self) -> Option<Attempt> {
        self.flight.map(|flight| flight.attempt)
    }

    /// A new incarnation: the guest started. Nothing of the one before counts.
    pub fn started(&mut self, now: Moment) {
        self.life = Life::Up;
        self.on_hold = false;
        self.begin_again(now);
    }

    /// The guest was reset in place: the delay counts anew, and it is not ready until it says so.
    #[must_use]
    pub fn guest_reset(&mut self, now: Moment) -> Vec<Said> {
        if self.life == Life::Down || self.on_hold {
            return Vec::new();
        }
        let was_ready = self.is_ready();
        let stopping = self.life == Life::Stopping;
        self.begin_again(now);
        if stopping && self.kind == ProbeKind::Liveness {
            self.result = ProbeResult::Success;
        }
        self.tell_readiness(was_ready)
    }

    /// The guest does not run any more: it fails both probes, and nothing is attempted until it is
    /// started.
    #[must_use]
    pub fn ended(&mut self) -> Vec<Said> {
        let was_ready = self.is_ready();
        self.life = Life::Down;
        self.result = ProbeResult::Failure;
        self.streak = None;
        self.make_void();
        self.tell_readiness(was_ready)
    }

    /// Termination is requested. Liveness succeeds from now on and is not attempted any more;
    /// readiness goes on being attempted, but the instance is not ready and nothing more is said.
    #[must_use]
    pub fn stopping(&mut self) -> Vec<Said> {
        if self.life != Life::Up {
            return Vec::new();
        }
        let was_ready = self.is_ready();
        self.life = Life::Stopping;
        if self.kind == ProbeKind::Liveness {
            self.result = ProbeResult::Success;
            self.make_void();
        }
        self.tell_readiness(was_ready)
    }

    /// The guest cannot answer and is not to blame: paused, or its file systems are frozen. No
    /// attempt begins, one under way does not count, streaks end, the result stays.
    pub fn suspend(&mut self, now: Moment) {
        if self.suspended_since.is_none() {
            self.suspended_since = Some(now);
            self.streak = None;
            self.make_void();
        }
    }

    /// What suspended the probe is over. Ticks go on where they would have been; a delay that was
    /// still counting goes on from where it stopped.
    pub fn resume(&mut self, now: Moment) {
        let Some(since) = self.suspended_since.take() else {
            return;
        };
        if self.attempted {
            self.tick = self.tick_at_or_after(now);
        } else {
            self.tick = self.tick.after(now.since(since));
        }
    }

    /// Whether the probe is suspended.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        self.suspended_since.is_some()
    }

    /// When [`Self::due`] will begin an attempt, if nothing else happens; it may have passed.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        let idle = self.flight.is_none() && self.suspended_since.is_none() && !self.on_hold;
        (idle && self.attempts_go_on()).then_some(self.tick)
    }

    /// The attempt to be begun now, if one is due.
    #[must_use]
    pub fn due(&mut self, now: Moment) -> Option<Attempt> {
        if self.next_due()? > now {
            return None;
        }
        self.tick = self.tick_after(now);
        self.attempted = true;
        Some(self.launch(now.after(self.timing.timeout), 1))
    }

    /// The attempt `number` ended with `outcome`. A number that is not under way is ignored.
    pub fn finished(&mut self, now: Moment, number: u64, outcome: Outcome) -> Finished {
        let mut finished = Finished::default();
        let Some(flight) = self.flight.take_if(|it| it.attempt.number == number) else {
            return finished;
        };
        if flight.void {
            return finished;
        }
        match outcome {
            Outcome::Success => self.count(ProbeResult::Success, "", &mut finished.said),
            Outcome::Warning(output) => {
                self.say(Said::warning(self.kind, &output), &mut finished.said);
                self.count(ProbeResult::Success, "", &mut finished.said);
            }
            Outcome::Failure(output) => {
                self.count(ProbeResult::Failure, &output, &mut finished.said);
            }
            Outcome::Error(_) if flight.tries < TRIES && now < flight.attempt.deadline => {
                let again = self.launch(flight.attempt.deadline, flight.tries.saturating_add(1));
                finished.again = Some(again);
            }
            Outcome::Error(why) => {
                self.say(Said::errored(self.kind, &why), &mut finished.said);
            }
        }
        finished
    }

    /// Adds one outcome to its streak, and moves the result if a threshold is reached.
    fn count(&mut self, result: ProbeResult, output: &str, said: &mut Vec<Said>) {
        let in_a_row = match self.streak {
            Some((last, run)) if last == result => run.saturating_add(1),
            _ => 1,
        };
        self.streak = Some((result, in_a_row));
        let threshold = self.threshold(result);
        if result == ProbeResult::Failure {
            let unhealthy = Said::unhealthy(self.kind, output, in_a_row, threshold);
            self.say(unhealthy, said);
        }
        if in_a_row < threshold {
            return;
        }
        let was_ready = self.is_ready();
        self.result = result;
        said.extend(self.tell_readiness(was_ready));
        if self.kind == ProbeKind::Liveness && result == ProbeResult::Failure {
            self.on_hold = true;
            self.streak = None;
            said.push(Said::LivenessFailed {
                failures: in_a_row,
                output: output.to_owned(),
            });
        }
    }

    fn threshold(&self, result: ProbeResult) -> u32 {
        let threshold = match result {
            ProbeResult::Success => self.timing.success_threshold,
            ProbeResult::Failure => self.timing.failure_threshold,
        };
        threshold.max(1)
    }

    /// Says it, unless the instance is being stopped: what fails then was to be expected.
    fn say(&self, what: Said, said: &mut Vec<Said>) {
        if self.life == Life::Up {
            said.push(what);
        }
    }

    fn tell_readiness(&self, was_ready: bool) -> Vec<Said> {
        match (self.kind, was_ready, self.is_ready()) {
            (ProbeKind::Readiness, false, true) => vec![Said::BecameReady],
            (ProbeKind::Readiness, true, false) => vec![Said::BecameUnready],
            _ => Vec::new(),
        }
    }

    /// The state of a guest that has just begun to run.
    fn begin_again(&mut self, now: Moment) {
        self.result = match self.kind {
            ProbeKind::Liveness => ProbeResult::Success,
            ProbeKind::Readiness => ProbeResult::Failure,
        };
        self.streak = None;
        self.tick = now.after(self.timing.initial_delay);
        self.attempted = false;
        if let Some(since) = &mut self.suspended_since {
            *since = now;
        }
        self.make_void();
    }

    fn make_void(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.void = true;
        }
    }

    fn attempts_go_on(&self) -> bool {
        match self.life {
            Life::Down => false,
            Life::Up => true,
            Life::Stopping => self.kind == ProbeKind::Readiness,
        }
    }

    fn launch(&mut self, deadline: Moment, tries: u32) -> Attempt {
        self.attempts = self.attempts.saturating_add(1);
        let attempt = Attempt {
            number: self.attempts,
            deadline,
        };
        self.flight = Some(Flight {
            attempt,
            tries,
            void: false,
        });
        attempt
    }

    /// The first tick later than `now`, which is not before the current tick.
    fn tick_after(&self, now: Moment) -> Moment {
        let since_tick = now.since(self.tick).as_nanos() % self.period();
        now.after(nanos(self.period().saturating_sub(since_tick)))
    }

    /// The current tick if it lies ahead, else the first one at or after `now`.
    fn tick_at_or_after(&self, now: Moment) -> Moment {
        let since_tick = now.since(self.tick).as_nanos() % self.period();
        if now <= self.tick {
            self.tick
        } else if since_tick == 0 {
            now
        } else {
            self.tick_after(now)
        }
    }

    fn period(&self) -> u128 {
        self.timing.period.as_nanos().max(1)
    }
}

/// `count` ns; what does not fit is beyond the end of time anyway.
fn nanos(count: u128) -> Duration {
    u64::try_from(count).map_or(Duration::MAX, Duration::from_nanos)
}
