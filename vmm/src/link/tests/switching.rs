// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which frame goes where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::*;

use super::neighbours::neighbour_solicitation;
use super::*;
use crate::dial::{GUEST_IPV4, GUEST_IPV6, HOST_IPV4, HOST_IPV6};
use crate::link::frame;
use crate::link::{FRAMES_FROM_UPLINK, FRAMES_TO_UPLINK};

const GUEST: EthernetAddress = EthernetAddress(GUEST_MAC);
const HOST: EthernetAddress = EthernetAddress(HOST_MAC);
const UPLINK: EthernetAddress = EthernetAddress([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);
const ALL: EthernetAddress = EthernetAddress::BROADCAST;
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const ROUTER_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn link(uplink: bool) -> Link {
    let mut link = Link::new(LinkConfig { uplink, ..CONFIG }, 0);
    link.guest_driver(true, 0);
    link
}

/// The first packet of a connection.
pub(super) fn tcp(to: EthernetAddress, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    tcp_between(40000, 443, to, source, destination)
}

pub(super) fn tcp_between(
    src_port: u16,
    dst_port: u16,
    to: EthernetAddress,
    source: IpAddr,
    destination: IpAddr,
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port,
        dst_port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, destination) = (source.into(), destination.into());
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, repr.buffer_len(), 64);
    let ethertype = match source {
        IpAddress::Ipv4(_) => EthernetProtocol::Ipv4,
        IpAddress::Ipv6(_) => EthernetProtocol::Ipv6,
    };
    frame::ethernet(GUEST, to, ethertype, ip.buffer_len(), |data| {
        ip.emit(&mut *data, &Default::default());
        let mut packet = TcpPacket::new_unchecked(&mut data[ip.header_len()..]);
        repr.emit(&mut packet, &source, &destination, &Default::default());
    })
}

fn udp(from: EthernetAddress, to: EthernetAddress, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    frame::udp(from, to, (source, 5353), (destination, 5353), b"data")
}

#[test]
fn what_is_not_for_the_host_goes_beyond_as_it_is() {
    let global = "2001:db8::1".parse::<Ipv6Addr>().unwrap();
    let vlan = [&[0xff; 6][..], &GUEST_MAC, &[0x81, 0, 0, 5, 8, 0], &[0; 40]].concat();
    for frame in [
        tcp(HOST, GUEST_IPV4.into(), WORLD.into()),
        tcp(UPLINK, GUEST_IPV4.into(), DNS.into()),
        tcp(HOST, GUEST_IPV6.into(), global.into()),
        udp(GUEST, ALL, GUEST_IPV4.into(), Ipv4Addr::BROADCAST.into()),
        udp(GUEST, UPLINK, GUEST_IPV4.into(), DNS.into()),
        frame::arp(GUEST, ALL, ArpOperation::Request, GUEST_IPV4, DNS),
        frame::arp(GUEST, UPLINK, ArpOperation::Reply, GUEST_IPV4, DNS),
        neighbour_solicitation(GUEST_IPV6, global),
        vlan,
    ] {
        let mut with = link(true);
        with.from_guest(&frame, 0);
        assert_eq!(with.to_uplink().as_ref(), Some(&frame));
        assert_eq!(with.to_guest().count(), 0);
        let mut without = link(false);
        without.from_guest(&frame, 0);
        without.poll(0);
        assert_eq!(without.to_uplink(), None);
        assert_eq!(without.to_guest().count(), 0);
    }
}

#[test]
fn what_is_for_the_host_stays_here() {
    let host_local = Plan::of_test().link_local;
    let nobody = Ipv6Addr::UNSPECIFIED;
    for frame in [
        tcp(HOST, GUEST_IPV4.into(), HOST_IPV4.into()),
        tcp(UPLINK, GUEST_IPV4.into(), HOST_IPV4.into()),
        tcp(HOST, GUEST_IPV6.into(), HOST_IPV6.into()),
        tcp(HOST, GUEST_IPV6.into(), host_local.into()),
        udp(GUEST, HOST, GUEST_IPV4.into(), HOST_IPV4.into()),
        frame::arp(GUEST, ALL, ArpOperation::Request, GUEST_IPV4, HOST_IPV4),
        // Claims of addresses are for this link alone.
        frame::arp(GUEST, ALL, ArpOperation::Request, GUEST_IPV4, GUEST_IPV4),
        frame::arp(
            GUEST,
            ALL,
            ArpOperation::Request,
            Ipv4Addr::UNSPECIFIED,
            GUEST_IPV4,
        ),
        frame::arp(
            GUEST,
            ALL,
            ArpOperation::Request,
            Ipv4Addr::UNSPECIFIED,
            DNS,
        ),
        neighbour_solicitation(nobody, GUEST_IPV6),
        neighbour_solicitation(GUEST_IPV6, HOST_IPV6),
    ] {
        let mut link = link(true);
        link.from_guest(&frame, 0);
        assert_eq!(link.to_uplink(), None, "{frame:02x?}");
    }
}

