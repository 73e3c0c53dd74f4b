// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Several clients, one agent: each is served as if it were alone.

use std::collections::{BTreeMap, VecDeque};

use serde_json::value::RawValue;

use super::client::Client;
use super::dialogue::{Dialogue, Heard};
use super::freeze::FreezeWatch;
use super::message::{Reply, Request, is_silent};

/// What a client is told when nobody in the guest has the agent's port open.
pub const NOT_CONNECTED: &str = "no guest agent has the port open";
/// What a client is told when the agent closed the port, or the guest was reset, before its request
/// was answered. The request may have been executed; it will not be any more.
pub const RESTARTED: &str = "the guest agent was started anew before it answered";
/// What a client is told when its answer drowned in other output of the guest.
pub const LOST: &str = "the guest agent's answer was lost in other output on its port";

/// One client, as its owner names it. A number that was used before may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What the owner of port and socket must do, or may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// [`Multiplexer::port_output`] has something.
    WritePort,
    /// [`Multiplexer::client_output`] has something for this one.
    WriteClient(ClientId),
    /// Read this client, or stop reading it. A new client is read.
    ReadClient(ClientId, bool),
    /// Close this client's connection. The multiplexer has forgotten it.
    CloseClient(ClientId),
    /// The agent froze the guest's file systems.
    FilesystemsFrozen,
    /// They are thawed, or the agent that froze them is gone.
    FilesystemsThawed,
}

/// Bounds, times in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Clients at one time; more are closed at once.
    pub clients: usize,
    /// How long after the agent closed its port requests wait for it to be back, before they are
    /// refused. An agent that is being restarted is back within it, and it is less than the usual
    /// timeout of a probe, so that the sentence arrives. Where no agent has been yet, or the guest
    /// was reset, requests are refused at once.
    pub grace_ns: u64,
    /// How long the answer to a request that nobody wants any more is waited for, until the agent is
    /// put in step anew: the answer may have got lost. It is less than the usual timeout of a probe,
    /// so that one lost answer costs one attempt and not two.
    pub patience_ns: u64,
    /// How long a client may leave answers unread.
    pub stall_ns: u64,
    /// Makes the numbers of this multiplexer its own.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clients: 64,
            grace_ns: 500_000_000,
            patience_ns: 100_000_000,
            stall_ns: 30_000_000_000,
            seed: 0,
        }
    }
}

/// The request that is with the agent.
#[derive(Debug)]
struct UnderWay {
    /// Who waits for it, if anybody still does.
    client: Option<ClientId>,
    id: Option<Box<RawValue>>,
    execute: String,
    /// When the others have waited long enough for what nobody wants.
    overdue_at: Option<u64>,
}

/// Several clients, one agent. Time (`now`) is real time in ns from any beginning; it does not stand
/// still when VM time does.
#[derive(Debug)]
pub struct Multiplexer {
    config: Config,
    dialogue: Dialogue,
    under_way: Option<UnderWay>,
    clients: BTreeMap<ClientId, Client>,
    /// Who is served next, first to last. Has each client once.
    turns: VecDeque<ClientId>,
    freeze: FreezeWatch,
    /// While the port is closed: when to stop waiting for an agent that closed it.
    back_by: Option<u64>,
    effects: Vec<Effect>,
}

