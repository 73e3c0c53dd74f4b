// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's link: a small switch between the guest, a probe host, and an uplink.
//!
//! The probe host is a user-mode TCP/IP stack on the guest's own link (10.0.2.1 and fd10:0:2::1), so
//! a dial is answered by the guest itself: what accepts is a program in the guest, what refuses is
//! its kernel. The probe host gives the guest its addresses by DHCP, router advertisements and
//! DHCPv6, and answers ARP, neighbour discovery and ping.
//!
//! [`Link`] is pure: frames, calls and time (`now`, ns of any monotonic clock) in, frames and
//! [`LinkEvent`]s out. Its owner
//! 1. hands over what arrived: frames, dials, bytes, changes of the machine;
//! 2. calls [`Link::poll`] once for all of it, and when [`Link::next_due`] says;
//! 3. gives frames to guest and uplink, and does what events say.
//!
//! What the owner can rely on:
//! * Each dial gets exactly one [`LinkEvent::Answered`], at its deadline at the latest, unless it is
//!   closed before. One that failed is forgotten; one that was accepted lives until
//!   [`LinkEvent::Ended`] or [`Link::close`]. Calls that name a forgotten dial do nothing.
//! * A dial that is made while the guest cannot answer waits for it. The reason that it is given at
//!   its deadline is the most specific: paused, no driver, no answer to ARP or neighbour discovery,
//!   no answer to TCP.
//! * Nothing that a guest or an uplink sends makes it panic, loop or grow without bound; what it drops
//!   is counted.
//!
//! *Differs from a host of its own:* a guest has one MAC address here, and frames from another are
//! dropped; the probe host speaks no UDP but DHCP, reassembles no fragments, and keeps no connection
//! in TIME-WAIT. A connection's first packet is repeated after 0.2, 0.6, 1.4, ... s, since many a
//! probe has one second.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod client;
mod dhcp;
mod dhcpv6;
mod dial;
mod dials;
mod frame;
mod learn;
mod neighbours;
mod plan;
mod ports;
mod queue;
mod rejection;
mod router;
mod stack;
mod switch;
#[cfg(test)]
mod tests;

pub use dials::{DIALS, DialId};
pub use learn::Addresses;
pub use plan::DNS_IPV4;

use crate::dial::{Answer, GUEST_IPV4, GUEST_IPV6, Request};
use dial::Condition;
use dials::{Around, Dials};
use frame::{Content, Frame};
use learn::{Learned, Shown};
use neighbours::{Heard, Questions};
use plan::Plan;
use queue::Queue;
use router::Advertiser;
use stack::Stack;
use switch::Service;

/// Frames that wait for the guest.
pub const FRAMES_TO_GUEST: usize = 1024;
/// How many of them may come from the uplink.
const FRAMES_FROM_UPLINK: usize = 512;
/// Frames that wait for the uplink.
pub const FRAMES_TO_UPLINK: usize = 512;

/// Who is on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The guest's MAC address.
    pub guest_mac: [u8; 6],
    /// The probe host's.
    pub host_mac: [u8; 6],
    /// Something lies beyond: frames for it go there, and the guest is told of a router and a name
    /// server.
    pub uplink: bool,
    /// Where port and sequence numbers begin. One that nobody can guess keeps a guest from guessing
    /// them.
    pub seed: u64,
}

/// What the owner must do, or may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The dial's outcome.
    Answered(DialId, Answer),
    /// There is something to read, or nothing more will come: read until there is
    /// [`Received::Nothing`], or it is [`Received::Finished`].
    Readable(DialId),
    /// There is room for what [`Link::send`] did not take.
    Writable(DialId),
    /// The connection is over and forgotten. Told after its end has been read, or when the guest was
    /// reset: what had not been read then is lost.
    Ended(DialId),
    /// [`Link::addresses`] changed.
    Addresses,
}

/// What the guest had sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// Everything was read, and nothing more comes: the guest has ended its half, or broken off.
    Finished,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Frames of the guest from another MAC address than its own.
    pub spoofed: u64,
    /// Frames, from the guest or the uplink, shorter than a header or longer than the link takes.
    pub malformed: u64,
    /// Frames of the guest that nobody is there for.
    pub unclaimed: u64,
    /// Frames of the uplink that are not for the guest, or speak for the link.
    pub refused: u64,
    /// Frames to the guest, for want of room.
    pub to_guest: u64,
    /// Frames to the uplink, for want of room.
    pub to_uplink: u64,
}

/// The guest's link.
#[derive(Debug)]
pub struct Link {
    plan: Plan,
    now: u64,
    stack: Stack,
    dials: Dials,
    learned: Learned,
    /// What the owner was told last.
    told: Addresses,
    questions: Questions,
    advertiser: Advertiser,
    driven: bool,
    is_paused: bool,
    to_guest: Queue,
    to_uplink: Queue,
    events: Vec<LinkEvent>,
    counters: Counters,
}

