// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The protocol in virtual time.

use std::time::Duration;

use kennel_vmm::agent::{LOST, NOT_CONNECTED, RESTARTED};
use serde_json::{Value, json};

use super::peer::{Peer, error, reply, sync_reply};
use crate::agent::AgentError;
use crate::agent::session::{Answer, Session};
use crate::moment::Moment;

struct Talk {
    session: Session,
    peer: Peer,
    now: Moment,
}

impl Talk {
    fn new() -> Self {
        let mut session = Session::new(1);
        session.connected(Moment::ZERO);
        Self {
            session,
            peer: Peer::new(),
            now: Moment::ZERO,
        }
    }

    /// A request with `timeout` ms; arguments tell one from another.
    fn begin(&mut self, number: u64, timeout: u64) {
        let deadline = self.now.after(Duration::from_millis(timeout));
        let arguments = json!({"number": number});
        self.session.begin("ask", &arguments, deadline, self.now);
    }

    /// What has been sent.
    fn sent(&mut self) -> Vec<Value> {
        let bytes = self.session.output().to_vec();
        self.session.sent(bytes.len());
        self.peer.requests(&bytes)
    }

    fn only(&mut self) -> Value {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn hear(&mut self, bytes: &[u8]) -> Option<Answer> {
        self.session.received(bytes, self.now)
    }

    /// Answers the sync, and returns the request that follows.
    fn get_in_step(&mut self) -> Value {
        let sync = self.only();
        assert_eq!(self.hear(&sync_reply(&sync)), None);
        self.only()
    }

    /// Until `ms`, timers included.
    fn pass_until(&mut self, ms: u64) -> Option<Answer> {
        let until = Moment::from_nanos(ms * 1_000_000);
        while let Some(due) = self.session.next_due()
            && due <= until
        {
            self.now = due;
            if let Some(answer) = self.session.timer(due) {
                return Some(answer);
            }
        }
        self.now = until;
        None
    }
}

#[test]
fn a_request_goes_out_once_the_agent_is_in_step() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let request = talk.get_in_step();
    assert_eq!(request["execute"], "ask");
    assert_eq!(request["arguments"], json!({"number": 1}));
    assert_eq!(
        talk.hear(&reply(&request, &json!({"x": 1}))),
        Some(Ok(json!({"x": 1})))
    );
    talk.begin(2, 1000);
    let request = talk.only();
    assert_eq!(request["arguments"]["number"], 2, "no second sync");
    assert_eq!(talk.hear(&reply(&request, &json!(2))), Some(Ok(json!(2))));
    assert_eq!(talk.session.next_due(), None);
}

#[test]
fn the_deadline_covers_the_sync() {
    for timeout in [300, 900, 1000, 4999] {
        let mut talk = Talk::new();
        talk.begin(1, timeout);
        assert_eq!(talk.pass_until(5000), Some(Err(AgentError::TimedOut)));
        assert_eq!(talk.now, Moment::from_nanos(timeout * 1_000_000));
    }
}

#[test]
fn the_deadline_covers_sync_and_request_together() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let sync = talk.only();
    assert_eq!(talk.pass_until(400), None);
    talk.hear(&sync_reply(&sync));
    assert_eq!(talk.only()["execute"], "ask");
    assert_eq!(talk.pass_until(5000), Some(Err(AgentError::TimedOut)));
    assert_eq!(talk.now, Moment::from_nanos(1_000_000_000));
}

#[test]
fn a_late_answer_is_nobodys() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let late = talk.get_in_step();
    assert_eq!(talk.pass_until(1000), Some(Err(AgentError::TimedOut)));
    talk.begin(2, 1000);
    let sync = talk.only();
    assert_eq!(talk.hear(&reply(&late, &json!("late"))), None);
    assert_eq!(talk.hear(&sync_reply(&sync)), None);
    let request = talk.only();
    assert_eq!(request["arguments"]["number"], 2);
    assert_eq!(talk.hear(&reply(&late, &json!("later"))), None);
    // That was unexpected: in step once more, and what was asked still counts.
    assert_eq!(talk.only()["execute"], "guest-sync-delimited");
    assert_eq!(talk.hear(&reply(&request, &json!(2))), Some(Ok(json!(2))));
}

#[test]
fn a_request_that_had_not_left_never_does() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let sync = talk.only();
    talk.hear(&sync_reply(&sync));
    // Half of it leaves.
    let half = talk.session.output()[..20].to_vec();
    talk.session.sent(20);
    assert!(talk.peer.requests(&half).is_empty());
    assert_eq!(talk.pass_until(1000), Some(Err(AgentError::TimedOut)));
    talk.begin(2, 1000);
    let request = talk.get_in_step();
    assert_eq!(request["arguments"]["number"], 2);
}

