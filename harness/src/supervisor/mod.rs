// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs one VM process from start to verdict, and tells what happens to it.
//!
//! The VM is another process, so a VM that crashes or wedges never takes its supervisor along; and
//! when the supervisor is killed, the VM process sees its socket close and ends.

pub mod controller;
pub mod events;
pub mod phase;
pub mod terminal;
pub mod uptime;
pub mod verdict;
pub mod vm_process;

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use kennel_vmm::config::MachineConfig;
use kennel_vmm::outlet::OutletWriter;
use kennel_vmm::protocol::{Command, News, Notice};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::moment::Moment;
use events::{Event, Said};
use terminal::TerminalGuard;
use uptime::Uptime;
use verdict::{Cause, Verdict};
use vm_process::{ConsoleEnds, VmProcess, Word};

/// Somebody who wants to know, and may have a say.
pub trait Watcher {
    /// An event of the machine's.
    fn event(&mut self, event: &Event);

    /// News before they become events, and also those that are none. What comes back is sent to
    /// the machine.
    fn news(&mut self, _notice: &Notice) -> Vec<Order> {
        vec![]
    }

    /// A line that the guest printed, if the watcher taps the console.
    fn console_line(&mut self, _line: &str) -> Vec<Order> {
        vec![]
    }
}

/// What a watcher may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Tell the machine.
    Now(Command),
    /// Tell the machine after a while.
    After(Duration, Command),
    /// Enough seen: end the machine.
    Finish,
}

/// What the supervisor's loop waits for.
#[derive(Debug)]
pub enum Happening {
    /// The VM process spoke.
    Word(Word),
    /// A signal for the supervisor.
    Signal(i32),
    /// The guest printed a line (only from a tapped console).
    ConsoleLine(String),
}

impl From<Word> for Happening {
    fn from(word: Word) -> Self {
        Self::Word(word)
    }
}

/// The VM process cannot be started or spoken to.
#[derive(Debug, thiserror::Error)]
#[error(
    "the VM process, this program once more, cannot be {what}: {source}; free some processes or \
     descriptors, or start it anew if it was replaced"
)]
pub struct SuperviseError {
    what: &'static str,
    source: io::Error,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> SuperviseError {
    move |source| SuperviseError { what, source }
}

/// What a run is made of.
#[derive(Debug)]
pub struct Run {
    /// `namespace/name`.
    pub object: String,
    /// The machine.
    pub config: MachineConfig,
    /// The guest's console.
    pub console: Console,
    /// Longest wall-clock time.
    pub timeout: Option<Duration>,
}

/// Where the guest's console goes.
#[derive(Debug)]
pub enum Console {
    /// To these ends.
    Ends(ConsoleEnds),
    /// Line by line to the watcher, and as it is to a screen.
    Tapped(OutletWriter),
}

/// Runs the machine to its verdict.
///
/// # Errors
///
/// The VM process cannot be started.
pub fn supervise(run: Run, watcher: &mut dyn Watcher) -> Result<Verdict, SuperviseError> {
    let (sender, happenings) = mpsc::channel();
    // Before the child exists: a signal in between must not leave it behind.
    let signals = forward_signals(sender.clone()).map_err(failed("guarded against signals"))?;
    let _terminal = TerminalGuard::new();
    let (ends, tap) = match run.console {
        Console::Ends(ends) => (ends, None),
        Console::Tapped(screen) => {
            let (ends, tap) =
                terminal::tap(sender.clone(), screen).map_err(failed("given a console"))?;
            (ends, Some(tap))
        }
    };
    let process = VmProcess::start(run.config, ends, sender).map_err(failed("started"))?;
    // A timeout beyond the end of time is none.
    let deadline = run
        .timeout
        .and_then(|timeout| Instant::now().checked_add(timeout));
    let mut supervisor = Supervisor {
        object: run.object,
        process,
        watcher,
        uptime: Uptime::default(),
        began: Instant::now(),
        later: vec![],
    };
    supervisor.created();
    let verdict = supervisor.watch(&happenings, deadline);
    supervisor.process_ended();
    // With the process gone, the tap comes to its end by itself.
    if tap.is_some_and(|tap| tap.join().is_err()) {
        log::error!("the console tap panicked");
    }
    for happening in happenings.try_iter() {
        supervisor.too_late(happening);
    }
    supervisor.stopped(&verdict);
    signals.close();
    Ok(verdict)
}

fn forward_signals(sender: mpsc::Sender<Happening>) -> io::Result<Handle> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT])?;
    let handle = signals.handle();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(Happening::Signal(signal)).is_err() {
                    break;
                }
            }
        })?;
    Ok(handle)
}

struct Supervisor<'a> {
    object: String,
    process: VmProcess,
    watcher: &'a mut dyn Watcher,
    uptime: Uptime,
    began: Instant,
    later: Vec<(Instant, Command)>,
}

