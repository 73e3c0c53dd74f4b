// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's end of one agent channel: in step with the agent, one request at a time.
//!
//! Whenever the channel opens, and whenever something came that nobody expected, a
//! `guest-sync-delimited` goes out first; what comes before its answer belongs to the past. Each
//! request has a tag of our own, which the agent echoes (qemu-ga since 3.1; with an agent that does
//! not, order alone tells).
//!
//! An agent that does not know `guest-sync-delimited` is asked for `guest-sync`, which is all that
//! libvirt uses.
//!
//! *Observed with qemu-ga 7.2:* the 0xFF before a sync provokes one error line; the agent works off
//! its requests one by one, in order.

use super::buffer::Buffer;
use super::framing::{Frame, Framer, Limits};
use super::message::{ErrorParts, Reply, is_silent, request_line};
use super::numbers::Numbers;

/// A sync that was taken and not answered is sent again after this long, in ns, and then after
/// twice as long each time, up to 64 times this.
pub const SYNC_RETRY_NS: u64 = 500_000_000;

/// How much is kept of what an agent says that cannot be asked anything, in characters.
const REFUSAL_SHOWN: usize = 200;
/// What nobody has asked for is kept up to so many bytes: more than any answer to a sync has.
pub const UNASKED_BYTES: usize = 16 << 10;
const DELIMITED: &str = "guest-sync-delimited";

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// The answer to the request under way.
    Reply(Reply),
    /// The request under way succeeded, and such a request has no answer then.
    Silence,
    /// The agent is in step again, and the answer to the request under way never came.
    Lost,
    /// The agent is in step, and nothing is under way.
    InStep,
    /// The agent answered the sync itself with an error. The sync will be tried again.
    SyncRefused(Reply),
}

#[derive(Debug)]
struct Sync {
    number: u64,
    tag: Option<u64>,
    attempt: u32,
    retry_at: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Syncing(Sync),
    InStep,
}

/// How the agent deals with tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tags {
    /// As far as is known it echoes them.
    Echoed,
    /// It does not, or takes them for a mistake.
    Unknown,
}

/// By which command it gets in step with the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// `guest-sync-delimited`.
    Delimited,
    /// `guest-sync`, as the agent has refused the other.
    Plain,
}

#[derive(Debug)]
struct Awaited {
    tag: u64,
    /// It has been sent once so many bytes of the stream have.
    sent_at: u64,
    silent: bool,
    /// Nobody wants its answer any more.
    unwanted: bool,
}

/// One end of a channel.
#[derive(Debug)]
pub struct Dialogue {
    framer: Framer,
    output: Buffer,
    pushed: u64,
    numbers: Numbers,
    state: State,
    tags: Tags,
    manner: Manner,
    /// What the agent says that knows neither command.
    refusal: Option<String>,
    awaited: Option<Awaited>,
    suspect: bool,
    strays: u64,
}

