// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What lies beyond the probe host on the guest's link: passt or a TAP device, tried again for as
//! long as it does not work. The guest and its probes do without it meanwhile.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use event_manager::{EventOps, EventSet, Events};

mod back_off;
mod framing;
mod last_words;
mod passt;
mod tap;

use self::back_off::{BackOff, LONGEST_NS};
use self::passt::Passt;
use self::tap::Tap;
use crate::config;
use crate::protocol::News;

/// A passt that has not ended after this many ns works, also if it answers nothing.
const SETTLED_NS: u64 = 2_000_000_000;

/// Which of an uplink's descriptors an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Frames.
    Frames,
    /// What the child complains of.
    Messages,
    /// The child's end.
    Exit,
}

/// The events' data for each part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) frames: u32,
    pub(super) messages: u32,
    pub(super) exit: u32,
}

/// What is used.
#[derive(Debug)]
enum Kind {
    Passt(PathBuf),
    Tap(String),
}

#[derive(Debug)]
enum State {
    /// Not there; tried again then.
    Waits {
        until: u64,
    },
    Passt {
        passt: Box<Passt>,
        since: u64,
        works: bool,
        waits_for_room: bool,
    },
    Tap {
        tap: Tap,
        since: u64,
    },
}

/// An uplink.
#[derive(Debug)]
pub(super) struct Uplink {
    kind: Kind,
    guest_mac: [u8; 6],
    host_mac: [u8; 6],
    data: Data,
    state: State,
    back_off: BackOff,
    /// The last failure that was told, since it worked last.
    told: Option<String>,
    news: Vec<News>,
}

impl Uplink {
    /// The uplink that a machine is to have, to be tried as soon as time passes; `None` if none.
    pub(super) fn new(
        wanted: &config::Uplink,
        guest_mac: [u8; 6],
        host_mac: [u8; 6],
        data: Data,
    ) -> Option<Self> {
        let kind = match wanted {
            config::Uplink::None => return None,
            config::Uplink::Passt => Kind::Passt(PathBuf::from("passt")),
            config::Uplink::Tap(name) => Kind::Tap(name.clone()),
        };
        Some(Self {
            kind,
            guest_mac,
            host_mac,
            data,
            state: State::Waits { until: 0 },
            back_off: BackOff::default(),
            told: None,
            news: vec![],
        })
    }

    /// What happened that the supervisor wants to know.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// When to call [`Self::time_passed`].
    pub(super) fn next_due(&self) -> Option<u64> {
        match &self.state {
            State::Waits { until } => Some(*until),
            State::Passt {
                since,
                works: false,
                ..
            } => Some(since.saturating_add(SETTLED_NS)),
            State::Passt { .. } | State::Tap { .. } => None,
        }
    }

    /// Tries it when that is due.
    pub(super) fn time_passed(&mut self, now: u64, ops: &mut EventOps<'_>) {
        if self.next_due().is_none_or(|due| now < due) {
            return;
        }
        if matches!(self.state, State::Waits { .. }) {
            self.start(now, ops);
        } else {
            self.works();
        }
    }

    /// Queues a frame, or drops it.
    pub(super) fn send(&mut self, frame: &[u8]) {
        match &mut self.state {
            State::Waits { .. } => {}
            State::Passt { passt, .. } => {
                let _queued_or_dropped = passt.writer.push(frame);
            }
            State::Tap { tap, .. } => tap.send(frame),
        }
    }

    /// Writes what was queued, as far as it is taken.
    pub(super) fn flush(&mut self, ops: &mut EventOps<'_>) {
        let State::Passt {
            passt,
            waits_for_room,
            ..
        } = &mut self.state
        else {
            return;
        };
        if passt.writer.is_empty() && !*waits_for_room {
            return;
        }
        if passt.socket.is_some() && !passt.write() {
            return self.hang_up(ops);
        }
        let waits = !passt.writer.is_empty();
        if waits != *waits_for_room
            && let Some(socket) = &passt.socket
        {
            let mut wanted = EventSet::IN;
            wanted.set(EventSet::OUT, waits);
            let events = Events::with_data(socket, self.data.frames, wanted);
            if ops.modify(events).is_ok() {
                *waits_for_room = waits;
            }
        }
    }

    /// One of its descriptors has something to say; frames go to `sink`.
    pub(super) fn event(
        &mut self,
        part: Part,
        now: u64,
        ops: &mut EventOps<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) {
        match (part, &mut self.state) {
            (_, State::Waits { .. }) => {}
            (Part::Frames, State::Passt { .. }) => self.read_passt(ops, sink),
            (Part::Frames, State::Tap { tap, .. }) => {
                if let Err(error) = tap.read(sink) {
                    self.lose_tap(&error, now, ops);
                }
            }
            (Part::Messages, State::Passt { passt, .. }) => {
                if !passt.hear()
                    && let Some(messages) = passt.messages.take()
                {
                    unwatch(&messages, ops);
                }
            }
            (Part::Exit, State::Passt { passt, since, .. }) => {
                let since = *since;
                if let Some(message) = passt.obituary() {
                    Self::unwatch_passt(passt, ops);
                    self.failed(message, now.saturating_sub(since), now);
                }
            }
            (Part::Messages | Part::Exit, State::Tap { .. }) => {}
        }
    }