impl Multiplexer {
    /// Nobody has the port open, and there are no clients.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            dialogue: Dialogue::new(config.seed),
            under_way: None,
            clients: BTreeMap::new(),
            turns: VecDeque::new(),
            freeze: FreezeWatch::default(),
            back_by: None,
            effects: Vec::new(),
        }
    }

    /// A program in the guest opened the port.
    #[must_use]
    pub fn port_opened(&mut self, now: u64) -> Vec<Effect> {
        if self.dialogue.is_open() {
            self.agent_gone(now);
        }
        self.dialogue.open(now);
        self.settle(now)
    }

    /// It closed the port, or `reset`: the guest it ran in is gone. Also for a reset while the port
    /// is closed: what still waits was meant for the guest of before.
    #[must_use]
    pub fn port_closed(&mut self, reset: bool, now: u64) -> Vec<Effect> {
        if reset || self.dialogue.is_open() {
            self.agent_gone(now);
            let back_by = now.saturating_add(self.config.grace_ns);
            self.back_by = (!reset).then_some(back_by);
        }
        self.settle(now)
    }

    /// The guest wrote to the port. All of it is taken, always.
    #[must_use]
    pub fn port_bytes(&mut self, bytes: &[u8], now: u64) -> Vec<Effect> {
        let mut rest = bytes;
        while let Some(heard) = self.dialogue.hear(&mut rest, now) {
            self.heard(heard, now);
            // Whoever was answered must not wait for the rest of what came.
            self.serve(now);
        }
        self.settle(now)
    }

    /// What the guest is to be given, as much of it as it has room for.
    #[must_use]
    pub fn port_output(&self) -> &[u8] {
        self.dialogue.output()
    }

    /// The guest took the first `count` bytes of it.
    pub fn port_sent(&mut self, count: usize) {
        self.dialogue.sent(count);
    }

    /// A client came.
    #[must_use]
    pub fn client_connected(&mut self, id: ClientId, now: u64) -> Vec<Effect> {
        self.forget(id, now);
        if self.clients.len() >= self.config.clients {
            self.effects.push(Effect::CloseClient(id));
        } else {
            self.clients.insert(id, Client::new());
            self.turns.push_back(id);
        }
        self.settle(now)
    }

    /// A client sent this.
    #[must_use]
    pub fn client_bytes(&mut self, id: ClientId, bytes: &[u8], now: u64) -> Vec<Effect> {
        if let Some(client) = self.clients.get_mut(&id) {
            client.receive(bytes);
        }
        self.read_requests(id, now);
        self.settle(now)
    }

    /// A client will send no more but reads on: it shut down its side only. It is answered what it
    /// asked, then closed. For one that hung up, see [`Self::client_gone`].
    #[must_use]
    pub fn client_finished(&mut self, id: ClientId, now: u64) -> Vec<Effect> {
        if let Some(client) = self.clients.get_mut(&id) {
            client.finished = true;
            client.reading = false;
        }
        self.settle(now)
    }

    /// What a client is to be given. Empty for one that is not known.
    #[must_use]
    pub fn client_output(&self, id: ClientId) -> &[u8] {
        self.clients.get(&id).map_or(&[], Client::output)
    }

    /// The client took the first `count` bytes of it.
    #[must_use]
    pub fn client_sent(&mut self, id: ClientId, count: usize, now: u64) -> Vec<Effect> {
        if let Some(client) = self.clients.get_mut(&id) {
            client.sent(count, now);
        }
        self.settle(now)
    }

    /// A client hung up, or its connection failed.
    #[must_use]
    pub fn client_gone(&mut self, id: ClientId, now: u64) -> Vec<Effect> {
        self.forget(id, now);
        self.settle(now)
    }

    /// When to call [`Self::timer`]; sooner and later are both harmless.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let mut due: Vec<u64> = Vec::new();
        due.extend(self.dialogue.next_due());
        due.extend(self.under_way.as_ref().and_then(|it| it.overdue_at));
        for client in self.clients.values() {
            if !self.dialogue.is_open() && client.waits_for_agent() {
                due.extend(self.back_by);
            }
            let stalled = client.stalled_since();
            due.extend(stalled.map(|at| at.saturating_add(self.config.stall_ns)));
        }
        due.into_iter().min()
    }

    /// Time has passed.
    #[must_use]
    pub fn timer(&mut self, now: u64) -> Vec<Effect> {
        self.dialogue.timer(now);
        if let Some(under_way) = &mut self.under_way
            && under_way.overdue_at.is_some_and(|at| at <= now)
        {
            under_way.overdue_at = None;
            self.dialogue.resync(now);
        }
        self.close_stalled(now);
        self.settle(now)
    }

    /// A program in the guest has the port open.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.dialogue.is_open()
    }

    /// Bytes of an unfinished message from the guest that are kept.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.dialogue.held()
    }

    /// Messages from the guest that were nobody's answer.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.dialogue.strays()
    }

    fn agent_gone(&mut self, now: u64) {
        self.dialogue.close();
        if self
            .under_way
            .as_ref()
            .is_some_and(|it| is_silent(&it.execute))
        {
            // The agent goes with the guest that it was asked to shut down: that is success.
            self.succeed_silently();
        }
        self.answer_under_way(&Reply::error(RESTARTED), now);
        self.refuse(RESTARTED);
        let frozen = self.freeze.agent_gone();
        self.tell_frozen(frozen);
    }

    fn refuse(&mut self, desc: &str) {
        for client in self.clients.values_mut() {
            client.refuse(desc);
        }
    }

    /// There is no agent, and none is expected any more.
    fn is_deserted(&self, now: u64) -> bool {
        !self.dialogue.is_open() && self.back_by.is_none_or(|back_by| back_by <= now)
    }

    fn heard(&mut self, heard: Heard, now: u64) {
        match heard {
            Heard::Reply(reply) => self.answer_under_way(&reply, now),
            Heard::Lost => self.answer_under_way(&Reply::error(LOST), now),
            Heard::Silence => self.succeed_silently(),
            // The sync is tried again by itself; who asks meanwhile is told why it is refused.
            Heard::InStep | Heard::SyncRefused(_) => {}
        }
    }

    fn answer_under_way(&mut self, reply: &Reply, now: u64) {
        let Some(under_way) = self.under_way.take() else {
            return;
        };
        let frozen = self.freeze.answered(&under_way.execute, reply);
        self.tell_frozen(frozen);
        let Some(id) = under_way.client else { return };
        self.no_longer_waits(id);
        let mut line = reply.line(under_way.id.as_deref());
        if under_way.execute == "guest-sync-delimited" && reply.result.is_ok() {
            line.insert(0, 0xff);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            if client.output().is_empty() {
                self.effects.push(Effect::WriteClient(id));
            }
            client.send(line, now);
        }
    }

    fn succeed_silently(&mut self) {
        if let Some(client) = self.under_way.take().and_then(|it| it.client) {
            self.no_longer_waits(client);
        }
    }

    fn no_longer_waits(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.waits = false;
        }
    }

    fn tell_frozen(&mut self, frozen: Option<bool>) {
        self.effects.extend(frozen.map(|frozen| {
            if frozen {
                Effect::FilesystemsFrozen
            } else {
                Effect::FilesystemsThawed
            }
        }));
    }

    fn read_requests(&mut self, id: ClientId, now: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let gave_up = client.read_requests();
        let silent = self.under_way.as_ref();
        if gave_up && !silent.is_some_and(|it| is_silent(&it.execute)) {
            client.waits = false;
            self.give_up(id, now);
        }
    }

    /// The client does not wait any more for what is under way, if that is its own.
    fn give_up(&mut self, id: ClientId, now: u64) {
        let Some(under_way) = &mut self.under_way else {
            return;
        };
        if under_way.client != Some(id) {
            return;
        }
        under_way.client = None;
        under_way.overdue_at = Some(now.saturating_add(self.config.patience_ns));
        if self.dialogue.withdraw(now) {
            self.under_way = None;
        }
    }

    fn forget(&mut self, id: ClientId, now: u64) {
        if self.clients.remove(&id).is_some() {
            self.turns.retain(|other| *other != id);
            self.give_up(id, now);
        }
    }

    fn close(&mut self, id: ClientId, now: u64) {
        self.forget(id, now);
        self.effects.push(Effect::CloseClient(id));
    }

    fn close_stalled(&mut self, now: u64) {
        let stall = self.config.stall_ns;
        let stalled = |client: &Client| {
            let since = client.stalled_since();
            since.is_some_and(|since| since.saturating_add(stall) <= now)
        };
        for id in self.those(stalled) {
            self.close(id, now);
        }
    }

    fn those(&self, wanted: impl Fn(&Client) -> bool) -> Vec<ClientId> {
        let matching = self.clients.iter().filter(|(_, client)| wanted(client));
        matching.map(|(id, _)| *id).collect()
    }

    /// Gives the agent its next request, if it can have one and there is one.
    fn serve(&mut self, now: u64) {
        let ready = self.turns.iter().position(|id| {
            let client = self.clients.get(id);
            client.is_some_and(Client::has_request)
        });
        let Some(position) = ready else { return };
        if !self.dialogue.is_ready(now) {
            return;
        }
        let Some(id) = self.turns.remove(position) else {
            return;
        };
        self.turns.push_back(id);
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Some(request) = client.take_request() else {
            return;
        };
        client.waits = true;
        self.ask(id, request, now);
    }

    fn ask(&mut self, client: ClientId, request: Request, now: u64) {
        let arguments = request.arguments.as_ref().map(|raw| raw.get());
        self.dialogue.ask(&request.execute, arguments, now);
        let frozen = self.freeze.asked(&request.execute);
        self.tell_frozen(frozen);
        self.under_way = Some(UnderWay {
            client: Some(client),
            id: request.id,
            execute: request.execute,
            overdue_at: None,
        });
    }

    /// Does whatever can be done now, and hands out what its owner must do.
    fn settle(&mut self, now: u64) -> Vec<Effect> {
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.settle_client(id, now);
        }
        self.serve(now);
        for id in self.those(|client| client.finished && client.is_served()) {
            if self.client_output(id).is_empty() {
                self.close(id, now);
            }
        }
        if !self.dialogue.output().is_empty() {
            self.effects.push(Effect::WritePort);
        }
        std::mem::take(&mut self.effects)
    }

    fn settle_client(&mut self, id: ClientId, now: u64) {
        let deserted = self.is_deserted(now);
        loop {
            self.read_requests(id, now);
            let Some(client) = self.clients.get_mut(&id) else {
                return;
            };
            if deserted {
                client.refuse(NOT_CONNECTED);
            } else if let Some(why) = self.dialogue.refusal() {
                client.refuse(why);
            }
            let idle = client.output().is_empty();
            if !client.answer_by_itself(now) {
                break;
            }
            if idle {
                self.effects.push(Effect::WriteClient(id));
            }
        }
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let reading = client.wants_reading();
        if reading != client.reading && !client.finished {
            client.reading = reading;
            self.effects.push(Effect::ReadClient(id, reading));
        }
    }
}