impl Dialogue {
    /// A closed channel. `seed` makes its numbers differ from those of others.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self::with_limits(seed, Limits::FROM_AGENT)
    }

    /// The same for an owner that takes other answers than [`Limits::FROM_AGENT`]: what exceeds
    /// them is noise.
    #[must_use]
    pub const fn with_limits(seed: u64, limits: Limits) -> Self {
        Self {
            framer: Framer::new(limits),
            output: Buffer::new(),
            pushed: 0,
            numbers: Numbers::new(seed),
            state: State::Closed,
            tags: Tags::Echoed,
            manner: Manner::Delimited,
            refusal: None,
            awaited: None,
            suspect: false,
            strays: 0,
        }
    }

    /// The channel is open, to an agent of which nothing is known.
    pub fn open(&mut self, now: u64) {
        self.close();
        self.tags = Tags::Echoed;
        self.manner = Manner::Delimited;
        self.sync(now, 0);
    }

    /// The channel is closed; all that was under way is forgotten.
    pub fn close(&mut self) {
        self.framer.restart();
        self.output.clear();
        self.state = State::Closed;
        self.refusal = None;
        self.awaited = None;
        self.suspect = false;
    }

    /// Somebody is at the other end.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    /// A request is under way.
    #[must_use]
    pub const fn is_awaiting(&self) -> bool {
        self.awaited.is_some()
    }

    /// What the agent says if it refuses both commands for getting in step.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Bytes of an unfinished message that are kept.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.framer.held()
    }

    /// What came and was nobody's, in messages.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// Whether a request can be made now. If something was out of step, this puts it right first;
    /// [`Heard::InStep`] tells when.
    #[must_use]
    pub fn is_ready(&mut self, now: u64) -> bool {
        let in_step = matches!(self.state, State::InStep) && self.awaited.is_none();
        if in_step && self.suspect {
            self.sync(now, 0);
            return false;
        }
        in_step
    }

    /// Makes a request, with an object as its arguments; for when [`Self::is_ready`].
    pub fn ask(&mut self, execute: &str, arguments: Option<&str>, now: u64) {
        let tag = self.numbers.tag();
        let told = (self.tags == Tags::Echoed).then_some(tag);
        self.push(request_line(execute, arguments, told));
        let silent = is_silent(execute);
        self.awaited = Some(Awaited {
            tag,
            sent_at: self.pushed,
            silent,
            unwanted: false,
        });
        if silent {
            // The agent works in order: a sync that is answered says that the request is done.
            self.sync(now, 0);
        }
    }

    /// Nobody wants the answer any more. True if the request had not left yet: then it never will.
    pub fn withdraw(&mut self, now: u64) -> bool {
        if let Some(awaited) = &mut self.awaited {
            awaited.unwanted = true;
        }
        let sent = self.pushed.saturating_sub(as_u64(self.output.len()));
        let left = |awaited: &Awaited| awaited.sent_at <= sent;
        if self.awaited.as_ref().is_none_or(left) {
            return false;
        }
        self.awaited = None;
        self.output.clear();
        self.sync(now, 0);
        true
    }

    /// Nobody wants the answer any more, and nobody will wait for it: whatever comes next begins
    /// with a sync.
    pub fn abandon(&mut self, now: u64) {
        self.suspect = true;
        if !self.withdraw(now) {
            self.awaited = None;
        }
    }

    /// Sends a sync that is not answered yet once more, now.
    pub fn sync_again(&mut self, now: u64) {
        if matches!(self.state, State::Syncing(_)) && self.output.is_empty() {
            self.sync(now, 0);
        }
    }

    /// Gets in step anew; what comes before is of the past, an answer to the request under way
    /// excepted.
    pub fn resync(&mut self, now: u64) {
        if matches!(self.state, State::InStep) {
            self.sync(now, 0);
        }
    }

    /// What to send.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.bytes()
    }

    /// The first `count` bytes of it were taken.
    pub fn sent(&mut self, count: usize) {
        self.output.consume(count);
    }

    /// When to call [`Self::timer`].
    #[must_use]
    pub const fn next_due(&self) -> Option<u64> {
        match &self.state {
            State::Syncing(sync) => Some(sync.retry_at),
            _ => None,
        }
    }

    /// Time has passed.
    pub fn timer(&mut self, now: u64) {
        let State::Syncing(sync) = &mut self.state else {
            return;
        };
        if now < sync.retry_at {
            return;
        }
        if self.output.is_empty() {
            let attempt = sync.attempt.saturating_add(1);
            self.sync(now, attempt);
        } else {
            // The last one still waits to be taken: another would only be one more.
            sync.retry_at = retry_at(now, sync.attempt);
        }
    }

    /// Listens, until something is heard or `input` is used up.
    pub fn hear(&mut self, input: &mut &[u8], now: u64) -> Option<Heard> {
        while let Some(frame) = self.next_frame(input) {
            let heard = match frame {
                Frame::Object { bytes, delimited } => self.object(&bytes, delimited, now),
                Frame::Reset { discarded: 0 } => None,
                // It may have been the answer, which is not read for that.
                Frame::Garbage { .. } if self.awaits_what_nobody_wants() => {
                    self.resync(now);
                    None
                }
                Frame::Reset { .. } | Frame::Garbage { .. } => {
                    self.stray(now);
                    None
                }
            };
            if heard.is_some() {
                return heard;
            }
        }
        None
    }

    fn awaits_what_nobody_wants(&self) -> bool {
        self.awaited
            .as_ref()
            .is_some_and(|awaited| awaited.unwanted)
    }

    fn next_frame(&mut self, input: &mut &[u8]) -> Option<Frame> {
        let wanted = |awaited: &Awaited| !awaited.unwanted && !awaited.silent;
        let worth = if self.awaited.as_ref().is_some_and(wanted) {
            usize::MAX
        } else {
            UNASKED_BYTES
        };
        self.framer.keep_at_most(worth);
        self.framer.next(input)
    }

    fn object(&mut self, bytes: &[u8], delimited: bool, now: u64) -> Option<Heard> {
        let Some(reply) = Reply::parse(bytes) else {
            self.stray(now);
            return None;
        };
        match &self.state {
            State::Closed => None,
            State::Syncing(sync) => {
                let tagged = sync.tag.is_some() && reply.tag() == sync.tag;
                let behind_its_byte = delimited || self.manner == Manner::Plain;
                if behind_its_byte && reply.number() == Some(sync.number) {
                    return Some(self.synced(tagged));
                }
                self.while_syncing(reply, tagged, now)
            }
            State::InStep => self.in_step(reply, now),
        }
    }

    fn synced(&mut self, tagged: bool) -> Heard {
        self.state = State::InStep;
        self.refusal = None;
        self.suspect = false;
        self.tags = if tagged { Tags::Echoed } else { Tags::Unknown };
        match self.awaited.take() {
            None => Heard::InStep,
            Some(awaited) if awaited.silent => Heard::Silence,
            Some(_) => Heard::Lost,
        }
    }

    fn while_syncing(&mut self, reply: Reply, tagged: bool, now: u64) -> Option<Heard> {
        if self.is_awaited(&reply) {
            self.awaited = None;
            return Some(Heard::Reply(reply));
        }
        let parts = reply.error_parts()?;
        if is_unknown(&parts) {
            return self.sync_unknown(reply, &parts, tagged, now);
        }
        if tagged {
            return Some(Heard::SyncRefused(reply));
        }
        if self.tags == Tags::Echoed && refuses_tags(&parts.desc) {
            self.tags = Tags::Unknown;
            self.sync(now, 0);
        }
        None
    }

    /// The agent does not know the command by which it was to get in step.
    fn sync_unknown(
        &mut self,
        reply: Reply,
        parts: &ErrorParts,
        tagged: bool,
        now: u64,
    ) -> Option<Heard> {
        match self.manner {
            Manner::Delimited => {
                self.manner = Manner::Plain;
                self.sync(now, 0);
                None
            }
            // The second answer to a command that was sent twice.
            Manner::Plain if !tagged && parts.desc.contains(DELIMITED) => None,
            Manner::Plain => {
                self.refusal = Some(parts.desc.chars().take(REFUSAL_SHOWN).collect());
                Some(Heard::SyncRefused(reply))
            }
        }
    }

    fn in_step(&mut self, reply: Reply, now: u64) -> Option<Heard> {
        // Without a tag, order tells; an agent that echoes tags leaves them out of complaints about
        // what it could not read at all.
        let by_order = self.awaited.is_some()
            && reply.id.is_none()
            && (self.tags == Tags::Unknown || reply.result.is_err());
        if by_order || self.is_awaited(&reply) {
            self.awaited = None;
            return Some(Heard::Reply(reply));
        }
        self.stray(now);
        None
    }

    fn is_awaited(&self, reply: &Reply) -> bool {
        let awaited = self.awaited.as_ref();
        self.tags == Tags::Echoed && awaited.is_some_and(|awaited| reply.tag() == Some(awaited.tag))
    }

    fn stray(&mut self, now: u64) {
        self.strays = self.strays.saturating_add(1);
        self.suspect = true;
        // What came may have been, or have spoilt, the answer that is waited for.
        if self.awaited.is_some() {
            self.resync(now);
        }
    }

    fn sync(&mut self, now: u64, attempt: u32) {
        let number = self.numbers.sync();
        let tag = (self.tags == Tags::Echoed).then(|| self.numbers.tag());
        let arguments = format!("{{\"id\": {number}}}");
        let (mut line, command) = match self.manner {
            Manner::Delimited => (vec![0xff], DELIMITED),
            Manner::Plain => (vec![], "guest-sync"),
        };
        line.extend(request_line(command, Some(&arguments), tag));
        self.push(line);
        self.state = State::Syncing(Sync {
            number,
            tag,
            attempt,
            retry_at: retry_at(now, attempt),
        });
    }

    fn push(&mut self, line: Vec<u8>) {
        self.pushed = self.pushed.saturating_add(as_u64(line.len()));
        self.output.push_owned(line);
    }
}

/// The agent has no such command, or none for us.
fn is_unknown(error: &ErrorParts) -> bool {
    matches!(&*error.class, "CommandNotFound" | "CommandDisabled")
}

/// qemu-ga before 3.1 takes a tag for a mistake, and names it.
fn refuses_tags(desc: &str) -> bool {
    desc.contains("'id'") && desc.contains("unexpected")
}

fn retry_at(now: u64, attempt: u32) -> u64 {
    let times = 1u64 << attempt.min(6);
    now.saturating_add(SYNC_RETRY_NS.saturating_mul(times))
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