impl Link {
    /// A link whose guest does not drive its device yet.
    #[must_use]
    pub fn new(config: LinkConfig, now: u64) -> Self {
        let plan = Plan::new(config.guest_mac, config.host_mac, config.uplink);
        Self {
            plan,
            now,
            stack: Stack::new(plan, config.seed, now),
            dials: Dials::new(config.seed),
            learned: Learned::default(),
            told: Addresses::default(),
            questions: Questions::default(),
            advertiser: Advertiser::default(),
            driven: false,
            is_paused: false,
            to_guest: Queue::new(FRAMES_TO_GUEST),
            to_uplink: Queue::new(FRAMES_TO_UPLINK),
            events: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// A frame that the guest sent: anything at all.
    pub fn from_guest(&mut self, bytes: &[u8], now: u64) {
        self.advance(now);
        let frame = Frame::read(bytes).filter(|_| switch::has_frames_length(bytes));
        let Some(frame) = frame else {
            return count(&mut self.counters.malformed);
        };
        if frame.source != self.plan.guest {
            return count(&mut self.counters.spoofed);
        }
        if !self.driven {
            return count(&mut self.counters.unclaimed);
        }
        let way = switch::from_guest(&self.plan, &frame);
        if way.beyond && self.plan.uplink {
            self.to_uplink.push(bytes.to_vec());
        } else if way.here.is_none() {
            count(&mut self.counters.unclaimed);
        }
        match way.here {
            None => {}
            Some(Service::Arp(arp)) => self.hear(neighbours::hear_arp(&self.plan, arp)),
            Some(Service::Neighbour(neighbour)) => {
                self.hear(neighbours::hear_neighbour(&self.plan, neighbour));
            }
            Some(Service::Router { from }) => {
                let answer = router::answer(&self.plan, from);
                self.answer(answer);
            }
            Some(Service::Dhcp(data)) => self.dhcp(data),
            Some(Service::Dhcpv6 { from, data }) => {
                if let Some(reply) = dhcpv6::answer(&self.plan, from, data) {
                    self.dhcpv6(reply);
                }
            }
            Some(Service::Stack) => self.give_stack(&frame),
        }
    }

    /// A frame from beyond.
    pub fn from_uplink(&mut self, bytes: &[u8], now: u64) {
        self.advance(now);
        let frame = Frame::read(bytes).filter(|_| switch::has_frames_length(bytes));
        let Some(frame) = frame else {
            return count(&mut self.counters.malformed);
        };
        if !self.plan.uplink || !switch::reaches_guest(&self.plan, &frame) {
            return count(&mut self.counters.refused);
        }
        if self.driven {
            self.to_guest.push_below(FRAMES_FROM_UPLINK, bytes.to_vec());
        }
    }

    /// What waits for the guest, in order.
    pub fn to_guest(&self) -> impl Iterator<Item = &[u8]> {
        self.to_guest.iter()
    }

    /// The guest took the first so many of them.
    pub fn guest_took(&mut self, count: usize) {
        self.to_guest.took(count);
    }

    /// The next frame for the uplink.
    pub fn to_uplink(&mut self) -> Option<Vec<u8>> {
        self.to_uplink.pop()
    }

    /// Does what is due, and what came of all that was handed over.
    pub fn poll(&mut self, now: u64) {
        self.advance(now);
        if self.condition() == Condition::Running {
            if let Some(frame) = self.advertiser.due(&self.plan, self.now) {
                self.answer(frame);
            }
            self.with_dials(Dials::poll);
            // Dials have asked.
            for frame in self.questions.due(&self.plan, self.now) {
                self.to_guest.push_below(stack::PATIENT_FRAMES, frame);
            }
        } else {
            self.with_dials(Dials::poll);
        }
    }

    /// When [`Link::poll`] is to be called next, if nothing happens before.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let runs = self.condition() == Condition::Running;
        let has_room = self.to_guest.has_room(stack::PATIENT_FRAMES);
        let at_once = self.dials.is_any_ready() && (has_room || !runs);
        let of_guest = [self.advertiser.next_due(), self.questions.next_due()];
        let of_guest = of_guest.into_iter().flatten().filter(|_| runs);
        let at_once = at_once.then_some(self.now).into_iter();
        at_once.chain(self.dials.next_due()).chain(of_guest).min()
    }

    /// The guest's driver is up, or not any more.
    pub fn guest_driver(&mut self, drives: bool, now: u64) {
        self.advance(now);
        if self.driven == drives {
            return;
        }
        self.driven = drives;
        if drives {
            self.advertiser.start(self.now);
        } else {
            self.guest_is_gone();
        }
        self.with_dials(Dials::condition_changed);
    }

    /// The machine's vCPUs stand still, or go on.
    pub fn paused(&mut self, paused: bool, now: u64) {
        self.advance(now);
        if self.is_paused != paused {
            self.is_paused = paused;
            self.with_dials(Dials::condition_changed);
        }
    }

    /// The guest was reset: it has no driver, and no connection.
    pub fn guest_reset(&mut self, now: u64) {
        self.advance(now);
        self.driven = false;
        self.with_dials(Dials::reset);
        self.guest_is_gone();
        self.to_uplink.clear();
    }

    /// Which addresses the guest has shown.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.learned.addresses()
    }

