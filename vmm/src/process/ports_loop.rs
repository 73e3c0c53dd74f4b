// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loop of the ports' thread: the virtio console's rings, the agent's socket, and the input of both
//! consoles. What a guest's agent says is read here, so that it holds up nobody else.
//!
//! A reset or a pause waits for one piece of ring work at most: each holds the device's lock, and a
//! device that was reset has no rings to work on.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use kennel_virtio::{ConsoleEvent, PortId, QueueFault};

use vmm_sys_util::eventfd::EventFd;

use super::agent_socket::AgentSocket;
use super::console_input::ConsoleInput;
use super::network::Tell;
use crate::console::Console;
use crate::memory::GuestRam;
use crate::virtio_console::VirtioConsole;

/// Rounds of ring work in one turn of the loop; a guest that keeps on waits for the next.
const ROUNDS: usize = 4;
/// What the agent says in one round, in bytes at most.
const AGENT_OUTPUT: usize = 16 << 10;
/// Input that waits for the guest's virtio console, in bytes at most.
const TYPED: usize = 64;

/// Which descriptor an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Source {
    Stop,
    Device,
    AgentClient,
    AgentTimer,
    ConsoleInput,
    RoomForInput,
}

/// Events of the agent's listener carry this.
pub(super) const LISTENER: u32 = Source::AgentClient as u32;
/// Events of the agent's clients carry this and more.
pub(super) const CLIENTS: u32 = 1 << 16;

impl Source {
    const ALL: [Self; 6] = [
        Self::Stop,
        Self::Device,
        Self::AgentClient,
        Self::AgentTimer,
        Self::ConsoleInput,
        Self::RoomForInput,
    ];

    fn of(events: &Events) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|source| *source as u32 == events.data())
    }
}

/// What the loop works with.
pub(super) struct Parts {
    pub(super) device: Arc<VirtioConsole>,
    pub(super) memory: GuestRam,
    pub(super) console: Arc<Console>,
    pub(super) agent: AgentSocket,
    pub(super) input: ConsoleInput,
    /// The guest's own console is its virtio console.
    pub(super) types_at_device: bool,
    /// Readable when the machine has ended.
    pub(super) stop: Arc<EventFd>,
    pub(super) tell: Tell,
}

/// The loop's only subscriber.
pub(super) struct PortsLoop {
    parts: Parts,
    /// There is input that the guest has no room for.
    input_waits: bool,
    printed: Vec<u8>,
    said: Vec<u8>,
    /// Input for the guest's virtio console that it has not taken yet.
    typed: Vec<u8>,
    /// A guest can break its device at any rate; once is said aloud.
    warned: bool,
    stopped: bool,
    /// It cannot go on: why.
    failed: Option<String>,
}

