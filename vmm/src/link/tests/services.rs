// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DHCP and DHCPv6, on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::*;

use super::*;
use crate::dial::{GUEST_IPV4, GUEST_IPV6, HOST_IPV4};
use crate::link::frame::{self, Body, Content, Frame};

const GUEST: EthernetAddress = EthernetAddress(GUEST_MAC);
const HOST: EthernetAddress = EthernetAddress(HOST_MAC);
const ALL: EthernetAddress = EthernetAddress::BROADCAST;
const GUEST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
const HOST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x006b, 0x65ff, 0xfe6e, 0x656c);
const ALL_DHCP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

pub(super) fn link(uplink: bool) -> Link {
    let mut link = Link::new(LinkConfig { uplink, ..CONFIG }, 0);
    link.guest_driver(true, 0);
    link
}

/// What the link says to this.
pub(super) fn answers(link: &mut Link, frame: &[u8]) -> Vec<Vec<u8>> {
    link.from_guest(frame, 0);
    link.poll(0);
    let answers: Vec<_> = link.to_guest().map(<[u8]>::to_vec).collect();
    link.guest_took(answers.len());
    answers
}

pub(super) fn answer(link: &mut Link, frame: &[u8]) -> Vec<u8> {
    let mut answers = answers(link, frame);
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

fn udp_of(frame: &[u8]) -> (EthernetAddress, IpAddr, IpAddr, Vec<u8>) {
    let frame = Frame::read(frame).unwrap();
    let Body::Ip(ip) = frame.body else {
        panic!("{frame:?}");
    };
    let Content::Udp { data, .. } = ip.content else {
        panic!("{ip:?}");
    };
    (frame.destination, ip.source, ip.destination, data.to_vec())
}

#[test]
fn a_dhcp_client_gets_the_links_address_for_ever() {
    let mut world = World::with(CONFIG, Guest::with_dhcp());
    world.link.guest_driver(true, 0);
    world.run(20_000);
    let lease = world.guest.lease.clone().unwrap();
    assert_eq!(lease.address, Ipv4Cidr::new(GUEST_IPV4, 24));
    assert_eq!(lease.router, None, "nothing lies beyond");
    assert!(lease.dns_servers.is_empty());
    assert_eq!(world.link.addresses().ipv4, Some(GUEST_IPV4));
    assert!(world.has(&LinkEvent::Addresses));
    world.guest.listen(1);
    world.connect(Target::GuestIpv4);
}

#[test]
fn a_dhcp_client_with_an_uplink_gets_router_and_name_server() {
    let config = LinkConfig {
        uplink: true,
        ..CONFIG
    };
    let mut world = World::with(config, Guest::with_dhcp());
    world.link.guest_driver(true, 0);
    world.run(20_000);
    let lease = world.guest.lease.clone().unwrap();
    assert_eq!(lease.router, Some(HOST_IPV4));
    assert_eq!(*lease.dns_servers, [Ipv4Addr::new(10, 0, 2, 3)]);
    assert_eq!(world.link.to_uplink(), None, "nobody beyond hears of it");
}

fn dhcp(change: impl FnOnce(&mut DhcpRepr<'_>)) -> Vec<u8> {
    let mut repr = DhcpRepr {
        message_type: DhcpMessageType::Discover,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: GUEST,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: Some(GUEST),
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    change(&mut repr);
    let mut data = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut data))
        .unwrap();
    let from = (Ipv4Addr::UNSPECIFIED.into(), 68);
    frame::udp(GUEST, ALL, from, (Ipv4Addr::BROADCAST.into(), 67), &data)
}

/// Kind, address, Ethernet and IP destination, and all options' bytes.
fn dhcp_answer(frame: &[u8]) -> (DhcpMessageType, Ipv4Addr, EthernetAddress, IpAddr, Vec<u8>) {
    let (mac, from, to, data) = udp_of(frame);
    assert_eq!(from, IpAddr::from(HOST_IPV4));
    let packet = DhcpPacket::new_checked(&data[..]).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(repr.transaction_id, 0x1234_5678);
    assert_eq!(repr.server_identifier, Some(HOST_IPV4));
    let (kind, address) = (repr.message_type, repr.your_ip);
    (kind, address, mac, to, data[240..].to_vec())
}

#[test]
fn dhcp_answers_go_where_the_client_can_hear_them() {
    let mut link = link(false);
    let offer = answer(&mut link, &dhcp(|_| {}));
    let (kind, address, mac, to, options) = dhcp_answer(&offer);
    assert_eq!((kind, address), (DhcpMessageType::Offer, GUEST_IPV4));
    assert_eq!((mac, to), (GUEST, GUEST_IPV4.into()));
    let has = |option: &[u8]| options.windows(option.len()).any(|part| part == option);
    assert!(has(&[26, 2, 0x05, 0xdc]), "MTU");
    assert!(has(&[51, 4, 0xff, 0xff, 0xff, 0xff]), "a lease for ever");
    assert!(has(&[1, 4, 255, 255, 255, 0]), "mask");

    let offer = answer(&mut link, &dhcp(|message| message.broadcast = true));
    let (_, _, mac, to, _) = dhcp_answer(&offer);
    assert_eq!((mac, to), (ALL, Ipv4Addr::BROADCAST.into()));
}

#[test]
fn a_request_for_the_address_is_granted_and_for_another_refused() {
    let request = |wanted, current| {
        dhcp(|message| {
            message.message_type = DhcpMessageType::Request;
            message.requested_ip = wanted;
            message.client_ip = current;
        })
    };
    let none = Ipv4Addr::UNSPECIFIED;
    let other = Ipv4Addr::new(192, 168, 1, 7);
    for (wanted, current, granted) in [
        (Some(GUEST_IPV4), none, true),
        (None, GUEST_IPV4, true),
        (Some(other), none, false),
        (None, other, false),
        (None, none, false),
    ] {
        let mut link = link(false);
        let (kind, address, mac, ..) = dhcp_answer(&answer(&mut link, &request(wanted, current)));
        if granted {
            assert_eq!((kind, address), (DhcpMessageType::Ack, GUEST_IPV4));
            assert_eq!(link.addresses().ipv4, Some(GUEST_IPV4));
        } else {
            assert_eq!((kind, address), (DhcpMessageType::Nak, none));
            assert_eq!(mac, ALL);
            assert_eq!(link.addresses().ipv4, None);
        }
    }
}

#[test]
fn dhcp_informs_and_takes_back() {
    let mut link = link(true);
    let own = Ipv4Addr::new(10, 0, 2, 50);
    let inform = dhcp(|message| {
        message.message_type = DhcpMessageType::Inform;
        message.client_ip = own;
    });
    let (kind, address, mac, to, options) = dhcp_answer(&answer(&mut link, &inform));
    assert_eq!(kind, DhcpMessageType::Ack);
    assert_eq!(address, Ipv4Addr::UNSPECIFIED);
    assert_eq!((mac, to), (GUEST, own.into()));
    assert!(!options.windows(2).any(|part| part == [51, 4]), "no lease");
    let request = dhcp(|message| {
        message.message_type = DhcpMessageType::Request;
        message.client_ip = GUEST_IPV4;
    });
    answer(&mut link, &request);
    assert_eq!(link.addresses().ipv4, Some(GUEST_IPV4));
    let release = dhcp(|message| {
        message.message_type = DhcpMessageType::Release;
        message.client_ip = GUEST_IPV4;
    });
    assert_eq!(answers(&mut link, &release), [[0; 0]; 0]);
    assert_eq!(link.addresses().ipv4, None);
}

#[test]
fn dhcp_for_another_server_or_another_client_is_ignored() {
    let mut link = link(true);
    let other_server = dhcp(|message| {
        message.message_type = DhcpMessageType::Request;
        message.requested_ip = Some(GUEST_IPV4);
        message.server_identifier = Some(Ipv4Addr::new(10, 0, 2, 9));
    });
    let other_client = dhcp(|message| message.client_hardware_address = HOST);
    for frame in [other_server, other_client] {
        assert!(answers(&mut link, &frame).is_empty());
        assert_eq!(link.to_uplink(), None);
    }
}

fn option(code: u16, content: &[u8]) -> Vec<u8> {
    let mut option = code.to_be_bytes().to_vec();
    option.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    option.extend(content);
    option
}

fn dhcpv6(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    let mut data = vec![kind, 0xa, 0xb, 0xc];
    data.extend(options.concat());
    let to = (ALL_DHCP.into(), 547);
    let mac = frame::multicast_mac(ALL_DHCP);
    frame::udp(GUEST, mac, (GUEST_LOCAL.into(), 546), to, &data)
}

/// Kind and options of the answer.
fn dhcpv6_answer(frame: &[u8]) -> (u8, Vec<(u16, Vec<u8>)>) {
    let (mac, from, to, data) = udp_of(frame);
    assert_eq!(
        (mac, from, to),
        (GUEST, HOST_LOCAL.into(), GUEST_LOCAL.into())
    );
    assert_eq!(data[1..4], [0xa, 0xb, 0xc]);
    (data[0], split(&data[4..]))
}

fn split(mut data: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while let [a, b, c, d, rest @ ..] = data {
        let (content, rest) = rest.split_at(u16::from_be_bytes([*c, *d]).into());
        options.push((u16::from_be_bytes([*a, *b]), content.to_vec()));
        data = rest;
    }
    options
}

fn find(options: &[(u16, Vec<u8>)], code: u16) -> Option<&[u8]> {
    let found = options.iter().find(|option| option.0 == code);
    found.map(|option| option.1.as_slice())
}

fn client() -> Vec<u8> {
    option(1, b"\0\x01some client")
}

fn server() -> Vec<u8> {
    option(2, &[&[0, 3, 0, 1][..], &HOST_MAC].concat())
}

fn association(number: u8, address: Option<Ipv6Addr>) -> Vec<u8> {
    let mut content = vec![0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(address) = address {
        content.extend(option(5, &[&address.octets()[..], &[0; 8]].concat()));
    }
    option(3, &content)
}

/// The address in the answer's first association.
fn given(options: &[(u16, Vec<u8>)]) -> Option<(Ipv6Addr, [u8; 4])> {
    let association = find(options, 3)?;
    let inner = split(&association[12..]);
    let address = find(&inner, 5)?;
    let octets: [u8; 16] = address[..16].try_into().unwrap();
    Some((octets.into(), address[20..24].try_into().unwrap()))
}

const FOR_EVER: [u8; 4] = [0xff; 4];

#[test]
fn dhcpv6_gives_the_links_address_for_ever() {
    let ask = association(9, None);
    for (kind, more, answered, shown) in [
        (1, vec![], 2, false),
        (1, option(14, &[]), 7, true),
        (3, server(), 7, true),
        (5, server(), 7, true),
        (6, vec![], 7, true),
    ] {
        let mut link = link(false);
        let frame = dhcpv6(kind, &[client(), more.clone(), ask.clone()]);
        let (kind_of, options) = dhcpv6_answer(&answer(&mut link, &frame));
        assert_eq!(kind_of, answered, "to {kind}");
        assert_eq!(given(&options), Some((GUEST_IPV6, FOR_EVER)));
        assert_eq!(find(&options, 3).unwrap()[..4], [0, 0, 0, 9]);
        assert_eq!(find(&options, 1), Some(&client()[4..]));
        assert_eq!(find(&options, 2), Some(&server()[4..]));
        assert_eq!(find(&options, 14).is_some(), kind == 1 && shown);
        assert_eq!(link.addresses().ipv6, shown.then_some(GUEST_IPV6));
        assert_eq!(link.to_uplink(), None);
    }
}

#[test]
fn dhcpv6_confirms_informs_and_takes_back() {
    let mut link = link(false);
    let other = "fd00::7".parse().unwrap();
    for (address, status) in [(GUEST_IPV6, 0), (other, 4)] {
        let frame = dhcpv6(4, &[client(), association(1, Some(address))]);
        let (kind, options) = dhcpv6_answer(&answer(&mut link, &frame));
        assert_eq!((kind, find(&options, 13)), (7, Some(&[0, status][..])));
    }
    let nothing = dhcpv6(4, &[client(), association(1, None)]);
    assert!(
        answers(&mut link, &nothing).is_empty(),
        "nothing to confirm"
    );
    let (kind, options) = dhcpv6_answer(&answer(&mut link, &dhcpv6(11, &[])));
    assert_eq!((kind, find(&options, 1)), (7, None));

    let rapid = dhcpv6(1, &[client(), option(14, &[]), association(1, None)]);
    answer(&mut link, &rapid);
    assert_eq!(link.addresses().ipv6, Some(GUEST_IPV6));
    let release = dhcpv6(8, &[client(), server(), association(1, Some(GUEST_IPV6))]);
    let (kind, options) = dhcpv6_answer(&answer(&mut link, &release));
    assert_eq!((kind, find(&options, 13)), (7, Some(&[0, 0][..])));
    assert_eq!(link.addresses().ipv6, None);
}

#[test]
fn dhcpv6_gives_one_address_and_nothing_else() {
    let mut link = link(false);
    let other = "fd00::7".parse().unwrap();
    let prefixes = option(25, &[0; 12]);
    let temporary = option(4, &[0, 0, 0, 5]);
    let (first, second) = (association(1, Some(other)), association(2, None));
    let frame = dhcpv6(5, &[client(), server(), prefixes, temporary, first, second]);
    let (_, options) = dhcpv6_answer(&answer(&mut link, &frame));
    let status = |association: &[u8], header| find(&split(&association[header..]), 13).unwrap()[1];
    assert_eq!(status(find(&options, 25).unwrap(), 12), 6);
    assert_eq!(status(find(&options, 4).unwrap(), 4), 2);
    let associations: Vec<_> = options.iter().filter(|option| option.0 == 3).collect();
    assert_eq!(associations.len(), 2);
    assert_eq!(status(&associations[1].1, 12), 2);
    // The old address is of no use any more.
    let inner = split(&associations[0].1[12..]);
    assert_eq!(inner.len(), 2);
    assert_eq!(inner[0].1[..16], GUEST_IPV6.octets());
    assert_eq!(inner[1].1[..16], other.octets());
    assert_eq!(inner[1].1[16..], [0; 8]);
}

#[test]
fn dhcpv6_without_sense_is_ignored() {
    let mut link = link(false);
    let wrong = option(2, b"somebody else");
    for frame in [
        dhcpv6(1, &[association(1, None)]),
        dhcpv6(1, &[client(), server()]),
        dhcpv6(3, &[client(), association(1, None)]),
        dhcpv6(3, &[client(), wrong, association(1, None)]),
        dhcpv6(11, &[client(), association(1, None)]),
        dhcpv6(1, &[option(1, &[0; 131])]),
        dhcpv6(2, &[client()]),
        dhcpv6(12, &[client()]),
    ] {
        assert!(answers(&mut link, &frame).is_empty());
    }
    // Cut off anywhere, it is ignored or answered without what was cut.
    let whole = dhcpv6(
        1,
        &[client(), option(14, &[]), association(1, Some(GUEST_IPV6))],
    );
    let data = udp_of(&whole).3;
    for length in 0..data.len() {
        let from = (GUEST_LOCAL.into(), 546);
        let cut = frame::udp(GUEST, HOST, from, (HOST_LOCAL.into(), 547), &data[..length]);
        assert!(answers(&mut link, &cut).len() < 2);
    }
}
