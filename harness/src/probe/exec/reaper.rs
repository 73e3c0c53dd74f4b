// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ends a command that is out of time, and has the agent forget it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{FIRST_WAIT, LONGEST_WAIT, Manner, SHELL, execution};
use crate::agent::AgentError;
use crate::moment::Moment;
use crate::probe::ask::{Call, Input, Need};

const REAP: &str = include_str!("reap.sh");
const NAME: &str = "kennel-probe-reap";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Whether it is still there is asked: its number may be another's by now.
    Looking,
    /// The process that ends it is being started, the `usize`th way.
    Killing(usize),
    /// Who ends it is waited for.
    Waiting { killer: i64 },
    /// It is waited for.
    Burying,
}

/// What ends one process. It can be begun again if it was not [`Reaped::Gone`].
#[derive(Clone, Debug)]
pub struct Reaper {
    pid: i64,
    manner: Manner,
    state: State,
    until: Moment,
    wait: Duration,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// The process has ended, or the agent does not know it any more.
    Gone,
    /// Not within the time that was given.
    NotYet,
}

impl Reaper {
    pub(super) const fn new(pid: i64, manner: Manner) -> Self {
        Self {
            pid,
            manner,
            state: State::Looking,
            until: Moment::ZERO,
            wait: FIRST_WAIT,
        }
    }

    /// Begins, or begins again, and gives up at `until`.
    #[must_use]
    pub fn begin(&mut self, until: Moment) -> Need<Reaped> {
        self.until = until;
        self.state = State::Looking;
        self.wait = FIRST_WAIT;
        self.ask(self.pid)
    }

    /// What to do next.
    #[must_use]
    pub fn next(&mut self, now: Moment, input: Input) -> Need<Reaped> {
        if now >= self.until {
            return Need::Done(Reaped::NotYet);
        }
        let answer = match (input, self.state) {
            (Input::Answer(answer), _) => answer,
            (_, State::Waiting { killer }) => return self.ask(killer),
            _ => return self.ask(self.pid),
        };
        match answer {
            // A new agent has forgotten every process.
            Err(AgentError::Restarted | AgentError::NotConnected) => Need::Done(Reaped::Gone),
            Err(AgentError::Refused { .. }) => self.refused(),
            Err(_) => Need::Done(Reaped::NotYet),
            Ok(value) => self.answered(now, &value),
        }
    }

    fn answered(&mut self, now: Moment, value: &Value) -> Need<Reaped> {
        let exited = value.get("exited").and_then(Value::as_bool) == Some(true);
        match self.state {
            State::Looking | State::Burying if exited => Need::Done(Reaped::Gone),
            State::Looking => self.kill(0),
            State::Killing(_) => match value.get("pid").and_then(Value::as_i64) {
                Some(killer) => {
                    self.state = State::Waiting { killer };
                    self.ask(killer)
                }
                None => Need::Done(Reaped::NotYet),
            },
            State::Waiting { .. } if exited => {
                self.state = State::Burying;
                self.wait = FIRST_WAIT;
                self.ask(self.pid)
            }
            State::Waiting { .. } | State::Burying => {
                let wake = now.after(self.wait).min(self.until);
                self.wait = self.wait.saturating_mul(2).min(LONGEST_WAIT);
                Need::WaitUntil(wake)
            }
        }
    }

    fn refused(&mut self) -> Need<Reaped> {
        match self.state {
            State::Looking | State::Burying => Need::Done(Reaped::Gone),
            State::Killing(way) => self.kill(way.saturating_add(1)),
            State::Waiting { .. } => {
                self.state = State::Burying;
                self.ask(self.pid)
            }
        }
    }

    /// Ends it the `way`th way: the shell's for what the shell runs, else POSIX's and Windows'.
    fn kill(&mut self, way: usize) -> Need<Reaped> {
        let pid = self.pid.to_string();
        let arguments = match (self.manner, way) {
            (Manner::Shell, 0) => execution(SHELL, &json!(["-c", REAP, NAME, pid])),
            (Manner::Direct, 0) => execution("kill", &json!(["-9", pid])),
            (Manner::Direct, 1) => execution("taskkill", &json!(["/F", "/T", "/PID", pid])),
            _ => return Need::Done(Reaped::NotYet),
        };
        self.state = State::Killing(way);
        self.call("guest-exec", arguments)
    }

    fn ask(&self, pid: i64) -> Need<Reaped> {
        self.call("guest-exec-status", json!({ "pid": pid }))
    }

    fn call(&self, command: &'static str, arguments: Value) -> Need<Reaped> {
        Need::Call(Call {
            command,
            arguments,
            until: self.until,
        })
    }
}
