// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ethernet frames, read as far as somebody here looks, and written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, UdpPacket, UdpRepr,
};

use super::plan::MTU;

/// Length of an Ethernet header.
pub(super) const HEADER: usize = 14;
/// Longest frame, without its check sequence.
pub(super) const LONGEST: usize = HEADER + MTU;
/// Hop limit of all that must not come from beyond the link.
pub(super) const ON_LINK_HOPS: u8 = 255;
const HOPS: u8 = 64;
const UDP_HEADER: usize = 8;

/// One frame, as far as it makes sense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) destination: EthernetAddress,
    pub(super) source: EthernetAddress,
    /// What follows the Ethernet header.
    pub(super) packet: &'a [u8],
    pub(super) body: Body<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Body<'a> {
    Arp(Arp),
    Ip(Ip<'a>),
    /// ARP or IP by its type, and not by its content.
    Nonsense,
    Other,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Arp {
    pub(super) is_request: bool,
    pub(super) sender_mac: EthernetAddress,
    pub(super) sender: Ipv4Addr,
    pub(super) target: Ipv4Addr,
}

/// An IPv4 or IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    pub(super) content: Content<'a>,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Tcp {
        destination: u16,
    },
    Udp {
        source: u16,
        destination: u16,
        data: &'a [u8],
    },
    Icmpv4(&'a [u8]),
    Icmpv6(&'a [u8]),
    /// Also a fragment, and what has extension headers.
    Other,
}

impl<'a> Frame<'a> {
    /// `None` for what is shorter than a header.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let frame = EthernetFrame::new_checked(bytes).ok()?;
        let packet = bytes.get(HEADER..)?;
        let body = match frame.ethertype() {
            EthernetProtocol::Arp => read_arp(packet),
            EthernetProtocol::Ipv4 => read_ipv4(packet),
            EthernetProtocol::Ipv6 => read_ipv6(packet),
            EthernetProtocol::Unknown(_) => Some(Body::Other),
        };
        Some(Self {
            destination: frame.dst_addr(),
            source: frame.src_addr(),
            packet,
            body: body.unwrap_or(Body::Nonsense),
        })
    }
}

fn read_arp<'a>(packet: &[u8]) -> Option<Body<'a>> {
    let packet = ArpPacket::new_checked(packet).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: sender_mac,
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let is_request = match operation {
        ArpOperation::Request => true,
        ArpOperation::Reply => false,
        ArpOperation::Unknown(_) => return None,
    };
    Some(Body::Arp(Arp {
        is_request,
        sender_mac,
        sender,
        target,
    }))
}

fn read_ipv4(packet: &[u8]) -> Option<Body<'_>> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let content = if packet.more_frags() || packet.frag_offset() != 0 {
        Content::Other
    } else {
        read_content(packet.next_header(), packet.payload())
    };
    Some(Body::Ip(Ip {
        source: packet.src_addr().into(),
        destination: packet.dst_addr().into(),
        hops: packet.hop_limit(),
        content,
    }))
}

fn read_ipv6(packet: &[u8]) -> Option<Body<'_>> {
    let packet = Ipv6Packet::new_checked(packet).ok()?;
    Some(Body::Ip(Ip {
        source: packet.src_addr().into(),
        destination: packet.dst_addr().into(),
        hops: packet.hop_limit(),
        content: read_content(packet.next_header(), packet.payload()),
    }))
}

fn read_content(protocol: IpProtocol, payload: &[u8]) -> Content<'_> {
    let read = || match protocol {
        IpProtocol::Tcp => {
            let [_, _, a, b, ..] = payload else {
                return None;
            };
            Some(Content::Tcp {
                destination: u16::from_be_bytes([*a, *b]),
            })
        }
        IpProtocol::Udp => {
            let packet = UdpPacket::new_checked(payload).ok()?;
            Some(Content::Udp {
                source: packet.src_port(),
                destination: packet.dst_port(),
                data: packet.payload(),
            })
        }
        IpProtocol::Icmp => Some(Content::Icmpv4(payload)),
        IpProtocol::Icmpv6 => Some(Content::Icmpv6(payload)),
        _ => None,
    };
    read().unwrap_or(Content::Other)
}

/// The group address that packets to `address` go to.
pub(super) fn multicast_mac(address: Ipv6Addr) -> EthernetAddress {
    let [.., a, b, c, d] = address.octets();
    EthernetAddress([0x33, 0x33, a, b, c, d])
}

/// A frame of so many bytes of content, which `write` fills in.
pub(super) fn ethernet(
    from: EthernetAddress,
    to: EthernetAddress,
    protocol: EthernetProtocol,
    length: usize,
    write: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; HEADER.saturating_add(length)];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(from);
    frame.set_dst_addr(to);
    frame.set_ethertype(protocol);
    write(frame.payload_mut());
    bytes
}

pub(super) fn arp(
    from: EthernetAddress,
    to: EthernetAddress,
    operation: ArpOperation,
    sender: Ipv4Addr,
    target: Ipv4Addr,
) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: from,
        source_protocol_addr: sender,
        target_hardware_addr: to,
        target_protocol_addr: target,
    };
    ethernet(from, to, EthernetProtocol::Arp, repr.buffer_len(), |data| {
        repr.emit(&mut ArpPacket::new_unchecked(data));
    })
}

pub(super) fn icmpv6(
    from: EthernetAddress,
    to: EthernetAddress,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    repr: &Icmpv6Repr<'_>,
) -> Vec<u8> {
    let length = repr.buffer_len();
    let ends = (IpAddr::V6(source), IpAddr::V6(destination));
    ip(
        from,
        to,
        ends,
        IpProtocol::Icmpv6,
        ON_LINK_HOPS,
        length,
        |data| {
            repr.emit(
                &source,
                &destination,
                &mut Icmpv6Packet::new_unchecked(data),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

pub(super) fn udp(
    from: EthernetAddress,
    to: EthernetAddress,
    (source, source_port): (IpAddr, u16),
    (destination, destination_port): (IpAddr, u16),
    data: &[u8],
) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: source_port,
        dst_port: destination_port,
    };
    let length = UDP_HEADER.saturating_add(data.len());
    ip(
        from,
        to,
        (source, destination),
        IpProtocol::Udp,
        HOPS,
        length,
        |buffer| {
            repr.emit(
                &mut UdpPacket::new_unchecked(buffer),
                &source.into(),
                &destination.into(),
                data.len(),
                |payload| payload.copy_from_slice(data),
                &ChecksumCapabilities::default(),
            );
        },
    )
}

fn ip(
    from: EthernetAddress,
    to: EthernetAddress,
    (source, destination): (IpAddr, IpAddr),
    protocol: IpProtocol,
    hops: u8,
    length: usize,
    write: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let repr = IpRepr::new(source.into(), destination.into(), protocol, length, hops);
    let ethertype = match destination {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    };
    ethernet(from, to, ethertype, repr.buffer_len(), |data| {
        repr.emit(&mut *data, &ChecksumCapabilities::default());
        if let Some(payload) = data.get_mut(repr.header_len()..) {
            write(payload);
        }
    })
}
