// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use event_manager::{EventManager, MutEventSubscriber, SubscriberId, SubscriberOps};
use tempfile::TempDir;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::dial::{Answer, GUEST_IPV4, LINE_BYTES, Request};
use crate::link::Received;

const WAKE: u32 = 0;
const LISTENER: u32 = 1;
const FIRST: u32 = 1 << 16;
const ASK: &[u8] = b"CONNECT ipv4 8080 1000\n";
const OK: &str = "OK 10.0.2.2 8080\n";

/// One connection, as a guest has it.
#[derive(Debug, Default)]
struct Connection {
    port: u16,
    /// What came from the client.
    input: Vec<u8>,
    /// How much more of it is taken.
    room: usize,
    /// What is for the client.
    output: VecDeque<u8>,
    output_over: bool,
    finished: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Guest {
    connections: BTreeMap<DialId, Connection>,
    events: Vec<LinkEvent>,
}

impl Dials for Guest {
    fn dial(&mut self, request: &Request, _now: u64) -> DialId {
        let id = DialId(self.connections.len().try_into().expect("few"));
        let connection = Connection {
            port: request.port,
            room: usize::MAX,
            ..Connection::default()
        };
        self.connections.insert(id, connection);
        id
    }

    fn send(&mut self, id: DialId, bytes: &[u8]) -> usize {
        let connection = self.connections.get_mut(&id).expect("dialled");
        let count = bytes.len().min(connection.room);
        connection.room -= count;
        connection.input.extend_from_slice(&bytes[..count]);
        count
    }

    fn receive(&mut self, id: DialId, buffer: &mut [u8]) -> Received {
        let connection = self.connections.get_mut(&id).expect("dialled");
        match connection.output.read(buffer).expect("bytes") {
            0 if connection.output_over => Received::Finished,
            0 => Received::Nothing,
            count => Received::Bytes(count),
        }
    }

    fn finish(&mut self, id: DialId) {
        self.connections.get_mut(&id).expect("dialled").finished = true;
    }

    fn close(&mut self, id: DialId) {
        self.connections.get_mut(&id).expect("dialled").closed = true;
    }
}

struct Rig {
    socket: DialSocket,
    guest: Guest,
    now: u64,
    /// What a turn of the link's loop is for, when no client has caused it.
    wake: EventFd,
}

impl MutEventSubscriber for Rig {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let Self {
            socket, guest, now, ..
        } = self;
        match events.data() {
            WAKE => {
                self.wake.read().expect("counted");
                socket.time_passed(guest, *now, ops);
                for event in std::mem::take(&mut guest.events) {
                    socket.heed(&event, guest, *now, ops);
                }
            }
            LISTENER => socket.accept(guest, *now, ops),
            data if socket.is_client(data) => socket.client_event(events, guest, *now, ops),
            data => panic!("{data}"),
        }
        while socket.go_on(guest, *now, ops) {}
    }

    fn init(&mut self, ops: &mut EventOps) {
        let listener = Events::with_data(self.socket.listener(), LISTENER, EventSet::IN);
        let wake = Events::with_data(&self.wake, WAKE, EventSet::IN);
        ops.add(listener)
            .and_then(|()| ops.add(wake))
            .expect("watched");
    }
}

/// The socket in a loop that turns when it is told to.
struct Running {
    manager: EventManager<Rig>,
    id: SubscriberId,
    folder: TempDir,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dial");
        let rig = Rig {
            socket: DialSocket::new(&path, LISTENER, FIRST).expect("a socket"),
            guest: Guest::default(),
            now: 0,
            wake: EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
        };
        let mut manager = EventManager::new().expect("epoll");
        let id = manager.add_subscriber(rig);
        Self {
            manager,
            id,
            folder,
        }
    }

    fn rig(&mut self) -> &mut Rig {
        self.manager.subscriber_mut(self.id).expect("there")
    }

    /// The connection that was asked for as the `number`th, from 0.
    fn connection(&mut self, number: u64) -> &mut Connection {
        let connections = &mut self.rig().guest.connections;
        connections.get_mut(&DialId(number)).expect("dialled")
    }

    /// Turns the loop until there is nothing to do; fails if there always is.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.manager.run_with_timeout(0).expect("the loop runs") == 0 {
                return;
            }
        }
        panic!("the loop never comes to rest");
    }

    fn client(&mut self, says: &[u8]) -> UnixStream {
        let path = self.folder.path().join("dial");
        let mut client = UnixStream::connect(path).expect("listens");
        client.set_nonblocking(true).expect("set");
        client.write_all(says).expect("room");
        self.settle();
        client
    }

    /// These things happen to connections.
    fn happens(&mut self, events: impl IntoIterator<Item = LinkEvent>) {
        self.rig().guest.events.extend(events);
        self.rig().wake.write(1).expect("counted");
        self.settle();
    }

    /// A client whose connection, the `number`th, the guest has accepted, and who has read that.
    fn connected(&mut self, number: u64) -> UnixStream {
        let mut client = self.client(ASK);
        self.happens([accepted(number)]);
        assert_eq!(heard(&mut client), (OK.to_owned(), false));
        client
    }

    fn clients(&mut self) -> usize {
        self.rig().socket.clients.len()
    }
}

