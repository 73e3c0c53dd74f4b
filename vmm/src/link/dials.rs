// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All dials: who is to be looked at when, and what comes of it.
//!
//! A dial is looked at when something has happened to it or is due for it, in [`Dials::poll`], and
//! then costs the same however many others there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use smoltcp::socket::tcp::State;

use super::LinkEvent;
use super::client::tell;
use super::dial::{self, Condition, Dial, FIRST_WAIT, Phase, is_over};
use super::learn::{Learned, Shown};
use super::neighbours::Questions;
use super::plan::Plan;
use super::ports::Ports;
use super::queue::Queue;
use super::stack::{Connection, PATIENT_FRAMES, Sent, Stack};
use crate::dial::{Answer, Request, Target};

/// Dials at one time.
pub const DIALS: usize = 4096;
/// An answer to ARP or neighbour discovery that is older is asked for again while a dial waits.
const FRESH: u64 = 1_000_000_000;
/// Between two looks at a dial that says that it is due and then does nothing.
const PACE: u64 = 1_000_000;

/// One dial, as its owner names it. No number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// What is around dials.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stack: &'a mut Stack,
    pub(super) to_guest: &'a mut Queue,
    pub(super) learned: &'a mut Learned,
    pub(super) questions: &'a mut Questions,
    pub(super) events: &'a mut Vec<LinkEvent>,
    pub(super) condition: Condition,
    /// The guest drives its device, though it may stand still.
    pub(super) driven: bool,
    pub(super) now: u64,
}

impl Around<'_> {
    /// A guest that has heard of the connection is told that it is no more.
    fn break_off(&mut self, connection: &mut Connection) {
        connection.socket_mut().abort();
        if self.driven {
            self.stack.send(connection, self.to_guest, self.now);
        }
    }
}

#[derive(Debug)]
pub(super) struct Dials {
    pub(super) dials: BTreeMap<DialId, Dial>,
    ports: Ports,
    timers: BTreeSet<(u64, DialId)>,
    /// To be looked at.
    pub(super) ready: BTreeSet<DialId>,
    next: u64,
}

/// What a look at a dial found.
enum Found {
    Nothing,
    Accepted,
    Failed(Answer),
    /// Both directions are through, and the client knows.
    Ended,
    /// The client is gone, and now the connection is.
    Gone,
}