impl Supervisor<'_> {
    fn watch(&mut self, happenings: &Receiver<Happening>, deadline: Option<Instant>) -> Verdict {
        let mut broken = None;
        loop {
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return self.stop(Cause::Timeout, "its time is over");
            }
            self.send_due();
            let wake = self.later.iter().map(|(at, _)| *at).chain(deadline).min();
            let happening = match wait(happenings, wake) {
                Ok(happening) => happening,
                Err(RecvTimeoutError::Disconnected) => return self.gone(broken),
                Err(RecvTimeoutError::Timeout) => continue,
            };
            let orders = match happening {
                // Goes on after a pause, as a stopped job does; a running machine takes no notice.
                Happening::Signal(SIGCONT) => vec![Order::Now(Command::Resume)],
                Happening::Signal(signal) => {
                    return self.stop(Cause::Signal(signal), "interrupted");
                }
                Happening::ConsoleLine(line) => self.watcher.console_line(&line),
                Happening::Word(Word::Gone) => return self.gone(broken),
                Happening::Word(Word::Notice(notice)) => {
                    self.hear(&notice);
                    match &notice.news {
                        News::Ended(ending) => {
                            // Whoever counts wants it too.
                            let _last = self.watcher.news(&notice);
                            return Verdict::Ended(*ending);
                        }
                        News::Failed { message } => broken = Some(message.clone()),
                        _ => {}
                    }
                    self.heard(&notice)
                }
            };
            for order in orders {
                match order {
                    Order::Now(command) => self.tell(&command),
                    Order::After(wait, command) => self
                        .later
                        .extend(Instant::now().checked_add(wait).map(|at| (at, command))),
                    Order::Finish => return self.stop(Cause::Done, "done"),
                }
            }
        }
    }

    fn heard(&mut self, notice: &Notice) -> Vec<Order> {
        if let Some(event) = Said::event(&self.object, notice) {
            self.watcher.event(&event);
        }
        self.watcher.news(notice)
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<_> = due;
        for (_, command) in due {
            self.tell(&command);
        }
    }

    fn tell(&mut self, command: &Command) {
        if let Err(error) = self.process.tell(command) {
            // It has ended meanwhile; its last words are on their way.
            log::debug!("{command:?} did not reach the VM process: {error}");
        }
    }

    fn stop(&mut self, cause: Cause, why: &str) -> Verdict {
        self.tell(&Command::Stop);
        self.say(Said::killing(why));
        Verdict::Stopped(cause)
    }

    /// The process has closed its socket without having said how its machine ended.
    fn gone(&mut self, broken: Option<String>) -> Verdict {
        let status = self.process.wait();
        Verdict::Broken(broken.unwrap_or_else(|| match status {
            Ok(status) => format!("the VM process ended unexpectedly: {status}"),
            Err(error) => format!("the VM process is lost: {error}"),
        }))
    }

    fn now(&self) -> Moment {
        Moment::ZERO.after(self.began.elapsed())
    }

    fn hear(&mut self, notice: &Notice) {
        let now = self.now();
        self.uptime.hear(now, notice.uptime_ns, &notice.news);
    }

    fn created(&mut self) {
        let pid = self.process.pid();
        self.say(Said::created(Some(pid)));
    }

    /// What comes after the verdict is heard, and changes nothing.
    fn too_late(&mut self, happening: Happening) {
        match happening {
            Happening::ConsoleLine(line) => drop(self.watcher.console_line(&line)),
            Happening::Word(Word::Notice(notice)) => self.hear(&notice),
            Happening::Word(Word::Gone) | Happening::Signal(_) => {}
        }
    }

    fn process_ended(&mut self) {
        if let Err(error) = self.process.wait() {
            log::warn!("the VM process could not be waited for: {error}");
        }
    }

    fn stopped(&mut self, verdict: &Verdict) {
        let phase = verdict.phase();
        let how = match verdict {
            Verdict::Ended(ending) => events::ending(*ending).to_owned(),
            Verdict::Stopped(_) => events::ending(kennel_vmm::protocol::Ending::Stopped).to_owned(),
            Verdict::Broken(message) => message.clone(),
        };
        self.say(Said::stopped(phase, &how, None));
    }

    fn say(&mut self, said: Said) {
        let event = said.at(
            &self.object,
            kennel_vmm::clock::realtime_ns(),
            self.uptime.ns(self.now()),
        );
        self.watcher.event(&event);
    }
}

fn wait(
    happenings: &Receiver<Happening>,
    wake: Option<Instant>,
) -> Result<Happening, RecvTimeoutError> {
    match wake {
        Some(at) => happenings.recv_timeout(at.saturating_duration_since(Instant::now())),
        None => happenings
            .recv()
            .map_err(|_| RecvTimeoutError::Disconnected),
    }
}
