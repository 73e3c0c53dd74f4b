// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The multiplexer between a model of the agent and clients, in virtual time.

mod epochs;
mod fake;
mod framing;
mod hostile;
mod random;
mod requests;
mod sharing;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ClientId, Config, Effect, Multiplexer};
use fake::FakeAgent;

const MS: u64 = 1_000_000;

/// A client's end of its socket.
#[derive(Debug, Default)]
struct Socket {
    received: Vec<u8>,
    /// It does not read.
    deaf: bool,
    closed: bool,
    /// The multiplexer does not read it.
    held: bool,
}

/// Everything around a multiplexer.
#[derive(Debug)]
struct World {
    mux: Multiplexer,
    /// Whoever has the port open.
    agent: Option<FakeAgent>,
    sockets: BTreeMap<ClientId, Socket>,
    frozen: Vec<bool>,
    now: u64,
}

impl World {
    /// The port is closed.
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self {
            mux: Multiplexer::new(config),
            agent: None,
            sockets: BTreeMap::new(),
            frozen: Vec::new(),
            now: 0,
        }
    }

    /// An agent is in step, and so many clients are connected, numbered from 0.
    fn running(clients: u64) -> Self {
        let mut world = Self::new();
        world.start_agent();
        for id in 0..clients {
            world.connect(id);
        }
        world.run();
        world
    }

    fn agent(&mut self) -> &mut FakeAgent {
        self.agent.as_mut().unwrap()
    }

    fn start_agent(&mut self) {
        self.agent = Some(FakeAgent::new());
        let effects = self.mux.port_opened(self.now);
        self.apply(effects);
    }

    fn stop_agent(&mut self, reset: bool) -> Option<FakeAgent> {
        let agent = self.agent.take();
        let effects = self.mux.port_closed(reset, self.now);
        self.apply(effects);
        agent
    }

    fn connect(&mut self, id: u64) {
        self.sockets.insert(ClientId(id), Socket::default());
        let effects = self.mux.client_connected(ClientId(id), self.now);
        self.apply(effects);
    }

    fn hang_up(&mut self, id: u64) {
        self.sockets.remove(&ClientId(id));
        let effects = self.mux.client_gone(ClientId(id), self.now);
        self.apply(effects);
    }

    fn send(&mut self, id: u64, bytes: impl AsRef<[u8]>) {
        let effects = self
            .mux
            .client_bytes(ClientId(id), bytes.as_ref(), self.now);
        self.apply(effects);
    }

    fn ask(&mut self, id: u64, request: &Value) {
        self.send(id, format!("{request}\n"));
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::WritePort | Effect::WriteClient(_) => {}
                Effect::ReadClient(id, wanted) => self.sockets.get_mut(&id).unwrap().held = !wanted,
                Effect::CloseClient(id) => self.sockets.get_mut(&id).unwrap().closed = true,
                Effect::FilesystemsFrozen => self.frozen.push(true),
                Effect::FilesystemsThawed => self.frozen.push(false),
            }
        }
    }

    /// Up to `count` bytes go from the multiplexer to the agent.
    fn deliver(&mut self, count: usize) -> usize {
        let Some(agent) = &mut self.agent else {
            return 0;
        };
        let output = self.mux.port_output();
        let count = count.min(output.len());
        agent.feed(&output[..count]);
        self.mux.port_sent(count);
        count
    }

    /// Up to `count` bytes go from the agent to the multiplexer.
    fn collect_answer(&mut self, count: usize) -> usize {
        let Some(agent) = &mut self.agent else {
            return 0;
        };
        let count = count.min(agent.output.len());
        let bytes: Vec<u8> = agent.output.drain(..count).collect();
        self.guest_says(&bytes);
        count
    }

    fn guest_says(&mut self, bytes: &[u8]) {
        let effects = self.mux.port_bytes(bytes, self.now);
        self.apply(effects);
    }

    /// Clients that listen read what there is.
    fn read_sockets(&mut self) -> usize {
        let mut moved = 0;
        for id in self.sockets.keys().copied().collect::<Vec<_>>() {
            let socket = self.sockets.get_mut(&id).unwrap();
            if socket.deaf {
                continue;
            }
            let output = self.mux.client_output(id);
            let count = output.len();
            socket.received.extend_from_slice(output);
            let effects = self.mux.client_sent(id, count, self.now);
            self.apply(effects);
            moved += count;
        }
        moved
    }

    /// Until nothing moves any more.
    fn run(&mut self) {
        loop {
            let mut moved = self.deliver(usize::MAX);
            while self.agent.as_mut().is_some_and(FakeAgent::step) {
                moved += 1;
            }
            moved += self.collect_answer(usize::MAX) + self.read_sockets();
            if moved == 0 {
                return;
            }
        }
    }

    /// Lets time pass, timers and all.
    fn pass(&mut self, time: u64) {
        let until = self.now + time;
        while let Some(due) = self.mux.next_due()
            && due <= until
        {
            assert!(due >= self.now, "due in the past: it would spin");
            self.now = due;
            let effects = self.mux.timer(due);
            self.apply(effects);
            assert_ne!(self.mux.next_due(), Some(due), "it would spin");
            self.read_sockets();
        }
        self.now = until;
        self.read_sockets();
    }

    /// What a client has received since the last time, as lines.
    fn lines(&mut self, id: u64) -> Vec<Vec<u8>> {
        self.read_sockets();
        let socket = self.sockets.get_mut(&ClientId(id)).unwrap();
        let received = std::mem::take(&mut socket.received);
        let mut lines: Vec<Vec<u8>> = received.split(|b| *b == b'\n').map(Vec::from).collect();
        assert_eq!(lines.pop(), Some(Vec::new()), "an unfinished line");
        lines
    }

    fn replies(&mut self, id: u64) -> Vec<Value> {
        let lines = self.lines(id);
        lines
            .iter()
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

fn mark(text: &str, id: impl Into<Value>) -> Value {
    json!({"execute": "mark", "arguments": {"text": text}, "id": id.into()})
}

fn answer(text: &str, id: impl Into<Value>) -> Value {
    json!({"return": text, "id": id.into()})
}

fn refusal(desc: &str, id: impl Into<Value>) -> Value {
    json!({"error": {"class": "GenericError", "desc": desc}, "id": id.into()})
}
