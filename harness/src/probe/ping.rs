// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `guestAgentPing`: the agent answers, in time.

use std::time::Duration;

use serde_json::Value;

use super::ask::{Call, Input, Need};
use super::{Outcome, refusal};
use crate::agent::AgentError;
use crate::moment::Moment;

/// One ping. Its deadline covers getting in step with the agent too.
#[derive(Clone, Debug)]
pub struct Ping {
    timeout: Duration,
    deadline: Moment,
}

impl Ping {
    /// A ping that fails at `deadline`, called `timeout` in what it says.
    #[must_use]
    pub const fn new(timeout: Duration, deadline: Moment) -> Self {
        Self { timeout, deadline }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&mut self, input: Input) -> Need<Outcome> {
        match input {
            Input::Begin | Input::Woken => Need::Call(Call {
                command: "guest-ping",
                arguments: Value::Null,
                until: self.deadline,
            }),
            Input::Answer(Ok(_)) => Need::Done(Outcome::Success),
            Input::Answer(Err(AgentError::TimedOut)) => Need::Done(Outcome::Failure(format!(
                "the guest agent is connected and did not answer a ping within {} s; it or the \
                 guest hangs",
                self.timeout.as_secs_f64()
            ))),
            // A ping is allowed while frozen: a freeze is never why it is refused.
            Input::Answer(Err(error)) => Need::Done(refusal::outcome("guest-ping", &error, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(answer: Result<Value, AgentError>) -> Outcome {
        let deadline = Moment::from_nanos(7);
        let mut ping = Ping::new(Duration::from_secs(1), deadline);
        let Need::Call(call) = ping.next(Input::Begin) else {
            panic!("a ping is a call");
        };
        assert_eq!((call.command, call.until), ("guest-ping", deadline));
        match ping.next(Input::Answer(answer)) {
            Need::Done(outcome) => outcome,
            other => panic!("{other:?} after the answer"),
        }
    }

    #[test]
    fn only_an_answer_is_success() {
        assert_eq!(ping(Ok(Value::Null)), Outcome::Success);
        for (error, word) in [
            (AgentError::TimedOut, "did not answer a ping within 1 s"),
            (AgentError::NotConnected, "no guest agent is connected"),
            (
                AgentError::Refused {
                    class: "CommandNotFound".into(),
                    desc: "Command guest-ping has been disabled".into(),
                },
                "does not allow guest-ping",
            ),
        ] {
            let Outcome::Failure(why) = ping(Err(error)) else {
                panic!("{word}: no failure");
            };
            assert!(why.contains(word), "{why}");
        }
        for error in [
            AgentError::SyncRefused {
                class: "CommandNotFound".into(),
                desc: "x".into(),
            },
            AgentError::Garbled("x".into()),
            AgentError::Socket("x".into()),
        ] {
            assert!(matches!(ping(Err(error)), Outcome::Failure(_)));
        }
        assert!(matches!(
            ping(Err(AgentError::Restarted)),
            Outcome::Error(_)
        ));
    }
}
