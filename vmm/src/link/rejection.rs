// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a packet filter says when it does not let a connection through: ICMP "destination
//! unreachable", with the beginning of what was not let through.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol};

use super::frame::{Content, Ip};

/// Which connection it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// The probe host's port.
    pub(super) from: u16,
    /// The guest's address and port.
    pub(super) to: (IpAddr, u16),
}

pub(super) fn read(ip: &Ip<'_>) -> Option<Rejection> {
    let caps = ChecksumCapabilities::default();
    match (ip.content, ip.source, ip.destination) {
        (Content::Icmpv4(data), ..) => {
            let packet = Icmpv4Packet::new_checked(data).ok()?;
            match Icmpv4Repr::parse(&packet, &caps).ok()? {
                Icmpv4Repr::DstUnreachable { header, data, .. } => {
                    of_connection(header.next_header, header.dst_addr.into(), data)
                }
                _ => None,
            }
        }
        (Content::Icmpv6(data), IpAddr::V6(source), IpAddr::V6(destination)) => {
            let packet = Icmpv6Packet::new_checked(data).ok()?;
            match Icmpv6Repr::parse(&source, &destination, &packet, &caps).ok()? {
                Icmpv6Repr::DstUnreachable { header, data, .. } => {
                    of_connection(header.next_header, header.dst_addr.into(), data)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn of_connection(protocol: IpProtocol, to: IpAddr, tcp: &[u8]) -> Option<Rejection> {
    let [a, b, c, d, ..] = tcp else {
        return None;
    };
    (protocol == IpProtocol::Tcp).then(|| Rejection {
        from: u16::from_be_bytes([*a, *b]),
        to: (to, u16::from_be_bytes([*c, *d])),
    })
}
