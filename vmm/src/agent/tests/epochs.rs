// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Agents and guests that come and go.

use serde_json::{Value, json};

use super::fake::TagHabit;
use super::*;
use crate::agent::{NOT_CONNECTED, RESTARTED};

#[test]
fn the_first_thing_an_agent_hears_is_a_sync() {
    let mut world = World::running(1);
    world.stop_agent(false);
    world.ask(0, &mark("early", 1));
    world.pass(100 * MS);
    world.start_agent();
    let output = world.mux.port_output().to_vec();
    assert!(output.starts_with(b"\xff{\"execute\": \"guest-sync-delimited\""));
    assert_eq!(output.iter().filter(|byte| **byte == b'\n').count(), 1);
    world.run();
    assert_eq!(world.replies(0), [answer("early", 1)]);
}

#[test]
fn where_no_agent_has_been_requests_are_refused_at_once() {
    let mut world = World::new();
    world.connect(0);
    world.ask(0, &mark("x", "tag"));
    assert_eq!(world.replies(0), [refusal(NOT_CONNECTED, "tag")]);
    world.start_agent();
    world.run();
    assert_eq!(world.agent().executed, ["guest-sync-delimited"]);
}

#[test]
fn an_agent_that_closed_its_port_is_waited_for_during_the_grace() {
    let grace = Config::default().grace_ns;
    let mut world = World::running(1);
    world.now = 5_000 * MS;
    world.stop_agent(false);
    world.pass(grace / 2);
    world.ask(0, &mark("x", 1));
    world.pass(grace / 2 - 1);
    assert_eq!(world.replies(0), [] as [Value; 0]);
    world.pass(1);
    assert_eq!(world.replies(0), [refusal(NOT_CONNECTED, 1)]);
    world.ask(0, &mark("y", 2));
    assert_eq!(world.replies(0), [refusal(NOT_CONNECTED, 2)], "at once");
    assert_eq!(world.mux.next_due(), None);
}

#[test]
fn after_a_reset_there_is_no_grace() {
    let mut world = World::running(1);
    world.stop_agent(true);
    world.ask(0, &mark("x", 1));
    assert_eq!(world.replies(0), [refusal(NOT_CONNECTED, 1)]);
}

#[test]
fn a_guest_reset_answers_what_waits_and_executes_none_of_it_later() {
    let mut world = World::running(2);
    world.ask(0, &mark("under way", 1));
    world.deliver(usize::MAX);
    world.ask(0, &mark("queued", 2));
    world.ask(1, &mark("other", 3));
    world.stop_agent(true);
    assert_eq!(
        world.replies(0),
        [refusal(RESTARTED, 1), refusal(RESTARTED, 2)]
    );
    assert_eq!(world.replies(1), [refusal(RESTARTED, 3)]);
    world.start_agent();
    world.run();
    assert_eq!(world.agent().executed, ["guest-sync-delimited"]);
    world.ask(1, &mark("now", 4));
    world.run();
    assert_eq!(world.replies(1), [answer("now", 4)]);
}

#[test]
fn a_reset_while_the_agent_is_away_refuses_what_waits() {
    let mut world = World::running(1);
    world.stop_agent(false);
    world.ask(0, &mark("x", 1));
    // Closed once more, it is still the same absence.
    world.stop_agent(false);
    assert_eq!(world.replies(0), [] as [Value; 0]);
    world.stop_agent(true);
    assert_eq!(world.replies(0), [refusal(RESTARTED, 1)]);
}

#[test]
fn an_agent_restarted_in_the_middle_of_its_answer_200_times() {
    let mut world = World::running(2);
    for round in 0..200 {
        let request = json!({"execute": "big", "arguments": {"size": 3000}, "id": round});
        world.ask(0, &request);
        world.deliver(usize::MAX);
        world.agent().step();
        // A different length each time, sometimes nothing, sometimes all but the end.
        world.collect_answer(round * 17 % 3020);
        // The port is opened anew, sometimes without having been closed.
        if round % 3 > 0 {
            world.stop_agent(false);
        }
        world.start_agent();
        world.ask(1, &mark("between", 1000 + round));
        world.run();
        assert_eq!(world.replies(0), [refusal(RESTARTED, round)]);
        assert_eq!(world.replies(1), [answer("between", 1000 + round)]);
        assert!(world.mux.port_output().is_empty());
        assert_eq!(world.mux.strays(), 0, "half an answer outlived its agent");
    }
    assert_eq!(world.mux.next_due(), None, "nothing is left over");
}

