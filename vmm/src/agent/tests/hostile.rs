// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests and clients that mean no good.

use serde_json::json;

use super::*;
use crate::agent::dialogue::UNASKED_BYTES;
use crate::agent::{LOST, QUEUED_REQUESTS, UNREAD_BYTES};

#[test]
fn megabytes_of_garbage_from_the_guest() {
    let mut world = World::running(1);
    let block: Vec<u8> = (0..=255u8).cycle().take(1 << 16).collect();
    for _ in 0..64 {
        world.guest_says(&block);
    }
    for text in [
        "{\"return\": 1}\n",
        "{\"return\":{}, \"id\": 3}\n",
        "}\n",
        "[]\n",
    ] {
        world.guest_says(text.repeat(20_000).as_bytes());
    }
    world.guest_says(b"{\"a\": \"");
    for _ in 0..64 {
        world.guest_says(&[b'x'; 1 << 16]);
    }
    assert!(world.mux.port_output().len() < 200, "one sync at most");
    world.ask(0, &mark("still here", 1));
    world.run();
    assert_eq!(world.replies(0), [answer("still here", 1)]);
}

#[test]
fn garbage_while_a_request_is_under_way() {
    let mut world = World::running(1);
    world.ask(0, &mark("intact", 1));
    world.deliver(usize::MAX);
    world.guest_says(b"garbage\n");
    world.run();
    assert_eq!(
        world.replies(0),
        [answer("intact", 1)],
        "it came through all the same"
    );

    world.ask(0, &mark("spoilt", 2));
    world.deliver(usize::MAX);
    world.agent().step();
    world.collect_answer(5);
    world.guest_says(b"\ngarbage\n");
    world.run();
    assert_eq!(world.replies(0), [refusal(LOST, 2)]);
    world.ask(0, &mark("next", 3));
    world.run();
    assert_eq!(world.replies(0), [answer("next", 3)]);
}

#[test]
fn a_forged_answer_without_the_tag_is_not_believed() {
    let mut world = World::running(1);
    world.ask(0, &mark("true", 1));
    world.deliver(usize::MAX);
    world.guest_says(b"{\"return\": \"false\"}\n{\"return\": \"false\", \"id\": 1}\n");
    world.run();
    assert_eq!(world.replies(0), [answer("true", 1)]);
}

#[test]
fn answers_of_eight_mebibytes() {
    let mut world = World::running(2);
    let size = 8 << 20;
    for (id, letter) in [(0, "a"), (1, "b")] {
        let arguments = json!({"size": size, "letter": letter});
        world.ask(id, &json!({"execute": "big", "arguments": arguments}));
    }
    world.run();
    for (id, letter) in [(0, b'a'), (1, b'b')] {
        let lines = world.lines(id);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].len(), size + "{\"return\": \"\"}".len());
        let letters = lines[0].iter().filter(|byte| **byte == letter);
        assert_eq!(letters.count(), size);
    }
}

