// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a dial is answered, and why.

use std::net::Ipv6Addr;

use super::*;
use crate::dial::{GUEST_IPV4, GUEST_IPV6};
use crate::link::DIALS;

const BOTH: [Target; 2] = [Target::GuestIpv4, Target::GuestIpv6];

fn text_of(world: &World, id: DialId) -> &str {
    match world.answer_of(id) {
        Some(Answer::Failed { text, .. }) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_open_port_accepts_and_says_where() {
    for (target, address) in [
        (Target::GuestIpv4, GUEST_IPV4.into()),
        (Target::GuestIpv6, GUEST_IPV6.into()),
    ] {
        let mut world = World::running();
        let id = world.dial(target, OPEN, 1000);
        world.settle();
        let connected = Answer::Connected {
            address,
            port: OPEN,
        };
        assert_eq!(
            world.answer_of(id),
            Some(&connected),
            "without time passing"
        );
    }
}

#[test]
fn a_closed_port_refuses_at_once() {
    for target in BOTH {
        let mut world = World::running();
        let id = world.dial(target, CLOSED, 1000);
        world.settle();
        assert_eq!(world.reason_of(id), Some(Reason::Refused));
        assert!(world.is_clean());
    }
}

#[test]
fn a_filtered_port_times_out_at_the_deadline_and_not_before() {
    // Also where the deadline comes when the guest's address has just been asked for again.
    for (target, timeout) in BOTH
        .into_iter()
        .flat_map(|target| [1000, 1001, 1500, 2001, 5700].map(|timeout| (target, timeout)))
    {
        let mut world = World::running();
        let id = world.dial(target, FILTERED, timeout);
        world.run(timeout - 1);
        assert_eq!(world.answer_of(id), None);
        world.run(1);
        assert_eq!(world.reason_of(id), Some(Reason::Timeout), "{timeout} ms");
        assert!(text_of(&world, id).contains(&format!("{timeout} ms")));
        assert!(world.is_clean());
    }
}

#[test]
fn a_guest_that_never_showed_its_address_is_unreachable() {
    for target in BOTH {
        let mut world = World::with(CONFIG, Guest::bare());
        world.link.guest_driver(true, 0);
        let id = world.dial(target, OPEN, 1000);
        world.run(1000);
        assert_eq!(world.reason_of(id), Some(Reason::Unreachable));
    }
}

#[test]
fn a_guest_that_hangs_after_it_had_answered_is_unreachable() {
    for target in BOTH {
        let mut world = World::running();
        let id = world.connect(target);
        world.link.close(id);
        world.run(5000);
        world.guest.hangs = true;
        let id = world.dial(target, OPEN, 1000);
        world.run(1000);
        assert_eq!(world.reason_of(id), Some(Reason::Unreachable));
    }
}

#[test]
fn a_guest_without_a_driver_is_waited_for() {
    let mut world = World::with(CONFIG, Guest::configured());
    let late = world.dial(Target::GuestIpv4, OPEN, 300);
    let early = world.dial(Target::GuestIpv4, OPEN, 1000);
    world.run(500);
    assert_eq!(world.reason_of(late), Some(Reason::NoDriver));
    assert_eq!(world.answer_of(early), None);
    world.link.guest_driver(true, world.now);
    world.settle();
    assert!(world.is_connected(early));
}

#[test]
fn a_paused_machine_is_waited_for_and_named() {
    for target in BOTH {
        let mut world = World::running();
        world.link.paused(true, world.now);
        world.guest.hangs = true;
        let late = world.dial(target, OPEN, 300);
        let early = world.dial(target, OPEN, 1000);
        world.run(300);
        assert_eq!(world.reason_of(late), Some(Reason::Paused));
        world.guest.hangs = false;
        world.link.paused(false, world.now);
        world.settle();
        assert!(world.is_connected(early));
    }
}

#[test]
fn a_machine_that_is_paused_while_it_connects_is_named_too() {
    let mut world = World::running();
    let id = world.dial(Target::GuestIpv4, FILTERED, 1000);
    world.run(400);
    world.link.paused(true, world.now);
    world.run(600);
    assert_eq!(world.reason_of(id), Some(Reason::Paused));
}

#[test]
fn a_rejection_by_icmp_is_a_refusal() {
    for (target, reject) in [
        (Target::GuestIpv4, reject_ipv4 as guest::Reject),
        (Target::GuestIpv6, reject_ipv6),
    ] {
        let mut world = World::running();
        world.guest.rejects = Some(reject);
        let id = world.dial(target, FILTERED, 1000);
        world.settle();
        assert_eq!(world.reason_of(id), Some(Reason::Refused));
        assert!(text_of(&world, id).contains("packet filter"));
    }
}

/// What Linux' REJECT sends: "port unreachable" with the packet.
fn reject_ipv4(frame: &[u8]) -> Vec<u8> {
    use smoltcp::wire::*;
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let repr = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::PortUnreachable,
        header: Ipv4Repr::parse(&packet, &Default::default()).unwrap(),
        data: packet.payload(),
    };
    let ip = IpRepr::new(
        GUEST_IPV4.into(),
        crate::dial::HOST_IPV4.into(),
        IpProtocol::Icmp,
        repr.buffer_len(),
        64,
    );
    let mut answer = frame[..14].to_vec();
    answer[..6].copy_from_slice(&HOST_MAC);
    answer[6..12].copy_from_slice(&GUEST_MAC);
    answer.resize(14 + ip.buffer_len(), 0);
    ip.emit(&mut answer[14..], &Default::default());
    let mut icmp = Icmpv4Packet::new_unchecked(&mut answer[34..]);
    repr.emit(&mut icmp, &Default::default());
    answer
}

fn reject_ipv6(frame: &[u8]) -> Vec<u8> {
    use smoltcp::wire::*;
    let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    let repr = Icmpv6Repr::DstUnreachable {
        reason: Icmpv6DstUnreachable::PortUnreachable,
        header: Ipv6Repr::parse(&packet).unwrap(),
        data: packet.payload(),
    };
    let (source, destination) = (GUEST_IPV6, crate::dial::HOST_IPV6);
    let ip = IpRepr::new(
        source.into(),
        destination.into(),
        IpProtocol::Icmpv6,
        repr.buffer_len(),
        64,
    );
    let mut answer = frame[..14].to_vec();
    answer[..6].copy_from_slice(&HOST_MAC);
    answer[6..12].copy_from_slice(&GUEST_MAC);
    answer.resize(14 + ip.buffer_len(), 0);
    ip.emit(&mut answer[14..], &Default::default());
    let mut icmp = Icmpv6Packet::new_unchecked(&mut answer[54..]);
    repr.emit(&source, &destination, &mut icmp, &Default::default());
    answer
}

#[test]
fn one_lost_packet_does_not_cost_a_probe_of_a_second() {
    // The first question, or the first packet of the connection once the address is known.
    for known in [false, true] {
        for target in BOTH {
            let mut world = World::running();
            if known {
                let id = world.connect(target);
                world.link.close(id);
                world.run(1500);
            }
            world.guest.loses = 1;
            let id = world.dial(target, OPEN, 1000);
            world.run(300);
            assert!(world.is_connected(id), "{target} known: {known}");
        }
    }
}

#[test]
fn an_address_that_no_guest_can_have_is_unreachable_at_once() {
    let mut world = World::running();
    for address in [
        "10.0.2.1",
        "10.0.2.0",
        "10.0.2.255",
        "10.0.3.2",
        "255.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "fd10:0:2::1",
        "fd10:0:3::2",
        "ff02::1",
        "::",
        "::1",
    ] {
        let target = Target::Address(address.parse().unwrap());
        let id = world.dial(target, OPEN, 1000);
        world.settle();
        assert_eq!(world.reason_of(id), Some(Reason::Unreachable), "{address}");
        assert!(text_of(&world, id).contains(address));
    }
}

#[test]
fn a_link_local_address_is_reached_from_the_hosts_own() {
    let mut world = World::running();
    let address = "fe80::5054:ff:fe12:3456".parse().unwrap();
    world.guest.set_addresses(&[address]);
    let id = world.dial(Target::Address(address.into()), OPEN, 1000);
    world.settle();
    assert!(world.is_connected(id));
}

#[test]
fn a_guest_with_an_address_of_its_own_choice_is_followed_once_it_shows_it() {
    let mut world = World::running();
    let chosen: Ipv6Addr = "fd10:0:2::5054:ff:fe12:3456".parse().unwrap();
    world.guest.set_addresses(&[chosen.into()]);
    let id = world.dial(Target::GuestIpv6, OPEN, 1000);
    world.run(100);
    assert_eq!(world.answer_of(id), None);
    // Duplicate address detection is how it is shown first.
    let claim = neighbours::neighbour_solicitation("::".parse().unwrap(), chosen);
    world.link.from_guest(&claim, world.now);
    world.settle();
    assert!(world.is_connected(id));
    assert_eq!(world.link.addresses().ipv6, Some(chosen));
    assert!(world.has(&LinkEvent::Addresses));
}

#[test]
fn beyond_the_cap_dials_are_told_that_it_is_busy() {
    let mut world = World::with(CONFIG, Guest::bare());
    for _ in 0..DIALS {
        world.dial(Target::GuestIpv4, OPEN, 1000);
    }
    let one_more = world.dial(Target::GuestIpv4, OPEN, 1000);
    world.settle();
    assert_eq!(world.reason_of(one_more), Some(Reason::Busy));
    assert_eq!(world.events.len(), 1);
    world.run(1000);
    assert_eq!(world.events.len(), 1 + DIALS);
    assert!(world.is_clean());
}

#[test]
fn a_reset_answers_who_waits_and_ends_what_is_open() {
    let mut world = World::running();
    let open = world.connect(Target::GuestIpv4);
    let waiting = world.dial(Target::GuestIpv4, FILTERED, 1000);
    world.settle();
    world.link.guest_reset(world.now);
    world.settle();
    assert!(text_of(&world, waiting).contains("reset"));
    assert!(world.has(&LinkEvent::Ended(open)));
    assert_eq!(world.read(open), (vec![], true));
    assert!(world.is_clean());
    assert_eq!(world.link.addresses(), Default::default());
    // The next boot.
    world.guest = Guest::configured();
    world.link.guest_driver(true, world.now);
    world.connect(Target::GuestIpv4);
}

#[test]
fn a_driver_that_comes_back_is_dialled_at_once() {
    // The guest had answered for its address, or not.
    for known in [false, true] {
        let mut world = World::running();
        if known {
            let id = world.connect(Target::GuestIpv4);
            world.link.close(id);
        }
        world.guest.hangs = true;
        let id = world.dial(Target::GuestIpv4, OPEN, 5000);
        world.run(3200);
        world.link.guest_driver(false, world.now);
        world.run(300);
        world.guest = Guest::configured();
        world.link.guest_driver(true, world.now);
        world.settle();
        assert!(world.is_connected(id), "known: {known}");
    }
}

#[test]
fn a_dial_whose_client_leaves_is_never_answered() {
    let mut world = World::running();
    let waiting = world.dial(Target::GuestIpv4, FILTERED, 1000);
    world.settle();
    world.link.close(waiting);
    world.run(2000);
    assert_eq!(world.answer_of(waiting), None);
    assert!(world.is_clean());
}