impl Dials {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dials: BTreeMap::new(),
            ports: Ports::new(seed),
            timers: BTreeSet::new(),
            ready: BTreeSet::new(),
            next: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.dials.len()
    }

    pub(super) fn start(&mut self, around: &mut Around<'_>, request: &Request) -> DialId {
        let id = DialId(self.next);
        self.next = self.next.saturating_add(1);
        let target = resolve(request.target, around.learned);
        let refusal = if self.dials.len() >= DIALS {
            Some(dial::busy(DIALS))
        } else if !around.plan.may_be_guests(target) {
            Some(dial::not_on_link(target))
        } else {
            None
        };
        match refusal {
            Some(answer) => around.events.push(LinkEvent::Answered(id, answer)),
            None => {
                self.dials
                    .insert(id, Dial::new(request, target, around.now));
                self.ready.insert(id);
            }
        }
        id
    }

    /// A TCP packet from the guest to this port.
    pub(super) fn packet(&mut self, around: &mut Around<'_>, port: u16, packet: &[u8]) {
        let id = self.ports.dial(port);
        let dial = id.and_then(|id| self.dials.get_mut(&id));
        let connection = dial.and_then(Dial::connection_mut);
        let (to_guest, now) = (&mut *around.to_guest, around.now);
        around.stack.take(packet, connection, to_guest, now);
        self.ready.extend(id);
    }

    /// The guest says by ICMP that it does not let a connection through.
    pub(super) fn rejected(&mut self, around: &mut Around<'_>, from: u16, to: (IpAddr, u16)) {
        let Some(id) = self.ports.dial(from) else {
            return;
        };
        if let Some(dial) = self.dials.get(&id)
            && (dial.target, dial.request.port) == to
            && matches!(dial.phase, Phase::Connecting { .. })
        {
            let answer = dial.rejected();
            self.fail(around, id, answer);
        }
    }

    /// The guest answered for this address.
    pub(super) fn answered(&mut self, questions: &mut Questions, address: IpAddr) {
        for id in questions.answered(address) {
            if let Some(dial) = self.dials.get_mut(&id) {
                dial.asks = None;
                self.ready.insert(id);
            }
        }
    }

    /// The guest's addresses are others than before: dials that wait for one of them follow.
    pub(super) fn follow(&mut self, learned: &Learned, questions: &mut Questions) {
        for (id, dial) in &mut self.dials {
            let target = resolve(dial.request.target, learned);
            if matches!(dial.phase, Phase::Resolving) && dial.target != target {
                questions.drop_dial(dial.target, *id);
                dial.asks = None;
                dial.target = target;
                self.ready.insert(*id);
            }
        }
    }

    /// The guest can take frames, or cannot any more.
    pub(super) fn condition_changed(&mut self, around: &mut Around<'_>) {
        let ids: Vec<_> = self.dials.keys().copied().collect();
        for id in &ids {
            if !around.driven {
                self.start_over(around, *id);
            }
        }
        self.ready.extend(ids);
    }

    /// The guest's driver is gone: a dial that waits begins anew when there is one.
    fn start_over(&mut self, around: &mut Around<'_>, id: DialId) {
        let Some(dial) = self.dials.get_mut(&id).filter(|dial| dial.is_waiting()) else {
            return;
        };
        if let Some(port) = dial.from() {
            self.ports.release(port);
        }
        if dial.asks.is_some() {
            around.questions.drop_dial(dial.target, id);
            dial.asks = None;
        }
        dial.phase = Phase::Resolving;
    }

    /// The guest is not the one that it was.
    pub(super) fn reset(&mut self, around: &mut Around<'_>) {
        let ids: Vec<_> = self.dials.keys().copied().collect();
        for id in ids {
            let event = match self.dials.get(&id) {
                Some(dial) if dial.is_waiting() => Some(LinkEvent::Answered(id, dial::reset())),
                Some(dial) if matches!(dial.phase, Phase::Open { .. }) => {
                    Some(LinkEvent::Ended(id))
                }
                _ => None,
            };
            around.events.extend(event);
            self.remove(around.questions, id);
        }
    }

    /// Looks at all that has happened or is due.
    pub(super) fn poll(&mut self, around: &mut Around<'_>) {
        self.look_at_ready(around);
        while let Some((due, id)) = self.timers.first().copied()
            && due <= around.now
        {
            self.timers.pop_first();
            if let Some(dial) = self.dials.get_mut(&id) {
                dial.timer = None;
                self.ready.insert(id);
            }
        }
        self.look_at_ready(around);
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.timers.first().map(|(due, _)| *due)
    }

    pub(super) fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether nothing of any dial is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let looked_at = self.timers.is_empty() && self.ready.is_empty();
        self.dials.is_empty() && self.ports.is_empty() && looked_at
    }

    fn look_at_ready(&mut self, around: &mut Around<'_>) {
        for id in std::mem::take(&mut self.ready) {
            self.look_at(around, id);
        }
    }

    fn look_at(&mut self, around: &mut Around<'_>, id: DialId) {
        self.begin_if_resolved(around, id);
        let runs = around.condition == Condition::Running;
        let sent = if runs {
            self.send_out(around, id)
        } else {
            Sent::All
        };
        match self.find(around, id) {
            Found::Nothing => {}
            Found::Accepted => self.accept(around, id),
            Found::Failed(answer) => return self.fail(around, id, answer),
            Found::Ended => {
                around.events.push(LinkEvent::Ended(id));
                return self.remove(around.questions, id);
            }
            Found::Gone => return self.remove(around.questions, id),
        }
        if sent != Sent::All {
            self.ready.insert(id);
        }
        self.set_timer(around, id, runs && sent == Sent::All);
    }

    /// The guest answers for the address: the connection can be made.
    fn begin_if_resolved(&mut self, around: &mut Around<'_>, id: DialId) {
        let Some(dial) = self.dials.get_mut(&id) else {
            return;
        };
        if around.condition != Condition::Running || !dial.is_waiting() {
            return;
        }
        let answered = around.learned.answered(dial.target);
        let is_stale = |at: u64| around.now.saturating_sub(at) > FRESH;
        if dial.asks.is_none() && answered.is_none_or(is_stale) {
            dial.asks = Some(around.now);
            around.questions.ask(dial.target, id, around.now);
        }
        if answered.is_none() || !matches!(dial.phase, Phase::Resolving) {
            return;
        }
        let (target, port) = (dial.target, dial.request.port);
        let from = self.ports.take(id);
        let connection = from.and_then(|from| around.stack.connect(target, port, from));
        if let (Some(from), Some(connection)) = (from, connection) {
            dial.phase = Phase::Connecting {
                connection,
                from,
                first: None,
                again: u64::MAX,
                wait: FIRST_WAIT,
            };
        } else {
            self.fail(around, id, dial::no_port());
        }
    }

    fn send_out(&mut self, around: &mut Around<'_>, id: DialId) -> Sent {
        let now = around.now;
        let Some(dial) = self.dials.get_mut(&id) else {
            return Sent::All;
        };
        let before = around.to_guest.len();
        let Some(connection) = dial.connection_mut() else {
            return Sent::All;
        };
        let sent = around.stack.send(connection, around.to_guest, now);
        let left = around.to_guest.len() > before;
        if let Phase::Connecting {
            connection,
            first,
            again,
            wait,
            ..
        } = &mut dial.phase
        {
            if connection.socket().state() != State::SynSent {
                // The guest has heard of it.
                *again = u64::MAX;
            } else if left && first.is_none() {
                *first = around.to_guest.last().map(<[u8]>::to_vec);
                *again = now.saturating_add(*wait);
            } else if *again <= now
                && let Some(first) = first
            {
                let copy = first.clone();
                around.to_guest.push_below(PATIENT_FRAMES, copy);
                *wait = wait.saturating_mul(2);
                *again = now.saturating_add(*wait);
            }
        }
        sent
    }

    fn find(&mut self, around: &mut Around<'_>, id: DialId) -> Found {
        let Some(dial) = self.dials.get_mut(&id) else {
            return Found::Nothing;
        };
        let is_overdue = dial.deadline <= around.now;
        match &mut dial.phase {
            Phase::Resolving if is_overdue => Found::Failed(dial.overdue(around.condition)),
            Phase::Resolving => Found::Nothing,
            Phase::Connecting { connection, .. } => match connection.socket().state() {
                State::Closed => Found::Failed(dial.refused()),
                State::SynSent | State::SynReceived if is_overdue => {
                    Found::Failed(dial.overdue(around.condition))
                }
                State::SynSent | State::SynReceived => Found::Nothing,
                _ => Found::Accepted,
            },
            Phase::Open { .. } => {
                if tell(dial, id, around.events) {
                    Found::Ended
                } else {
                    Found::Nothing
                }
            }
            Phase::Closing {
                connection, until, ..
            } => {
                let socket = connection.socket_mut();
                // Nobody reads it any more.
                while socket
                    .recv(|data| (data.len(), data.len()))
                    .is_ok_and(|read| read > 0)
                {}
                if is_over(socket.state()) {
                    return Found::Gone;
                }
                if *until > around.now {
                    return Found::Nothing;
                }
                around.break_off(connection);
                Found::Gone
            }
        }
    }

    fn accept(&mut self, around: &mut Around<'_>, id: DialId) {
        let Some(mut dial) = self.dials.remove(&id) else {
            return;
        };
        around.learned.show(dial.target, Shown::Used, around.now);
        self.answered(around.questions, dial.target);
        dial.asks = None;
        around
            .events
            .push(LinkEvent::Answered(id, dial.connected()));
        if let Phase::Connecting {
            mut connection,
            from,
            ..
        } = dial.phase
        {
            if dial.finished {
                connection.socket_mut().close();
            }
            dial.phase = Phase::Open { connection, from };
        }
        self.dials.insert(id, dial);
        self.ready.insert(id);
    }

    fn fail(&mut self, around: &mut Around<'_>, id: DialId, answer: Answer) {
        around.events.push(LinkEvent::Answered(id, answer));
        self.break_off(around, id);
    }

    /// Ends it at once.
    pub(super) fn break_off(&mut self, around: &mut Around<'_>, id: DialId) {
        let dial = self.dials.get_mut(&id);
        if let Some(connection) = dial.and_then(Dial::connection_mut) {
            around.break_off(connection);
        }
        self.remove(around.questions, id);
    }

    fn remove(&mut self, questions: &mut Questions, id: DialId) {
        let Some(dial) = self.dials.remove(&id) else {
            return;
        };
        if let Some(port) = dial.from() {
            self.ports.release(port);
        }
        if let Some(due) = dial.timer {
            self.timers.remove(&(due, id));
        }
        if dial.asks.is_some() {
            questions.drop_dial(dial.target, id);
        }
        self.ready.remove(&id);
    }

    fn set_timer(&mut self, around: &mut Around<'_>, id: DialId, sends: bool) {
        let Some(dial) = self.dials.get_mut(&id) else {
            return;
        };
        let (fixed, connection) = match &dial.phase {
            Phase::Resolving => (Some(dial.deadline), None),
            Phase::Connecting {
                connection, again, ..
            } if sends => (Some(dial.deadline.min(*again)), Some(connection)),
            Phase::Connecting { .. } => (Some(dial.deadline), None),
            Phase::Open { connection, .. } => (None, Some(connection)),
            Phase::Closing {
                connection, until, ..
            } => (Some(*until), Some(connection)),
        };
        let sends = connection
            .filter(|_| sends)
            .and_then(|connection| around.stack.next_due(connection, around.now))
            .map(|due| due.max(around.now.saturating_add(PACE)));
        let due = fixed.into_iter().chain(sends).min();
        if dial.timer != due {
            if let Some(before) = dial.timer {
                self.timers.remove(&(before, id));
            }
            self.timers.extend(due.map(|due| (due, id)));
            dial.timer = due;
        }
    }
}

fn resolve(target: Target, learned: &Learned) -> IpAddr {
    match target {
        Target::GuestIpv4 => learned.ipv4(),
        Target::GuestIpv6 => learned.ipv6(),
        Target::Address(address) => address,
    }
}
