// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which frame goes where.
//!
//! There are three parties: the guest, the probe host, and what lies beyond the uplink. What the
//! probe host answers for does not leave the link, and what comes in from the uplink can neither
//! configure the guest nor speak for the probe host.

use std::net::IpAddr;

use smoltcp::wire::EthernetAddress;

use super::frame::{Arp, Body, Content, Frame, HEADER, Ip, LONGEST};
use super::neighbours::{Neighbour, NeighbourMessage};
use super::plan::{Plan, is_planned};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Who looks at a guest's frame here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Service<'a> {
    Arp(Arp),
    Neighbour(Neighbour),
    Router { from: IpAddr },
    Dhcp(&'a [u8]),
    Dhcpv6 { from: IpAddr, data: &'a [u8] },
    Stack,
}

/// Where a guest's frame goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) here: Option<Service<'a>>,
    /// To the uplink, if there is one.
    pub(super) beyond: bool,
}

/// Its length is a frame's.
pub(super) fn has_frames_length(bytes: &[u8]) -> bool {
    (HEADER..=LONGEST).contains(&bytes.len())
}

/// Where a frame of the guest goes.
pub(super) fn from_guest<'a>(plan: &Plan, frame: &Frame<'a>) -> Way<'a> {
    match frame.body {
        Body::Arp(arp) => Way {
            here: Some(Service::Arp(arp)),
            beyond: arp_goes_beyond(plan, arp),
        },
        Body::Ip(ip) => ip_from_guest(plan, ip),
        // Whoever is beyond might make something else of it.
        Body::Nonsense => Way {
            here: None,
            beyond: false,
        },
        Body::Other => Way {
            here: None,
            beyond: frame.destination != plan.host,
        },
    }
}

/// Claims of the guest's own addresses are the link's business.
fn arp_goes_beyond(plan: &Plan, arp: Arp) -> bool {
    !plan.is_host(arp.target.into()) && arp.target != arp.sender && !arp.sender.is_unspecified()
}

fn ip_from_guest<'a>(plan: &Plan, ip: Ip<'a>) -> Way<'a> {
    let here = |service| Way {
        here: Some(service),
        beyond: false,
    };
    let nowhere = Way {
        here: None,
        beyond: false,
    };
    match ip.content {
        Content::Udp {
            destination: DHCP_SERVER,
            data,
            ..
        } => here(Service::Dhcp(data)),
        Content::Udp {
            destination: DHCPV6_SERVER,
            data,
            ..
        } => here(Service::Dhcpv6 {
            from: ip.source,
            data,
        }),
        Content::Icmpv6([ROUTER_SOLICITATION, ..]) => here(Service::Router { from: ip.source }),
        Content::Icmpv6([ROUTER_ADVERTISEMENT | REDIRECT, ..]) => nowhere,
        Content::Icmpv6([NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT, ..]) => {
            let Some(neighbour) = Neighbour::read(&ip) else {
                return nowhere;
            };
            Way {
                here: Some(Service::Neighbour(neighbour)),
                beyond: neighbour_goes_beyond(plan, neighbour),
            }
        }
        Content::Tcp { .. } | Content::Icmpv4(_) | Content::Icmpv6(_)
            if plan.is_host(ip.destination) =>
        {
            here(Service::Stack)
        }
        _ => Way {
            here: None,
            beyond: !plan.is_host(ip.destination) && !means_oneself(ip.destination),
        },
    }
}

/// Whoever connects there connects to itself: an uplink that does so for the guest would open the host's
/// loopback to it. passt 2023-03-09 (Debian 12) does, for 127.0.0.1 and 0.0.0.0, also with `--no-map-gw`:
/// observed.
fn means_oneself(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.octets().starts_with(&[0]),
        IpAddr::V6(address) => address.is_loopback() || address.is_unspecified(),
    }
}

fn neighbour_goes_beyond(plan: &Plan, neighbour: Neighbour) -> bool {
    let asks_host = neighbour.message == NeighbourMessage::Solicitation
        && plan.is_host(neighbour.target.into());
    let claims = neighbour.source.is_unspecified();
    let is_for_host = plan.is_host(neighbour.destination.into());
    !(asks_host || claims || is_for_host)
}

/// Whether a frame of the uplink goes to the guest.
pub(super) fn reaches_guest(plan: &Plan, frame: &Frame<'_>) -> bool {
    let EthernetAddress([first, ..]) = frame.destination;
    if frame.destination != plan.guest && first & 1 == 0 {
        return false;
    }
    if frame.source == plan.host || frame.source == plan.guest {
        return false;
    }
    match frame.body {
        Body::Arp(arp) => !speaks_for_link(plan, arp.sender.into(), arp.target.into()),
        Body::Ip(ip) => ip_reaches_guest(plan, &ip),
        Body::Nonsense | Body::Other => true,
    }
}

fn ip_reaches_guest(plan: &Plan, ip: &Ip<'_>) -> bool {
    if plan.is_host(ip.source) || plan.is_host(ip.destination) {
        return false;
    }
    match ip.content {
        Content::Udp {
            source: DHCP_SERVER,
            destination: DHCP_CLIENT,
            ..
        }
        | Content::Udp {
            source: DHCPV6_SERVER,
            destination: DHCPV6_CLIENT,
            ..
        }
        | Content::Icmpv6([ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT | REDIRECT, ..]) => false,
        Content::Icmpv6([NEIGHBOUR_SOLICITATION, ..]) => Neighbour::read(ip)
            .is_some_and(|n| !speaks_for_link(plan, n.source.into(), n.target.into())),
        Content::Icmpv6([NEIGHBOUR_ADVERTISEMENT, ..]) => Neighbour::read(ip)
            .is_some_and(|n| !speaks_for_link(plan, n.target.into(), n.destination.into())),
        _ => true,
    }
}

/// The sender says that it has an address of the probe host or of the guest, or asks for the probe
/// host's.
fn speaks_for_link(plan: &Plan, sender: IpAddr, asked: IpAddr) -> bool {
    plan.is_host(sender) || is_planned(sender) || plan.is_host(asked)
}
