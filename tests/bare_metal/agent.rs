// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest agent's channel, from a client's socket to a driver in the guest and back.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use kennel_tests::machine::Machine;
use kennel_vmm::agent::RESTARTED;
use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::{Command, News};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("agent_answers_each_client_alone", clients),
        test("agent_requests_end_with_the_boot", reset),
        test("agent_that_went_silent_delays_nobody_else", silence),
    ]
}

/// A client with a bound on every answer.
struct Client {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Client {
    fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("the machine listens");
        let bound = Some(Duration::from_secs(60));
        stream.set_read_timeout(bound).expect("a socket");
        let answers = BufReader::new(stream.try_clone().expect("a descriptor"));
        Self { stream, answers }
    }

    fn ask(&mut self, request: &Value) {
        let line = format!("{request}\n");
        self.stream.write_all(line.as_bytes()).expect("room");
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("an answer in time");
        let answer = serde_json::from_str(&line);
        assert!(answer.is_ok(), "{line:?}");
        answer.unwrap_or_default()
    }
}

fn ping(id: &str) -> Value {
    json!({ "execute": "guest-ping", "id": id })
}

fn connected(news: &News) -> Option<()> {
    (*news == News::AgentConnected).then_some(())
}

fn clients() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent");
    let mut machine = Machine::start_agent("agent", &socket);
    machine.news("agent", connected);
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(&socket)).collect();
    for round in 0..10 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.ask(&ping(&format!("{number}/{round}/a")));
            client.ask(&json!({
                "execute": "guest-sync", "arguments": { "id": number }
            }));
        }
        // Those that hang up with a request under way leave nothing behind for the others.
        drop(clients.pop());
        for (number, client) in clients.iter_mut().enumerate() {
            let mut answer = client.answer();
            // A sync drops what was asked before it, if that was not answered yet.
            if answer["id"] == json!(format!("{number}/{round}/a")) {
                assert_eq!(answer["return"], json!({}));
                answer = client.answer();
            }
            assert_eq!(answer, json!({ "return": number }), "round {round}");
        }
    }
    machine.tell(&Command::Stop);
    machine.news("end", crate::registers::ended);
    assert!(machine.orphaned().success());
    assert!(!socket.exists(), "it is removed");
}

fn reset() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent");
    // Syncs are answered, requests are not: this one waits for ever.
    let mut machine = Machine::start_agent("answers 0", &socket);
    machine.news("agent", connected);
    let mut client = Client::connect(&socket);
    client.ask(&json!({ "execute": "guest-sync", "arguments": { "id": 5 } }));
    assert_eq!(client.answer(), json!({ "return": 5 }), "it is served");
    client.ask(&ping("lost"));
    client.ask(&ping("queued"));
    // Answered in a turn of the loop in which the requests were there.
    machine.tell(&Command::Status);
    machine.news("status", |news| {
        matches!(news, News::Status(_)).then_some(())
    });
    machine.tell(&Command::Reset);
    for id in ["lost", "queued"] {
        let answer = client.answer();
        assert_eq!(answer["error"]["desc"], json!(RESTARTED), "{answer}");
        assert_eq!(answer["id"], json!(id));
    }
    machine.news("reset", |news| {
        matches!(
            news,
            News::Reset {
                cause: ResetCause::Host,
                ..
            }
        )
        .then_some(())
    });
    machine.news("agent", connected);
    client.ask(&json!({ "execute": "guest-sync", "arguments": { "id": 7 } }));
    assert_eq!(client.answer(), json!({ "return": 7 }));
}

fn silence() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent");
    let mut machine = Machine::start_agent("answers 1", &socket);
    machine.news("agent", connected);
    let (mut first, mut second) = (Client::connect(&socket), Client::connect(&socket));
    first.ask(&ping("first"));
    assert_eq!(first.answer()["return"], json!({}));
    first.ask(&ping("never"));
    first.ask(&json!({ "execute": "guest-sync", "arguments": { "id": 1 } }));
    assert_eq!(first.answer(), json!({ "return": 1 }), "it gave up waiting");
    second.ask(&json!({ "execute": "guest-sync", "arguments": { "id": 2 } }));
    assert_eq!(second.answer(), json!({ "return": 2 }));
}
