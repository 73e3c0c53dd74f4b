// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `exec`: a command in the guest, run by its agent.
//!
//! The agent reports a command's end only once everybody has closed its output, and cannot end
//! one. So the command is run by a few lines of `sh` (`run.sh`) that end what it left behind with
//! that output still open, and a command out of time is ended by another few (`reap.sh`, see
//! [`Reaper`]). Where the guest has no `/bin/sh`, the agent runs the command itself.
//!
//! *As without that shell*: no word of the command is interpreted; the program is looked up in the
//! agent's `PATH`, builtins of the shell are not; standard input is empty; exit statuses are the
//! command's. *Differs*: a program that cannot be run is exit status 127 or 126, a signal is 128
//! more than its number, the parent is the shell, and `PWD` is set.
//!
//! *Not covered*: a daemon that keeps the output open under a number other than 1 and 2 lets the
//! attempt run out of time; a command whose start the agent never confirmed cannot be ended.

use std::time::Duration;

use serde_json::{Value, json};

use super::ask::{Call, Input, Need};
use super::{Outcome, refusal};
use crate::agent::AgentError;
use crate::agent::text::cut;
use crate::moment::Moment;

mod output;
mod reaper;
#[cfg(test)]
mod tests;

pub use reaper::{Reaped, Reaper};

const RUN: &str = include_str!("exec/run.sh");
const SHELL: &str = "/bin/sh";
/// `$0` of the shell: what the guest's process list shows.
const NAME: &str = "kennel-probe";
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// How the agent was asked to run the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// By `run.sh`.
    Shell,
    /// By itself.
    Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running {
        pid: i64,
    },
    Ended,
    /// The verdict is out, and the process is still there.
    LeftBehind {
        pid: i64,
    },
}

/// One run of a command.
#[derive(Clone, Debug)]
pub struct Exec {
    command: Vec<String>,
    timeout: Duration,
    deadline: Moment,
    freeze_counts: bool,
    manner: Manner,
    state: State,
    wait: Duration,
}

impl Exec {
    /// `command`, program and arguments, that fails at `deadline`; `timeout` is what it calls that.
    #[must_use]
    pub fn new(command: Vec<String>, timeout: Duration, deadline: Moment) -> Self {
        // Some shells take a dash for an option of theirs.
        let dashed = command
            .first()
            .is_none_or(|program| program.starts_with('-'));
        Self {
            command,
            timeout,
            deadline,
            freeze_counts: false,
            manner: if dashed {
                Manner::Direct
            } else {
                Manner::Shell
            },
            state: State::Starting,
            wait: FIRST_WAIT,
        }
    }

    /// An agent that refuses because the file systems are frozen fails the probe: they have been
    /// for too long. Otherwise that is an error, which counts for nothing.
    #[must_use]
    pub const fn freeze_counts(mut self, counts: bool) -> Self {
        self.freeze_counts = counts;
        self
    }

    /// What to do next.
    #[must_use]
    pub fn next(&mut self, now: Moment, input: Input) -> Need<Outcome> {
        match (self.state, input) {
            (State::Starting, Input::Answer(answer)) => self.started(answer),
            (State::Starting, Input::Begin | Input::Woken) => self.start(),
            (State::Running { pid }, Input::Answer(answer)) => self.polled(now, pid, answer),
            (State::Running { pid }, Input::Begin | Input::Woken) => self.poll(now, pid),
            (State::Ended | State::LeftBehind { .. }, _) => {
                Need::Done(Outcome::Error("the command's attempt is over".into()))
            }
        }
    }

    /// After [`Need::Done`]: what ends the process that this run left in the guest, if it did.
    #[must_use]
    pub fn reaper(&self) -> Option<Reaper> {
        match self.state {
            State::LeftBehind { pid } => Some(Reaper::new(pid, self.manner)),
            _ => None,
        }
    }

    fn start(&self) -> Need<Outcome> {
        let arguments = match self.manner {
            Manner::Shell => {
                let words = ["-c", RUN, NAME].into_iter();
                let words: Vec<_> = words
                    .chain(self.command.iter().map(String::as_str))
                    .collect();
                execution(SHELL, &json!(words))
            }
            Manner::Direct => {
                let program = self.command.first().map_or("", String::as_str);
                execution(program, &json!(self.command.get(1..).unwrap_or_default()))
            }
        };
        self.call("guest-exec", arguments)
    }

