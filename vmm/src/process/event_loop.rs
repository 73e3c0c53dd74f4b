// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one loop that drives a machine: requests, timers, commands and console input.

use std::os::fd::AsRawFd;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::console_input::ConsoleInput;
use super::control::{Reader, Teller};
use super::notice;
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
}

impl Source {
    const ALL: [Self; 6] = [
        Self::Requests,
        Self::WatchdogTimer,
        Self::GraceTimer,
        Self::Commands,
        Self::ConsoleInput,
        Self::RoomForInput,
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
    teller: Teller,
    input: ConsoleInput,
    /// There is input that the guest has no room for.
    input_waits: bool,
    outcome: Option<Outcome>,
}

impl EventLoop {
    pub(super) fn new(
        machine: Machine,
        reader: Reader,
        teller: Teller,
        input: ConsoleInput,
    ) -> Self {
        Self {
            machine,
            reader,
            teller,
            input,
            input_waits: false,
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
            machine, teller, ..
        } = self;
        let tell: &mut Tell<'_> = &mut |now, news| teller.tell(&notice(now, news));
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
            let teller = &self.teller;
            let mut tell = |now, news| teller.tell(&notice(now, news));
            match self.machine.serve_command(command, &mut tell) {
                Outcome::Running => {}
                over => return over,
            }
        }
        Outcome::Running
    }

    fn read_console(&mut self, ops: &mut EventOps<'_>) {
        let console = &self.machine.board().console;
        let more = self.input.pass_on(console);
        if more && console.input_capacity() > 0 {
            return;
        }
        // Taken out whole: a writer that hung up would wake the loop for ever. Watched again when
        // the guest has read; after the end of input, never.
        self.input_waits = more;
        let events = Events::with_data(&self.input, Source::ConsoleInput as u32, EventSet::IN);
        log_failure("stop watching the console's input", ops.remove(events));
    }

    fn watch_console(&mut self, ops: &mut EventOps<'_>) {
        if std::mem::take(&mut self.input_waits) {
            let events = Events::with_data(&self.input, Source::ConsoleInput as u32, EventSet::IN);
            log_failure("watch the console's input again", ops.add(events));
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.machine.power_off();
        if let Outcome::Ended(ending) = outcome {
            self.teller
                .tell(&notice(self.machine.now(), News::Ended(ending)));
        }
        self.outcome = Some(outcome);
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
        let Some(source) = Source::of(&events) else {
            return;
        };
        match self.handle(source, ops) {
            Outcome::Running => {}
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
            .and_then(|()| watch(board.console.room_for_input(), Source::RoomForInput));
        if let Some((_, timer)) = &board.watchdog {
            watched = watched.and_then(|()| watch(&**timer, Source::WatchdogTimer));
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
