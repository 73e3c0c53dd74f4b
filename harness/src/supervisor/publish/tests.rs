// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Published ports over loopback, to guests that are a listener behind a dial socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use kennel_vmm::dial::{Answer, GUEST_IPV4, Reason, Request, Target};
use tempfile::TempDir;

use super::relay::MOST;
use super::*;
use crate::supervisor::controller::InstanceId;
use crate::supervisor::events::Said;

/// Nothing here takes as long, unless it never ends.
const BOUND: Duration = Duration::from_secs(60);

/// A guest: what is behind its dial socket, and the connections that it has accepted.
struct Guest {
    _folder: TempDir,
    socket: PathBuf,
    accepted: Receiver<(Request, BufReader<UnixStream>)>,
}

impl Guest {
    /// One that accepts every connection, or none.
    fn new(accepts: bool) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let socket = folder.path().join("x.dial");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (sender, accepted) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a client"));
                let mut line = String::new();
                stream.read_line(&mut line).expect("a line");
                let request: Request = line.parse().expect("a request");
                let answer = if accepts {
                    Answer::Connected {
                        address: GUEST_IPV4.into(),
                        port: request.port,
                    }
                } else {
                    Answer::Failed {
                        reason: Reason::Refused,
                        text: "nobody listens there".into(),
                    }
                };
                write!(stream.get_mut(), "{answer}").expect("it is sent");
                if sender.send((request, stream)).is_err() {
                    return;
                }
            }
        });
        Self {
            _folder: folder,
            socket,
            accepted,
        }
    }

    fn backend(&self, number: u64, ready: bool) -> Backend {
        Backend {
            instance: InstanceId::numbered(number),
            ready,
            socket: self.socket.clone(),
            target: Target::GuestIpv4,
        }
    }

    fn accepted(&self) -> (Request, BufReader<UnixStream>) {
        let (request, stream) = self.accepted.recv_timeout(BOUND).expect("a connection");
        let bound = stream.get_ref().set_read_timeout(Some(BOUND));
        bound.expect("a timeout");
        (request, stream)
    }

    /// Whether it is given one more connection; else that is reset.
    fn takes_one_more(&self, at: SocketAddr) -> bool {
        let Ok(client) = TcpStream::connect(at) else {
            return false;
        };
        client.set_nonblocking(true).expect("a mode");
        loop {
            if self.accepted.try_recv().is_ok() {
                return true;
            }
            match client.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                _ => return false,
            }
        }
    }
}

fn hold(words: &[&str]) -> Ports {
    let wanted: Vec<Publish> = words.iter().map(|word| word.parse().expect(word)).collect();
    Ports::hold(&wanted).expect("free ports")
}

fn address(ports: &Ports) -> SocketAddr {
    ports.published().next().expect("a port").at
}

fn client(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&at, BOUND).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    stream
}