    fn read_passt(&mut self, ops: &mut EventOps<'_>, sink: &mut dyn FnMut(&[u8])) {
        let State::Passt { passt, works, .. } = &mut self.state else {
            return;
        };
        let mut answers = false;
        let mut sink = |frame: &[u8]| {
            answers = true;
            sink(frame);
        };
        let goes_on = passt.read(&mut sink);
        if answers && !*works {
            self.works();
        }
        if !goes_on {
            self.hang_up(ops);
        }
    }

    fn start(&mut self, now: u64, ops: &mut EventOps<'_>) {
        let started = match &self.kind {
            Kind::Passt(program) => self.start_passt(&program.clone(), now, ops),
            Kind::Tap(name) => Tap::open(name, self.host_mac).and_then(|tap| {
                let events = Events::with_data(&tap.file, self.data.frames, EventSet::IN);
                watch(events, ops)?;
                self.state = State::Tap { tap, since: now };
                Ok(())
            }),
        };
        match started {
            Ok(()) if matches!(self.kind, Kind::Tap(_)) => self.works(),
            Ok(()) => {}
            Err(message) => self.failed(message, 0, now),
        }
    }

    fn start_passt(
        &mut self,
        program: &std::path::Path,
        now: u64,
        ops: &mut EventOps<'_>,
    ) -> Result<(), String> {
        let mut passt = Passt::start(program).map_err(|error| {
            let program = program.display();
            match error.kind() {
                ErrorKind::NotFound => format!(
                    "the program {program} is not there: install the package passt (sudo apt-get \
                     install passt, sudo dnf install passt), or give the guest no uplink"
                ),
                _ => format!("the program {program} cannot be started: {error}"),
            }
        })?;
        if let Err(message) = self.watch_passt(&passt, ops) {
            Self::unwatch_passt(&passt, ops);
            return Err(message);
        }
        // Its answer is how we know that it works.
        let _queued = passt.writer.push(&passt::question(self.guest_mac));
        self.state = State::Passt {
            passt: Box::new(passt),
            since: now,
            works: false,
            waits_for_room: false,
        };
        self.flush(ops);
        Ok(())
    }

    fn works(&mut self) {
        if let State::Passt { works, .. } = &mut self.state {
            *works = true;
        }
        self.told = None;
        self.news.push(News::UplinkUp);
    }

    /// No more frames from or to passt: it is to end now, and its end will tell why.
    fn hang_up(&mut self, ops: &mut EventOps<'_>) {
        if let State::Passt { passt, .. } = &mut self.state {
            if let Some(socket) = passt.socket.take() {
                unwatch(&socket, ops);
            }
            passt.kill();
        }
    }

    fn watch_passt(&self, passt: &Passt, ops: &mut EventOps<'_>) -> Result<(), String> {
        if let Some(socket) = &passt.socket {
            watch(
                Events::with_data(socket, self.data.frames, EventSet::IN),
                ops,
            )?;
        }
        if let Some(messages) = &passt.messages {
            watch(
                Events::with_data(messages, self.data.messages, EventSet::IN),
                ops,
            )?;
        }
        watch(
            Events::with_data(&passt.exit, self.data.exit, EventSet::IN),
            ops,
        )
    }

    fn unwatch_passt(passt: &Passt, ops: &mut EventOps<'_>) {
        if let Some(socket) = &passt.socket {
            unwatch(socket, ops);
        }
        if let Some(messages) = &passt.messages {
            unwatch(messages, ops);
        }
        unwatch(&passt.exit, ops);
    }

    fn lose_tap(&mut self, error: &std::io::Error, now: u64, ops: &mut EventOps<'_>) {
        let State::Tap { tap, since } = &self.state else {
            return;
        };
        unwatch(&tap.file, ops);
        let worked = now.saturating_sub(*since);
        let Kind::Tap(name) = &self.kind else { return };
        let message = format!("the TAP device {name} is gone: {error}");
        self.failed(message, worked, now);
    }

    /// Tells it, unless that was told already and nothing has changed since; tries again later.
    fn failed(&mut self, message: String, worked_ns: u64, now: u64) {
        let wait = self.back_off.next(worked_ns).min(LONGEST_NS);
        self.state = State::Waits {
            until: now.saturating_add(wait),
        };
        if self.told.as_ref() != Some(&message) {
            self.told = Some(message.clone());
            self.news.push(News::UplinkDown {
                message,
                retry_ns: Some(wait),
            });
        }
    }
}

fn watch(events: Events, ops: &mut EventOps<'_>) -> Result<(), String> {
    let watched = ops.add(events);
    watched.map_err(|error| format!("the uplink cannot be watched: {error}"))
}

fn unwatch(source: &impl AsRawFd, ops: &mut EventOps<'_>) {
    if let Err(error) = ops.remove(Events::empty(source)) {
        log::debug!("a descriptor of the uplink is still watched: {error}");
    }
}

#[cfg(test)]
mod tests;
