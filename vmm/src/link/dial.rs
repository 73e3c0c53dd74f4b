// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One dial, and what is said when it fails.

use std::net::IpAddr;
use std::time::Duration;

use smoltcp::socket::tcp::State;

use super::stack::Connection;
use crate::dial::{Answer, HOST_IPV4, HOST_IPV6, IPV4_PREFIX, IPV6_PREFIX, Reason, Request};

/// The first wait for an answer to a connection's first packet; each next is twice as long. smoltcp
/// waits a second, which is all the time that many a probe has.
pub(super) const FIRST_WAIT: u64 = 200_000_000;

/// A guest that is there answers ARP and neighbour discovery sooner, in ns.
const ANSWERED_IN: u64 = 500_000_000;

/// Whether the guest can take frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Running,
    Paused,
    NoDriver,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The guest has not answered for the address.
    Resolving,
    /// The guest has not accepted.
    Connecting {
        connection: Connection,
        from: u16,
        /// The connection's first packet, once it has been sent.
        first: Option<Vec<u8>>,
        /// When it is sent again, and the wait before.
        again: u64,
        wait: u64,
    },
    /// Bytes may go both ways.
    Open { connection: Connection, from: u16 },
    /// The client is gone.
    Closing {
        connection: Connection,
        from: u16,
        until: u64,
    },
}

/// One client's wish, and what became of it.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) request: Request,
    pub(super) target: IpAddr,
    pub(super) deadline: u64,
    pub(super) phase: Phase,
    /// Since when it waits for an answer to ARP or neighbour discovery.
    pub(super) asks: Option<u64>,
    /// When it is looked at again.
    pub(super) timer: Option<u64>,
    /// The client has no more to send.
    pub(super) finished: bool,
    /// The client has been told that there is something to read, and has not read it all.
    pub(super) told: bool,
    /// The client knows that nothing more comes.
    pub(super) knows_end: bool,
    /// The client has more to send than there was room for.
    pub(super) wants_room: bool,
}

impl Dial {
    pub(super) fn new(request: &Request, target: IpAddr, now: u64) -> Self {
        let timeout = u64::try_from(request.timeout.as_nanos()).unwrap_or(u64::MAX);
        Self {
            request: *request,
            target,
            deadline: now.saturating_add(timeout),
            phase: Phase::Resolving,
            asks: None,
            timer: None,
            finished: false,
            told: false,
            knows_end: false,
            wants_room: false,
        }
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.phase {
            Phase::Resolving => None,
            Phase::Connecting { connection, .. }
            | Phase::Open { connection, .. }
            | Phase::Closing { connection, .. } => Some(connection),
        }
    }

    /// The probe host's port.
    pub(super) fn from(&self) -> Option<u16> {
        match self.phase {
            Phase::Resolving => None,
            Phase::Connecting { from, .. }
            | Phase::Open { from, .. }
            | Phase::Closing { from, .. } => Some(from),
        }
    }

    /// Neither accepted nor failed.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Resolving | Phase::Connecting { .. })
    }

    pub(super) fn connected(&self) -> Answer {
        Answer::Connected {
            address: self.target,
            port: self.request.port,
        }
    }

    /// Whether it has waited for an answer to ARP or neighbour discovery long enough to say that there
    /// is none: it may have asked again just now.
    fn is_unheard(&self) -> bool {
        let waited = |since: u64| self.deadline.saturating_sub(since);
        matches!(self.phase, Phase::Resolving)
            || self.asks.is_some_and(|since| waited(since) >= ANSWERED_IN)
    }

    /// What is said at the deadline.
    pub(super) fn overdue(&self, condition: Condition) -> Answer {
        let (address, port) = (self.target, self.request.port);
        let timeout = Span(self.request.timeout);
        let question = if address.is_ipv4() {
            "ARP"
        } else {
            "neighbour discovery"
        };
        match condition {
            Condition::Paused => failed(
                Reason::Paused,
                "the machine is paused: nothing in the guest answers until it is resumed",
            ),
            Condition::NoDriver => failed(
                Reason::NoDriver,
                "the guest drives no network device: it has not come that far, or lacks virtio_net",
            ),
            Condition::Running if self.is_unheard() => failed(
                Reason::Unreachable,
                &format!(
                    "nobody on the guest's link has {address}: no answer to {question} in {timeout}; \
                     the guest has not configured it (by DHCP, for instance), its interface is down, or it hangs"
                ),
            ),
            Condition::Running => failed(
                Reason::Timeout,
                &format!(
                    "{address} port {port} did not answer in {timeout}: filtered, or the guest is too busy"
                ),
            ),
        }
    }

    pub(super) fn refused(&self) -> Answer {
        let (address, port) = (self.target, self.request.port);
        let text = format!("{address} refused: nobody listens on port {port}");
        failed(Reason::Refused, &text)
    }

    /// The guest's packet filter said so.
    pub(super) fn rejected(&self) -> Answer {
        let (address, port) = (self.target, self.request.port);
        let text = format!(
            "{address} rejected the connection by ICMP: its packet filter does not let port {port} through"
        );
        failed(Reason::Refused, &text)
    }
}

/// Both ends are through, or one of them broke it off.
pub(super) fn is_over(state: State) -> bool {
    matches!(state, State::Closed | State::TimeWait)
}

pub(super) fn reset() -> Answer {
    failed(
        Reason::NoDriver,
        "the guest was reset before it accepted: its network starts anew",
    )
}

pub(super) fn busy(most: usize) -> Answer {
    let text = format!("{most} connections to the guest are open already: close some of them");
    failed(Reason::Busy, &text)
}

pub(super) fn not_on_link(address: IpAddr) -> Answer {
    let text = format!(
        "{address} is no address that a guest can have: give one in {HOST_IPV4}/{IPV4_PREFIX} or \
         {HOST_IPV6}/{IPV6_PREFIX} beside these two"
    );
    failed(Reason::Unreachable, &text)
}

pub(super) fn no_port() -> Answer {
    failed(Reason::Busy, "no TCP port is left to connect from")
}

fn failed(reason: Reason, text: &str) -> Answer {
    Answer::Failed {
        reason,
        text: text.to_owned(),
    }
}

/// A time for people.
struct Span(Duration);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms", self.0.as_millis())
    }
}