#[test]
fn what_an_uplink_might_take_for_the_host_itself_does_not_leave() {
    let guest_6 = IpAddr::from(GUEST_IPV6);
    let mut frames: Vec<_> = ["127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3"]
        .map(|to| tcp(HOST, GUEST_IPV4.into(), to.parse().unwrap()))
        .into();
    for to in ["::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
        frames.push(tcp(HOST, guest_6, to.parse().unwrap()));
        frames.push(udp(GUEST, HOST, guest_6, to.parse().unwrap()));
    }
    // Less of a packet than it says.
    let mut cut = tcp(HOST, GUEST_IPV4.into(), WORLD.into());
    cut.pop();
    frames.push(cut);
    let count = frames.len() as u64;
    let mut link = link(true);
    for frame in frames {
        link.from_guest(&frame, 0);
        assert_eq!(link.to_uplink(), None, "{frame:02x?}");
    }
    assert_eq!(link.counters().unclaimed, count);
}

#[test]
fn answers_from_beyond_reach_the_guest_as_they_are() {
    for frame in [
        udp(UPLINK, GUEST, WORLD.into(), GUEST_IPV4.into()),
        udp(UPLINK, ALL, DNS.into(), Ipv4Addr::BROADCAST.into()),
        frame::arp(UPLINK, GUEST, ArpOperation::Reply, DNS, GUEST_IPV4),
        frame::arp(UPLINK, ALL, ArpOperation::Request, DNS, GUEST_IPV4),
    ] {
        let mut with = link(true);
        with.from_uplink(&frame, 0);
        assert_eq!(with.to_guest().collect::<Vec<_>>(), [&frame[..]]);
        let mut without = link(false);
        without.from_uplink(&frame, 0);
        assert_eq!(without.to_guest().count(), 0);
        assert_eq!(without.counters().refused, 1);
    }
}

fn ndisc(source: Ipv6Addr, destination: Ipv6Addr, repr: NdiscRepr<'_>) -> Vec<u8> {
    let repr = Icmpv6Repr::Ndisc(repr);
    frame::icmpv6(UPLINK, GUEST, (source, destination), &repr)
}

#[test]
fn what_speaks_for_the_link_is_kept_from_the_guest() {
    let any = |address: Ipv6Addr| NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: address,
        lladdr: Some(UPLINK.into()),
    };
    let router = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: smoltcp::time::Duration::from_secs(1800),
        reachable_time: smoltcp::time::Duration::ZERO,
        retrans_time: smoltcp::time::Duration::ZERO,
        lladdr: None,
        mtu: None,
        prefix_info: None,
    };
    let dhcp = |port| (Ipv4Addr::new(10, 0, 2, 254).into(), port);
    let dhcpv6 = (ROUTER_LOCAL.into(), 547);
    for frame in [
        // Configuration.
        frame::udp(
            UPLINK,
            ALL,
            dhcp(67),
            (Ipv4Addr::BROADCAST.into(), 68),
            b"offer",
        ),
        frame::udp(UPLINK, GUEST, dhcpv6, (GUEST_IPV6.into(), 546), b"reply"),
        ndisc(ROUTER_LOCAL, ALL_NODES, router),
        // In the host's name, or the guest's own.
        frame::arp(UPLINK, GUEST, ArpOperation::Reply, HOST_IPV4, GUEST_IPV4),
        frame::arp(UPLINK, ALL, ArpOperation::Request, HOST_IPV4, GUEST_IPV4),
        frame::arp(UPLINK, ALL, ArpOperation::Request, DNS, HOST_IPV4),
        frame::arp(UPLINK, ALL, ArpOperation::Reply, GUEST_IPV4, GUEST_IPV4),
        ndisc(HOST_IPV6, GUEST_IPV6, any(HOST_IPV6)),
        ndisc(ROUTER_LOCAL, GUEST_IPV6, any(HOST_IPV6)),
        ndisc(ROUTER_LOCAL, ALL_NODES, any(GUEST_IPV6)),
        udp(UPLINK, GUEST, HOST_IPV4.into(), GUEST_IPV4.into()),
        udp(HOST, GUEST, WORLD.into(), GUEST_IPV4.into()),
        // Not for the guest.
        udp(UPLINK, HOST, WORLD.into(), HOST_IPV4.into()),
        udp(
            UPLINK,
            EthernetAddress([2; 6]),
            WORLD.into(),
            GUEST_IPV4.into(),
        ),
    ] {
        let mut link = link(true);
        link.from_uplink(&frame, 0);
        assert_eq!(link.to_guest().count(), 0, "{frame:02x?}");
        assert_eq!(link.counters().refused, 1);
    }
}

