// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that mean harm.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use smoltcp::wire::{ArpOperation, EthernetAddress};

use super::neighbours::neighbour_solicitation;
use super::switching::{tcp, tcp_between};
use super::*;
use crate::dial::{GUEST_IPV4, GUEST_IPV6, HOST_IPV4};
use crate::link::{FRAMES_TO_GUEST, FRAMES_TO_UPLINK, frame};

const GUEST: EthernetAddress = EthernetAddress(GUEST_MAC);
const HOST: EthernetAddress = EthernetAddress(HOST_MAC);

fn queues_are_bounded(link: &mut Link) {
    assert!(link.to_guest().count() <= FRAMES_TO_GUEST);
    let waiting = std::iter::from_fn(|| link.to_uplink()).count();
    assert!(waiting <= FRAMES_TO_UPLINK);
}

#[test]
fn floods_fill_queues_and_nothing_more() {
    let config = LinkConfig {
        uplink: true,
        ..CONFIG
    };
    let arp = |last: u8| {
        let sender = Ipv4Addr::new(10, 0, 2, last);
        frame::arp(
            GUEST,
            EthernetAddress::BROADCAST,
            ArpOperation::Request,
            sender,
            HOST_IPV4,
        )
    };
    let solicit = |last: u8| {
        let sender = std::net::Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, last.into());
        neighbour_solicitation(sender, crate::dial::HOST_IPV6)
    };
    let claim = |last: u8| {
        let target = std::net::Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, last.into());
        neighbour_solicitation("::".parse().unwrap(), target)
    };
    let syn = |last: u8| {
        let mut frame = tcp(HOST, GUEST_IPV4.into(), HOST_IPV4.into());
        frame[37] = last;
        frame
    };
    let beyond = |last: u8| {
        tcp(
            HOST,
            GUEST_IPV4.into(),
            Ipv4Addr::new(192, 0, 2, last).into(),
        )
    };
    let floods: [&dyn Fn(u8) -> Vec<u8>; 5] = [&arp, &solicit, &claim, &syn, &beyond];
    for flood in floods {
        let mut link = Link::new(config, 0);
        link.guest_driver(true, 0);
        for at in 0..20_000_u64 {
            let last = u8::try_from(at % 256).unwrap();
            link.from_guest(&flood(last), at);
            link.poll(at);
        }
        assert_eq!(link.connections(), 0);
        assert!(link.take_events().len() <= 1, "addresses changed, once");
        queues_are_bounded(&mut link);
    }
}

#[test]
fn a_guest_that_takes_no_frame_holds_up_dials_and_not_the_link() {
    let mut world = World::running();
    world.connect(Target::GuestIpv4);
    world.run(2000);
    for _ in 0..4000 {
        world.dial(Target::GuestIpv4, OPEN, 1000);
    }
    let mut polls = 0;
    while let Some(due) = world.link.next_due().filter(|due| *due < 5000 * MS) {
        world.now = world.now.max(due);
        world.link.poll(world.now);
        polls += 1;
    }
    assert!(polls < 50_000, "{polls}");
    let events = world.link.take_events();
    assert_eq!(events.len(), 4000, "each has its answer");
    assert!(world.link.to_guest().count() <= FRAMES_TO_GUEST);
    assert_eq!(world.link.connections(), 1);
}

#[test]
fn a_burst_to_a_guest_that_takes_few_frames_arrives_whole() {
    let mut world = World::running();
    world.guest.listen(900);
    let ids: Vec<_> = (0..900)
        .map(|_| world.dial(Target::GuestIpv6, OPEN, 1000))
        .collect();
    // It takes 32 frames at a time.
    for _ in 0..200 {
        world.link.poll(world.now);
        let frames: Vec<_> = world.link.to_guest().take(32).map(<[u8]>::to_vec).collect();
        world.link.guest_took(frames.len());
        for frame in world.guest.exchange(frames, world.now) {
            world.link.from_guest(&frame, world.now);
        }
    }
    world.settle();
    assert!(ids.iter().all(|id| world.is_connected(*id)));
    assert_eq!(world.link.counters().to_guest, 0, "no frame was lost");
}

