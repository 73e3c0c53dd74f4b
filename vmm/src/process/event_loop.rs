// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loop that drives a machine: requests, timers and commands. It never waits for a guest's data or
//! for anybody who reads them: consoles, agent and network have threads of their own.

use std::os::fd::AsRawFd;
use std::time::Instant;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::Herald;
use super::control::Reader;
use super::ports::Ports;
use super::pulse_thread::PulseSocket;
use crate::fault::{self, Place};
use crate::machine::{Machine, Outcome, Tell};
use crate::protocol::{Command, News};

/// Which descriptor an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Source {
    Requests,
    WatchdogTimer,
    PolicyTimer,
    Commands,
}

impl Source {
    const ALL: [Self; 4] = [
        Self::Requests,
        Self::WatchdogTimer,
        Self::PolicyTimer,
        Self::Commands,
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
    ports: Ports,
    pulse: PulseSocket,
    outcome: Option<Outcome>,
}

impl EventLoop {
    pub(super) fn new(
        machine: Machine,
        reader: Reader,
        herald: Herald,
        ports: Ports,
        pulse: PulseSocket,
    ) -> Self {
        Self {
            machine,
            reader,
            herald,
            ports,
            pulse,
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

    fn handle(&mut self, source: Source) -> Outcome {
        let Self {
            machine, herald, ..
        } = self;
        let tell: &mut Tell<'_> = &mut |now, news| herald.tell(now, news);
        match source {
            Source::Requests => machine.serve_requests(tell),
            Source::WatchdogTimer => {
                fault::may_hang(Place::LoopAtBite);
                machine.serve_watchdog();
                // A bite is acted on at once, not in the loop's next turn.
                machine.serve_requests(tell)
            }
            Source::PolicyTimer => machine.serve_policy(tell),
            Source::Commands => self.read_commands(),
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
            if let Command::Pulse(number) = command {
                self.give_sign_of_life(number);
                continue;
            }
            let herald = &self.herald;
            let mut tell = |now, news| herald.tell(now, news);
            match self.machine.serve_command(command, &mut tell) {
                Outcome::Running => {}
                over => return over,
            }
        }
        Outcome::Running
    }

    /// Every handler is done that came before the question.
    fn give_sign_of_life(&self, number: u64) {
        fault::may_hang(Place::Loop);
        self.pulse.answer_from_loop(number, self.herald.waits_for());
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
        self.ports.stop_by(deadline);
        self.machine.board().console.close_by(deadline);
    }
}

impl MutEventSubscriber for EventLoop {
    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        if self.outcome.is_some() {
            return;
        }
        let Some(source) = Source::of(&events) else {
            return;
        };
        match self.handle(source) {
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
            .and_then(|()| watch(self.machine.policy_timer(), Source::PolicyTimer))
            .and_then(|()| watch(&self.reader, Source::Commands));
        if let Some(watchdog) = &board.watchdog {
            watched = watched.and_then(|()| watch(&**watchdog, Source::WatchdogTimer));
        }
        if let Err(error) = watched {
            let message = format!("a descriptor of the machine cannot be watched: {error}");
            self.finish(Outcome::Failed(message));
        }
    }
}