#[test]
fn an_answer_beyond_every_bound_is_lost_and_not_kept() {
    let mut world = World::running(1);
    world.ask(0, &mark("x", 1));
    world.deliver(usize::MAX);
    world.guest_says(b"{\"return\": \"");
    for _ in 0..50 {
        world.guest_says(&[b'x'; 1 << 20]);
    }
    world.guest_says(b"\"}\n");
    // The agent itself has nothing more to say about it.
    while world.agent().step() {}
    world.agent().output.clear();
    world.run();
    assert_eq!(world.replies(0), [refusal(LOST, 1)]);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_is_closed() {
    let mut world = World::running(2);
    world.sockets.get_mut(&ClientId(0)).unwrap().deaf = true;
    let request = json!({"execute": "big", "arguments": {"size": UNREAD_BYTES}});
    for _ in 0..10 {
        world.ask(0, &request);
    }
    world.ask(1, &mark("meanwhile", 1));
    world.run();
    assert_eq!(world.replies(1), [answer("meanwhile", 1)]);
    let unread = world.mux.client_output(ClientId(0)).len();
    assert!(unread < 2 * UNREAD_BYTES, "{unread}");
    world.pass(Config::default().stall_ns - 1);
    assert!(!world.sockets[&ClientId(0)].closed);
    world.pass(1);
    assert!(world.sockets[&ClientId(0)].closed);
    world.ask(1, &mark("after", 2));
    world.run();
    assert_eq!(world.replies(1), [answer("after", 2)]);
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_it() {
    let mut world = World::running(1);
    world.sockets.get_mut(&ClientId(0)).unwrap().deaf = true;
    let request = json!({"execute": "big", "arguments": {"size": UNREAD_BYTES}});
    for _ in 0..4 {
        world.ask(0, &request);
    }
    let mut received = 0;
    for _ in 0..40 {
        world.run();
        let piece = world.mux.client_output(ClientId(0)).len().min(1 << 16);
        received += piece;
        let effects = world.mux.client_sent(ClientId(0), piece, world.now);
        world.apply(effects);
        world.pass(Config::default().stall_ns / 2);
    }
    assert!(!world.sockets[&ClientId(0)].closed);
    assert_eq!(received, 4 * (UNREAD_BYTES + "{\"return\": \"\"}\n".len()));
}

#[test]
fn a_client_that_asks_too_much_is_not_read_until_it_is_served() {
    let mut world = World::running(1);
    let mut sent = 0;
    while !world.sockets[&ClientId(0)].held {
        world.ask(0, &mark("x", sent));
        sent += 1;
        assert!(sent < 100, "it is read for ever");
    }
    assert!(usize::try_from(sent).unwrap() > QUEUED_REQUESTS);
    world.run();
    assert!(!world.sockets[&ClientId(0)].held);
    assert_eq!(world.replies(0).len(), usize::try_from(sent).unwrap());
}

#[test]
fn complaints_do_not_pile_up_for_one_that_does_not_read() {
    let mut world = World::running(1);
    world.sockets.get_mut(&ClientId(0)).unwrap().deaf = true;
    world.send(0, vec![0xff; 1 << 16]);
    assert!(world.sockets[&ClientId(0)].held);
    let unread = world.mux.client_output(ClientId(0)).len();
    assert!(unread < UNREAD_BYTES + 1000, "{unread}");
    world.sockets.get_mut(&ClientId(0)).unwrap().deaf = false;
    world.run();
    assert_eq!(world.replies(0).len(), 1 << 16);
    assert!(!world.sockets[&ClientId(0)].held);
}

#[test]
fn refusals_do_not_pile_up_for_one_that_does_not_read() {
    let mut world = World::new();
    world.connect(0);
    world.sockets.get_mut(&ClientId(0)).unwrap().deaf = true;
    for n in 0..10_000 {
        if world.sockets[&ClientId(0)].held {
            break;
        }
        world.ask(0, &mark("x", n));
    }
    assert!(world.sockets[&ClientId(0)].held);
    let unread = world.mux.client_output(ClientId(0)).len();
    assert!(unread < UNREAD_BYTES + 1000, "{unread}");
}

/// The beginning of a message without end, with this tag.
fn endless(world: &mut World, chunks: usize) -> usize {
    let mut held = 0;
    world.guest_says(b"{\"return\": \"");
    for _ in 0..chunks {
        world.guest_says(&[b'x'; 1 << 16]);
        held = held.max(world.mux.held());
    }
    held
}

#[test]
fn what_nobody_awaits_is_not_kept() {
    let mut world = World::running(1);
    assert!(endless(&mut world, 512) <= UNASKED_BYTES);
    // Nor while the agent is being put in step.
    world.guest_says(b"\"}\n");
    world.ask(0, &mark("later", 1));
    assert!(endless(&mut world, 512) <= UNASKED_BYTES);
    world.guest_says(b"\"}\n");
    world.run();
    assert_eq!(world.replies(0), [answer("later", 1)]);
}

#[test]
fn an_answer_whose_client_has_gone_is_not_kept() {
    let mut world = World::running(2);
    world.ask(0, &mark("gone", 1));
    world.deliver(usize::MAX);
    assert!(endless(&mut world, 4) > UNASKED_BYTES, "it is awaited");
    world.hang_up(0);
    world.guest_says(b"x");
    assert_eq!(world.mux.held(), 0);
    world.guest_says(b"\"}\n");
    world.ask(1, &mark("next", 2));
    world.run();
    assert_eq!(world.replies(1), [answer("next", 2)]);
}