#[test]
fn spoofed_short_and_long_frames_are_dropped_and_counted() {
    let mut link = link(true);
    let mut spoofed = tcp(HOST, GUEST_IPV4.into(), WORLD.into());
    spoofed[6] ^= 2;
    link.from_guest(&spoofed, 0);
    assert_eq!(link.counters().spoofed, 1);
    let mut longest = [&[0xff; 6][..], &GUEST_MAC, &[0x88, 0xb5]].concat();
    for length in [0, 1, 13] {
        link.from_guest(&longest[..length], 0);
    }
    longest.resize(1515, 0);
    link.from_guest(&longest, 0);
    link.from_uplink(&longest, 0);
    assert_eq!(link.counters().malformed, 5);
    assert_eq!(link.to_uplink(), None);
    link.from_guest(&longest[..1514], 0);
    assert_eq!(link.to_uplink().map(|frame| frame.len()), Some(1514));
}

#[test]
fn queues_have_an_end_and_what_exceeds_it_is_counted() {
    let mut link = link(true);
    let out = tcp(HOST, GUEST_IPV4.into(), WORLD.into());
    let back = udp(UPLINK, GUEST, WORLD.into(), GUEST_IPV4.into());
    for _ in 0..FRAMES_TO_UPLINK + 10 {
        link.from_guest(&out, 0);
    }
    for _ in 0..FRAMES_FROM_UPLINK + 20 {
        link.from_uplink(&back, 0);
    }
    assert_eq!(link.counters().to_uplink, 10);
    assert_eq!(link.counters().to_guest, 20);
    assert_eq!(link.to_guest().count(), FRAMES_FROM_UPLINK);
    let mut waiting = 0;
    while link.to_uplink().is_some() {
        waiting += 1;
    }
    assert_eq!(waiting, FRAMES_TO_UPLINK);
    // The uplink does not keep the host from answering.
    let ask = frame::arp(GUEST, ALL, ArpOperation::Request, GUEST_IPV4, HOST_IPV4);
    link.from_guest(&ask, 0);
    assert_eq!(link.to_guest().count(), FRAMES_FROM_UPLINK + 1);
}

#[test]
fn nothing_waits_for_a_guest_without_a_driver() {
    let mut link = link(true);
    link.guest_driver(false, 0);
    link.from_uplink(&udp(UPLINK, GUEST, WORLD.into(), GUEST_IPV4.into()), 0);
    let ask = frame::arp(GUEST, ALL, ArpOperation::Request, GUEST_IPV4, HOST_IPV4);
    link.from_guest(&ask, 0);
    assert_eq!(link.to_guest().count(), 0);
}

#[test]
fn a_guests_answers_to_dials_do_not_leave_the_link() {
    let config = LinkConfig {
        uplink: true,
        ..CONFIG
    };
    let mut world = World::with(config, Guest::configured());
    world.link.guest_driver(true, 0);
    for target in [Target::GuestIpv4, Target::GuestIpv6] {
        world.connect(target);
    }
    assert_eq!(world.link.to_uplink(), None);
}

use crate::link::plan::Plan;

impl Plan {
    fn of_test() -> Self {
        Self::new(GUEST_MAC, HOST_MAC, true)
    }
}
