// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Router advertisements, ARP, neighbour discovery and ping, on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::*;

use super::services::{answer, answers, link};
use super::*;
use crate::dial::{GUEST_IPV4, GUEST_IPV6, HOST_IPV4, HOST_IPV6};
use crate::link::frame::{self, Body, Content, Frame};
use crate::link::neighbours::solicited_nodes;

const GUEST: EthernetAddress = EthernetAddress(GUEST_MAC);
const HOST: EthernetAddress = EthernetAddress(HOST_MAC);
const ALL: EthernetAddress = EthernetAddress::BROADCAST;
const GUEST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const HOST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x006b, 0x65ff, 0xfe6e, 0x656c);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

pub(super) fn neighbour_solicitation(from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: (!from.is_unspecified()).then(|| GUEST.into()),
    });
    let group = solicited_nodes(target);
    frame::icmpv6(GUEST, frame::multicast_mac(group), (from, group), &repr)
}

fn router_advertisement(frame: &[u8]) -> (Ipv6Addr, NdiscRepr<'_>) {
    let read = Frame::read(frame).unwrap();
    let Body::Ip(ip) = read.body else {
        panic!("{read:?}");
    };
    let (Content::Icmpv6(data), IpAddr::V6(source), IpAddr::V6(to)) =
        (ip.content, ip.source, ip.destination)
    else {
        panic!("{ip:?}");
    };
    assert_eq!((source, ip.hops), (HOST_LOCAL, 255));
    let packet = Icmpv6Packet::new_checked(data).unwrap();
    match Icmpv6Repr::parse(&source, &to, &packet, &Default::default()).unwrap() {
        Icmpv6Repr::Ndisc(ndisc @ NdiscRepr::RouterAdvert { .. }) => (to, ndisc),
        other => panic!("{other:?}"),
    }
}

fn router_solicitation(from: Ipv6Addr) -> Vec<u8> {
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
    let to = frame::multicast_mac(ALL_ROUTERS);
    frame::icmpv6(GUEST, to, (from, ALL_ROUTERS), &repr)
}

#[test]
fn a_router_solicitation_is_answered_with_prefix_and_flags() {
    for (uplink, from, to) in [
        (false, GUEST_LOCAL, GUEST_LOCAL),
        (true, Ipv6Addr::UNSPECIFIED, ALL_NODES),
    ] {
        let mut link = link(uplink);
        let frame = answer(&mut link, &router_solicitation(from));
        let (went_to, advertisement) = router_advertisement(&frame);
        assert_eq!(went_to, to);
        let NdiscRepr::RouterAdvert {
            flags,
            router_lifetime,
            mtu,
            prefix_info: Some(prefix),
            lladdr: Some(mac),
            ..
        } = advertisement
        else {
            panic!("{advertisement:?}");
        };
        assert_eq!(flags, NdiscRouterFlags::MANAGED | NdiscRouterFlags::OTHER);
        assert_eq!(router_lifetime.secs() > 0, uplink);
        assert_eq!((mtu, mac), (Some(1500), HOST.into()));
        assert_eq!(prefix.prefix, "fd10:0:2::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(prefix.prefix_len, 64);
        let both = NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF;
        assert_eq!(prefix.flags, both);
        assert_eq!(prefix.valid_lifetime.secs(), u64::from(u32::MAX));
        assert_eq!(link.to_uplink(), None);
    }
}

#[test]
fn the_router_advertises_unasked_while_the_guest_runs() {
    let mut link = link(false);
    let mut at = Vec::new();
    let mut now = 0;
    while let Some(due) = link.next_due().filter(|due| *due <= 700_000 * MS) {
        assert!(due > now);
        now = due;
        link.poll(now);
        for frame in link.to_guest() {
            router_advertisement(frame);
            at.push(now / (1000 * MS));
        }
        link.guest_took(10);
    }
    assert_eq!(at, [4, 8, 12, 312, 612]);
    link.paused(true, now);
    assert_eq!(link.next_due(), None, "nobody would hear it");
    link.paused(false, now);
    link.guest_driver(false, now);
    assert_eq!(link.next_due(), None);
}

#[test]
fn arp_is_answered_for_the_host_alone() {
    let mut link = link(false);
    let ask = |target| frame::arp(GUEST, ALL, ArpOperation::Request, GUEST_IPV4, target);
    let frame = answer(&mut link, &ask(HOST_IPV4));
    assert_eq!(frame[..6], GUEST_MAC);
    let Body::Arp(arp) = Frame::read(&frame).unwrap().body else {
        panic!("{frame:?}");
    };
    assert!(!arp.is_request);
    assert_eq!((arp.sender_mac, arp.sender), (HOST, HOST_IPV4));
    assert_eq!(arp.target, GUEST_IPV4);
    assert!(answers(&mut link, &ask(Ipv4Addr::new(10, 0, 2, 7))).is_empty());
    assert_eq!(link.addresses().ipv4, Some(GUEST_IPV4), "it used it");
}

#[test]
fn neighbours_are_asked_by_the_group_of_rfc_4291() {
    let mut link = link(false);
    let target = "fd10:0:2::5054:ff:fe12:3456".parse().unwrap();
    link.dial(&request(Target::Address(target), OPEN, 1000), 0);
    link.poll(0);
    let frame: Vec<_> = link.to_guest().next().unwrap().to_vec();
    assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    let Body::Ip(ip) = Frame::read(&frame).unwrap().body else {
        panic!("{frame:?}");
    };
    let group: IpAddr = "ff02::1:ff12:3456".parse().unwrap();
    assert_eq!((ip.source, ip.destination), (HOST_IPV6.into(), group));
}

#[test]
fn neighbours_are_told_of_the_host_alone() {
    let mut link = link(false);
    for host in [HOST_IPV6, HOST_LOCAL] {
        for (from, to) in [
            (GUEST_LOCAL, GUEST_LOCAL),
            (Ipv6Addr::UNSPECIFIED, ALL_NODES),
        ] {
            let frame = answer(&mut link, &neighbour_solicitation(from, host));
            let Body::Ip(ip) = Frame::read(&frame).unwrap().body else {
                panic!("{frame:?}");
            };
            assert_eq!((ip.source, ip.destination), (host.into(), to.into()));
            assert!(matches!(ip.content, Content::Icmpv6([136, ..])));
        }
    }
    assert!(answers(&mut link, &neighbour_solicitation(GUEST_LOCAL, GUEST_IPV6)).is_empty());
    assert_eq!(
        link.addresses().ipv6,
        None,
        "a link-local address is not told"
    );
}

#[test]
fn addresses_are_learned_within_bounds_and_the_planned_one_is_preferred() {
    let mut link = link(false);
    let own = |last: u16| Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, last);
    let nobody = Ipv6Addr::UNSPECIFIED;
    for last in [7, 8] {
        link.from_guest(&neighbour_solicitation(nobody, own(last)), 0);
        assert_eq!(link.addresses().ipv6, Some(own(last)), "the last one shown");
    }
    link.from_guest(&neighbour_solicitation(nobody, GUEST_IPV6), 0);
    link.from_guest(&neighbour_solicitation(nobody, own(9)), 0);
    assert_eq!(link.addresses().ipv6, Some(GUEST_IPV6));
    let outside = "fd10:0:3::2".parse().unwrap();
    link.from_guest(&neighbour_solicitation(nobody, outside), 0);
    link.from_guest(&neighbour_solicitation(nobody, HOST_IPV6), 0);
    assert_eq!(link.addresses().ipv6, Some(GUEST_IPV6));
    for last in 100..200 {
        link.from_guest(&neighbour_solicitation(nobody, own(last)), 0);
    }
    assert_eq!(link.addresses().ipv6, Some(own(199)), "few are remembered");
    let announced = Ipv4Addr::new(10, 0, 2, 44);
    let frame = frame::arp(GUEST, ALL, ArpOperation::Request, announced, announced);
    link.from_guest(&frame, 0);
    assert_eq!(link.addresses().ipv4, Some(announced));
}