#[test]
fn a_sync_that_got_lost_is_sent_again() {
    let mut talk = Talk::new();
    talk.begin(1, 10_000);
    let lost = talk.only();
    assert_eq!(talk.pass_until(499), None);
    assert!(talk.sent().is_empty());
    assert_eq!(talk.pass_until(500), None);
    let sync = talk.only();
    assert_ne!(sync["arguments"]["id"], lost["arguments"]["id"]);
    // Both are answered after all; only what follows the second is of now.
    assert_eq!(talk.hear(&sync_reply(&lost)), None);
    assert!(talk.sent().is_empty());
    assert_eq!(talk.hear(&sync_reply(&sync)), None);
    let request = talk.only();
    assert_eq!(talk.hear(&reply(&request, &json!(1))), Some(Ok(json!(1))));
}

#[test]
fn each_request_to_a_mute_agent_costs_little() {
    let mut talk = Talk::new();
    let mut bytes = 0;
    for round in 0..100 {
        talk.begin(round, 1000);
        bytes += talk.session.output().len();
        // The other side takes nothing after the first.
        if round == 0 {
            talk.sent();
        }
        talk.pass_until((round + 1) * 10_000);
    }
    assert!(bytes < 100 * 200, "{bytes}");
    assert!(talk.session.output().len() < 200);
}

#[test]
fn garbage_is_no_answer() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let sync = talk.only();
    talk.hear(b"\"cut off\"}}\n{\"return\": {}}\n\xff{\"return\": 5}\n");
    talk.hear(&sync_reply(&sync));
    let request = talk.only();
    assert_eq!(talk.hear(b"noise\n{\"return\": {}}\n"), None);
    let sync = talk.only();
    assert_eq!(
        talk.hear(&sync_reply(&sync)),
        Some(Err(AgentError::Garbled(
            "none came, only other output, or what came exceeds 48 MiB, 4096 values or 1024 brackets"
                .into()
        )))
    );
    assert_eq!(talk.hear(&reply(&request, &json!(1))), None);
}

/// What comes of a return value with so many elements.
fn elements(count: usize) -> Option<Answer> {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let request = talk.get_in_step();
    let value = Value::Array(vec![Value::Bool(true); count]);
    let answer = talk.hear(&reply(&request, &value));
    if answer.is_some() {
        return answer;
    }
    let sync = talk.only();
    talk.hear(&sync_reply(&sync))
}

#[test]
fn an_answer_of_many_values_is_never_built() {
    assert!(matches!(elements(4000), Some(Ok(Value::Array(all))) if all.len() == 4000));
    let Some(Err(AgentError::Garbled(why))) = elements(5000) else {
        panic!("5000 values");
    };
    assert!(why.contains("4096 values"), "{why}");
}

#[test]
fn a_long_refusal_is_cut() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let request = talk.get_in_step();
    let answer = talk.hear(&error(&request, &"x".repeat(1 << 20)));
    let Some(Err(AgentError::Refused { desc, .. })) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(desc.len(), (10 << 10) + " [cut short]".len());
}

/// The deepest that is taken, on the stack of those who ask for probes.
#[test]
fn the_deepest_answer_fits_a_probes_stack() {
    let read = || {
        let mut talk = Talk::new();
        talk.begin(1, 1000);
        let request = talk.get_in_step();
        let nest = format!("{}[]{}", "{\"a\":".repeat(126), "}".repeat(126));
        let text = format!("{{\"return\": {nest}, \"id\": {}}}\n", request["id"]);
        talk.hear(text.as_bytes())
    };
    let thread = std::thread::Builder::new().stack_size(crate::supervisor::asking::STACK);
    let answer = thread.spawn(read).unwrap().join().unwrap();
    assert!(matches!(answer, Some(Ok(Value::Object(_)))), "{answer:?}");
}

#[test]
fn errors_are_told_apart() {
    for (desc, expected) in [
        (NOT_CONNECTED, AgentError::NotConnected),
        (RESTARTED, AgentError::Restarted),
        (LOST, AgentError::Garbled(LOST.into())),
        (
            "no",
            AgentError::Refused {
                class: "GenericError".into(),
                desc: "no".into(),
            },
        ),
    ] {
        let mut talk = Talk::new();
        talk.begin(1, 1000);
        let request = talk.get_in_step();
        assert_eq!(talk.hear(&error(&request, desc)), Some(Err(expected)));
    }
}

#[test]
fn an_answer_too_deep_is_garbled() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let request = talk.get_in_step();
    let nest = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let text = format!("{{\"return\": {nest}, \"id\": {}}}\n", request["id"]);
    let answer = talk.hear(text.as_bytes());
    assert!(
        matches!(answer, Some(Err(AgentError::Garbled(_)))),
        "{answer:?}"
    );
}

#[test]
fn nobody_there_is_told_at_once() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let sync = talk.only();
    assert_eq!(
        talk.hear(&error(&sync, NOT_CONNECTED)),
        Some(Err(AgentError::NotConnected))
    );
    // And asked again it is tried again.
    talk.begin(2, 1000);
    assert_eq!(talk.get_in_step()["arguments"]["number"], 2);
}

