// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one loop that drives a machine: requests, timers, commands and console input.

use std::os::fd::AsRawFd;
use std::time::Instant;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::Herald;
use super::agent_socket::AgentSocket;
use super::console_input::ConsoleInput;
use super::control::Reader;
use super::serial_ports::SerialPorts;
use crate::machine::{Machine, Outcome, Tell};
use crate::protocol::{Command, News};

/// Which descriptor an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Source {
    Requests,
    WatchdogTimer,
    GraceTimer,
    Commands,
    ConsoleInput,
    RoomForInput,
    VirtioConsole,
    AgentClient,
    AgentTimer,
}

/// Events of the agent's listener carry this.
pub(super) const LISTENER: u32 = Source::AgentClient as u32;
/// Events of the agent's clients carry this and more.
pub(super) const CLIENTS: u32 = 1 << 16;

impl Source {
    const ALL: [Self; 9] = [
        Self::Requests,
        Self::WatchdogTimer,
        Self::GraceTimer,
        Self::Commands,
        Self::ConsoleInput,
        Self::RoomForInput,
        Self::VirtioConsole,
        Self::AgentClient,
        Self::AgentTimer,
    ];

    fn of(events: &Events) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|source| *source as u32 == events.data())
    }
}

/// The loop's only subscriber.
pub(super) struct EventLoop {
    machine: Machine,
    reader: Reader,
    herald: Herald,
    input: ConsoleInput,
    /// There is input that the guest has no room for.
    input_waits: bool,
    ports: SerialPorts,
    outcome: Option<Outcome>,
}

impl EventLoop {
    pub(super) fn new(
        machine: Machine,
        reader: Reader,
        herald: Herald,
        input: ConsoleInput,
        agent: AgentSocket,
    ) -> Self {
        Self {
            machine,
            reader,
            herald,
            input,
            input_waits: false,
            ports: SerialPorts::new(agent),
            outcome: None,
        }
    }

    /// How the machine ended, once it has; it is then switched off.
    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    /// Carries out `commands`, and is finished if one of them ends the machine.
    pub(super) fn obey(&mut self, commands: Vec<Command>) {
        match self.serve(commands) {
            Outcome::Running => {}
            over => self.finish(over),
        }
    }

    fn handle(&mut self, source: Source, ops: &mut EventOps<'_>) -> Outcome {
        let Self {
            machine, herald, ..
        } = self;
        let tell: &mut Tell<'_> = &mut |now, news| herald.tell(now, news);
        match source {
            Source::Requests => machine.serve_requests(tell),
            Source::WatchdogTimer => {
                machine.serve_watchdog();
                // A bite is acted on at once, not in the loop's next turn.
                machine.serve_requests(tell)
            }
            Source::GraceTimer => machine.serve_grace(tell),
            Source::Commands => self.read_commands(),
            Source::ConsoleInput => {
                self.read_console(ops);
                Outcome::Running
            }
            Source::VirtioConsole => {
                let _count = machine.board().virtio_console.work().read();
                Outcome::Running
            }
            Source::AgentClient => {
                self.ports.agent.accept(ops);
                Outcome::Running
            }
            Source::AgentTimer => {
                self.ports.agent.time_passed(ops);
                Outcome::Running
            }
            Source::RoomForInput => {
                let _count = machine.board().console.room_for_input().read();
                self.watch_console(ops);
                Outcome::Running
            }
        }
    }

    fn read_commands(&mut self) -> Outcome {
        let commands = match self.reader.read() {
            Ok(Some(commands)) => commands,
            Ok(None) => vec![Command::Stop],
            Err(error) => {
                log::error!("the supervisor cannot be understood: {error}");
                vec![Command::Stop]
            }
        };
        self.serve(commands)
    }

    fn serve(&mut self, commands: Vec<Command>) -> Outcome {
        for command in commands {
            let herald = &self.herald;
            let mut tell = |now, news| herald.tell(now, news);
            match self.machine.serve_command(command, &mut tell) {
                Outcome::Running => {}
                over => return over,
            }
        }
        Outcome::Running
    }

