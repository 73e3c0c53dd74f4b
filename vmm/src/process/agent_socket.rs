// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest agent's UNIX socket: its clients' bytes to and from the [`Multiplexer`], and what the
//! supervisor is told about the agent.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events};
use i6300esb::VmInstant;

use super::arrivals::Arrivals;
use super::listener::{Listener, is_temporary, waits_on};
use crate::agent::{ClientId, Config, Effect, Multiplexer};
use crate::clock::{VmClock, VmTimer, realtime_ns};
use crate::protocol::News;

/// As much as one turn of the loop reads from one client.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    read: bool,
    watched: EventSet,
}

impl Client {
    fn wanted(&self, output: bool) -> EventSet {
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::IN, self.read);
        wanted.set(EventSet::OUT, output);
        wanted
    }
}

/// The socket, its clients, and the multiplexer between them and the port.
#[derive(Debug)]
pub(super) struct AgentSocket {
    multiplexer: Multiplexer,
    listener: Option<Listener>,
    clients: BTreeMap<u32, Client>,
    next_client: u32,
    /// No client can be accepted for now: the process is out of descriptors.
    deaf: bool,
    /// Real time: it goes on while the machine is paused.
    clock: Arc<VmClock>,
    timer: VmTimer,
    arrivals: Arrivals,
    news: Vec<News>,
    /// What was just read, of length [`CHUNK`].
    chunk: Vec<u8>,
    /// Events about client N carry `first_data` + N.
    first_data: u32,
    /// Events about the listener carry this.
    listener_data: u32,
}

impl AgentSocket {
    /// Listens at `path`, if there is one. Descriptors of clients are watched with data from
    /// `first_data` on, the listener with `listener_data`.
    pub(super) fn new(
        path: Option<&Path>,
        listener_data: u32,
        first_data: u32,
    ) -> io::Result<Self> {
        let clock = Arc::new(VmClock::new());
        clock.resume();
        let timer = VmTimer::new(Arc::clone(&clock))?;
        let config = Config {
            seed: realtime_ns(),
            ..Config::default()
        };
        Ok(Self {
            multiplexer: Multiplexer::new(config),
            listener: path.map(Listener::bind).transpose()?,
            clients: BTreeMap::new(),
            next_client: 0,
            deaf: false,
            clock,
            timer,
            arrivals: Arrivals::default(),
            news: vec![],
            chunk: vec![0; CHUNK],
            first_data,
            listener_data,
        })
    }

    /// Readable when a client comes.
    pub(super) const fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Readable when [`Self::time_passed`] is to be called.
    pub(super) const fn timer(&self) -> &VmTimer {
        &self.timer
    }

    /// Whether an event's data is one of our clients'.
    pub(super) const fn is_client(&self, data: u32) -> bool {
        data >= self.first_data
    }

    /// What happened that the supervisor wants to know.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// What waits to be written to the port.
    pub(super) fn port_output(&self) -> &[u8] {
        self.multiplexer.port_output()
    }

    /// The port has taken so much of it.
    pub(super) fn port_sent(&mut self, count: usize) {
        self.multiplexer.port_sent(count);
    }

    /// A program in the guest opened the port.
    pub(super) fn port_opened(&mut self, ops: &mut EventOps<'_>) {
        let now = self.now();
        self.arrivals.now_is(true, now, &mut self.news);
        let effects = self.multiplexer.port_opened(now);
        self.apply(effects, ops);
    }

    /// It closed the port, or the guest is gone.
    pub(super) fn port_closed(&mut self, reset: bool, ops: &mut EventOps<'_>) {
        let now = self.now();
        self.arrivals.now_is(false, now, &mut self.news);
        let effects = self.multiplexer.port_closed(reset, now);
        self.apply(effects, ops);
    }

    /// The guest wrote to the port.
    pub(super) fn port_bytes(&mut self, bytes: &[u8], ops: &mut EventOps<'_>) {
        let effects = self.multiplexer.port_bytes(bytes, self.now());
        self.apply(effects, ops);
    }

    /// The timer is readable.
    pub(super) fn time_passed(&mut self, ops: &mut EventOps<'_>) {
        if self.timer.take_expiry() {
            let now = self.now();
            self.arrivals.time_passed(now, &mut self.news);
            let effects = self.multiplexer.timer(now);
            self.apply(effects, ops);
        }
    }