fn icmp(source: IpAddr, destination: IpAddr, write: impl Fn(&mut [u8])) -> Vec<u8> {
    let protocol = if source.is_ipv4() {
        IpProtocol::Icmp
    } else {
        IpProtocol::Icmpv6
    };
    let ip = IpRepr::new(source.into(), destination.into(), protocol, 16, 64);
    let ethertype = if source.is_ipv4() {
        EthernetProtocol::Ipv4
    } else {
        EthernetProtocol::Ipv6
    };
    frame::ethernet(GUEST, HOST, ethertype, ip.buffer_len(), |data| {
        ip.emit(&mut *data, &Default::default());
        write(&mut data[ip.header_len()..]);
    })
}

#[test]
fn the_host_answers_ping() {
    let mut link = link(false);
    let ping = icmp(GUEST_IPV4.into(), HOST_IPV4.into(), |data| {
        let repr = Icmpv4Repr::EchoRequest {
            ident: 1,
            seq_no: 2,
            data: b"any body",
        };
        repr.emit(&mut Icmpv4Packet::new_unchecked(data), &Default::default());
    });
    let pong = answer(&mut link, &ping);
    assert_eq!(pong[..12], [GUEST_MAC, HOST_MAC].concat());
    assert_eq!((pong[34], &pong[42..]), (0, &b"any body"[..]));
    for host in [HOST_IPV6, HOST_LOCAL] {
        let ping = icmp(GUEST_IPV6.into(), host.into(), |data| {
            let repr = Icmpv6Repr::EchoRequest {
                ident: 1,
                seq_no: 2,
                data: b"any body",
            };
            let mut packet = Icmpv6Packet::new_unchecked(data);
            repr.emit(&GUEST_IPV6, &host, &mut packet, &Default::default());
        });
        let pong = answer(&mut link, &ping);
        assert_eq!(pong[12..14], [0x86, 0xdd]);
        assert_eq!((pong[54], &pong[62..]), (129, &b"any body"[..]));
    }
}

#[test]
fn the_host_refuses_connections_to_itself() {
    let mut link = link(false);
    let syn = switching::tcp(HOST, GUEST_IPV4.into(), HOST_IPV4.into());
    let answer = answer(&mut link, &syn);
    assert_eq!(answer[47] & 0x04, 0x04, "RST");
}
