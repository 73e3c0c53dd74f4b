// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What clients write, well and badly.

use serde_json::json;

use super::*;

#[test]
fn malformed_requests_are_answered_in_turn() {
    let mut world = World::running(1);
    for (text, id, says) in [
        ("{\"execute\": }", json!(null), "JSON parse error"),
        ("{]", json!(null), "JSON parse error"),
        ("hello\n", json!(null), "JSON parse error"),
        ("{\"arguments\": {}, \"id\": 4}", json!(4), "\"execute\""),
        ("{\"execute\": 1, \"id\": 4}", json!(4), "a string"),
        (
            "{\"execute\": \"x\", \"arguments\": [], \"id\": 4}",
            json!(4),
            "an object",
        ),
        (
            "{\"execute\": \"x\", \"other\": 1, \"id\": 4}",
            json!(4),
            "\"other\"",
        ),
        (
            "{\"execute\": \"x\", \"return\": 1, \"id\": 4}",
            json!(4),
            "\"return\"",
        ),
        (
            "{\"execute\": \"x\", \"execute\": \"y\"}",
            json!(null),
            "twice",
        ),
        ("{\"execute\": \"\u{1}\"}", json!(null), "JSON parse error"),
    ] {
        world.ask(0, &mark("before", 1));
        world.send(0, text);
        world.ask(0, &mark("after", 2));
        world.run();
        let replies = world.replies(0);
        assert_eq!(replies.len(), 3, "{text}");
        assert_eq!(replies[0], answer("before", 1), "{text}");
        assert_eq!(replies[2], answer("after", 2), "{text}");
        let error = &replies[1]["error"];
        assert_eq!(error["class"], "GenericError", "{text}");
        let desc = error["desc"].as_str().unwrap();
        assert!(desc.contains(says), "{text}: {desc}");
        assert_eq!(replies[1]["id"], id, "{text}");
    }
}

#[test]
fn requests_may_span_lines_or_follow_without_one() {
    let mut world = World::running(1);
    let text = "{\n  \"execute\": \"mark\",\r\n  \"arguments\": {\n \"text\": \"a\\nb\"},\n\"id\": [\n1]}{\"execute\":\"guest-ping\"}";
    for byte in text.bytes() {
        world.send(0, [byte]);
    }
    world.run();
    assert_eq!(
        world.replies(0),
        [answer("a\nb", json!([1])), json!({"return": {}})]
    );
}

#[test]
fn arguments_reach_the_agent_as_they_are() {
    let mut world = World::running(1);
    let nasty = "\"quotes\" \\back\\ \n \u{7} \u{1f415} \u{2028}".repeat(1000);
    world.ask(0, &mark(&nasty, 1));
    world.run();
    assert_eq!(world.replies(0), [answer(&nasty, 1)]);
}

#[test]
fn a_request_beyond_the_bounds_is_refused() {
    let mut world = World::running(1);
    let block = vec![b'x'; 1 << 20];
    world.send(0, "{\"execute\": \"");
    for _ in 0..17 {
        world.send(0, &block);
    }
    world.send(0, "\"}\n");
    world.send(0, "[".repeat(1025).replacen('[', "{\"a\":", 1));
    world.send(0, "\n");
    world.ask(0, &mark("next", 1));
    world.run();
    let replies = world.replies(0);
    assert_eq!(replies.len(), 3);
    assert!(replies[..2].iter().all(|reply| reply["error"].is_object()));
    assert_eq!(replies[2], answer("next", 1));
}

#[test]
fn an_error_of_the_agent_is_passed_on() {
    let mut world = World::running(1);
    world.ask(0, &json!({"execute": "nonsense", "id": 3}));
    world.run();
    let replies = world.replies(0);
    assert_eq!(replies[0]["error"]["class"], "CommandNotFound");
    assert_eq!(replies[0]["id"], 3);
}