fn accepted(number: u64) -> LinkEvent {
    let answer = Answer::Connected {
        address: GUEST_IPV4.into(),
        port: 8080,
    };
    LinkEvent::Answered(DialId(number), answer)
}

/// What a client has been told and not read yet, and whether that is the end.
fn heard(client: &mut UnixStream) -> (String, bool) {
    let (mut bytes, mut chunk) = (vec![], [0; 4096]);
    loop {
        match client.read(&mut chunk) {
            Ok(0) => return (String::from_utf8(bytes).expect("text"), true),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return (String::from_utf8(bytes).expect("text"), false);
            }
            // It was hung up on before it had said everything.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (String::from_utf8(bytes).expect("text"), true);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn ok_is_said_when_the_guest_has_accepted_and_not_before() {
    let mut running = Running::start();
    let mut client = running.client(b"CONNECT ipv4 80");
    assert!(running.rig().guest.connections.is_empty(), "half a line");
    client.write_all(b"80 1000\nearly").expect("room");
    running.settle();
    assert_eq!(running.connection(0).port, 8080);
    assert_eq!(heard(&mut client), (String::new(), false));
    assert!(
        running.connection(0).input.is_empty(),
        "nobody has accepted"
    );

    running.happens([accepted(0)]);
    assert_eq!(heard(&mut client), (OK.to_owned(), false));
    assert_eq!(running.connection(0).input, b"early");
}

#[test]
fn a_failure_is_said_and_the_client_let_go() {
    let mut running = Running::start();
    let mut client = running.client(ASK);
    let answer = Answer::Failed {
        reason: Reason::Refused,
        text: "nobody listens".to_owned(),
    };
    running.happens([LinkEvent::Answered(DialId(0), answer)]);
    let expected = ("FAIL refused nobody listens\n".to_owned(), true);
    assert_eq!(heard(&mut client), expected);
    assert_eq!(running.clients(), 0);
}

#[test]
fn lines_that_ask_for_nothing_are_refused() {
    let mut running = Running::start();
    let long = [b'x'; 2 * LINE_BYTES];
    for line in [
        b"GET / HTTP/1.0\r\n".as_slice(),
        b"CONNECT ipv4 80 \xff\x1b\n",
        &long,
    ] {
        let mut client = running.client(line);
        let (answer, over) = heard(&mut client);
        assert!(answer.starts_with("FAIL bad-request "), "{answer}");
        assert!(
            answer.len() <= LINE_BYTES && answer.ends_with('\n'),
            "{answer}"
        );
        assert!(answer.parse::<Answer>().is_ok() && over, "{answer}");
    }
    drop(running.client(b"CONNECT"));
    running.settle();
    assert_eq!(running.clients(), 0);
    assert!(running.rig().guest.connections.is_empty());
}

#[test]
fn bytes_go_both_ways_and_halves_are_closed_one_by_one() {
    let mut running = Running::start();
    let mut client = running.connected(0);
    client.write_all(b"request").expect("room");
    client.shutdown(Shutdown::Write).expect("shut");
    running.settle();
    let connection = running.connection(0);
    assert_eq!(connection.input, b"request");
    assert!(connection.finished && !connection.closed);

    connection.output.extend(b"answer");
    running.happens([LinkEvent::Readable(DialId(0))]);
    assert_eq!(heard(&mut client), ("answer".to_owned(), false));
    running.connection(0).output.extend(b", whole");
    running.connection(0).output_over = true;
    running.happens([LinkEvent::Readable(DialId(0))]);
    assert_eq!(heard(&mut client), (", whole".to_owned(), true));
    assert!(running.connection(0).closed);
    assert_eq!(running.clients(), 0);
}

#[test]
fn a_guest_that_ends_first_still_hears_the_client() {
    let mut running = Running::start();
    let mut client = running.connected(0);
    running.connection(0).output_over = true;
    running.happens([LinkEvent::Readable(DialId(0))]);
    assert_eq!(heard(&mut client), (String::new(), true));
    client.write_all(b"still here").expect("room");
    running.settle();
    assert_eq!(running.connection(0).input, b"still here");
    assert_eq!(running.clients(), 1);
    drop(client);
    running.settle();
    assert!(running.connection(0).closed);
    assert_eq!(running.clients(), 0);
}

#[test]
fn a_client_that_does_not_read_holds_up_its_own_guest_alone() {
    let mut running = Running::start();
    let mut client = running.connected(0);
    let all: Vec<u8> = (0..4 << 20)
        .map(|at: u32| b'a' + u8::try_from(at % 26).expect("small"))
        .collect();
    running.connection(0).output.extend(&all);
    running.happens([LinkEvent::Readable(DialId(0))]);
    let waits = running.connection(0).output.len();
    assert!(waits > 2 << 20, "{waits} of {}", all.len());
    let mut got = String::new();
    while got.len() < all.len() {
        let (more, _) = heard(&mut client);
        assert!(!more.is_empty(), "after {}", got.len());
        got.push_str(&more);
        running.settle();
    }
    assert!(got.as_bytes() == all);
}

#[test]
fn a_guest_that_does_not_read_holds_up_its_own_client_alone() {
    let mut running = Running::start();
    let mut client = running.connected(0);
    running.connection(0).room = 1000;
    let chunk = [b'x'; 64 << 10];
    let mut written = 0;
    loop {
        match client.write(&chunk) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        running.settle();
    }
    assert_eq!(running.connection(0).input.len(), 1000);
    assert!(written < 1 << 20, "{written}");
    running.connection(0).room = usize::MAX;
    running.happens([LinkEvent::Writable(DialId(0))]);
    assert_eq!(running.connection(0).input.len(), written);
}

#[test]
fn a_client_that_vanishes_is_gone_for_the_guest_once_its_last_words_are_through() {
    let mut running = Running::start();
    // While it waits for the answer, and while its line is not complete.
    drop(running.client(ASK));
    drop(running.client(b"CONN"));
    running.settle();
    assert!(running.connection(0).closed);

    let mut client = running.connected(1);
    running.connection(1).room = 2;
    client.write_all(b"last words").expect("room");
    drop(client);
    running.settle();
    assert!(!running.connection(1).closed);
    running.connection(1).room = usize::MAX;
    running.happens([LinkEvent::Writable(DialId(1))]);
    assert_eq!(running.connection(1).input, b"last words");
    assert!(running.connection(1).closed);
    assert_eq!(running.clients(), 0);
}

#[test]
fn last_words_that_the_guest_never_takes_are_given_up() {
    let mut running = Running::start();
    let mut client = running.connected(0);
    running.connection(0).room = 2;
    client.write_all(b"last words").expect("room");
    drop(client);
    running.settle();
    let due = running.rig().socket.next_due().expect("it is bounded");
    running.rig().now = due - 1;
    running.happens([]);
    assert!(!running.connection(0).closed);
    running.rig().now = due;
    running.happens([]);
    assert!(running.connection(0).closed);
    assert_eq!(
        (running.clients(), running.rig().socket.next_due()),
        (0, None)
    );
}

#[test]
fn a_guest_that_was_reset_lets_its_clients_go() {
    let mut running = Running::start();
    let mut client = running.connected(0);
    running.happens([LinkEvent::Ended(DialId(0))]);
    assert_eq!(heard(&mut client), (String::new(), true));
    assert_eq!(running.clients(), 0);
}

#[test]
fn one_client_too_many_is_told() {
    let mut running = Running::start();
    running.rig().socket.most = 3;
    let kept: Vec<_> = (0..3).map(|_| running.client(ASK)).collect();
    let mut late = running.client(b"");
    let (answer, over) = heard(&mut late);
    assert!(answer.starts_with("FAIL busy ") && over, "{answer}");
    drop(kept);
    running.settle();
    let mut next = running.client(ASK);
    assert_eq!(heard(&mut next), (String::new(), false));
}

#[test]
fn the_path_goes_with_the_socket_and_is_never_taken_from_one_that_listens() {
    let running = Running::start();
    let path = running.folder.path().join("dial");
    let other = DialSocket::new(&path, LISTENER, FIRST).expect_err("it is taken");
    assert_eq!(other.kind(), ErrorKind::AddrInUse);
    let Running {
        manager, folder, ..
    } = running;
    drop(manager);
    assert!(!path.exists());
    // A machine that was killed leaves its path behind.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    drop(DialSocket::new(&path, LISTENER, FIRST).expect("in its place"));
    drop(folder);
}