    /// Connects to the guest. What becomes of it is told by an event.
    pub fn dial(&mut self, request: &Request, now: u64) -> DialId {
        self.advance(now);
        self.with_dials(|dials, around| dials.start(around, request))
    }

    /// What happened, in order.
    pub fn take_events(&mut self) -> Vec<LinkEvent> {
        std::mem::take(&mut self.events)
    }

    /// How many of these bytes to the guest were taken. If not all, [`LinkEvent::Writable`] follows.
    pub fn send(&mut self, id: DialId, bytes: &[u8]) -> usize {
        self.dials.send(id, bytes)
    }

    /// What the guest has sent. Until it is taken, the guest can send little more.
    pub fn receive(&mut self, id: DialId, buffer: &mut [u8]) -> Received {
        self.dials.receive(id, buffer)
    }

    /// No more comes from the client: the guest reads the end of its input.
    pub fn finish(&mut self, id: DialId) {
        self.dials.finish(id);
    }

    /// The client is gone. What it sent is still delivered; the guest has a second to end the
    /// connection, then it is broken off.
    pub fn close(&mut self, id: DialId) {
        self.with_dials(|dials, around| dials.close(around, id));
    }

    /// Connections that are being made, open, or about to end.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.dials.len()
    }

    /// What was dropped so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            to_guest: self.to_guest.dropped(),
            to_uplink: self.to_uplink.dropped(),
            ..self.counters
        }
    }

    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    fn condition(&self) -> Condition {
        match (self.is_paused, self.driven) {
            (true, _) => Condition::Paused,
            (false, false) => Condition::NoDriver,
            (false, true) => Condition::Running,
        }
    }

    fn with_dials<R>(&mut self, act: impl FnOnce(&mut Dials, &mut Around<'_>) -> R) -> R {
        let condition = self.condition();
        let mut around = Around {
            plan: &self.plan,
            stack: &mut self.stack,
            to_guest: &mut self.to_guest,
            learned: &mut self.learned,
            questions: &mut self.questions,
            events: &mut self.events,
            condition,
            driven: self.driven,
            now: self.now,
        };
        act(&mut self.dials, &mut around)
    }

    fn answer(&mut self, frame: Vec<u8>) {
        self.to_guest.push(frame);
    }

    fn hear(&mut self, heard: Heard) {
        if let Some((address, shown)) = heard.shown {
            self.learned.show(address, shown, self.now);
            if shown != Shown::Claimed {
                self.dials.answered(&mut self.questions, address);
            }
            self.addresses_may_have_changed();
        }
        if let Some(frame) = heard.answer {
            self.answer(frame);
        }
    }

    fn dhcp(&mut self, data: &[u8]) {
        use dhcp::Reply;
        let Some(reply) = dhcp::answer(&self.plan, data) else {
            return count(&mut self.counters.unclaimed);
        };
        let frame = match reply {
            Reply::Acknowledge(frame) => {
                self.learned
                    .show(GUEST_IPV4.into(), Shown::Claimed, self.now);
                frame
            }
            Reply::Offer(frame) | Reply::Inform(frame) | Reply::Refuse(frame) => frame,
            Reply::Released => {
                self.learned.forget(GUEST_IPV4.into());
                return self.addresses_may_have_changed();
            }
        };
        self.answer(frame);
        self.addresses_may_have_changed();
    }

    fn dhcpv6(&mut self, reply: dhcpv6::Reply) {
        use dhcpv6::Change;
        match reply.change {
            Some(Change::Given) => {
                self.learned
                    .show(GUEST_IPV6.into(), Shown::Claimed, self.now);
            }
            Some(Change::Released) => self.learned.forget(GUEST_IPV6.into()),
            None => {}
        }
        self.answer(reply.frame);
        self.addresses_may_have_changed();
    }

    /// A packet for one of the probe host's addresses.
    fn give_stack(&mut self, frame: &Frame<'_>) {
        let frame::Body::Ip(ip) = frame.body else {
            return;
        };
        let rejection = rejection::read(&ip);
        let (packet, now) = (frame.packet, self.now);
        self.with_dials(|dials, around| match (ip.content, rejection) {
            (Content::Tcp { destination }, _) => dials.packet(around, destination, packet),
            (_, Some(rejection)) => dials.rejected(around, rejection.from, rejection.to),
            _ => around.stack.take(packet, None, around.to_guest, now),
        });
    }

    fn addresses_may_have_changed(&mut self) {
        let addresses = self.learned.addresses();
        if addresses != self.told {
            self.told = addresses;
            if !self.events.contains(&LinkEvent::Addresses) {
                self.events.push(LinkEvent::Addresses);
            }
            self.dials.follow(&self.learned, &mut self.questions);
        }
    }

    fn guest_is_gone(&mut self) {
        self.advertiser.stop();
        self.to_guest.clear();
        self.learned = Learned::default();
        self.addresses_may_have_changed();
    }
}

fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
