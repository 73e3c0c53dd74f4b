// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One client of the multiplexer: what it asked, in order, and what it has yet to read.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use super::buffer::Buffer;
use super::framing::{Frame, Framer, Limits};
use super::message::{Malformed, Reply, Request, is_silent, is_sync};

/// Requests of one client that wait for their turn; beyond it the client is not read.
pub const QUEUED_REQUESTS: usize = 32;
/// Bytes of such requests, beyond which the client is not read.
pub const QUEUED_BYTES: usize = 16 << 20;
/// Answers in bytes that a client may leave unread and still have its next request served.
pub const UNREAD_BYTES: usize = 256 << 10;

/// Something a client wants.
#[derive(Debug)]
pub(super) enum Entry {
    /// A request for the agent.
    Ask(Request),
    /// What needs no agent, as a line.
    Answer(Vec<u8>),
}

impl Entry {
    fn size(&self) -> usize {
        match self {
            Self::Ask(request) => request.size(),
            Self::Answer(line) => line.len(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    framer: Framer,
    /// Bytes that came and have not been looked at.
    inbox: Buffer,
    queue: VecDeque<Entry>,
    queued: usize,
    output: Buffer,
    /// A request of this client is with the agent, and the client waits for it.
    pub(super) waits: bool,
    /// It will send no more.
    pub(super) finished: bool,
    /// It was told to be read.
    pub(super) reading: bool,
    /// Since when it has left answers unread.
    stalled: Option<u64>,
}

impl Client {
    pub(super) const fn new() -> Self {
        Self {
            framer: Framer::new(Limits::FROM_CLIENT),
            inbox: Buffer::new(),
            queue: VecDeque::new(),
            queued: 0,
            output: Buffer::new(),
            waits: false,
            finished: false,
            reading: true,
            stalled: None,
        }
    }

    /// Takes what the client sent.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.inbox.push(bytes);
    }

    /// Looks at what was sent, as far as there is room. True if the client gave up what it asked
    /// before: it sent a sync.
    pub(super) fn read_requests(&mut self) -> bool {
        let mut gave_up = false;
        while !self.inbox.is_empty() && self.has_room() {
            let mut rest = self.inbox.bytes();
            let before = rest.len();
            let frame = self.framer.next(&mut rest);
            let used = before.saturating_sub(rest.len());
            self.inbox.consume(used);
            let Some(frame) = frame else { break };
            let entry = read(frame);
            if matches!(&entry, Entry::Ask(request) if is_sync(&request.execute)) {
                self.drop_requests();
                gave_up = true;
            }
            self.queued = self.queued.saturating_add(entry.size());
            self.queue.push_back(entry);
        }
        gave_up
    }

    fn has_room(&self) -> bool {
        self.queue.len() < QUEUED_REQUESTS && self.queued < QUEUED_BYTES
    }

    /// There is room for more of what it sends.
    pub(super) const fn wants_reading(&self) -> bool {
        self.inbox.is_empty() && !self.finished
    }

    /// Complaints stay: an agent would have made them by now. So does what has no answer if it
    /// succeeds: the sync behind it is how a client learns that it did.
    fn drop_requests(&mut self) {
        self.queue.retain(|entry| match entry {
            Entry::Ask(request) => is_silent(&request.execute),
            Entry::Answer(_) => true,
        });
        self.queued = self.queue.iter().map(Entry::size).sum();
    }

    fn take(&mut self) -> Option<Entry> {
        let entry = self.queue.pop_front()?;
        self.queued = self.queued.saturating_sub(entry.size());
        Some(entry)
    }

    /// Answers what needs no agent and is next in turn. True if anything was.
    pub(super) fn answer_by_itself(&mut self, now: u64) -> bool {
        let mut any = false;
        while self.may_be_served() && matches!(self.queue.front(), Some(Entry::Answer(_))) {
            if let Some(Entry::Answer(line)) = self.take() {
                self.send(line, now);
                any = true;
            }
        }
        any
    }

    /// Its next request can go to the agent.
    pub(super) fn has_request(&self) -> bool {
        self.may_be_served() && matches!(self.queue.front(), Some(Entry::Ask(_)))
    }

    fn may_be_served(&self) -> bool {
        !self.waits && self.output.len() <= UNREAD_BYTES
    }

    pub(super) fn take_request(&mut self) -> Option<Request> {
        if !self.has_request() {
            return None;
        }
        match self.take()? {
            Entry::Ask(request) => Some(request),
            Entry::Answer(_) => None,
        }
    }

    /// Some request waits for the agent.
    pub(super) fn waits_for_agent(&self) -> bool {
        let ask = |entry: &Entry| matches!(entry, Entry::Ask(_));
        self.queue.iter().any(ask)
    }

    /// Turns the requests that wait into errors that say `desc`.
    pub(super) fn refuse(&mut self, desc: &str) {
        for entry in &mut self.queue {
            if let Entry::Ask(request) = entry {
                let line = Reply::error(desc).line(request.id.as_deref());
                *entry = Entry::Answer(line);
            }
        }
        self.queued = self.queue.iter().map(Entry::size).sum();
    }

    /// Nothing it asked is left to be done.
    pub(super) fn is_served(&self) -> bool {
        self.queue.is_empty() && self.inbox.is_empty() && !self.waits
    }

    pub(super) fn send(&mut self, line: Vec<u8>, now: u64) {
        if self.output.is_empty() {
            self.stalled = Some(now);
        }
        self.output.push_owned(line);
    }

    pub(super) fn output(&self) -> &[u8] {
        self.output.bytes()
    }

    pub(super) fn sent(&mut self, count: usize, now: u64) {
        self.output.consume(count);
        if self.output.is_empty() {
            self.stalled = None;
        } else if count > 0 {
            self.stalled = Some(now);
        }
    }

    /// Since when it has read nothing of what it has to read.
    pub(super) const fn stalled_since(&self) -> Option<u64> {
        self.stalled
    }
}

fn read(frame: Frame) -> Entry {
    match frame {
        Frame::Object { bytes, .. } => match Request::parse(&bytes) {
            Ok(request) => Entry::Ask(request),
            Err(malformed) => complain(&malformed),
        },
        // An agent complains about this byte too, which is no JSON; clients that send it know.
        Frame::Reset { .. } => complain_about("JSON parse error, stray byte 0xff".into()),
        Frame::Garbage { bytes } => complain_about(format!(
            "JSON parse error, {bytes} bytes that are no request or more than one can have"
        )),
    }
}

fn complain_about(desc: String) -> Entry {
    complain(&Malformed { desc, id: None })
}

fn complain(malformed: &Malformed) -> Entry {
    let id: Option<&RawValue> = malformed.id.as_deref();
    Entry::Answer(Reply::error(&malformed.desc).line(id))
}
