// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each client as if it were alone.

use serde_json::{Value, json};

use super::fake::TagHabit;
use super::*;

#[test]
fn a_request_is_answered_with_its_own_id_of_any_type() {
    let mut world = World::running(1);
    for id in [
        json!(7),
        json!("x\"y"),
        json!({"a": [1, null]}),
        json!(null),
    ] {
        world.ask(0, &mark("hello", id.clone()));
        world.run();
        assert_eq!(world.replies(0), [answer("hello", id)]);
    }
    world.ask(0, &json!({"execute": "guest-ping"}));
    world.run();
    assert_eq!(world.lines(0), [b"{\"return\": {}}".to_vec()]);
}

#[test]
fn sixteen_clients_each_see_exactly_their_own_answers_in_order() {
    let mut world = World::running(16);
    for round in 0..20 {
        for id in 0..16 {
            world.ask(id, &mark(&format!("{id}/{round}"), 1));
        }
        // Not all are through before the next come.
        world.deliver(97);
        world.agent().step();
        world.collect_answer(13);
    }
    world.run();
    for id in 0..16 {
        let expected: Vec<Value> = (0..20)
            .map(|round| answer(&format!("{id}/{round}"), 1))
            .collect();
        assert_eq!(world.replies(id), expected, "client {id}");
    }
}

#[test]
fn one_with_many_requests_does_not_starve_another() {
    let mut world = World::running(2);
    for n in 0..30 {
        world.ask(0, &mark("many", n));
    }
    world.ask(1, &mark("one", 0));
    world.run();
    let order = &world.agent().executed;
    let place = order.iter().position(|it| it == "one").unwrap();
    let before = order[..place].iter().filter(|it| *it == "many").count();
    assert_eq!(before, 1);
}

#[test]
fn one_request_is_with_the_agent_at_a_time() {
    let mut world = World::running(3);
    for id in 0..3 {
        world.ask(id, &mark("x", id));
    }
    world.deliver(usize::MAX);
    assert!(world.agent().step());
    assert!(!world.agent().step(), "a second request went out");
}

#[test]
fn the_answer_for_one_that_hung_up_goes_to_nobody() {
    let mut world = World::running(2);
    world.ask(0, &mark("secret", 1));
    world.deliver(usize::MAX);
    world.hang_up(0);
    // The same number, another client, and the same id in its request.
    world.connect(0);
    world.ask(0, &mark("mine", 1));
    world.ask(1, &mark("other", 1));
    world.run();
    assert_eq!(world.replies(0), [answer("mine", 1)]);
    assert_eq!(world.replies(1), [answer("other", 1)]);
}

#[test]
fn a_client_killed_in_the_middle_of_its_answer_harms_nobody() {
    let mut world = World::running(2);
    world.ask(
        0,
        &json!({"execute": "big", "arguments": {"size": 1 << 20}}),
    );
    world.deliver(usize::MAX);
    world.agent().step();
    world.collect_answer(300_000);
    world.hang_up(0);
    world.ask(1, &mark("next", 5));
    world.run();
    assert_eq!(world.replies(1), [answer("next", 5)]);
    assert_eq!(world.mux.strays(), 0);
}

#[test]
fn what_a_client_that_hung_up_had_queued_is_not_executed() {
    let mut world = World::running(2);
    world.ask(1, &mark("first", 1));
    world.ask(0, &mark("never", 1));
    world.hang_up(0);
    world.run();
    assert!(!world.agent().executed.iter().any(|it| it == "never"));
    assert_eq!(world.replies(1), [answer("first", 1)]);
}

#[test]
fn a_request_half_sent_when_its_client_hangs_up_is_not_executed() {
    let mut world = World::running(2);
    world.ask(0, &mark("never", 1));
    world.deliver(20);
    world.hang_up(0);
    world.ask(1, &mark("next", 1));
    world.run();
    assert!(!world.agent().executed.iter().any(|it| it == "never"));
    assert_eq!(world.replies(1), [answer("next", 1)]);
}

#[test]
fn others_wait_for_an_abandoned_request_only_so_long() {
    let mut world = World::running(2);
    world.ask(0, &mark("lost", 1));
    world.deliver(usize::MAX);
    world.hang_up(0);
    // The agent swallows the request: it never answers.
    world.agent = Some(FakeAgent::new());
    world.ask(1, &mark("next", 1));
    world.run();
    assert_eq!(world.replies(1), [] as [Value; 0]);
    world.pass(Config::default().patience_ns);
    world.run();
    assert_eq!(world.replies(1), [answer("next", 1)]);
}

#[test]
fn syncs_are_answered_as_an_agent_does() {
    let mut world = World::running(1);
    world.ask(0, &json!({"execute": "guest-sync", "arguments": {"id": 5}}));
    world.run();
    assert_eq!(world.lines(0), [b"{\"return\": 5}".to_vec()]);
    world.send(
        0,
        b"\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":6}}",
    );
    world.run();
    let lines = world.lines(0);
    assert_eq!(lines.len(), 2, "the stray byte, and the answer");
    assert!(lines[0].starts_with(b"{\"error\""));
    assert_eq!(lines[1], b"\xff{\"return\": 6}");
}