impl PortsLoop {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            input_waits: false,
            printed: vec![],
            said: vec![0; AGENT_OUTPUT],
            typed: vec![],
            warned: false,
            stopped: false,
            failed: None,
        }
    }

    /// How it is over, once it is: the machine has ended, or it cannot go on.
    pub(super) fn over(&mut self) -> Option<Result<(), String>> {
        let failed = self.failed.take().map(Err);
        failed.or(self.stopped.then_some(Ok(())))
    }

    fn handle(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let agent = &mut self.parts.agent;
        if agent.is_client(events.data()) {
            return agent.client_event(events, ops);
        }
        match Source::of(&events) {
            None => {}
            Some(Source::Stop) => self.stopped = true,
            Some(Source::Device) => {
                let _count = self.parts.device.work().read();
            }
            Some(Source::AgentClient) => agent.accept(ops),
            Some(Source::AgentTimer) => agent.time_passed(ops),
            Some(Source::ConsoleInput) => self.read_input(ops),
            Some(Source::RoomForInput) => {
                let _count = self.parts.console.room_for_input().read();
                self.watch_input(ops);
            }
        }
    }

    /// Does what there is to do, for a while: what moved on one side of the agent's port may let the
    /// other side go on.
    fn turn(&mut self, ops: &mut EventOps<'_>) {
        if (0..ROUNDS).all(|_| self.round(ops)) {
            self.parts.device.wake();
            // A guest that floods gets the CPU time that the loop which acts on bites leaves.
            std::thread::yield_now();
        }
        if self.input_waits && self.room_for_input() > 0 {
            self.watch_input(ops);
        }
        for news in self.parts.agent.take_news() {
            (self.parts.tell)(news);
        }
    }

    /// Whether there is more to do.
    fn round(&mut self, ops: &mut EventOps<'_>) -> bool {
        let Parts {
            device,
            memory,
            console,
            agent,
            ..
        } = &mut self.parts;
        // A port that the device's reset has closed takes nothing until `process` tells of its opening.
        let taken = device.agent_input(agent.port_output());
        agent.port_sent(taken);
        let typed = device.console_input(&self.typed);
        self.typed.drain(..typed.min(self.typed.len()));
        let (was_reset, effects) = device.process(memory, &mut self.printed);
        if was_reset {
            agent.port_closed(true, ops);
        }
        console.print(&self.printed);
        self.printed.clear();
        for event in effects.events {
            match event {
                ConsoleEvent::PortOpened {
                    port: PortId::Agent,
                } => agent.port_opened(ops),
                ConsoleEvent::PortClosed {
                    port: PortId::Agent,
                    reset,
                } => agent.port_closed(reset, ops),
                ConsoleEvent::PortOpened { .. } | ConsoleEvent::PortClosed { .. } => {}
            }
        }
        let output = device.agent_output(memory, &mut self.said);
        if let Some(said) = self.said.get(..output.len).filter(|said| !said.is_empty()) {
            agent.port_bytes(said, ops);
        }
        let input_fits = effects.agent_input_room > 0 && !agent.port_output().is_empty();
        for fault in [&effects.fault, &output.fault] {
            self.broken(fault.as_ref());
        }
        effects.more || output.more || output.process_first || input_fits
    }

    fn read_input(&mut self, ops: &mut EventOps<'_>) {
        let room = self.room_for_input();
        let Parts {
            console,
            input,
            types_at_device,
            ..
        } = &self.parts;
        let more = if *types_at_device {
            input.pass_on(room, |bytes| self.typed.extend_from_slice(bytes))
        } else {
            input.pass_on(room, |bytes| console.input(bytes))
        };
        if more && self.room_for_input() > 0 {
            return;
        }
        // Taken out whole: a writer that hung up would wake the loop for ever. Watched again when
        // the guest has read; after the end of input, never.
        self.input_waits = more;
        log_failure(
            "stop watching the console's input",
            ops.remove(self.input()),
        );
    }

    fn room_for_input(&self) -> usize {
        if !self.parts.types_at_device {
            self.parts.console.input_capacity()
        } else if self.typed.is_empty() {
            TYPED
        } else {
            0
        }
    }

    fn watch_input(&mut self, ops: &mut EventOps<'_>) {
        if std::mem::take(&mut self.input_waits) {
            log_failure("watch the console's input again", ops.add(self.input()));
        }
    }

    fn input(&self) -> Events {
        Events::with_data(&self.parts.input, Source::ConsoleInput as u32, EventSet::IN)
    }

    fn broken(&mut self, fault: Option<&QueueFault>) {
        let Some(fault) = fault else { return };
        let level = if std::mem::replace(&mut self.warned, true) {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        log::log!(
            level,
            "the guest broke its virtio console, which stands still until it is reset: {fault:?}"
        );
    }
}

fn log_failure(what: &str, result: Result<(), event_manager::Error>) {
    if let Err(error) = result {
        log::debug!("could not {what}: {error}");
    }
}

impl MutEventSubscriber for PortsLoop {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if self.stopped {
            return;
        }
        self.handle(events, ops);
        if !self.stopped {
            self.turn(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let parts = &self.parts;
        let mut watch = |source: &dyn AsRawFd, data: Source| {
            let fd = source.as_raw_fd();
            ops.add(Events::with_data_raw(fd, data as u32, EventSet::IN))
        };
        let mut watched = watch(&*parts.stop, Source::Stop)
            .and_then(|()| watch(parts.device.work(), Source::Device))
            .and_then(|()| watch(parts.console.room_for_input(), Source::RoomForInput))
            .and_then(|()| watch(parts.agent.timer(), Source::AgentTimer));
        if let Some(listener) = parts.agent.listener() {
            watched = watched.and_then(|()| watch(listener, Source::AgentClient));
        }
        // A regular file or /dev/null cannot be watched, and then has no input for the guest.
        if parts.input.is_ours() {
            let watched = watch(&parts.input, Source::ConsoleInput);
            log_failure("watch the console's input", watched);
        }
        self.failed = watched
            .err()
            .map(|error| format!("its descriptors cannot be watched: {error}"));
    }
}