fn is_refused(at: SocketAddr) -> bool {
    TcpStream::connect_timeout(&at, BOUND)
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn words(told: Vec<(InstanceId, Said)>) -> Vec<String> {
    let words = told.into_iter().map(|(instance, said)| {
        let event = said.at("x", 0, 0);
        format!("{instance:?} {}", event.reason)
    });
    words.collect()
}

/// Everything that comes until the end.
fn all(mut from: impl Read) -> Vec<u8> {
    let mut all = vec![];
    from.read_to_end(&mut all).expect("an end, in time");
    all
}

fn rest(from: impl Read) -> String {
    String::from_utf8(all(from)).expect("text")
}

#[test]
fn ports_are_read() {
    let publish = |at: &str, guest_port, ready| {
        let at = at.parse().expect(at);
        Ok(Publish {
            at,
            guest_port,
            ready,
        })
    };
    for (text, expected) in [
        ("8080:80", publish("127.0.0.1:8080", 80, false)),
        ("0:65535", publish("127.0.0.1:0", 65_535, false)),
        ("8080:80,ready", publish("127.0.0.1:8080", 80, true)),
        ("0.0.0.0:8080:80", publish("0.0.0.0:8080", 80, false)),
        ("[::1]:8080:80,ready", publish("[::1]:8080", 80, true)),
    ] {
        assert_eq!(text.parse(), expected, "{text}");
    }
    for (text, why) in [
        ("", "it has no GUESTPORT"),
        ("8080", "it has no GUESTPORT"),
        ("8080:", "\"\" is no port, 0 to 65535"),
        ("8080:0", "a guest has no port 0"),
        ("65536:80", "\"65536\" is no port, 0 to 65535"),
        ("8080:80,Ready", "\"Ready\" is not \"ready\""),
        ("8080:80,ready,x", "\"ready,x\" is not \"ready\""),
        ("localhost:8080:80", "\"localhost\" is no IP address"),
        ("::1:8080:80", "an IPv6 address stands in brackets: [::1]"),
        ("[127.0.0.1]:8080:80", "\"[127.0.0.1]\" is no IP address"),
    ] {
        let error = text.parse::<Publish>().expect_err(text);
        assert_eq!(error, format!("{why}; {FORM}"), "{text}");
    }
}

#[test]
fn bytes_and_their_ends_go_both_ways() {
    let guest = Guest::new(true);
    let mut ports = hold(&["0:8080"]);
    assert_eq!(
        words(ports.lead_to(&[guest.backend(3, false)])),
        ["InstanceId(3) PortOpened"]
    );
    let mut client = client(address(&ports));
    client.write_all(b"GET / HTTP/1.0\n\n").expect("it is sent");
    client.shutdown(Shutdown::Write).expect("an end");
    let (request, mut served) = guest.accepted();
    assert_eq!((request.target, request.port), (Target::GuestIpv4, 8080));
    assert!(request.timeout > Duration::from_secs(1));
    // The client's end is the guest's; the guest still speaks.
    assert_eq!(rest(&mut served), "GET / HTTP/1.0\n\n");
    served
        .get_mut()
        .write_all(b"Hello World!")
        .expect("it is sent");
    let ended = served.get_ref().shutdown(Shutdown::Write);
    ended.expect("an end");
    assert_eq!(rest(&client), "Hello World!");
}

#[test]
fn a_guest_that_ends_first_is_heard_out() {
    let guest = Guest::new(true);
    let mut ports = hold(&["0:8080"]);
    let _told = ports.lead_to(&[guest.backend(0, false)]);
    let mut client = client(address(&ports));
    let (_, mut served) = guest.accepted();
    served.get_mut().write_all(b"early").expect("it is sent");
    // All of it, as when its machine is gone.
    drop(served);
    assert_eq!(rest(&client), "early");
    // And nothing is left of it, although the client has not hung up.
    let until = Instant::now() + BOUND;
    while client.write_all(b"late").is_ok() {
        assert!(Instant::now() < until, "somebody still listens");
        thread::yield_now();
    }
}

#[test]
fn more_than_is_held_between_them_arrives() {
    const MUCH: usize = 8 << 20;
    let guest = Guest::new(true);
    let mut ports = hold(&["0:8080"]);
    let _told = ports.lead_to(&[guest.backend(0, false)]);
    let client = client(address(&ports));
    let (_, served) = guest.accepted();
    let byte = |index: usize| u8::try_from(index % 251).expect("a byte");
    let sent: Vec<u8> = (0..MUCH).map(byte).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&sent).expect("it is sent");
            client.shutdown(Shutdown::Write).expect("an end");
        });
        scope.spawn(|| {
            served.get_ref().write_all(&sent).expect("it is sent");
            served.get_ref().shutdown(Shutdown::Write).expect("an end");
        });
        scope.spawn(|| assert!(all(&client) == sent));
        assert!(all(served.get_ref()) == sent);
    });
}

#[test]
fn a_port_that_wants_ready_guests_is_open_for_them_alone() {
    let guest = Guest::new(true);
    let mut ports = hold(&["0:8080,ready", "0:8080"]);
    let published: Vec<_> = ports.published().map(|it| it.at).collect();
    let (gated, plain) = (published[0], published[1]);
    assert!(is_refused(gated) && is_refused(plain));
    let told = ports.lead_to(&[guest.backend(1, false)]);
    assert_eq!(words(told), ["InstanceId(1) PortOpened"]);
    assert!(is_refused(gated));
    let _plain = client(plain);
    assert_eq!(
        words(ports.lead_to(&[guest.backend(1, true)])),
        ["InstanceId(1) PortOpened"]
    );
    let (_, _) = guest.accepted();
    let mut client = client(gated);
    let (_, mut served) = guest.accepted();
    assert_eq!(
        words(ports.lead_to(&[guest.backend(1, false)])),
        ["InstanceId(1) PortClosed"]
    );
    assert!(is_refused(gated));
    // What was there stays.
    client.write_all(b"still here\n").expect("it is sent");
    let mut line = String::new();
    served.read_line(&mut line).expect("a line");
    assert_eq!(line, "still here\n");
    assert_eq!(words(ports.lead_to(&[])), ["InstanceId(1) PortClosed"]);
    assert!(is_refused(plain));
    assert_eq!(words(ports.lead_to(&[])), [""; 0]);
    let again = ports.lead_to(&[guest.backend(2, true)]);
    assert_eq!(
        words(again),
        ["InstanceId(2) PortOpened", "InstanceId(2) PortOpened"]
    );
    assert_eq!(
        ports.published().map(|it| it.at).collect::<Vec<_>>(),
        published
    );
}