#[test]
fn a_restart_before_the_request_left_is_no_failure() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let sync = talk.only();
    assert_eq!(talk.hear(&error(&sync, RESTARTED)), None);
    let request = talk.get_in_step();
    assert_eq!(talk.hear(&reply(&request, &json!(1))), Some(Ok(json!(1))));
}

#[test]
fn an_agent_that_echoes_no_tags_will_do() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let mut sync = talk.only();
    sync["id"] = Value::Null;
    let answer = format!("\u{0}{{\"return\": {}}}\n", sync["arguments"]["id"]).into_bytes();
    let answer: Vec<u8> = [&[0xff], &answer[1..]].concat();
    talk.hear(&answer);
    let request = talk.only();
    assert_eq!(request.get("id"), None);
    assert_eq!(talk.hear(b"{\"return\": 3}\n"), Some(Ok(json!(3))));
}

fn shutdown() -> Talk {
    let mut talk = Talk::new();
    let deadline = Moment::from_nanos(1_000_000_000);
    let arguments = json!({"mode": "powerdown"});
    talk.session
        .begin("guest-shutdown", &arguments, deadline, talk.now);
    let sync = talk.only();
    talk.hear(&sync_reply(&sync));
    talk
}

#[test]
fn a_request_without_an_answer_succeeds_when_the_sync_behind_it_does() {
    let mut talk = shutdown();
    let sent = talk.sent();
    assert_eq!(sent[0]["execute"], "guest-shutdown");
    assert_eq!(talk.hear(&sync_reply(&sent[1])), Some(Ok(Value::Null)));
}

#[test]
fn a_request_without_an_answer_can_fail() {
    let mut talk = shutdown();
    let sent = talk.sent();
    let answer = talk.hear(&error(&sent[0], "no"));
    assert!(
        matches!(answer, Some(Err(AgentError::Refused { .. }))),
        "{answer:?}"
    );
}

#[test]
fn a_guest_that_is_gone_was_shut_down() {
    let mut talk = shutdown();
    let sent = talk.sent();
    assert_eq!(
        talk.hear(&error(&sent[1], RESTARTED)),
        Some(Ok(Value::Null))
    );
    let mut talk = shutdown();
    assert_eq!(talk.session.disconnected("gone"), Some(Ok(Value::Null)));
}

#[test]
fn a_lost_connection_is_an_error() {
    let mut talk = Talk::new();
    talk.begin(1, 1000);
    let answer = talk.session.disconnected("gone");
    assert_eq!(answer, Some(Err(AgentError::Socket("gone".into()))));
    assert_eq!(talk.session.disconnected("gone"), None);
}

/// What an agent says that does not know the command of `request`; `echoes` says whether it knows
/// tags.
fn unknown(request: &Value, echoes: bool) -> Vec<u8> {
    let command = request["execute"].as_str().unwrap();
    let desc = format!("The command {command} has not been found");
    let mut reply = json!({"error": {"class": "CommandNotFound", "desc": desc}});
    if echoes {
        reply["id"] = request["id"].clone();
    }
    format!("{reply}\n").into_bytes()
}

#[test]
fn an_agent_that_refuses_delimited_syncs_is_asked_for_plain_ones() {
    for echoes in [true, false] {
        let mut talk = Talk::new();
        talk.begin(1, 1000);
        let delimited = talk.only();
        // Twice, as if it had been sent again.
        let refused = unknown(&delimited, echoes);
        assert_eq!(talk.hear(&refused), None);
        let mut sync = talk.only();
        assert_eq!(sync["execute"], "guest-sync");
        assert_eq!(talk.hear(&refused), None);
        if !echoes {
            sync["id"] = Value::Null;
        }
        assert_eq!(talk.hear(&reply(&sync, &sync["arguments"]["id"])), None);
        let request = talk.only();
        assert_eq!(request["execute"], "ask", "{echoes}");
        let answer = talk.hear(b"{\"return\": 5}\n");
        let tagged = talk.hear(&reply(&request, &json!(5)));
        assert_eq!(answer.or(tagged), Some(Ok(json!(5))), "{echoes}");
    }
}

#[test]
fn an_agent_that_refuses_every_sync_is_quoted() {
    for echoes in [true, false] {
        let mut talk = Talk::new();
        for number in 1..3 {
            talk.begin(number, 1000);
            let mut answer = None;
            while answer.is_none() {
                let sync = talk.only();
                assert_ne!(sync["execute"], "ask");
                answer = talk.hear(&unknown(&sync, echoes));
            }
            let refused = AgentError::SyncRefused {
                class: "CommandNotFound".into(),
                desc: "The command guest-sync has not been found".into(),
            };
            assert_eq!(answer, Some(Err(refused)), "{echoes}");
        }
    }
}
