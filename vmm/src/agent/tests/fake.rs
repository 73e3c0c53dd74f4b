// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small model of qemu-ga: one thread, requests in order, tags echoed, 0xFF complained about.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::agent::framing::{Frame, Framer, Limits};

/// What the agent does with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagHabit {
    /// As qemu-ga since 3.1.
    Echo,
    /// As one that knows no tags and does not mind.
    Ignore,
    /// As qemu-ga before 2.12: a member that it does not know.
    Refuse,
}

#[derive(Debug)]
pub(super) struct FakeAgent {
    framer: Framer,
    work: VecDeque<Frame>,
    pub(super) output: VecDeque<u8>,
    pub(super) tags: TagHabit,
    pub(super) frozen: bool,
    /// The commands that it does not know.
    pub(super) unknown: Vec<&'static str>,
    /// The commands that it carried out.
    pub(super) executed: Vec<String>,
}

impl FakeAgent {
    pub(super) fn new() -> Self {
        Self {
            framer: Framer::new(Limits::FROM_AGENT),
            work: VecDeque::new(),
            output: VecDeque::new(),
            tags: TagHabit::Echo,
            frozen: false,
            unknown: Vec::new(),
            executed: Vec::new(),
        }
    }

    /// Bytes come from the port.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.framer.next(&mut bytes) {
            self.work.push_back(frame);
        }
    }

    /// Works off one request; false if there is none.
    pub(super) fn step(&mut self) -> bool {
        match self.work.pop_front() {
            None => return false,
            Some(Frame::Object { bytes, .. }) => self.request(&bytes),
            Some(Frame::Reset { .. }) => self.error("JSON parse error, stray", None),
            Some(Frame::Garbage { .. }) => self.error("JSON parse error, expecting value", None),
        }
        true
    }

    fn request(&mut self, bytes: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Value>(bytes) else {
            return self.error("JSON parse error", None);
        };
        let id = request.get("id").cloned();
        if id.is_some() && self.tags == TagHabit::Refuse {
            return self.error("QMP input member 'id' is unexpected", None);
        }
        let id = id.filter(|_| self.tags == TagHabit::Echo);
        let execute = request["execute"].as_str().unwrap_or_default();
        if self.unknown.contains(&execute) {
            let desc = format!("The command {execute} has not been found");
            let error = json!({"class": "CommandNotFound", "desc": desc});
            return self.say("error", error, id);
        }
        let arguments = &request["arguments"];
        self.executed.push(match execute {
            "mark" => arguments["text"].as_str().unwrap_or_default().to_owned(),
            _ => execute.to_owned(),
        });
        let value = match execute {
            "guest-sync" => arguments["id"].clone(),
            "guest-sync-delimited" => {
                self.output.push_back(0xff);
                arguments["id"].clone()
            }
            "guest-ping" => json!({}),
            "mark" => arguments["text"].clone(),
            "big" => {
                let size = usize::try_from(arguments["size"].as_u64().unwrap_or(0)).unwrap();
                Value::from(arguments["letter"].as_str().unwrap_or("x").repeat(size))
            }
            "guest-fsfreeze-freeze" => {
                self.frozen = true;
                json!(2)
            }
            "guest-fsfreeze-thaw" => {
                self.frozen = false;
                json!(2)
            }
            "guest-fsfreeze-status" => json!(if self.frozen { "frozen" } else { "thawed" }),
            "guest-shutdown" if arguments["mode"] == "bad" => {
                return self.error("invalid mode", id);
            }
            "guest-shutdown" => return,
            _ => {
                let error = json!({"class": "CommandNotFound", "desc": "not found"});
                return self.say("error", error, id);
            }
        };
        self.say("return", value, id);
    }

    fn error(&mut self, desc: &str, id: Option<Value>) {
        self.say("error", json!({"class": "GenericError", "desc": desc}), id);
    }

    fn say(&mut self, word: &str, value: Value, id: Option<Value>) {
        let mut reply = serde_json::Map::new();
        reply.insert(word.into(), value);
        reply.extend(id.map(|id| ("id".to_owned(), id)));
        self.output.extend(Value::from(reply).to_string().bytes());
        self.output.push_back(b'\n');
    }
}