#[test]
fn a_sync_drops_what_its_client_asked_before() {
    let mut world = World::running(2);
    world.ask(0, &mark("under way", 1));
    world.deliver(usize::MAX);
    world.ask(0, &mark("queued", 2));
    world.ask(1, &mark("another's", 3));
    world.ask(0, &json!({"execute": "guest-sync", "arguments": {"id": 9}}));
    world.run();
    assert_eq!(world.replies(0), [json!({"return": 9})]);
    assert_eq!(world.replies(1), [answer("another's", 3)]);
    assert!(!world.agent().executed.iter().any(|it| it == "queued"));
}

#[test]
fn a_reset_byte_ends_a_half_sent_request() {
    let mut world = World::running(1);
    world.send(0, b"{\"execute\":\"ma\xff");
    world.ask(0, &mark("whole", 1));
    world.run();
    assert_eq!(world.replies(0)[1..], [answer("whole", 1)]);
}

#[test]
fn nothing_hangs_behind_a_request_that_is_not_answered() {
    // The model knows the first of the two only.
    for (execute, silent) in [("guest-shutdown", true), ("guest-suspend-ram", false)] {
        let mut world = World::running(2);
        world.ask(0, &json!({"execute": execute}));
        world.ask(1, &mark("next", 1));
        world.run();
        assert_eq!(world.replies(1), [answer("next", 1)]);
        assert_eq!(world.replies(0).is_empty(), silent);
    }
}

#[test]
fn a_shutdown_that_fails_is_answered() {
    let mut world = World::running(1);
    let request = json!({"execute": "guest-shutdown", "arguments": {"mode": "bad"}, "id": 1});
    world.ask(0, &request);
    world.run();
    assert_eq!(world.replies(0), [refusal("invalid mode", 1)]);
}

#[test]
fn an_agent_that_goes_with_its_guest_has_shut_it_down() {
    let mut world = World::running(1);
    world.ask(0, &json!({"execute": "guest-shutdown"}));
    world.deliver(usize::MAX);
    world.stop_agent(true);
    world.run();
    assert_eq!(world.replies(0), [] as [Value; 0]);
}

#[test]
fn a_client_that_shut_down_its_side_is_answered_then_closed() {
    let mut world = World::running(1);
    world.ask(0, &mark("last words", 1));
    let effects = world.mux.client_finished(ClientId(0), 0);
    world.apply(effects);
    assert!(!world.sockets[&ClientId(0)].closed);
    world.run();
    assert!(world.sockets[&ClientId(0)].closed);
    assert_eq!(world.replies(0), [answer("last words", 1)]);
}

#[test]
fn more_clients_than_there_may_be_are_closed() {
    let mut world = World::running(64);
    world.connect(64);
    assert!(world.sockets[&ClientId(64)].closed);
    world.hang_up(3);
    world.connect(65);
    assert!(!world.sockets[&ClientId(65)].closed);
}

#[test]
fn agents_that_know_no_tags_work() {
    for habit in [TagHabit::Ignore, TagHabit::Refuse] {
        let mut world = World::running(0);
        world.stop_agent(false);
        world.start_agent();
        world.agent().tags = habit;
        for id in 0..3 {
            world.connect(id);
            world.ask(id, &mark(&format!("{id}"), id));
            world.ask(id, &json!({"execute": "nonsense"}));
        }
        world.run();
        for id in 0..3 {
            let replies = world.replies(id);
            assert_eq!(replies[0], answer(&format!("{id}"), id), "{habit:?}");
            assert_eq!(replies[1]["error"]["class"], "CommandNotFound", "{habit:?}");
        }
    }
}

#[test]
fn freezing_is_noticed_whoever_did_it() {
    let mut world = World::running(2);
    world.ask(0, &json!({"execute": "guest-fsfreeze-freeze"}));
    world.deliver(usize::MAX);
    world.hang_up(0);
    world.run();
    assert_eq!(world.frozen, [true]);
    world.ask(1, &json!({"execute": "guest-fsfreeze-status"}));
    world.run();
    assert_eq!(world.frozen, [true], "no news");
    world.ask(1, &json!({"execute": "guest-fsfreeze-thaw"}));
    world.run();
    assert_eq!(world.frozen, [true, false]);
    world.agent().frozen = true;
    world.ask(1, &json!({"execute": "guest-fsfreeze-status"}));
    world.run();
    world.stop_agent(true);
    assert_eq!(world.frozen, [true, false, true, false]);
}

#[test]
fn a_sync_behind_a_request_without_an_answer_tells_that_it_is_done() {
    for elsewhere in [false, true] {
        let mut world = World::running(2);
        if elsewhere {
            // It has to wait for its turn.
            world.ask(1, &mark("first", 1));
        }
        world.ask(0, &json!({"execute": "guest-shutdown"}));
        world.ask(0, &json!({"execute": "guest-sync", "arguments": {"id": 3}}));
        world.run();
        assert_eq!(world.replies(0), [json!({"return": 3})]);
        let executed = &world.agent().executed;
        assert!(executed.iter().any(|it| it == "guest-shutdown"));
    }
}
