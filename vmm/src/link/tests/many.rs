// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many connections.

use super::*;

#[test]
fn two_thousand_short_connections_each_get_their_own_answer() {
    let mut world = World::running();
    world.guest.listen(200);
    let mut dials = 0;
    for round in 0..20 {
        let target = [Target::GuestIpv4, Target::GuestIpv6][round % 2];
        let ids: Vec<_> = (0..100).map(|_| world.dial(target, OPEN, 1000)).collect();
        world.settle();
        for id in &ids {
            assert!(world.is_connected(*id), "{:?}", world.answer_of(*id));
            world.link.close(*id);
        }
        world.settle();
        world.guest.listen_again();
        world.settle();
        assert!(world.is_clean(), "closed ones are gone at once");
        world.guest.listen_again();
        world.events.clear();
        dials += ids.len();
        world.now += 50 * MS;
    }
    assert_eq!(dials, 2000);
    assert_eq!(world.link.counters().to_guest, 0);
}

#[test]
fn a_thousand_at_one_time_are_kept_apart() {
    let mut world = World::running();
    world.guest.listen(1000);
    let ids: Vec<_> = (0..1000)
        .map(|_| world.dial(Target::GuestIpv4, OPEN, 1000))
        .collect();
    world.run(10);
    let sockets = world.guest.sockets.iter_mut();
    for (_, socket) in sockets {
        let smoltcp::socket::Socket::Tcp(socket) = socket else {
            continue;
        };
        if let Some(peer) = socket.remote_endpoint() {
            socket.send_slice(&peer.port.to_be_bytes()).unwrap();
        }
    }
    world.run(10);
    let mut ports: Vec<_> = ids.iter().map(|id| world.read(*id).0).collect();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 1000, "each its own port's number");
    assert!(ports.iter().all(|port| port.len() == 2));
}

#[test]
fn refusals_leave_nothing_behind() {
    let mut world = World::running();
    for _ in 0..2000 {
        world.dial(Target::GuestIpv4, CLOSED, 1000);
    }
    world.settle();
    let refused = world.events.iter().filter(|event| {
        let reason = Reason::Refused;
        matches!(event, LinkEvent::Answered(_, Answer::Failed { reason: why, .. }) if *why == reason)
    });
    assert_eq!(refused.count(), 2000);
    assert!(world.is_clean());
}