#[test]
fn guests_have_connections_in_turn() {
    let guests = [Guest::new(true), Guest::new(true), Guest::new(true)];
    let backends = |ready: [bool; 3]| -> Vec<_> {
        let guests = guests.iter().zip(0..).zip(ready);
        guests
            .map(|((guest, number), ready)| guest.backend(number, ready))
            .collect()
    };
    let mut ports = hold(&["0:8080,ready"]);
    let _told = ports.lead_to(&backends([true, true, true]));
    let at = address(&ports);
    let mut held = vec![];
    for guest in guests.iter().cycle().take(6) {
        held.push((client(at), guest.accepted()));
    }
    assert_eq!(
        words(ports.lead_to(&backends([true, false, true]))),
        [""; 0]
    );
    for _ in 0..2 {
        held.push((client(at), guests[0].accepted()));
        held.push((client(at), guests[2].accepted()));
    }
    assert!(guests[1].accepted.try_recv().is_err());
}

#[test]
fn a_guest_that_refuses_resets() {
    let guest = Guest::new(false);
    let mut ports = hold(&["0:8080"]);
    let _told = ports.lead_to(&[guest.backend(0, false)]);
    let at = address(&ports);
    // No end as a server's would be. It may come while the connection is being made.
    let read = TcpStream::connect(at).and_then(|mut client| client.read(&mut [0]));
    let error = read.expect_err("it is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn so_many_connections_and_no_more() {
    let guest = Guest::new(true);
    let mut ports = hold(&["0:8080"]);
    let _told = ports.lead_to(&[guest.backend(0, false)]);
    let at = address(&ports);
    let mut held: Vec<_> = (0..MOST).map(|_| (client(at), guest.accepted())).collect();
    assert!(!guest.takes_one_more(at));
    held.pop();
    // One that has ended makes room, as soon as that is known.
    let until = Instant::now() + BOUND;
    while !guest.takes_one_more(at) {
        assert!(Instant::now() < until, "there is room");
    }
}

#[test]
fn nothing_is_left_of_a_run_that_is_over() {
    let guest = Guest::new(true);
    let mut ports = hold(&["0:8080"]);
    let _told = ports.lead_to(&[guest.backend(0, false)]);
    let at = address(&ports);
    let mut client = client(at);
    let (_, served) = guest.accepted();
    drop(ports);
    assert!(is_refused(at));
    assert!(client.read(&mut [0]).is_err());
    assert_eq!(rest(served), "");
    let _free = TcpListener::bind(at).expect("the port is free again");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("its address");
    let error = Ports::hold(&[Publish {
        at: taken,
        guest_port: 80,
        ready: false,
    }]);
    assert_eq!(
        error.expect_err("it is taken").to_string(),
        format!(
            "cannot publish {taken}: another program listens there; end it, or give another port, 0 for any \
             that is free"
        )
    );
    let nowhere = "203.0.113.1:0:80".parse().expect("an address");
    let error = Ports::hold(&[nowhere]).expect_err("not ours").to_string();
    assert!(
        error.contains("this machine has no such address"),
        "{error}"
    );
    // Between the hold and the guest, somebody who insists may take it.
    let guest = Guest::new(true);
    let mut ports = hold(&["0:8080"]);
    let thief = TcpListener::bind(address(&ports)).expect("it does not listen");
    let failed = ["InstanceId(0) PortFailed"];
    assert_eq!(words(ports.lead_to(&[guest.backend(0, false)])), failed);
    assert_eq!(words(ports.lead_to(&[guest.backend(0, true)])), [""; 0]);
    drop(thief);
    assert_eq!(
        words(ports.lead_to(&[guest.backend(0, false)])),
        ["InstanceId(0) PortOpened"]
    );
}