    /// The listener is readable.
    pub(super) fn accept(&mut self, ops: &mut EventOps<'_>) {
        let stream = match self.listener().map(Listener::accept) {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                log::debug!("a client of the agent did not arrive: {error}");
                if waits_on(&error) {
                    self.listen_to_clients(false, ops);
                }
                return;
            }
            None => return,
        };
        let number = self.free_number();
        let client = Client {
            stream,
            read: true,
            watched: EventSet::IN,
        };
        let data = self.first_data.saturating_add(number);
        if let Err(error) = ops.add(Events::with_data(&client.stream, data, EventSet::IN)) {
            return log::debug!("a client of the agent cannot be watched: {error}");
        }
        self.clients.insert(number, client);
        let effects = self.multiplexer.client_connected(id(number), self.now());
        self.apply(effects, ops);
    }

    /// A client's descriptor has something to say.
    pub(super) fn client_event(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let number = events.data().saturating_sub(self.first_data);
        let set = events.event_set();
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let now = self.clock.now().as_nanos();
        let mut effects = vec![];
        if set.contains(EventSet::IN) && client.read {
            match client.stream.read(&mut self.chunk) {
                Ok(0) => {
                    client.read = false;
                    effects = self.multiplexer.client_finished(id(number), now);
                }
                Ok(count) => {
                    let bytes = self.chunk.get(..count).unwrap_or_default();
                    effects = self.multiplexer.client_bytes(id(number), bytes, now);
                }
                Err(error) if is_temporary(&error) => {}
                Err(_) => return self.lose(number, ops),
            }
        } else if set.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            return self.lose(number, ops);
        }
        self.apply(effects, ops);
        self.write(number, ops);
    }

    fn now(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    /// A client whose connection is gone.
    fn lose(&mut self, number: u32, ops: &mut EventOps<'_>) {
        self.close(number, ops);
        let effects = self.multiplexer.client_gone(id(number), self.now());
        self.apply(effects, ops);
    }

    /// One that no client had lately: what epoll still says of the last one is not taken for it.
    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.next_client;
            self.next_client = number.wrapping_add(1) % (u32::MAX - self.first_data);
            if !self.clients.contains_key(&number) {
                return number;
            }
        }
    }

    /// Watches the listener, or no longer.
    fn listen_to_clients(&mut self, listens: bool, ops: &mut EventOps<'_>) {
        let Some(listener) = &self.listener else {
            return;
        };
        let set = if listens {
            EventSet::IN
        } else {
            EventSet::empty()
        };
        match ops.modify(Events::with_data(listener, self.listener_data, set)) {
            Ok(()) => self.deaf = !listens,
            Err(error) => log::debug!("the agent's socket cannot be watched: {error}"),
        }
    }

    fn close(&mut self, number: u32, ops: &mut EventOps<'_>) {
        if self.deaf {
            self.listen_to_clients(true, ops);
        }
        if let Some(client) = self.clients.remove(&number) {
            let data = self.first_data.saturating_add(number);
            let events = Events::with_data(&client.stream, data, EventSet::empty());
            if let Err(error) = ops.remove(events) {
                log::debug!("a client of the agent is still watched: {error}");
            }
        }
    }

    fn apply(&mut self, effects: Vec<Effect>, ops: &mut EventOps<'_>) {
        for effect in effects {
            match effect {
                // The loop takes it, as far as the guest has room, at the end of each turn.
                Effect::WritePort => {}
                Effect::WriteClient(client) => self.write(number(client), ops),
                Effect::ReadClient(client, read) => {
                    let number = number(client);
                    if let Some(client) = self.clients.get_mut(&number) {
                        client.read = read;
                    }
                    self.watch(number, ops);
                }
                Effect::CloseClient(client) => self.close(number(client), ops),
                Effect::FilesystemsFrozen => self.news.push(News::FilesystemsFrozen),
                Effect::FilesystemsThawed => self.news.push(News::FilesystemsThawed),
            }
        }
        let due = [self.multiplexer.next_due(), self.arrivals.next_due()];
        match due.into_iter().flatten().min() {
            Some(at) => self.timer.arm(VmInstant::from_nanos(at)),
            None => self.timer.disarm(),
        }
    }

    /// Gives a client what it has room for.
    fn write(&mut self, number: u32, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let output = self.multiplexer.client_output(id(number));
        if !output.is_empty() {
            match client.stream.write(output) {
                Ok(count) => {
                    let now = self.clock.now().as_nanos();
                    let effects = self.multiplexer.client_sent(id(number), count, now);
                    self.apply(effects, ops);
                }
                Err(error) if is_temporary(&error) => {}
                Err(_) => return self.lose(number, ops),
            }
        }
        self.watch(number, ops);
    }

    /// Watches a client for what is of use now.
    fn watch(&mut self, number: u32, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let wanted = client.wanted(!self.multiplexer.client_output(id(number)).is_empty());
        if wanted == client.watched {
            return;
        }
        let data = self.first_data.saturating_add(number);
        match ops.modify(Events::with_data(&client.stream, data, wanted)) {
            Ok(()) => client.watched = wanted,
            Err(error) => {
                log::debug!("a client of the agent cannot be watched: {error}");
                self.lose(number, ops);
            }
        }
    }
}

fn id(number: u32) -> ClientId {
    ClientId(number.into())
}

fn number(client: ClientId) -> u32 {
    u32::try_from(client.0).unwrap_or(u32::MAX)
}
