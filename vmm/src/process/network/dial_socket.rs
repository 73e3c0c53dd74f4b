// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The dial socket: its clients' way to the guest's ports. The protocol is [`crate::dial`].

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::Path;

use event_manager::{EventOps, EventSet, Events};

use super::dial_client::{CHUNK, Client, Dials, Turn, failure};
use crate::dial::Reason;
use crate::link::{DIALS, DialId, LinkEvent};
use crate::process::listener::{Listener, waits_on};

/// How long nobody is accepted after the process was out of descriptors, in ns, unless a client
/// leaves before.
const DEAF_NS: u64 = 1_000_000_000;

#[derive(Debug)]
struct Watched {
    client: Client,
    /// `None`: not watched.
    set: Option<EventSet>,
}

/// The socket and its clients.
#[derive(Debug)]
pub(super) struct DialSocket {
    listener: Listener,
    clients: BTreeMap<u32, Watched>,
    /// How many there may be.
    most: usize,
    dials: BTreeMap<DialId, u32>,
    next_client: u32,
    /// Until then no client can be accepted: the process is out of descriptors.
    deaf_until: Option<u64>,
    /// Clients that are gone and have left something behind, and when to look at them.
    lingering: VecDeque<(u64, u32)>,
    /// Clients with more to do at once.
    unfinished: VecDeque<u32>,
    /// Of length [`CHUNK`].
    scratch: Vec<u8>,
    /// Events about client N carry `first_data` + N.
    first_data: u32,
    /// Events about the listener carry this.
    listener_data: u32,
}

