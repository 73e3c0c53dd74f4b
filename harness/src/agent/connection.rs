// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The socket and the clock around a [`Session`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::Value;

use super::AgentError;
use super::session::{Answer, Session};
use crate::moment::Moment;
use crate::socket::{self, BUSY_RETRY};

const CHUNK: usize = 64 << 10;

/// A guest agent's socket, connected anew whenever that is needed. One request at a time.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    socket: Option<OwnedFd>,
    session: Session,
    beginning: Instant,
    chunk: Vec<u8>,
}

impl Connection {
    /// Connects to the socket at `path`, which may be any VMM's.
    ///
    /// # Errors
    /// [`AgentError::Socket`] if nobody listens there.
    pub fn open(path: &Path) -> Result<Self, AgentError> {
        let mut connection = Self {
            path: path.to_owned(),
            socket: None,
            session: Session::new(seed()),
            beginning: Instant::now(),
            chunk: vec![0; CHUNK],
        };
        connection.connect()?;
        Ok(connection)
    }

    /// Asks the agent, and waits for its answer until `deadline`: that is the longest it takes,
    /// everything included. `arguments` is an object, or null for none; the answer is the return
    /// value, null for a command that has none.
    ///
    /// # Errors
    /// Why there is no answer. After any of them the next call begins afresh.
    pub fn call(&mut self, command: &str, arguments: &Value, deadline: Instant) -> Answer {
        self.drain();
        let by = self.moment(deadline);
        let now = self.now();
        self.session.begin(command, arguments, by, now);
        loop {
            if let Some(answer) = self.step()? {
                return answer;
            }
        }
    }

    fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    fn moment(&self, instant: Instant) -> Moment {
        Moment::ZERO.after(instant.saturating_duration_since(self.beginning))
    }

    /// Sends, waits and receives, once. The error is one of [`Self::connect`]'s.
    fn step(&mut self) -> Result<Option<Answer>, AgentError> {
        if self.socket.is_none()
            && let Err(error) = self.connect()
        {
            let now = self.now();
            self.session.give_up(now);
            return Err(error);
        }
        let answer = match self.exchange() {
            Ok(answer) => answer,
            Err(error) => self.broken(&error),
        };
        if answer.is_some() {
            return Ok(answer);
        }
        let now = self.now();
        Ok(self.session.timer(now))
    }

    fn exchange(&mut self) -> io::Result<Option<Answer>> {
        self.send()?;
        self.wait()?;
        self.receive()
    }

    fn broken(&mut self, error: &io::Error) -> Option<Answer> {
        self.socket = None;
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                "the other side closed it".into()
            }
            _ => socket::cause(error),
        };
        self.session.disconnected(&why)
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        while !self.session.output().is_empty() {
            let flags = rustix::net::SendFlags::NOSIGNAL;
            match rustix::net::send(socket, self.session.output(), flags) {
                Ok(count) => self.session.sent(count),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Until something can be read or sent, or the session's time has come.
    fn wait(&self) -> io::Result<()> {
        let due = self.session.next_due().unwrap_or(Moment::ZERO);
        let mut time = due.since(self.now());
        let Some(socket) = &self.socket else {
            // No room at the other side, and nothing that would tell when there is.
            std::thread::sleep(time.min(BUSY_RETRY));
            return Ok(());
        };
        let mut flags = PollFlags::IN;
        if !self.session.output().is_empty() {
            flags |= PollFlags::OUT;
        }
        // A deadline centuries away is beyond what the kernel's time holds.
        time = time.min(Duration::from_secs(86_400));
        let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What there is, one piece of it, so that a flood cannot outlast the deadline.
    fn receive(&mut self) -> io::Result<Option<Answer>> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        match rustix::io::read(socket, &mut self.chunk[..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                let now = self.now();
                let bytes = self.chunk.get(..count).unwrap_or_default();
                Ok(self.session.received(bytes, now))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads off what came since the last call, and notices if the other side has gone meanwhile.
    fn drain(&mut self) {
        // Not for ever: a flood is dealt with under the deadline.
        for _ in 0..16 {
            let Some(socket) = &self.socket else { return };
            match rustix::io::read(socket, &mut self.chunk[..]) {
                Ok(count) if count > 0 => {
                    let now = self.now();
                    let bytes = self.chunk.get(..count).unwrap_or_default();
                    // Nothing is under way: what comes is nobody's.
                    drop(self.session.received(bytes, now));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => {
                    self.socket = None;
                    drop(self.session.disconnected(""));
                }
            }
        }
    }

    /// Connects. If the other side has no room for more, there is no socket yet and no error.
    fn connect(&mut self) -> Result<(), AgentError> {
        let connected = socket::connect_unix(&self.path).map_err(AgentError::Socket)?;
        let Some(socket) = connected else {
            return Ok(());
        };
        self.socket = Some(socket);
        let now = self.now();
        self.session.connected(now);
        Ok(())
    }
}

/// No two connections of this machine have the same.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