#[test]
fn a_guest_that_calls_back_instead_of_accepting_does_not_keep_the_link_busy() {
    let mut world = World::running();
    world.guest.hangs = true;
    let id = world.dial(Target::GuestIpv4, OPEN, 1000);
    world.link.poll(0);
    let answer = frame::arp(GUEST, HOST, ArpOperation::Reply, GUEST_IPV4, HOST_IPV4);
    world.link.from_guest(&answer, 0);
    world.link.poll(0);
    // Both ends connect to each other.
    let first = world.link.to_guest().last().unwrap();
    let from = u16::from_be_bytes([first[34], first[35]]);
    let call = tcp_between(OPEN, from, HOST, GUEST_IPV4.into(), HOST_IPV4.into());
    world.link.from_guest(&call, 0);
    let mut polls = 0;
    while world.answer_of(id).is_none() {
        world.now = world.link.next_due().unwrap().max(world.now);
        world.link.poll(world.now);
        world.events.extend(world.link.take_events());
        polls += 1;
        assert!(polls < 20);
    }
    assert_eq!(world.reason_of(id), Some(Reason::Timeout));
    assert_eq!(world.now, 1000 * MS);
}

/// A frame that is nearly right.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let templates = vec![
        tcp(HOST, GUEST_IPV4.into(), HOST_IPV4.into()),
        tcp(HOST, GUEST_IPV6.into(), crate::dial::HOST_IPV6.into()),
        frame::arp(GUEST, HOST, ArpOperation::Reply, GUEST_IPV4, HOST_IPV4),
        neighbour_solicitation(GUEST_IPV6, crate::dial::HOST_IPV6),
        frame::udp(
            GUEST,
            HOST,
            (GUEST_IPV4.into(), 68),
            (HOST_IPV4.into(), 67),
            &[0; 300],
        ),
        frame::udp(
            GUEST,
            HOST,
            ("fe80::1".parse().unwrap(), 546),
            ("ff02::1:2".parse().unwrap(), 547),
            &[1, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 3, 0, 4, 0, 0, 0, 1],
        ),
    ];
    let mutated = (
        prop::sample::select(templates),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        any::<prop::sample::Index>(),
        any::<bool>(),
    );
    let mutated = mutated.prop_map(|(mut frame, changes, cut, is_cut)| {
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if is_cut {
            frame.truncate(cut.index(frame.len()));
        }
        frame
    });
    prop_oneof![
        4 => mutated,
        1 => prop::collection::vec(any::<u8>(), 0..1600),
        1 => prop::collection::vec(any::<u8>(), 0..1600).prop_map(|mut bytes| {
            for (at, byte) in [HOST_MAC, GUEST_MAC].concat().into_iter().enumerate() {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_frames_leave_the_link_bounded_and_at_work(
        frames in prop::collection::vec((frames(), any::<bool>(), 0..400_u64), 0..200),
        uplink: bool,
    ) {
        let mut world = World::with(LinkConfig { uplink, ..CONFIG }, Guest::configured());
        world.link.guest_driver(true, 0);
        world.connect(Target::GuestIpv4);
        world.dial(Target::GuestIpv6, FILTERED, 60_000);
        for (frame, is_guests, ms) in frames {
            world.now += ms * MS;
            if is_guests {
                world.link.from_guest(&frame, world.now);
            } else {
                world.link.from_uplink(&frame, world.now);
            }
            world.link.poll(world.now);
            queues_are_bounded(&mut world.link);
        }
        world.link.guest_took(usize::MAX);
        world.link.guest_reset(world.now);
        world.events.clear();
        world.guest = Guest::configured();
        world.link.guest_driver(true, world.now);
        world.connect(Target::GuestIpv4);
        world.connect(Target::GuestIpv6);
    }
}