    fn read_console(&mut self, ops: &mut EventOps<'_>) {
        let room = self.room_for_input();
        let console = &self.machine.board().console;
        let more = if self.machine.reads_virtio_console() {
            self.input.pass_on(room, |bytes| self.ports.type_in(bytes))
        } else {
            self.input.pass_on(room, |bytes| console.input(bytes))
        };
        if more && self.room_for_input() > 0 {
            return;
        }
        // Taken out whole: a writer that hung up would wake the loop for ever. Watched again when
        // the guest has read; after the end of input, never.
        self.input_waits = more;
        let events = Events::with_data(&self.input, Source::ConsoleInput as u32, EventSet::IN);
        log_failure("stop watching the console's input", ops.remove(events));
    }

    fn room_for_input(&self) -> usize {
        if self.machine.reads_virtio_console() {
            self.ports.room_for_input()
        } else {
            self.machine.board().console.input_capacity()
        }
    }

    fn watch_console(&mut self, ops: &mut EventOps<'_>) {
        if std::mem::take(&mut self.input_waits) {
            let events = Events::with_data(&self.input, Source::ConsoleInput as u32, EventSet::IN);
            log_failure("watch the console's input again", ops.add(events));
        }
    }

    /// What moved on one side of the agent's port may let the other side go on.
    fn serve_ports(&mut self, ops: &mut EventOps<'_>) {
        self.ports.turn(&self.machine, ops);
        if self.input_waits && self.room_for_input() > 0 {
            self.watch_console(ops);
        }
        for news in self.ports.agent.take_news() {
            self.herald.tell(self.machine.now(), news);
        }
    }

    /// Told before anybody is waited for.
    fn finish(&mut self, outcome: Outcome) {
        self.machine.power_off();
        let last = match &outcome {
            Outcome::Running => None,
            Outcome::Ended(ending) => Some(News::Ended(*ending)),
            Outcome::Failed(message) => Some(News::Failed {
                message: message.clone(),
            }),
        };
        if let Some(last) = last {
            self.herald.tell(self.machine.now(), last);
        }
        self.outcome = Some(outcome);
    }

    /// Ends the threads beside the loop and lets the console's reader take the rest, until `deadline`.
    pub(super) fn close_by(&mut self, deadline: Instant) {
        if let Some(network) = &mut self.herald.network {
            network.stop_by(deadline);
        }
        self.machine.board().console.close_by(deadline);
    }
}

fn log_failure(what: &str, result: Result<(), event_manager::Error>) {
    if let Err(error) = result {
        log::debug!("could not {what}: {error}");
    }
}

impl MutEventSubscriber for EventLoop {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if self.outcome.is_some() {
            return;
        }
        let outcome = if self.ports.agent.is_client(events.data()) {
            self.ports.agent.client_event(events, ops);
            Outcome::Running
        } else {
            match Source::of(&events) {
                Some(source) => self.handle(source, ops),
                None => return,
            }
        };
        match outcome {
            Outcome::Running => self.serve_ports(ops),
            over => self.finish(over),
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let board = self.machine.board();
        let mut watch = |source: &dyn AsRawFd, data: Source| {
            let fd = source.as_raw_fd();
            ops.add(Events::with_data_raw(fd, data as u32, EventSet::IN))
        };
        let mut watched = watch(&*board.mailbox, Source::Requests)
            .and_then(|()| watch(self.machine.grace_timer(), Source::GraceTimer))
            .and_then(|()| watch(&self.reader, Source::Commands))
            .and_then(|()| watch(board.console.room_for_input(), Source::RoomForInput))
            .and_then(|()| watch(board.virtio_console.work(), Source::VirtioConsole))
            .and_then(|()| watch(self.ports.agent.timer(), Source::AgentTimer));
        if let Some(listener) = self.ports.agent.listener() {
            watched = watched.and_then(|()| watch(listener, Source::AgentClient));
        }
        if let Some(watchdog) = &board.watchdog {
            watched = watched.and_then(|()| watch(&**watchdog, Source::WatchdogTimer));
        }
        // A regular file or /dev/null cannot be watched, and then has no input for the guest.
        if self.input.is_ours() {
            let watched = watch(&self.input, Source::ConsoleInput);
            log_failure("watch the console's input", watched);
        }
        if let Err(error) = watched {
            let message = format!("a descriptor of the machine cannot be watched: {error}");
            self.finish(Outcome::Failed(message));
        }
    }
}