impl DialSocket {
    /// Listens at `path`. Descriptors of clients are watched with data from `first_data` on, the
    /// listener with `listener_data`.
    pub(super) fn new(path: &Path, listener_data: u32, first_data: u32) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::bind(path)?,
            clients: BTreeMap::new(),
            most: DIALS,
            dials: BTreeMap::new(),
            next_client: 0,
            deaf_until: None,
            lingering: VecDeque::new(),
            unfinished: VecDeque::new(),
            scratch: vec![0; CHUNK],
            first_data,
            listener_data,
        })
    }

    /// Readable when a client comes.
    pub(super) const fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Whether an event's data is one of our clients'.
    pub(super) const fn is_client(&self, data: u32) -> bool {
        data >= self.first_data
    }

    /// When to call [`Self::time_passed`].
    pub(super) fn next_due(&self) -> Option<u64> {
        let lingering = self.lingering.front().map(|(due, _)| *due);
        lingering.into_iter().chain(self.deaf_until).min()
    }

    /// Does what is due.
    pub(super) fn time_passed(&mut self, link: &mut impl Dials, now: u64, ops: &mut EventOps<'_>) {
        if self.deaf_until.is_some_and(|until| until <= now) {
            self.listen(true, now, ops);
        }
        while let Some((due, number)) = self.lingering.front().copied() {
            if due > now {
                break;
            }
            self.lingering.pop_front();
            let until = self.clients.get(&number);
            match until.and_then(|watched| watched.client.given_up()) {
                Some(until) if until > now => self.lingering.push_back((until, number)),
                Some(_) => self.give_up(number, link, now, ops),
                None => {}
            }
        }
    }

    /// The listener is readable.
    pub(super) fn accept(&mut self, link: &mut impl Dials, now: u64, ops: &mut EventOps<'_>) {
        let stream = match self.listener.accept() {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("a client of the guest's ports did not arrive: {error}");
                if waits_on(&error) {
                    self.listen(false, now, ops);
                }
                return;
            }
        };
        if self.clients.len() >= self.most {
            let text = format!("there are {} connections already", self.most);
            let line = failure(Reason::Busy, &text);
            // It has room for a line: nothing was written to it before.
            let _told = (&stream).write(line.as_bytes());
            return;
        }
        let number = self.free_number();
        let mut client = Client::new(stream);
        // Its line is mostly there before it is accepted.
        if client.turn(link, &mut self.scratch, now) == Turn::Over {
            return;
        }
        let dial = client.dial();
        let data = self.first_data.saturating_add(number);
        let set = client.wanted();
        let events = Events::with_data(&client.stream, data, set.unwrap_or(EventSet::empty()));
        if let Err(error) = ops.add(events) {
            if let Some(id) = dial {
                link.close(id);
            }
            return log::debug!("a client of the guest's ports cannot be watched: {error}");
        }
        self.dials.extend(dial.map(|id| (id, number)));
        self.clients.insert(number, Watched { client, set });
    }

    /// A client's descriptor has something to say.
    pub(super) fn client_event(
        &mut self,
        events: Events,
        link: &mut impl Dials,
        now: u64,
        ops: &mut EventOps<'_>,
    ) {
        let number = events.data().saturating_sub(self.first_data);
        let Some(watched) = self.clients.get_mut(&number) else {
            return;
        };
        if events
            .event_set()
            .intersects(EventSet::HANG_UP | EventSet::ERROR)
        {
            watched.client.hung_up(now);
        }
        self.turn(number, link, now, ops);
    }

    /// Something happened to a connection.
    pub(super) fn heed(
        &mut self,
        event: &LinkEvent,
        link: &mut impl Dials,
        now: u64,
        ops: &mut EventOps<'_>,
    ) {
        let id = match event {
            LinkEvent::Answered(id, _)
            | LinkEvent::Readable(id)
            | LinkEvent::Writable(id)
            | LinkEvent::Ended(id) => *id,
            _ => return,
        };
        let Some(number) = self.dials.get(&id).copied() else {
            return;
        };
        if let Some(watched) = self.clients.get_mut(&number) {
            match event {
                LinkEvent::Answered(_, answer) => watched.client.answered(answer),
                LinkEvent::Ended(_) => watched.client.ended(),
                _ => {}
            }
        }
        self.turn(number, link, now, ops);
    }

    /// Gives clients that had more to do another turn; whether some still have.
    pub(super) fn go_on(
        &mut self,
        link: &mut impl Dials,
        now: u64,
        ops: &mut EventOps<'_>,
    ) -> bool {
        for number in std::mem::take(&mut self.unfinished) {
            self.turn(number, link, now, ops);
        }
        !self.unfinished.is_empty()
    }

    fn turn(&mut self, number: u32, link: &mut impl Dials, now: u64, ops: &mut EventOps<'_>) {
        let Some(watched) = self.clients.get_mut(&number) else {
            return;
        };
        match watched.client.turn(link, &mut self.scratch, now) {
            Turn::Done => {}
            Turn::More if self.unfinished.contains(&number) => {}
            Turn::More => self.unfinished.push_back(number),
            Turn::Dialled(id) => {
                self.dials.insert(id, number);
            }
            Turn::Over => return self.forget(number, now, ops),
        }
        self.watch(number, link, now, ops);
    }

    /// Watches a client for what is of use now.
    fn watch(&mut self, number: u32, link: &mut impl Dials, now: u64, ops: &mut EventOps<'_>) {
        let Some(watched) = self.clients.get_mut(&number) else {
            return;
        };
        let wanted = watched.client.wanted();
        if wanted == watched.set {
            return;
        }
        let data = self.first_data.saturating_add(number);
        let events = |set| Events::with_data(&watched.client.stream, data, set);
        let done = match wanted {
            Some(set) => ops.modify(events(set)),
            // It would wake the loop for ever.
            None => ops.remove(events(EventSet::empty())),
        };
        watched.set = wanted;
        if wanted.is_none()
            && let Some(until) = watched.client.given_up()
        {
            self.lingering.push_back((until, number));
        }
        if let Err(error) = done {
            log::debug!("a client of the guest's ports cannot be watched: {error}");
            self.give_up(number, link, now, ops);
        }
    }

    /// Closes a client's connection, whatever it still has to say.
    fn give_up(&mut self, number: u32, link: &mut impl Dials, now: u64, ops: &mut EventOps<'_>) {
        if let Some(id) = self.clients.get(&number).and_then(|one| one.client.dial()) {
            link.close(id);
        }
        self.forget(number, now, ops);
    }

    fn forget(&mut self, number: u32, now: u64, ops: &mut EventOps<'_>) {
        if self.deaf_until.is_some() {
            self.listen(true, now, ops);
        }
        let Some(watched) = self.clients.remove(&number) else {
            return;
        };
        if let Some(id) = watched.client.dial() {
            self.dials.remove(&id);
        }
        if watched.set.is_some() {
            let events = Events::empty(&watched.client.stream);
            if let Err(error) = ops.remove(events) {
                log::debug!("a client of the guest's ports is still watched: {error}");
            }
        }
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

    /// Watches the listener, or no longer for a while.
    fn listen(&mut self, listens: bool, now: u64, ops: &mut EventOps<'_>) {
        let mut set = EventSet::empty();
        set.set(EventSet::IN, listens);
        let events = Events::with_data(&self.listener, self.listener_data, set);
        if let Err(error) = ops.modify(events) {
            log::debug!("the socket of the guest's ports cannot be watched: {error}");
        }
        self.deaf_until = (!listens).then(|| now.saturating_add(DEAF_NS));
    }
}

#[cfg(test)]
#[path = "dial_socket/tests.rs"]
mod tests;
