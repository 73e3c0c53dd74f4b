// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One client of the dial socket: its line, the answer to it, then bytes both ways, as far as each
//! side takes them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use event_manager::EventSet;

use crate::dial::{Answer, LINE_BYTES, Reason, Request};
use crate::link::{DialId, Link, Received};
use crate::process::listener::is_temporary;

/// As much as waits for either side here, beside what waits in the kernel and in the link.
pub(super) const CHUNK: usize = 8 << 10;
/// Chunks that one client's turn moves each way.
const TURN: usize = 16;
/// How long a client that is gone may keep its connection while the guest takes nothing of what it
/// has left behind, in ns.
const LINGER_NS: u64 = 30_000_000_000;

/// The link, as the dial socket sees it.
pub(super) trait Dials {
    fn dial(&mut self, request: &Request, now: u64) -> DialId;
    fn send(&mut self, id: DialId, bytes: &[u8]) -> usize;
    fn receive(&mut self, id: DialId, buffer: &mut [u8]) -> Received;
    fn finish(&mut self, id: DialId);
    fn close(&mut self, id: DialId);
}

impl Dials for Link {
    fn dial(&mut self, request: &Request, now: u64) -> DialId {
        Self::dial(self, request, now)
    }

    fn send(&mut self, id: DialId, bytes: &[u8]) -> usize {
        Self::send(self, id, bytes)
    }

    fn receive(&mut self, id: DialId, buffer: &mut [u8]) -> Received {
        Self::receive(self, id, buffer)
    }

    fn finish(&mut self, id: DialId) {
        Self::finish(self, id);
    }

