// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One request at a time over one socket, each with one deadline; pure.
//!
//! The deadline covers everything: the sync that gets in step with the agent, its repetitions, and
//! the request. After one that passed, the next request begins with a sync, so that a late answer
//! is never taken for another's.
//!
//! The socket may lead to this program's own machines, where a multiplexer answers for an agent
//! that is not there, or straight to an agent, as QEMU's character device does.

use kennel_vmm::agent::dialogue::{Dialogue, Heard};
use kennel_vmm::agent::framing::Limits;
use kennel_vmm::agent::message::{Reply, is_silent};
use kennel_vmm::agent::{LOST, NOT_CONNECTED, RESTARTED};
use serde_json::Value;

use super::AgentError;
use super::text::cut;
use crate::moment::Moment;

/// What came of a request: the agent's return value; null for one that has none.
pub type Answer = Result<Value, AgentError>;

/// What an answer may not exceed. Every value costs about 100 bytes once it is read, whatever its
/// length; the answers to all that is asked here have less than ten.
const LIMITS: Limits = Limits {
    values: 4096,
    ..Limits::FROM_AGENT
};
/// What came in the place of an answer.
const UNREADABLE: &str = "none came, only other output, or what came exceeds 48 MiB, 4096 values or \
                          1024 brackets";

#[derive(Debug)]
struct Request {
    command: String,
    arguments: Option<String>,
    deadline: Moment,
    asked: bool,
}

/// The host's end of one connection.
#[derive(Debug)]
pub struct Session {
    dialogue: Dialogue,
    request: Option<Request>,
}

impl Session {
    /// Not connected. `seed` makes its numbers differ from those of others.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            dialogue: Dialogue::with_limits(seed, LIMITS),
            request: None,
        }
    }

    /// A new connection stands.
    pub fn connected(&mut self, now: Moment) {
        self.dialogue.open(now.as_nanos());
    }

    /// The connection is gone, and why. What came of the request, if there was one.
    pub fn disconnected(&mut self, why: &str) -> Option<Answer> {
        self.dialogue.close();
        let request = self.request.take()?;
        // A machine that was asked to shut down, and is gone, has.
        if request.asked && is_silent(&request.command) {
            return Some(Ok(Value::Null));
        }
        Some(Err(AgentError::Socket(why.into())))
    }

    /// A connection stands.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.dialogue.is_open()
    }

    /// Begins a request; one that was under way is given up. `arguments` is an object, or null for
    /// none.
    pub fn begin(&mut self, command: &str, arguments: &Value, deadline: Moment, now: Moment) {
        self.give_up(now);
        let arguments = (!arguments.is_null()).then(|| arguments.to_string());
        self.request = Some(Request {
            command: command.into(),
            arguments,
            deadline,
            asked: false,
        });
        // A sync left over from before may never have reached the agent.
        self.dialogue.sync_again(now.as_nanos());
        self.ask(now);
    }

    /// Nobody waits any more for what is under way.
    pub fn give_up(&mut self, now: Moment) {
        if self.request.take().is_some_and(|request| request.asked) {
            self.dialogue.abandon(now.as_nanos());
        }
    }

    /// What to send.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.dialogue.output()
    }

    /// The first `count` bytes of it are sent.
    pub fn sent(&mut self, count: usize) {
        self.dialogue.sent(count);
    }

    /// Bytes came. What came of the request, once it is known.
    pub fn received(&mut self, bytes: &[u8], now: Moment) -> Option<Answer> {
        let mut rest = bytes;
        let mut answer = None;
        while let Some(heard) = self.dialogue.hear(&mut rest, now.as_nanos()) {
            answer = answer.or(self.heard(heard, now));
        }
        answer
    }

    /// When to call [`Self::timer`].
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        let deadline = self.request.as_ref()?.deadline;
        let retry = self.dialogue.next_due().map(Moment::from_nanos);
        Some(retry.map_or(deadline, |retry| retry.min(deadline)))
    }

    /// Time has passed. What came of the request, if its deadline has.
    pub fn timer(&mut self, now: Moment) -> Option<Answer> {
        if self.request.as_ref()?.deadline <= now {
            self.give_up(now);
            return Some(Err(AgentError::TimedOut));
        }
        self.dialogue.timer(now.as_nanos());
        None
    }

    fn heard(&mut self, heard: Heard, now: Moment) -> Option<Answer> {
        match heard {
            Heard::InStep => {
                self.ask(now);
                None
            }
            Heard::Reply(reply) => self.finish(|_| read(&reply)),
            Heard::Silence => self.finish(|_| Ok(Value::Null)),
            Heard::Lost => self.finish(|_| Err(AgentError::Garbled(UNREADABLE.into()))),
            Heard::SyncRefused(reply) => self.sync_refused(&reply, now),
        }
    }

    fn sync_refused(&mut self, reply: &Reply, now: Moment) -> Option<Answer> {
        let error = match read(reply).err()? {
            AgentError::Refused { class, desc } => AgentError::SyncRefused { class, desc },
            error => error,
        };
        let asked = self.request.as_ref()?.asked;
        if error == AgentError::Restarted && !asked {
            // It was the sync that met the restart; the request has not left yet.
            self.dialogue.sync_again(now.as_nanos());
            return None;
        }
        self.finish(|request| {
            let gone = matches!(error, AgentError::Restarted | AgentError::NotConnected);
            if gone && asked && is_silent(&request.command) {
                Ok(Value::Null)
            } else {
                Err(error)
            }
        })
    }

    fn finish(&mut self, answer: impl FnOnce(&Request) -> Answer) -> Option<Answer> {
        self.request.take().map(|request| answer(&request))
    }

    fn ask(&mut self, now: Moment) {
        let Some(request) = &mut self.request else {
            return;
        };
        if !request.asked && self.dialogue.is_ready(now.as_nanos()) {
            let arguments = request.arguments.as_deref();
            self.dialogue
                .ask(&request.command, arguments, now.as_nanos());
            request.asked = true;
        }
    }
}

fn read(reply: &Reply) -> Answer {
    let Some(parts) = reply.error_parts() else {
        let raw = reply.result.as_ref().map_or("", |value| value.get());
        return serde_json::from_str(raw).map_err(|error| AgentError::Garbled(error.to_string()));
    };
    Err(match parts.desc.as_str() {
        NOT_CONNECTED => AgentError::NotConnected,
        RESTARTED => AgentError::Restarted,
        LOST => AgentError::Garbled(parts.desc),
        _ => AgentError::Refused {
            class: cut(parts.class),
            desc: cut(parts.desc),
        },
    })
}
