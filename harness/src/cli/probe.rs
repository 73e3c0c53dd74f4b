// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel probe`: one probe, once, with the exit statuses of KubeVirt's `virt-probe`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::args::ProbeArgs;
use super::{Answer, Failure};
use crate::agent::{AgentError, Connection};
use crate::moment::Moment;
use crate::probe::Outcome;
use crate::probe::ask::{Input, Need};
use crate::probe::exec::Exec;
use crate::probe::ping::Ping;
use crate::runtime_dir::RuntimeDir;

/// The agent's socket cannot be reached.
const UNREACHABLE: u8 = 1;
/// The agent was asked, and there is no result.
const NO_RESULT: u8 = 2;
/// What a command wrote, in a status.
const STREAMS: [&str; 2] = ["out-data", "err-data"];
/// What a shell adds to the number of the signal that ended a command.
const BY_SIGNAL: i64 = 128;
/// How long ending a command that is out of time may take.
const CLEAN_UP: Duration = Duration::from_secs(2);

pub(super) fn probe(args: &ProbeArgs) -> Answer {
    // From here on: reaching the agent counts too.
    let beginning = Instant::now();
    let socket = socket(args)?;
    let connection = Connection::open(&socket).map_err(|error| unreachable(args, &error))?;
    let mut line = Line {
        connection,
        beginning,
        last: None,
    };
    let deadline = Moment::ZERO.after(args.timeout_seconds);
    if args.guest_agent_ping {
        let mut ping = Ping::new(args.timeout_seconds, deadline);
        let need = ping.next(Input::Begin);
        let outcome = line.drive(need, |_, input| ping.next(input));
        return line.conclude(args, outcome, |_| Ok(0));
    }
    let Some(program) = &args.command else {
        let message = "nothing to ask: give --guestAgentPing or --command CMD".into();
        return Err(Failure::Usage(message));
    };
    let command = [std::slice::from_ref(program), &args.arguments].concat();
    let mut exec = Exec::new(command, args.timeout_seconds, deadline);
    let need = exec.next(line.now(), Input::Begin);
    let outcome = line.drive(need, |now, input| exec.next(now, input));
    let answer = line.conclude(args, outcome, ended);
    if let Some(mut reaper) = exec.reaper() {
        let need = reaper.begin(line.now().after(CLEAN_UP));
        line.drive(need, |now, input| reaper.next(now, input));
    }
    answer
}

fn socket(args: &ProbeArgs) -> Result<PathBuf, Failure> {
    if let Some(socket) = &args.agent {
        return Ok(socket.clone());
    }
    let domain = args.domain_name.as_deref().unwrap_or_default();
    RuntimeDir::of_this_user()
        .agent_socket_of_domain(domain)
        .map_err(Failure::could_not)
}

/// One sentence about a socket that cannot be reached.
fn unreachable(args: &ProbeArgs, error: &AgentError) -> Failure {
    let mut message = match socket(args) {
        Ok(socket) => format!("{}: {error}", socket.display()),
        Err(_) => error.to_string(),
    };
    if args.agent.is_none() {
        let domains = RuntimeDir::of_this_user().domains();
        let others = if domains.is_empty() {
            "none".to_owned()
        } else {
            domains.join(", ")
        };
        message.push_str(&format!(" Machines with an agent's socket here: {others}."));
    }
    Failure::Status(UNREACHABLE, message)
}

/// The agent, the clock, and the last thing that the agent said.
#[derive(Debug)]
struct Line {
    connection: Connection,
    beginning: Instant,
    last: Option<Result<Value, AgentError>>,
}

impl Line {
    fn now(&self) -> Moment {
        Moment::ZERO.after(self.beginning.elapsed())
    }

    fn drive<T>(&mut self, mut need: Need<T>, mut next: impl FnMut(Moment, Input) -> Need<T>) -> T {
        loop {
            let input = match need {
                Need::Done(result) => return result,
                Need::WaitUntil(moment) => {
                    std::thread::sleep(moment.since(self.now()));
                    Input::Woken
                }
                Need::Call(call) => {
                    let wait = call.until.since(self.now());
                    let until = Instant::now() + wait;
                    let mut answer = self.connection.call(call.command, &call.arguments, until);
                    self.last = Some(keep(&mut answer));
                    Input::Answer(answer)
                }
            };
            need = next(self.now(), input);
        }
    }

    /// The exit status: by what the agent said last if it said how it went, which `ended` makes one
    /// of, else by why it did not.
    fn conclude(
        &mut self,
        args: &ProbeArgs,
        outcome: Outcome,
        ended: impl FnOnce(&Value) -> Answer,
    ) -> Answer {
        let why = match outcome {
            Outcome::Success | Outcome::Warning(_) => String::new(),
            Outcome::Failure(why) | Outcome::Error(why) => why,
        };
        match self.last.take() {
            Some(Err(error @ AgentError::Socket(_))) => Err(unreachable(args, &error)),
            Some(Ok(value)) if why.is_empty() || is_over(&value) => ended(&value),
            _ => Err(Failure::Status(NO_RESULT, why)),
        }
    }
}