    fn close(&mut self, id: DialId) {
        Self::close(self, id);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its line is not complete.
    Asks,
    /// The guest has not answered.
    Waits(DialId),
    /// The guest has accepted.
    Talks(DialId),
    /// It is told why not.
    Leaves,
}

/// What became of a client's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing more for now.
    Done,
    /// There is more to do at once.
    More,
    /// It has asked for this connection.
    Dialled(DialId),
    /// It is over and can be forgotten.
    Over,
}

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    state: State,
    /// The connection that it asked for.
    dial: Option<DialId>,
    /// The line so far, then what follows it and waits for the guest.
    input: Vec<u8>,
    /// What waits for the client.
    output: Vec<u8>,
    /// The client says no more.
    input_over: bool,
    /// The link knows.
    finished: bool,
    /// The guest says no more.
    output_over: bool,
    /// The client knows.
    shut: bool,
    /// The connection is over for the guest, too.
    ended: bool,
    /// The client is gone; what it left behind is given up then.
    gone: Option<u64>,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            state: State::Asks,
            dial: None,
            input: vec![],
            output: vec![],
            input_over: false,
            finished: false,
            output_over: false,
            shut: false,
            ended: false,
            gone: None,
        }
    }

    /// The connection that it asked for.
    pub(super) const fn dial(&self) -> Option<DialId> {
        self.dial
    }

    /// What is of use now; hanging up is told in any case, so a client that did is not watched.
    pub(super) fn wanted(&self) -> Option<EventSet> {
        if self.gone.is_some() {
            return None;
        }
        let reads = match self.state {
            State::Asks => true,
            State::Talks(_) => !self.input_over && self.input.is_empty(),
            State::Waits(_) | State::Leaves => false,
        };
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::IN, reads);
        wanted.set(EventSet::OUT, !self.output.is_empty());
        Some(wanted)
    }

    /// The guest's answer, or the link's.
    pub(super) fn answered(&mut self, answer: &Answer) {
        if let State::Waits(id) = self.state {
            self.state = match answer {
                Answer::Connected { .. } => State::Talks(id),
                Answer::Failed { .. } => State::Leaves,
            };
            self.output = answer.to_string().into_bytes();
        }
    }

    /// The connection is over for the guest.
    pub(super) const fn ended(&mut self) {
        self.ended = true;
    }

    /// The client has closed its end: what it said before is still for the guest.
    pub(super) fn hung_up(&mut self, now: u64) {
        if self.gone.is_none() {
            self.gone = Some(now.saturating_add(LINGER_NS));
            self.output.clear();
        }
    }

    /// When it is given up, if it is gone.
    pub(super) const fn given_up(&self) -> Option<u64> {
        self.gone
    }

    /// Does what can be done now. `scratch` has [`CHUNK`] bytes.
    pub(super) fn turn(&mut self, link: &mut impl Dials, scratch: &mut [u8], now: u64) -> Turn {
        match self.state {
            State::Asks => self.read_line(link, scratch, now),
            State::Waits(id) if self.gone.is_some() => {
                link.close(id);
                Turn::Over
            }
            State::Waits(_) => Turn::Done,
            State::Talks(id) => {
                for _ in 0..TURN {
                    let moved = self.relay(id, link, scratch, now);
                    if self.is_over() {
                        link.close(id);
                        return Turn::Over;
                    }
                    if !moved {
                        return Turn::Done;
                    }
                }
                Turn::More
            }
            State::Leaves => {
                self.write(now);
                if self.output.is_empty() {
                    return Turn::Over;
                }
                Turn::Done
            }
        }
    }

    /// Both sides have said everything and heard it, as far as they are still there.
    fn is_over(&self) -> bool {
        let said = self.ended || (self.input_over && self.input.is_empty());
        let heard = self.gone.is_some() || (self.output_over && self.output.is_empty());
        said && heard
    }

    fn read_line(&mut self, link: &mut impl Dials, scratch: &mut [u8], now: u64) -> Turn {
        let room = LINE_BYTES.saturating_sub(self.input.len());
        let buffer = scratch.get_mut(..room).unwrap_or_default();
        match self.stream.read(buffer) {
            Ok(0) => return Turn::Over,
            Ok(count) => self.input.extend(buffer.iter().take(count)),
            // One that is gone has said everything by now.
            Err(error) if is_temporary(&error) && self.gone.is_none() => return Turn::Done,
            Err(_) => return Turn::Over,
        }
        let end = self.input.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            if self.input.len() < LINE_BYTES {
                return Turn::Done;
            }
            return self.refuse(
                &format!("there is no line in the first {LINE_BYTES} bytes"),
                now,
            );
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        match String::from_utf8_lossy(&line).parse() {
            Ok(request) => {
                let id = link.dial(&request, now);
                self.state = State::Waits(id);
                self.dial = Some(id);
                Turn::Dialled(id)
            }
            Err(error) => self.refuse(&error.to_string(), now),
        }
    }

    fn refuse(&mut self, text: &str, now: u64) -> Turn {
        self.state = State::Leaves;
        let reason = Reason::BadRequest;
        self.output = failure(reason, text).into_bytes();
        self.write(now);
        if self.output.is_empty() {
            Turn::Over
        } else {
            Turn::Done
        }
    }

    /// Moves what fits, once each way; whether anything moved.
    fn relay(&mut self, id: DialId, link: &mut impl Dials, scratch: &mut [u8], now: u64) -> bool {
        let mut moved = self.write(now) || self.read(scratch, now);
        if !self.input.is_empty() {
            let sent = link.send(id, &self.input).min(self.input.len());
            self.input.drain(..sent);
            moved |= sent > 0;
            if sent > 0 && self.gone.is_some() {
                self.gone = Some(now.saturating_add(LINGER_NS));
            }
        }
        if self.input_over && self.input.is_empty() && !self.finished {
            self.finished = true;
            link.finish(id);
        }
        if self.output.is_empty() && !self.output_over && self.gone.is_none() {
            match link.receive(id, scratch) {
                Received::Bytes(count) => self.output.extend(scratch.iter().take(count)),
                Received::Finished => self.output_over = true,
                // What a guest had said before it was reset is lost.
                Received::Nothing => self.output_over = self.ended,
            }
        }
        moved |= self.write(now);
        // One that is over is closed next.
        if self.output_over && self.output.is_empty() && !self.shut && !self.is_over() {
            self.shut = true;
            // It fails for a client that is gone.
            let _shut = self.stream.shutdown(Shutdown::Write);
        }
        moved
    }

    /// Reads once the guest has everything from before; whether there was something.
    fn read(&mut self, scratch: &mut [u8], now: u64) -> bool {
        if self.input_over || !self.input.is_empty() {
            return false;
        }
        match self.stream.read(scratch) {
            Ok(0) => self.input_over = true,
            Ok(count) => self.input.extend(scratch.iter().take(count)),
            Err(error) if is_temporary(&error) => self.input_over = self.gone.is_some(),
            Err(_) => {
                self.input_over = true;
                self.hung_up(now);
            }
        }
        !self.input.is_empty()
    }

    /// Whether the client took something.
    fn write(&mut self, now: u64) -> bool {
        if self.output.is_empty() {
            return false;
        }
        match self.stream.write(&self.output) {
            Ok(count) => {
                self.output.drain(..count.min(self.output.len()));
                count > 0
            }
            Err(error) if is_temporary(&error) => false,
            Err(_) => {
                self.hung_up(now);
                false
            }
        }
    }
}

/// The line that says why not.
pub(super) fn failure(reason: Reason, text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let mut line = Answer::Failed { reason, text }.to_string();
    while line.len() > LINE_BYTES {
        // The line feed, and the character before it.
        line.truncate(line.len().saturating_sub(1));
        line.pop();
        line.push('\n');
    }
    line
}