#[test]
fn what_an_earlier_agent_left_in_the_port_is_not_believed() {
    let mut world = World::running(1);
    world.stop_agent(false);
    world.start_agent();
    world.ask(0, &json!({"execute": "guest-ping", "id": 1}));
    world.guest_says(b"il\"}}\n{\"return\": {\"stale\": 1}, \"id\": 1}\n{\"return\": {}}\n");
    assert_eq!(world.replies(0), [] as [Value; 0]);
    world.run();
    assert_eq!(world.replies(0), [json!({"return": {}, "id": 1})]);
}

#[test]
fn a_sync_that_is_not_answered_is_tried_again_less_and_less() {
    let mut world = World::new();
    world.start_agent();
    let mut sent = 0;
    for _ in 0..600 {
        world.pass(1000 * MS);
        let count = world.mux.port_output().len();
        world.mux.port_sent(count);
        sent += usize::from(count > 0);
    }
    assert!((8..30).contains(&sent), "{sent} syncs in ten minutes");
    world.connect(0);
    world.ask(0, &mark("x", 1));
    world.pass(32_000 * MS);
    world.run();
    assert_eq!(world.replies(0), [answer("x", 1)]);
}

#[test]
fn syncs_do_not_pile_up_in_front_of_a_guest_that_takes_nothing() {
    let mut world = World::new();
    world.start_agent();
    let before = world.mux.port_output().len();
    world.pass(600_000 * MS);
    assert_eq!(world.mux.port_output().len(), before);
}

#[test]
fn a_sync_is_answered_behind_its_byte_only() {
    let mut world = World::new();
    world.connect(0);
    world.start_agent();
    world.ask(0, &mark("x", 1));
    let sync = world.mux.port_output()[1..].to_vec();
    let sync: Value = serde_json::from_slice(&sync).unwrap();
    world.mux.port_sent(world.mux.port_output().len());
    let answer = json!({"return": sync["arguments"]["id"], "id": sync["id"]});
    world.guest_says(format!("{answer}\n").as_bytes());
    assert!(world.mux.port_output().is_empty());
    world.guest_says(&[b"\xff", answer.to_string().as_bytes()].concat());
    assert!(!world.mux.port_output().is_empty());
}

const SYNCS: [&str; 2] = ["guest-sync-delimited", "guest-sync"];

#[test]
fn an_agent_without_delimited_syncs_is_asked_for_plain_ones() {
    for tags in [TagHabit::Echo, TagHabit::Ignore] {
        let mut world = World::running(1);
        world.stop_agent(false);
        world.start_agent();
        (world.agent().unknown, world.agent().tags) = (vec![SYNCS[0]], tags);
        world.run();
        for number in 0..3 {
            world.ask(0, &mark("x", number));
            world.run();
            assert_eq!(world.replies(0), [answer("x", number)], "{tags:?}");
        }
        // The next agent may know more.
        world.stop_agent(false);
        world.start_agent();
        world.run();
        assert_eq!(world.agent().executed, [SYNCS[0]]);
    }
}

#[test]
fn an_agent_without_any_sync_is_heard() {
    for tags in [TagHabit::Echo, TagHabit::Ignore] {
        let mut world = World::new();
        world.connect(0);
        world.start_agent();
        (world.agent().unknown, world.agent().tags) = (SYNCS.to_vec(), tags);
        world.ask(0, &mark("x", 1));
        world.run();
        let refused = refusal("The command guest-sync has not been found", 1);
        assert_eq!(world.replies(0), [refused], "{tags:?}");
        // One that has learned it is asked again by and by.
        world.agent().unknown.clear();
        world.pass(2000 * MS);
        world.run();
        world.ask(0, &mark("y", 2));
        world.run();
        assert_eq!(world.replies(0), [answer("y", 2)], "{tags:?}");
    }
}