/// What [`Line::conclude`] needs of an answer; a command's output, which can be long, is moved.
fn keep(answer: &mut Result<Value, AgentError>) -> Result<Value, AgentError> {
    match answer {
        Ok(status) if is_over(status) => {
            let streams = STREAMS.map(|key| status.get_mut(key).map(Value::take));
            let mut kept = status.clone();
            for (key, stream) in STREAMS.into_iter().zip(streams) {
                if let Some(stream) = stream {
                    kept[key] = stream;
                }
            }
            Ok(kept)
        }
        Ok(_) => Ok(Value::Null),
        Err(error) => Err(error.clone()),
    }
}

/// A command's status that tells how it ended.
fn is_over(status: &Value) -> bool {
    status.get("exited").and_then(Value::as_bool) == Some(true)
}

/// Passes on what a command wrote and how it ended.
fn ended(status: &Value) -> Answer {
    // A reader that went away is not the command's failure.
    let _read = io::stdout().write_all(&stream(status, "out-data")?);
    let _read = io::stderr().write_all(&stream(status, "err-data")?);
    for (key, name) in [("out-truncated", "output"), ("err-truncated", "errors")] {
        if status.get(key).and_then(Value::as_bool) == Some(true) {
            super::progress::say(&format!(
                "kennel: the guest agent cut the command's {name} short"
            ));
        }
    }
    exit_status(status)
}

fn stream(status: &Value, key: &str) -> Result<Vec<u8>, Failure> {
    let encoded = status.get(key).and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(encoded).map_err(|error| {
        let message = format!("the guest agent's {key} is not base64: {error}");
        Failure::Status(NO_RESULT, message)
    })
}

fn exit_status(status: &Value) -> Answer {
    let number = |key| status.get(key).and_then(Value::as_i64);
    if let Some(signal) = number("signal") {
        // Windows' exceptions have numbers that are no exit status.
        let code = signal.saturating_add(BY_SIGNAL);
        let code = u8::try_from(code).unwrap_or(u8::MAX);
        let message = format!("the command was killed by signal {signal}");
        return Err(Failure::Status(code, message));
    }
    let Some(code) = number("exitcode") else {
        let message = "the guest agent says that the command ended, and not how".into();
        return Err(Failure::Status(NO_RESULT, message));
    };
    u8::try_from(code).map_err(|_| {
        let message = format!("the command's exit status {code} is more than this system has");
        Failure::Status(u8::MAX, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(value: &Value) -> (u8, String) {
        match exit_status(value) {
            Ok(status) => (status, String::new()),
            Err(Failure::Status(status, message)) => (status, message),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_commands_exit_status_is_passed_on() {
        for code in [0, 1, 2, 124, 127, 255] {
            let (status, message) = status(&json!({"exited": true, "exitcode": code}));
            assert_eq!((i64::from(status), message.as_str()), (code, ""));
        }
    }

    #[test]
    fn what_is_no_exit_status_is_never_zero() {
        for (value, code, says) in [
            (json!({"signal": 9}), 137, "signal 9"),
            (json!({"signal": 0xc000_0005_u32}), 255, "3221225477"),
            (json!({"exitcode": 256}), 255, "256"),
            (json!({"exitcode": -1}), 255, "-1"),
            (json!({}), 2, "not how"),
        ] {
            let (status, message) = status(&value);
            assert_eq!(status, code, "{value}");
            assert!(message.contains(says), "{value}: {message}");
        }
    }

    #[test]
    fn a_commands_output_is_kept_once() {
        let status = json!({"exited": true, "exitcode": 3, "out-data": "aGk="});
        let mut answer = Ok(status.clone());
        assert_eq!(keep(&mut answer), Ok(status));
        assert_eq!(answer.unwrap()["out-data"], Value::Null);
        assert_eq!(keep(&mut Ok(json!({"pid": 7}))), Ok(Value::Null));
        let restarted = Err(AgentError::Restarted);
        assert_eq!(keep(&mut restarted.clone()), restarted);
    }

    #[test]
    fn streams_are_decoded() {
        let value = json!({"out-data": "aGk=", "err-data": "?"});
        assert_eq!(stream(&value, "out-data").unwrap(), b"hi");
        assert_eq!(stream(&value, "absent").unwrap(), b"");
        assert!(matches!(
            stream(&value, "err-data"),
            Err(Failure::Status(2, _))
        ));
    }
}
