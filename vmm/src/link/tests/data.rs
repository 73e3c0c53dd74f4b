// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes both ways, and ends.

use smoltcp::socket::tcp::State;

use super::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

#[test]
fn a_mebibyte_arrives_intact_both_ways_at_once() {
    for target in [Target::GuestIpv4, Target::GuestIpv6] {
        let mut world = World::running();
        let id = world.connect(target);
        let data = pattern(1 << 20);
        let (mut sent, mut got) = (0, Vec::new());
        let (mut guest_sent, mut guest_got) = (0, Vec::new());
        for _ in 0..100_000 {
            sent += world.link.send(id, &data[sent..]);
            let guest = world.guest.accepted();
            guest_sent += guest.send_slice(&data[guest_sent..]).unwrap();
            while let Ok(count @ 1..) = guest.recv(|bytes| {
                guest_got.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            }) {
                assert!(count > 0);
            }
            world.run(0);
            got.extend(world.read(id).0);
            if got.len() == data.len() && guest_got.len() == data.len() {
                break;
            }
        }
        assert!(got == data, "{} of the guest's bytes", got.len());
        assert!(guest_got == data, "{} of the client's", guest_got.len());
        assert_eq!(world.now, 10 * MS, "and no packet had to be repeated");
    }
}

#[test]
fn room_is_told_to_who_wanted_more() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    let data = pattern(100_000);
    let mut sent = world.link.send(id, &data);
    assert!(sent > 0 && sent < data.len());
    world.run(1);
    assert!(world.has(&LinkEvent::Writable(id)));
    // The guest does not read: at last there is no more room.
    while let count @ 1.. = world.link.send(id, &data[sent..]) {
        sent += count;
        world.run(1);
    }
    world.events.clear();
    world.run(10_000);
    assert!(!world.has(&LinkEvent::Writable(id)), "nobody reads");
    let guest = world.guest.accepted();
    guest.recv(|bytes| (bytes.len(), ())).unwrap();
    world.run(1);
    assert!(world.has(&LinkEvent::Writable(id)));
}

#[test]
fn a_client_that_finishes_still_hears_the_answer() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    assert_eq!(world.link.send(id, b"question"), 8);
    world.link.finish(id);
    world.run(1);
    let guest = world.guest.accepted();
    assert_eq!(guest.state(), State::CloseWait);
    let mut question = [0; 20];
    assert_eq!(guest.recv_slice(&mut question), Ok(8));
    guest.send_slice(b"answer").unwrap();
    world.run(1);
    assert!(world.has(&LinkEvent::Readable(id)));
    assert_eq!(world.read(id), (b"answer".to_vec(), false));
    world.guest.accepted().close();
    world.events.clear();
    world.run(1);
    assert_eq!(world.events, [LinkEvent::Readable(id)]);
    assert_eq!(world.read(id), (vec![], true));
    world.run(1);
    assert!(world.has(&LinkEvent::Ended(id)));
    assert!(world.is_clean(), "no TIME-WAIT is kept");
}

#[test]
fn a_client_that_finishes_before_it_is_accepted_is_finished_then() {
    let mut world = World::running();
    let id = world.dial(Target::GuestIpv4, OPEN, 1000);
    world.link.finish(id);
    world.run(1);
    assert!(world.is_connected(id));
    assert_eq!(world.guest.accepted().state(), State::CloseWait);
}

#[test]
fn a_guest_that_ends_first_can_still_be_written_to() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    let guest = world.guest.accepted();
    guest.send_slice(b"bye").unwrap();
    guest.close();
    world.run(1);
    assert_eq!(world.read(id), (b"bye".to_vec(), true));
    assert_eq!(world.link.send(id, b"and?"), 4);
    world.run(1);
    let mut heard = [0; 8];
    let guest = world.guest.accepted();
    assert_eq!(guest.recv_slice(&mut heard), Ok(4));
    world.link.finish(id);
    world.run(1);
    assert!(world.has(&LinkEvent::Ended(id)));
}

#[test]
fn what_came_before_a_reset_by_the_guest_is_read_and_then_it_ends() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    world.guest.accepted().send_slice(b"last words").unwrap();
    world.run(1);
    world.guest.accepted().abort();
    world.run(1);
    assert!(world.has(&LinkEvent::Readable(id)));
    assert!(!world.has(&LinkEvent::Ended(id)), "not before it is read");
    assert_eq!(world.read(id), (b"last words".to_vec(), true));
    world.run(1);
    assert!(world.has(&LinkEvent::Ended(id)));
    assert_eq!(world.link.send(id, b"too late"), 0);
}

#[test]
fn a_client_that_leaves_has_its_bytes_delivered() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    assert_eq!(world.link.send(id, &pattern(4096)), 4096);
    world.link.close(id);
    world.run(1);
    let guest = world.guest.accepted();
    assert_eq!(guest.state(), State::CloseWait);
    assert_eq!(guest.recv_queue(), 4096);
    guest.close();
    world.run(1);
    assert!(world.is_clean());
    assert!(
        !world.has(&LinkEvent::Ended(id)),
        "nobody is there to hear it"
    );
}

#[test]
fn a_guest_that_never_ends_is_broken_off_after_a_second() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    world.link.close(id);
    world.run(999);
    assert_eq!(world.guest.accepted().state(), State::CloseWait);
    assert_eq!(world.link.connections(), 1);
    world.run(1);
    assert!(world.is_clean());
    let states = world.guest.sockets.iter().map(|(_, socket)| match socket {
        smoltcp::socket::Socket::Tcp(socket) => socket.state(),
        other => panic!("{other:?}"),
    });
    let broken: Vec<_> = states.filter(|state| *state != State::Listen).collect();
    assert_eq!(broken, [State::Closed]);
}

#[test]
fn a_guest_that_sends_without_end_to_a_client_that_left_is_broken_off() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    world.link.close(id);
    for _ in 0..1000 {
        let guest = world.guest.accepted();
        guest.send_slice(&pattern(8192)).unwrap();
        world.run(1);
        if world.link.connections() == 0 {
            return;
        }
    }
    panic!("still there");
}

#[test]
fn a_guest_that_sends_without_end_is_held_up_by_a_client_that_does_not_read() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    let mut sent = 0;
    for _ in 0..1000 {
        sent += world.guest.accepted().send_slice(&pattern(8192)).unwrap();
        world.run(1);
    }
    assert!(sent <= super::super::stack::RECEIVE_BYTES + 8192, "{sent}");
    let (got, ended) = world.read(id);
    assert!(!ended && got == pattern(8192).repeat(2)[..got.len()]);
    world.run(1);
    assert!(world.guest.accepted().can_send(), "it goes on");
}

#[test]
fn a_connection_survives_a_pause() {
    let mut world = World::running();
    let id = world.connect(Target::GuestIpv4);
    world.link.paused(true, world.now);
    world.guest.hangs = true;
    world.link.send(id, b"are you there?");
    world.run(3_600_000);
    assert!(world.link.to_guest().count() < 4, "nothing piles up");
    world.guest.hangs = false;
    world.link.paused(false, world.now);
    world.run(1);
    assert_eq!(world.guest.accepted().recv_queue(), 14);
}
