// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The socket's edge, against an agent made of threads.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::peer::{Peer, reply, sync_reply};
use crate::agent::{AgentError, Connection};

/// Longer than any test may take.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// So little that nothing is answered in it.
fn soon() -> Instant {
    Instant::now() + Duration::from_millis(30)
}

/// One accepted connection.
struct Guest {
    stream: UnixStream,
    peer: Peer,
    requests: Vec<Value>,
}

impl Guest {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        Self {
            stream,
            peer: Peer::new(),
            requests: Vec::new(),
        }
    }

    fn next(&mut self) -> Value {
        let mut chunk = [0; 4096];
        while self.requests.is_empty() {
            let count = self.stream.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the client hung up");
            self.requests = self.peer.requests(&chunk[..count]);
        }
        self.requests.remove(0)
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn sync(&mut self) {
        let sync = self.next();
        self.say(&sync_reply(&sync));
    }

    fn serve(&mut self, value: &Value) {
        let request = self.next();
        self.say(&reply(&request, value));
    }
}

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.agent");
        Self {
            _directory: directory,
            path,
        }
    }

    /// An agent's part, played in a thread.
    fn agent(&self, part: impl FnOnce(UnixListener) + Send + 'static) -> JoinHandle<()> {
        let listener = UnixListener::bind(&self.path).unwrap();
        std::thread::spawn(move || part(listener))
    }
}

fn none() -> Value {
    Value::Null
}

#[test]
fn requests_are_answered() {
    let place = Place::new();
    let agent = place.agent(|listener| {
        let mut guest = Guest::accept(&listener);
        guest.sync();
        guest.serve(&json!({"a": 1}));
        guest.serve(&json!("x".repeat(8 << 20)));
    });
    let mut connection = Connection::open(&place.path).unwrap();
    let answer = connection.call("one", &json!({"b": 2}), later());
    assert_eq!(answer, Ok(json!({"a": 1})));
    let answer = connection.call("two", &none(), later());
    assert_eq!(answer.unwrap().as_str().unwrap().len(), 8 << 20);
    agent.join().unwrap();
}

#[test]
fn one_deadline_ends_even_a_sync() {
    let place = Place::new();
    let agent = place.agent(|listener| {
        let mut guest = Guest::accept(&listener);
        let mut rest = Vec::new();
        guest.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.starts_with(b"\xff"));
    });
    let mut connection = Connection::open(&place.path).unwrap();
    let deadline = soon();
    let answer = connection.call("one", &none(), deadline);
    assert_eq!(answer, Err(AgentError::TimedOut));
    assert!(Instant::now() >= deadline, "not before it");
    drop(connection);
    agent.join().unwrap();
}

#[test]
fn after_a_timeout_a_late_answer_is_not_taken() {
    let place = Place::new();
    let agent = place.agent(|listener| {
        let mut guest = Guest::accept(&listener);
        guest.sync();
        let late = guest.next();
        // The client has given up: it gets in step anew.
        let sync = guest.next();
        guest.say(&reply(&late, &json!("late")));
        guest.say(&sync_reply(&sync));
        guest.serve(&json!("mine"));
    });
    let mut connection = Connection::open(&place.path).unwrap();
    let mut answer = connection.call("one", &none(), soon());
    assert_eq!(answer, Err(AgentError::TimedOut));
    // On a slow machine the first deadline may have passed before the request left.
    for _ in 0..2 {
        answer = connection.call("two", &none(), later());
        if answer == Ok(json!("mine")) {
            break;
        }
    }
    assert_eq!(answer, Ok(json!("mine")));
    agent.join().unwrap();
}

#[test]
fn an_agent_that_talks_without_end_does_not_outlast_the_deadline() {
    let place = Place::new();
    let agent = place.agent(|listener| {
        let mut guest = Guest::accept(&listener);
        while guest.stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let mut connection = Connection::open(&place.path).unwrap();
    let answer = connection.call("one", &none(), soon());
    assert_eq!(answer, Err(AgentError::TimedOut));
    drop(connection);
    agent.join().unwrap();
}

#[test]
fn a_connection_that_broke_is_made_anew() {
    let place = Place::new();
    let (hung_up, hangs_up) = std::sync::mpsc::channel();
    let agent = place.agent(move |listener| {
        let mut guest = Guest::accept(&listener);
        guest.sync();
        guest.next();
        guest.say(b"{\"return\": \"half");
        drop(guest);
        let mut guest = Guest::accept(&listener);
        guest.sync();
        guest.serve(&json!(2));
        drop(guest);
        hung_up.send(()).unwrap();
        let mut guest = Guest::accept(&listener);
        guest.sync();
        guest.serve(&json!(3));
    });
    let mut connection = Connection::open(&place.path).unwrap();
    let answer = connection.call("one", &none(), later());
    assert!(
        matches!(&answer, Err(AgentError::Socket(why)) if why == "the other side closed it"),
        "{answer:?}"
    );
    assert_eq!(connection.call("two", &none(), later()), Ok(json!(2)));
    // One that hung up between two calls costs no call.
    hangs_up.recv().unwrap();
    let answer = connection.call("three", &none(), later());
    assert_eq!(answer, Ok(json!(3)));
    agent.join().unwrap();
}

#[test]
fn nobody_at_the_socket() {
    let place = Place::new();
    let why = |path: &Path| match Connection::open(path).map(drop) {
        Err(AgentError::Socket(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(&place.path).contains("no such socket"));
    drop(UnixListener::bind(&place.path).unwrap());
    assert!(why(&place.path).contains("nobody listens"));
    assert!(why(&place.path.join("x".repeat(120))).contains("107 bytes"));
}

#[test]
fn a_socket_without_room_is_waited_for_until_the_deadline() {
    let place = Place::new();
    let listener = UnixListener::bind(&place.path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // The first fills the queue of those who wait to be accepted.
    let waiting = UnixStream::connect(&place.path).unwrap();
    let mut connection = Connection::open(&place.path).unwrap();
    let answer = connection.call("one", &none(), soon());
    assert_eq!(answer, Err(AgentError::TimedOut));
    let agent = std::thread::spawn(move || {
        drop(listener.accept().unwrap());
        let mut guest = Guest::accept(&listener);
        guest.sync();
        guest.serve(&json!(1));
    });
    assert_eq!(connection.call("two", &none(), later()), Ok(json!(1)));
    agent.join().unwrap();
    drop(waiting);
}
