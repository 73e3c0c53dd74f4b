// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ARP and neighbour discovery: answers for the probe host's addresses, and questions for those that
//! dials want.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr,
};

use super::dials::DialId;
use super::frame::{self, Arp, Content, Ip, ON_LINK_HOPS};
use super::learn::Shown;
use super::plan::Plan;
use crate::dial::HOST_IPV4;

/// Between two questions for one address.
pub(super) const ASK_EVERY: u64 = 250_000_000;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub(super) message: NeighbourMessage,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) target: Ipv6Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeighbourMessage {
    Solicitation,
    Advertisement,
}

impl Neighbour {
    /// `None` for what RFC 4861 has receivers discard.
    pub(super) fn read(ip: &Ip<'_>) -> Option<Self> {
        let (Content::Icmpv6(data), IpAddr::V6(source), IpAddr::V6(destination)) =
            (ip.content, ip.source, ip.destination)
        else {
            return None;
        };
        if ip.hops != ON_LINK_HOPS {
            return None;
        }
        let packet = Icmpv6Packet::new_checked(data).ok()?;
        let caps = ChecksumCapabilities::default();
        let (message, target) = match Icmpv6Repr::parse(&source, &destination, &packet, &caps) {
            Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. })) => {
                (NeighbourMessage::Solicitation, target_addr)
            }
            Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, .. })) => {
                (NeighbourMessage::Advertisement, target_addr)
            }
            _ => return None,
        };
        Some(Self {
            message,
            source,
            destination,
            target,
        })
    }
}

/// What a packet of the guest's showed, and the answer if it asks for the probe host.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) shown: Option<(IpAddr, Shown)>,
    pub(super) answer: Option<Vec<u8>>,
}

pub(super) fn hear_arp(plan: &Plan, arp: Arp) -> Heard {
    let shown = if arp.sender == arp.target {
        Shown::Announced
    } else {
        Shown::Used
    };
    let is_own = arp.sender_mac == plan.guest && plan.may_be_guests(arp.sender.into());
    let asks = arp.is_request && arp.target == HOST_IPV4;
    Heard {
        shown: is_own.then_some((arp.sender.into(), shown)),
        answer: asks.then(|| {
            let (host, guest) = (plan.host, plan.guest);
            frame::arp(host, guest, ArpOperation::Reply, HOST_IPV4, arp.sender)
        }),
    }
}

pub(super) fn hear_neighbour(plan: &Plan, neighbour: Neighbour) -> Heard {
    use NeighbourMessage::{Advertisement, Solicitation};
    let Neighbour {
        message,
        source,
        destination,
        target,
    } = neighbour;
    let (address, shown) = match message {
        Solicitation if source.is_unspecified() => (target, Shown::Claimed),
        Solicitation => (source, Shown::Used),
        Advertisement if destination.is_multicast() => (target, Shown::Announced),
        Advertisement => (target, Shown::Used),
    };
    let is_own = plan.may_be_guests(address.into());
    let asks = message == Solicitation && plan.is_host(target.into());
    Heard {
        shown: is_own.then_some((address.into(), shown)),
        answer: asks.then(|| advertisement(plan, target, source)),
    }
}

fn advertisement(plan: &Plan, target: Ipv6Addr, asker: Ipv6Addr) -> Vec<u8> {
    let mut flags = NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::ROUTER, plan.uplink);
    // Somebody else is about to take the address: everybody is told.
    let to = if asker.is_unspecified() {
        ALL_NODES
    } else {
        flags |= NdiscNeighborFlags::SOLICITED;
        asker
    };
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target,
        lladdr: Some(plan.host.into()),
    });
    frame::icmpv6(plan.host, plan.guest, (target, to), &repr)
}

#[derive(Debug)]
struct Question {
    due: u64,
    dials: BTreeSet<DialId>,
}

/// Addresses that dials want an answer for. Each is asked for again and again while one does.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<IpAddr, Question>);

impl Questions {
    /// This dial wants to know.
    pub(super) fn ask(&mut self, address: IpAddr, dial: DialId, now: u64) {
        let question = self.0.entry(address).or_insert_with(|| Question {
            due: now,
            dials: BTreeSet::new(),
        });
        question.dials.insert(dial);
    }

    /// It does not want to know any more.
    pub(super) fn drop_dial(&mut self, address: IpAddr, dial: DialId) {
        if let Some(question) = self.0.get_mut(&address) {
            question.dials.remove(&dial);
            if question.dials.is_empty() {
                self.0.remove(&address);
            }
        }
    }

    /// The guest answered: these dials wanted to know.
    pub(super) fn answered(&mut self, address: IpAddr) -> BTreeSet<DialId> {
        let question = self.0.remove(&address);
        question.map(|question| question.dials).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.0.values().map(|question| question.due).min()
    }

    /// The questions that are due.
    pub(super) fn due(&mut self, plan: &Plan, now: u64) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for (address, question) in &mut self.0 {
            if question.due <= now {
                question.due = now.saturating_add(ASK_EVERY);
                frames.push(solicitation(plan, *address));
            }
        }
        frames
    }
}

fn solicitation(plan: &Plan, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => request(plan, address),
        IpAddr::V6(target_addr) => {
            let IpAddr::V6(source) = plan.source_for(address) else {
                return Vec::new();
            };
            let group = solicited_nodes(target_addr);
            let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                target_addr,
                lladdr: Some(plan.host.into()),
            });
            let to = frame::multicast_mac(group);
            frame::icmpv6(plan.host, to, (source, group), &repr)
        }
    }
}

/// Where an address is asked for.
pub(super) fn solicited_nodes(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

fn request(plan: &Plan, target: Ipv4Addr) -> Vec<u8> {
    let (from, to) = (plan.host, EthernetAddress::BROADCAST);
    frame::arp(from, to, ArpOperation::Request, HOST_IPV4, target)
}
