// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine under test: a VM process, what it tells and what its guest prints.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use kennel::supervisor::vm_process::{ConsoleEnds, VmProcess, Word};
use kennel_vmm::config::{MachineConfig, NetworkConfig, Uplink, WatchdogAction, WatchdogConfig};
use kennel_vmm::protocol::{Command, News, Notice};

use tempfile::TempPath;

use crate::{hostile_guest, mini_agent, payload, web_guest};

/// Longer than anything a test waits for, on any machine.
const BOUND: Duration = Duration::from_secs(180);

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The machine told it.
    Notice(Notice),
    /// The guest printed it.
    Line(String),
    /// The process has closed its socket.
    Gone,
}

impl From<Word> for Seen {
    fn from(word: Word) -> Self {
        match word {
            Word::Notice(notice) => Self::Notice(*notice),
            Word::Gone => Self::Gone,
        }
    }
}

/// How much of the log has been waited for, by source: nothing orders a notice and a line, so that waiting for one
/// passes over none of the other.
#[derive(Clone, Copy, Debug, Default)]
struct Waited {
    notices: usize,
    lines: usize,
}

impl Waited {
    fn of(&mut self, seen: &Seen) -> &mut usize {
        match seen {
            Seen::Line(_) => &mut self.lines,
            Seen::Notice(_) | Seen::Gone => &mut self.notices,
        }
    }
}

/// A VM process that runs a bare-metal payload.
#[derive(Debug)]
pub struct Machine {
    process: VmProcess,
    seen: Receiver<Seen>,
    log: Vec<Seen>,
    /// Where in the log the next notice and the next line are waited for.
    waited: Waited,
    kernel: Option<TempPath>,
    /// The test stops the process.
    stops: bool,
}

