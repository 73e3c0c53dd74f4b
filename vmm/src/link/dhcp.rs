// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The link's DHCP server: one address for one guest, for ever, so that a machine that is paused for
//! long still has it when it goes on.
//!
//! *Differs from a server for many:* nothing is remembered. The guest's MAC address gets the link's
//! address, and a request for another is refused.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};

use super::frame;
use super::plan::{DNS_IPV4, MTU, Plan, ipv4_mask};
use crate::dial::{GUEST_IPV4, HOST_IPV4};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const FOR_EVER: u32 = u32::MAX;
const OPTION_MTU: u8 = 26;

/// What the guest's message changes, and what it is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Offer(Vec<u8>),
    /// The address is the guest's.
    Acknowledge(Vec<u8>),
    /// The guest keeps its own address and wants the rest.
    Inform(Vec<u8>),
    Refuse(Vec<u8>),
    /// The guest gave the address back, and is told nothing.
    Released,
}

/// The answer to a message to port 67. `None` if it is not for this server, or nonsense.
pub(super) fn answer(plan: &Plan, data: &[u8]) -> Option<Reply> {
    let packet = DhcpPacket::new_checked(data).ok()?;
    let message = DhcpRepr::parse(&packet).ok()?;
    let for_another = |server| server != HOST_IPV4;
    if message.client_hardware_address != plan.guest
        || message.server_identifier.is_some_and(for_another)
    {
        return None;
    }
    let write = |kind, address| write(plan, &message, kind, address);
    match message.message_type {
        DhcpMessageType::Discover => {
            write(DhcpMessageType::Offer, Some(GUEST_IPV4)).map(Reply::Offer)
        }
        DhcpMessageType::Request if wanted(&message) == GUEST_IPV4 => {
            write(DhcpMessageType::Ack, Some(GUEST_IPV4)).map(Reply::Acknowledge)
        }
        DhcpMessageType::Request => write(DhcpMessageType::Nak, None).map(Reply::Refuse),
        DhcpMessageType::Inform => write(DhcpMessageType::Ack, None).map(Reply::Inform),
        DhcpMessageType::Release | DhcpMessageType::Decline => Some(Reply::Released),
        _ => None,
    }
}

/// The address that a request is for: one that was offered, or one that the guest has.
fn wanted(message: &DhcpRepr<'_>) -> Ipv4Addr {
    message.requested_ip.unwrap_or(message.client_ip)
}

fn write(
    plan: &Plan,
    message: &DhcpRepr<'_>,
    kind: DhcpMessageType,
    address: Option<Ipv4Addr>,
) -> Option<Vec<u8>> {
    let refuses = kind == DhcpMessageType::Nak;
    let mtu = u16::try_from(MTU).ok()?.to_be_bytes();
    let options = [DhcpOption {
        kind: OPTION_MTU,
        data: &mtu,
    }];
    let mut servers = Vec::new();
    if plan.uplink {
        servers.push(DNS_IPV4);
    }
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id: message.transaction_id,
        secs: 0,
        client_hardware_address: message.client_hardware_address,
        client_ip: if refuses {
            Ipv4Addr::UNSPECIFIED
        } else {
            message.client_ip
        },
        your_ip: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: (plan.uplink && !refuses).then_some(HOST_IPV4),
        subnet_mask: (!refuses).then_some(Ipv4Addr::from(ipv4_mask())),
        relay_agent_ip: message.relay_agent_ip,
        broadcast: message.broadcast,
        requested_ip: None,
        client_identifier: message.client_identifier,
        server_identifier: Some(HOST_IPV4),
        parameter_request_list: None,
        dns_servers: (plan.uplink && !refuses).then(|| servers.into_iter().collect()),
        max_size: None,
        lease_duration: address.map(|_| FOR_EVER),
        renew_duration: None,
        rebind_duration: None,
        additional_options: if refuses { &[] } else { &options },
    };
    let mut data = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut data)).ok()?;
    let (mac, to) = where_to(plan, message, address, refuses);
    let from = (IpAddr::V4(HOST_IPV4), SERVER_PORT);
    let to = (IpAddr::V4(to), CLIENT_PORT);
    Some(frame::udp(plan.host, mac, from, to, &data))
}

/// RFC 2131, section 4.1.
fn where_to(
    plan: &Plan,
    message: &DhcpRepr<'_>,
    address: Option<Ipv4Addr>,
    refuses: bool,
) -> (EthernetAddress, Ipv4Addr) {
    let has_one = !message.client_ip.is_unspecified();
    match address {
        _ if refuses => (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST),
        _ if has_one && plan.may_be_guests(message.client_ip.into()) => {
            (plan.guest, message.client_ip)
        }
        Some(address) if !message.broadcast => (plan.guest, address),
        _ => (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST),
    }
}
