// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes a probe's attempts, over the guest's agent. The edge: it reads the clock and waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Outcome;
use super::ask::{Input, Need};
use super::exec::{Exec, Reaped, Reaper};
use super::ping::Ping;
use crate::agent::{AgentError, Connection};
use crate::moment::Moment;
use crate::spec::Handler;

/// How long ending what attempts left behind may take, if the next attempt is not due before.
const CLEAN_UP: Duration = Duration::from_secs(2);
/// What it gets even then: a quarter of the shortest timeout.
const LEAST_CLEAN_UP: Duration = Duration::from_millis(250);
/// How many processes left behind are remembered; the agent of a hung guest accepts no more.
const REMEMBERED: usize = 16;

/// Asks one guest for one probe: one attempt at a time, each as its owner says.
#[derive(Debug)]
pub struct AgentRunner {
    handler: Handler,
    timeout: Duration,
    line: AgentLine,
    left_behind: Vec<Reaper>,
}

impl AgentRunner {
    /// The probe `handler` of the guest whose agent is behind `socket`; what runs out of time says
    /// that it took `timeout`. Nothing is connected yet.
    #[must_use]
    pub fn new(handler: Handler, timeout: Duration, socket: &Path) -> Self {
        Self {
            handler,
            timeout,
            line: AgentLine {
                socket: socket.to_owned(),
                connection: None,
                epoch: Instant::now(),
            },
            left_behind: Vec::new(),
        }
    }

    /// One attempt, over by `deadline`. With `freeze_counts`, an agent that refuses because its
    /// file systems are frozen fails it.
    ///
    /// Afterwards [`Self::clean_up`] is to be called, once the outcome has been passed on.
    pub fn attempt(&mut self, deadline: Instant, freeze_counts: bool) -> Outcome {
        if deadline <= Instant::now() {
            let why = "the attempt could not begin in time, as this host was busy or the command \
                       before it was still being cleaned up";
            return Outcome::Error(why.into());
        }
        let made = catch_unwind(AssertUnwindSafe(|| self.make(deadline, freeze_counts)));
        made.unwrap_or_else(|_| {
            self.line.connection = None;
            Outcome::Error("the attempt ended by a defect of this program; please report it".into())
        })
    }

    /// Ends in the guest what attempts left behind there, within two seconds and before `next`, when
    /// the next attempt is due; what cannot be ended now, as the agent does not answer, is tried
    /// again next time.
    pub fn clean_up(&mut self, next: Option<Instant>) {
        if self.left_behind.is_empty() {
            return;
        }
        let cleaned = catch_unwind(AssertUnwindSafe(|| self.reap(next)));
        if cleaned.is_err() {
            // They would only do it again.
            self.left_behind.clear();
            self.line.connection = None;
        }
    }

    fn reap(&mut self, next: Option<Instant>) {
        let Self {
            line, left_behind, ..
        } = self;
        let left = next.map_or(CLEAN_UP, |next| {
            next.saturating_duration_since(Instant::now())
        });
        let until = line.now().after(left.clamp(LEAST_CLEAN_UP, CLEAN_UP));
        left_behind.retain_mut(|reaper| {
            let need = reaper.begin(until);
            line.drive(need, |now, input| reaper.next(now, input)) == Reaped::NotYet
        });
    }

    fn make(&mut self, deadline: Instant, freeze_counts: bool) -> Outcome {
        let by = self.line.moment(deadline);
        match &self.handler {
            Handler::GuestAgentPing => {
                let mut ping = Ping::new(self.timeout, by);
                let need = ping.next(Input::Begin);
                self.line.drive(need, |_, input| ping.next(input))
            }
            Handler::Exec { command } => {
                let exec = Exec::new(command.clone(), self.timeout, by);
                let mut exec = exec.freeze_counts(freeze_counts);
                let need = exec.next(self.line.now(), Input::Begin);
                let outcome = self.line.drive(need, |now, input| exec.next(now, input));
                if self.left_behind.len() < REMEMBERED {
                    self.left_behind.extend(exec.reaper());
                }
                outcome
            }
            other => Outcome::Error(format!("{} is not asked over the agent", other.name())),
        }
    }
}

/// The agent's connection, made when it is needed, and the clock.
#[derive(Debug)]
struct AgentLine {
    socket: PathBuf,
    connection: Option<Connection>,
    epoch: Instant,
}

impl AgentLine {
    fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    fn moment(&self, instant: Instant) -> Moment {
        Moment::ZERO.after(instant.saturating_duration_since(self.epoch))
    }

    fn instant(&self, moment: Moment) -> Instant {
        let wait = moment.since(self.now());
        let now = Instant::now();
        now.checked_add(wait).unwrap_or(now)
    }

    /// Does what is needed until that is done.
    fn drive<T>(&mut self, mut need: Need<T>, mut next: impl FnMut(Moment, Input) -> Need<T>) -> T {
        loop {
            let input = match need {
                Need::Done(result) => return result,
                Need::WaitUntil(moment) => {
                    thread::sleep(moment.since(self.now()));
                    Input::Woken
                }
                Need::Call(call) => {
                    let until = self.instant(call.until);
                    Input::Answer(self.call(call.command, &call.arguments, until))
                }
            };
            need = next(self.now(), input);
        }
    }

    fn call(
        &mut self,
        command: &str,
        arguments: &Value,
        until: Instant,
    ) -> Result<Value, AgentError> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.socket)?);
        }
        match &mut self.connection {
            Some(connection) => connection.call(command, arguments, until),
            None => Err(AgentError::NotConnected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_is_late_is_not_the_guests_failure() {
        let nobody = Path::new("/nonexistent/a.agent");
        let timeout = Duration::from_secs(1);
        let mut runner = AgentRunner::new(Handler::GuestAgentPing, timeout, nobody);
        let Outcome::Error(why) = runner.attempt(Instant::now(), false) else {
            panic!("an attempt without time was made");
        };
        assert!(why.contains("could not begin in time"), "{why}");
        let in_time = Instant::now() + Duration::from_secs(3600);
        assert!(matches!(
            runner.attempt(in_time, false),
            Outcome::Failure(why) if why.contains("no such socket") && !why.contains("a.agent")
        ));
    }
}