impl Machine {
    /// Starts the payload's program `letter` on a machine with this watchdog.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start(letter: char, watchdog: Option<WatchdogConfig>) -> Self {
        let kernel = payload::write();
        let config = MachineConfig {
            watchdog,
            ..Self::config(&kernel, &letter.to_string())
        };
        let mut machine = Self::spawn(config);
        machine.kernel = Some(kernel);
        machine
    }

    /// Starts the bare-metal guest agent, which is told `cmdline`, with its socket at `socket`.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start_agent(cmdline: &str, socket: &Path) -> Self {
        let kernel = mini_agent::write();
        let config = MachineConfig {
            agent_socket: Some(socket.to_owned()),
            network: None,
            ..Self::config(&kernel, cmdline)
        };
        let mut machine = Self::spawn(config);
        machine.kernel = Some(kernel);
        machine
    }

    /// Starts the hostile guest's program `letter`, with the way to its ports at `dials`. Its watchdog's
    /// bites are told, and nothing else comes of them.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start_hostile(letter: char, dials: &Path) -> Self {
        let kernel = hostile_guest::write(letter);
        let config = MachineConfig {
            watchdog: Some(WatchdogConfig {
                action: WatchdogAction::None,
                ..WatchdogConfig::default()
            }),
            network: Some(NetworkConfig {
                uplink: Uplink::None,
                dial_socket: dials.to_owned(),
            }),
            ..Self::config(&kernel, &letter.to_string())
        };
        let mut machine = Self::spawn(config);
        machine.kernel = Some(kernel);
        machine
    }

    /// Starts the web server, with the way to its ports at `dials`.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start_web(dials: &Path) -> Self {
        let kernel = web_guest::write();
        let config = MachineConfig {
            network: Some(NetworkConfig {
                uplink: Uplink::None,
                dial_socket: dials.to_owned(),
            }),
            ..Self::config(&kernel, "")
        };
        let mut machine = Self::spawn(config);
        machine.kernel = Some(kernel);
        machine
    }

    /// Starts a machine on this kernel.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start_with(kernel: &Path) -> Self {
        Self::spawn(Self::config(kernel, "w"))
    }

    /// Starts this machine.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start_as(config: MachineConfig) -> Self {
        Self::spawn(config)
    }

    /// Starts this machine with its console and its log at outputs of the caller's.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start_into(config: MachineConfig, console: OwnedFd, log: OwnedFd) -> Self {
        let (sender, seen) = channel();
        Self::spawn_into(config, console.into(), log.into(), sender, seen)
    }

    /// Starts this machine with its log at an output of the caller's.
    ///
    /// # Panics
    ///
    /// The machine cannot be started.
    #[must_use]
    pub fn start_logging_to(config: MachineConfig, log: OwnedFd) -> Self {
        let (sender, seen) = channel();
        Self::spawn_into(config, tap(sender.clone()), log.into(), sender, seen)
    }

    /// A small machine that boots this kernel.
    #[must_use]
    pub fn config(kernel: &Path, cmdline: &str) -> MachineConfig {
        MachineConfig {
            memory_bytes: 16 << 20,
            vcpus: 1,
            kernel: kernel.to_path_buf(),
            initrd: None,
            initrd_overlay: vec![],
            cmdline: cmdline.to_owned(),
            watchdog: None,
            agent_socket: None,
            network: None,
            resets: 0,
        }
    }

    fn spawn(config: MachineConfig) -> Self {
        let (sender, seen) = channel();
        Self::spawn_into(config, tap(sender.clone()), Stdio::inherit(), sender, seen)
    }

    #[expect(
        clippy::expect_used,
        reason = "a test that cannot start its machine has failed"
    )]
    fn spawn_into(
        config: MachineConfig,
        output: Stdio,
        log: Stdio,
        sender: Sender<Seen>,
        seen: Receiver<Seen>,
    ) -> Self {
        let console = ConsoleEnds {
            input: Stdio::null(),
            output,
        };
        let say = move |word| sender.send(Seen::from(word)).is_ok();
        let process = VmProcess::start_logging_to(config, console, log, say).expect("a VM process");
        Self {
            process,
            seen,
            log: vec![],
            waited: Waited::default(),
            kernel: None,
            stops: false,
        }
    }

    /// The test stops this process: a stall that is forgiven is no failure.
    #[must_use]
    pub const fn with_stops(mut self) -> Self {
        self.stops = true;
        self
    }

    /// Keeps what happened.
    ///
    /// # Panics
    ///
    /// A stall was forgiven that neither the test made nor a host without a free CPU: the loop was blocked.
    fn keep(&mut self, seen: Seen) {
        if let Seen::Notice(notice) = &seen
            && let News::StallForgiven { stalled_ns } = notice.news
        {
            let starved = waited_for_cpu(self.pid()) >= stalled_ns / 2;
            assert!(self.stops || starved, "{notice:?} in a test without stops");
        }
        self.log.push(seen);
    }

    /// Process ID of the VM process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Closes the supervisor's end, and gives how the process ended; one that had to be killed
    /// ended by a signal.
    ///
    /// # Panics
    ///
    /// It cannot be waited for.
    #[expect(
        clippy::expect_used,
        reason = "a test that loses its machine has failed"
    )]
    #[must_use]
    pub fn orphaned(mut self) -> ExitStatus {
        self.process.disconnect();
        self.process.wait().expect("a child")
    }

    /// Sends a command.
    ///
    /// # Panics
    ///
    /// The process is gone.
    #[expect(
        clippy::expect_used,
        reason = "a test whose machine is gone has failed"
    )]
    pub fn tell(&mut self, command: &Command) {
        self.process.tell(command).expect("the VM process listens");
    }

    /// Waits for something to happen and gives what `pick` makes of it. What came since the last wait for its kind,
    /// notice or line, counts.
    ///
    /// # Panics
    ///
    /// It doesn't happen: the machine ended, or 180 s went by.
    #[expect(clippy::panic, reason = "a test whose event does not come has failed")]
    pub fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&Seen) -> Option<T>) -> T {
        let end = Instant::now() + BOUND;
        let mut place = 0;
        loop {
            while let Some(seen) = self.log.get(place) {
                place += 1;
                let waited = self.waited.of(seen);
                if place > *waited
                    && let Some(found) = pick(seen)
                {
                    *waited = place;
                    return found;
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(seen) => self.keep(seen),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {what} within {BOUND:?}: {:#?}", self.log)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("no {what}: {:#?}", self.log),
            }
        }
    }

    /// Waits for a line of the guest's that starts with `start`, and gives the rest of it.
    pub fn line(&mut self, start: &str) -> String {
        self.wait_for(&format!("line {start:?}"), |seen| match seen {
            Seen::Line(line) => line.strip_prefix(start).map(str::to_owned),
            _ => None,
        })
    }

    /// Waits for news that `pick` knows, with the notice they came in.
    pub fn news<T>(&mut self, what: &str, pick: impl Fn(&News) -> Option<T>) -> (Notice, T) {
        self.wait_for(what, |seen| match seen {
            Seen::Notice(notice) => Some((notice.clone(), pick(&notice.news)?)),
            _ => None,
        })
    }

    /// Everything that happened so far, in the order of each of its two sources.
    #[must_use]
    pub fn log(&self) -> &[Seen] {
        &self.log
    }
}

/// How long the loop of a VM process, its first thread, has been ready to run and has waited for a CPU, in ns.
fn waited_for_cpu(pid: u32) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let delay = told.split_whitespace().nth(1);
    delay.and_then(|delay| delay.parse().ok()).unwrap_or(0)
}

#[expect(
    clippy::expect_used,
    reason = "a test without a pipe or a thread has failed"
)]
fn tap(sender: Sender<Seen>) -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    thread::Builder::new()
        .name("console".into())
        .spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = String::new();
            // A line without its end was cut off with the machine: the guest never said it.
            while reader.read_line(&mut line).is_ok() && line.ends_with('\n') {
                if sender.send(Seen::Line(line.trim_end().to_owned())).is_err() {
                    break;
                }
                line.clear();
            }
        })
        .expect("a thread");
    Stdio::from(writer)
}