    fn started(&mut self, answer: Result<Value, AgentError>) -> Need<Outcome> {
        match answer {
            Ok(value) => {
                let Some(pid) = value.get("pid").and_then(Value::as_i64) else {
                    let value = cut(value.to_string());
                    let why = format!("the guest agent's answer to guest-exec has no pid: {value}");
                    return self.end(Outcome::Failure(why));
                };
                self.state = State::Running { pid };
                self.call("guest-exec-status", json!({ "pid": pid }))
            }
            Err(AgentError::TimedOut) => self.end(Outcome::Failure(format!(
                "the guest agent did not answer within {}, so that {} could not be run; it or the \
                 guest hangs",
                self.seconds(),
                self.shown()
            ))),
            Err(error @ AgentError::Refused { .. })
                if self.manner == Manner::Shell && !refusal::is_forbidden(&error) =>
            {
                self.manner = Manner::Direct;
                self.start()
            }
            Err(AgentError::Refused { desc, .. }) if desc.contains("remap file descriptor") => self
                .end(Outcome::Failure(format!(
                    "the guest agent could not run {}: {desc}; is there a /dev/null in the guest?",
                    self.shown()
                ))),
            Err(error @ AgentError::Refused { .. }) if !refusal::is_forbidden(&error) => self.end(
                Outcome::Failure(format!("{} was not run: {error}", self.shown())),
            ),
            Err(error) => self.end(refusal::outcome("guest-exec", &error, self.freeze_counts)),
        }
    }

    fn poll(&mut self, now: Moment, pid: i64) -> Need<Outcome> {
        if now >= self.deadline {
            return self.out_of_time(pid);
        }
        self.call("guest-exec-status", json!({ "pid": pid }))
    }

    fn polled(
        &mut self,
        now: Moment,
        pid: i64,
        answer: Result<Value, AgentError>,
    ) -> Need<Outcome> {
        match answer {
            Ok(status) if status.get("exited").and_then(Value::as_bool) == Some(true) => {
                self.end(output::verdict(&status, self.manner, &self.shown()))
            }
            Ok(_) if now < self.deadline => {
                let wake = now.after(self.wait).min(self.deadline);
                let longest = LONGEST_WAIT.min(self.timeout / 10);
                self.wait = self.wait.saturating_mul(2).min(longest.max(FIRST_WAIT));
                Need::WaitUntil(wake)
            }
            Ok(_) => self.out_of_time(pid),
            Err(AgentError::TimedOut) => {
                self.state = State::LeftBehind { pid };
                Need::Done(Outcome::Failure(format!(
                    "command timed out: nothing was heard of the end of {} within {}, for the guest \
                     agent's last answer did not come; it or the guest hangs, or the command's \
                     output is very long",
                    self.shown(),
                    self.seconds()
                )))
            }
            Err(error) => {
                // An agent that was started anew has forgotten the process.
                self.state = match error {
                    AgentError::Restarted | AgentError::NotConnected => State::Ended,
                    _ => State::LeftBehind { pid },
                };
                Need::Done(refusal::outcome(
                    "guest-exec-status",
                    &error,
                    self.freeze_counts,
                ))
            }
        }
    }

    fn out_of_time(&mut self, pid: i64) -> Need<Outcome> {
        self.state = State::LeftBehind { pid };
        Need::Done(Outcome::Failure(format!(
            "command timed out: {} did not end within {} and is being killed",
            self.shown(),
            self.seconds()
        )))
    }

    fn end(&mut self, outcome: Outcome) -> Need<Outcome> {
        self.state = State::Ended;
        Need::Done(outcome)
    }

    fn call(&self, command: &'static str, arguments: Value) -> Need<Outcome> {
        Need::Call(Call {
            command,
            arguments,
            until: self.deadline,
        })
    }

    fn seconds(&self) -> String {
        format!("{} s", self.timeout.as_secs_f64())
    }

    /// The command for a message: quoted, on one line, not longer than a line.
    fn shown(&self) -> String {
        const LONGEST: usize = 80;
        let line = self.command.join(" ");
        let mut shown: String = line.chars().take(LONGEST).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        format!("{shown:?}")
    }
}

/// The arguments of a `guest-exec` whose output is kept.
fn execution(path: &str, arguments: &Value) -> Value {
    json!({ "path": path, "arg": arguments, "capture-output": true })
}
