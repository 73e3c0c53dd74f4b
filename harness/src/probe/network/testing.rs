// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's servers: real sockets behind the dial protocol, each connection played in a thread.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kennel_vmm::dial::{Answer, GUEST_IPV4, Reason, Request};

use super::{Limit, NetworkRunner, Outcome};
use crate::spec::{Handler, HttpGet, IpFamily, TcpSocket};

/// No test waits for it: what depends on time has a deadline of its own.
const HOUR: Duration = Duration::from_secs(3600);

/// One connection, seen by the server.
pub(super) struct Peer {
    stream: Box<dyn Stream>,
    /// What the client dialled.
    pub(super) dialled: Request,
}

pub(super) trait Stream: Read + Write + Send {
    fn finish(&self);
}

impl Stream for UnixStream {
    fn finish(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Stream for TcpStream {
    fn finish(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Peer {
    /// The guest accepts.
    pub(super) fn accept(&mut self) {
        let answer = Answer::Connected {
            address: GUEST_IPV4.into(),
            port: self.dialled.port,
        };
        self.say(answer.to_string());
    }

    /// It does not.
    pub(super) fn fail(&mut self, reason: Reason, text: &str) {
        let text = text.to_owned();
        self.say(Answer::Failed { reason, text }.to_string());
    }

    /// Says this. A client that has heard enough may be gone.
    pub(super) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _heard = self.stream.write_all(bytes.as_ref());
    }

    /// Says this over and over, until nobody listens.
    pub(super) fn say_for_ever(&mut self, bytes: impl AsRef<[u8]>) {
        while self.stream.write_all(bytes.as_ref()).is_ok() {}
    }

    /// A request's lines, up to the empty one.
    pub(super) fn hear(&mut self) -> String {
        let mut heard = Vec::new();
        let mut byte = [0];
        while !heard.ends_with(b"\r\n\r\n") && self.stream.read(&mut byte).unwrap() > 0 {
            heard.push(byte[0]);
        }
        String::from_utf8(heard).unwrap()
    }

    /// Stays until the client is gone.
    pub(super) fn stay(&mut self) {
        let _gone = self.stream.read_to_end(&mut Vec::new());
    }

    /// Says no more, and stays.
    pub(super) fn finish(&mut self) {
        self.stream.finish();
        self.stay();
    }

    /// The bytes themselves, for TLS.
    pub(super) fn stream(&mut self) -> &mut dyn Stream {
        self.stream.as_mut()
    }
}

/// A guest whose every connection goes so, and what was dialled.
pub(super) struct Guest {
    folder: tempfile::TempDir,
    dialled: Arc<Mutex<Vec<Request>>>,
}

impl Guest {
    /// `play` gets each connection before it is accepted.
    pub(super) fn dialled(play: impl Fn(&mut Peer) + Clone + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("a.dial")).unwrap();
        let dialled = Arc::new(Mutex::new(Vec::new()));
        let guest = Self {
            folder,
            dialled: dialled.clone(),
        };
        // Its thread waits until the process ends.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, play, dialled) = (stream.unwrap(), play.clone(), dialled.clone());
                thread::spawn(move || {
                    let request = request(&mut stream);
                    dialled.lock().unwrap().push(request);
                    play(&mut Peer {
                        stream: Box::new(stream),
                        dialled: request,
                    });
                });
            }
        });
        guest
    }

    /// `play` gets each connection once it is accepted.
    pub(super) fn new(play: impl Fn(&mut Peer) + Clone + Send + 'static) -> Self {
        Self::dialled(move |peer| {
            peer.accept();
            play(peer);
        })
    }

    /// Each request, without its empty line, is answered so, and the connection closed.
    pub(super) fn answering(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        Self::new(move |peer| {
            let request = peer.hear();
            peer.say(answer(request.trim_end()));
        })
    }

    /// A guest with one answer to everything.
    pub(super) fn saying(answer: &'static str) -> Self {
        Self::answering(move |_| answer.to_owned())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("a.dial")
    }

    /// What was dialled until now.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.dialled.lock().unwrap().clone()
    }

    pub(super) fn probe(&self, handler: Handler) -> Outcome {
        self.probe_over(handler, IpFamily::Ipv4, HOUR)
    }

    /// One attempt that has `time` and says that it had 1 s.
    pub(super) fn probe_over(&self, handler: Handler, family: IpFamily, time: Duration) -> Outcome {
        let second = Duration::from_secs(1);
        let mut runner = NetworkRunner::new(handler, second, family, &self.socket());
        runner.attempt(Instant::now() + time)
    }
}

/// The client's line, byte by byte: what follows is the server's.
fn request(stream: &mut UnixStream) -> Request {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap().parse().unwrap()
}

/// A server on this host's loopback, and its port.
pub(super) fn on_loopback(play: impl Fn(&mut Peer) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            play(&mut Peer {
                stream: Box::new(stream.unwrap()),
                dialled: Request {
                    target: kennel_vmm::dial::Target::GuestIpv4,
                    port,
                    timeout: HOUR,
                },
            });
        }
    });
    port
}

pub(super) fn in_time() -> Limit {
    Limit {
        deadline: Instant::now() + HOUR,
        timeout: HOUR,
    }
}

/// `httpGet` with port 8080.
pub(super) fn page(path: &str) -> HttpGet {
    HttpGet {
        port: 8080,
        path: path.to_owned(),
        host: None,
        https: false,
        headers: Vec::new(),
    }
}

pub(super) fn http(path: &str) -> Handler {
    Handler::HttpGet(page(path))
}

pub(super) fn tcp(host: Option<&str>, port: u16) -> Handler {
    Handler::TcpSocket(TcpSocket {
        port,
        host: host.map(str::to_owned),
    })
}
