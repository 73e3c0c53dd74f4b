// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The link with a guest made of another smoltcp interface on it, in virtual time.

mod answers;
mod data;
mod guest;
mod hostile;
mod many;
mod neighbours;
mod services;
mod switching;

use std::time::Duration;

use super::{DialId, Link, LinkConfig, LinkEvent, Received};
use crate::dial::{Answer, Reason, Request, Target};
use guest::Guest;

const MS: u64 = 1_000_000;
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const HOST_MAC: [u8; 6] = [0x02, 0x6b, 0x65, 0x6e, 0x65, 0x6c];
const OPEN: u16 = 80;
const CLOSED: u16 = 81;
/// Packets to it vanish.
const FILTERED: u16 = 82;

const CONFIG: LinkConfig = LinkConfig {
    guest_mac: GUEST_MAC,
    host_mac: HOST_MAC,
    uplink: false,
    seed: 7,
};

fn request(target: Target, port: u16, ms: u64) -> Request {
    Request {
        target,
        port,
        timeout: Duration::from_millis(ms),
    }
}

/// A link, a guest, and what the link said.
#[derive(Debug)]
struct World {
    link: Link,
    guest: Guest,
    now: u64,
    events: Vec<LinkEvent>,
}

impl World {
    /// The guest has configured its addresses and drives its device.
    fn running() -> Self {
        let mut world = Self::with(CONFIG, Guest::configured());
        world.link.guest_driver(true, world.now);
        world
    }

    fn with(config: LinkConfig, guest: Guest) -> Self {
        Self {
            link: Link::new(config, 0),
            guest,
            now: 0,
            events: Vec::new(),
        }
    }

    fn dial(&mut self, target: Target, port: u16, ms: u64) -> DialId {
        self.link.dial(&request(target, port, ms), self.now)
    }

    /// Moves frames until nobody has any, without time passing.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "they never come to rest");
            self.link.poll(self.now);
            let frames: Vec<_> = self.link.to_guest().map(<[u8]>::to_vec).collect();
            self.link.guest_took(frames.len());
            let was_quiet = frames.is_empty();
            let answers = self.guest.exchange(frames, self.now);
            self.events.extend(self.link.take_events());
            if was_quiet && answers.is_empty() && !self.is_due() {
                return;
            }
            for frame in answers {
                self.link.from_guest(&frame, self.now);
            }
        }
    }

    fn is_due(&self) -> bool {
        self.link.next_due().is_some_and(|due| due <= self.now)
    }

    /// Lets time pass, from one thing that is due to the next.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        loop {
            self.settle();
            let next = [self.link.next_due(), self.guest.next_due(self.now)];
            let next = next.into_iter().flatten().min().unwrap_or(end);
            if self.now >= end {
                return;
            }
            self.now = next.max(self.now + 1000).min(end);
        }
    }

    fn answer_of(&self, id: DialId) -> Option<&Answer> {
        self.events.iter().find_map(|event| match event {
            LinkEvent::Answered(of, answer) if *of == id => Some(answer),
            _ => None,
        })
    }

    fn reason_of(&self, id: DialId) -> Option<Reason> {
        match self.answer_of(id)? {
            Answer::Failed { reason, .. } => Some(*reason),
            Answer::Connected { .. } => None,
        }
    }

    fn is_connected(&self, id: DialId) -> bool {
        matches!(self.answer_of(id), Some(Answer::Connected { .. }))
    }

    /// A connection to the guest's open port.
    fn connect(&mut self, target: Target) -> DialId {
        let id = self.dial(target, OPEN, 1000);
        self.run(10);
        assert!(self.is_connected(id), "{:?}", self.answer_of(id));
        id
    }

    /// No dial has left anything behind.
    fn is_clean(&self) -> bool {
        self.link.dials.is_empty() && self.link.questions.is_empty()
    }

    fn has(&self, event: &LinkEvent) -> bool {
        self.events.contains(event)
    }

    /// All that can be read now, and whether that is the end.
    fn read(&mut self, id: DialId) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match self.link.receive(id, &mut buffer) {
                Received::Bytes(count) => all.extend_from_slice(&buffer[..count]),
                Received::Nothing => return (all, false),
                Received::Finished => return (all, true),
            }
        }
    }
}
