// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest that marks what it does by letters on COM1, in Kennel's machine, in QEMU's, and in the
//! smallest one.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kennel::supervisor::vm_process::{ConsoleEnds, VmProcess, Word};
use kennel_vmm::config::{MachineConfig, WatchdogConfig};
use kennel_vmm::protocol::{Command as Order, News, Notice};

use super::{Guest, Killed, QEMU, floor_vm};
use crate::Trouble;
use crate::clock::monotonic_ns;

/// Longer than any guest takes to its next mark, also Linux in a box.
const BOUND: Duration = Duration::from_secs(120);

/// A letter, and when it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) letter: u8,
    pub(crate) at: u64,
}

/// A guest in QEMU or in the smallest machine.
#[derive(Debug)]
pub(crate) struct Marked {
    process: Killed,
    marks: Receiver<Mark>,
    /// Before the process was started.
    pub(crate) begun: u64,
}

/// A guest in Kennel's machine.
#[derive(Debug)]
pub(crate) struct KennelMarked {
    process: VmProcess,
    marks: Receiver<Mark>,
    news: Receiver<Word>,
    pub(crate) begun: u64,
}

/// Reads letters from `pipe` until it is closed.
pub(super) fn tap(mut pipe: impl Read + Send + 'static) -> Result<Receiver<Mark>, Trouble> {
    let (sender, marks): (Sender<Mark>, _) = channel();
    let read = move || {
        let mut letters = [0; 64];
        while let Ok(count) = pipe.read(&mut letters) {
            let at = monotonic_ns();
            let letters = letters.get(..count).unwrap_or_default();
            let mut told = letters.iter().map(|letter| {
                sender.send(Mark {
                    letter: *letter,
                    at,
                })
            });
            if letters.is_empty() || told.any(|told| told.is_err()) {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("marks".into());
    thread.spawn(read).map_err(Trouble::new)?;
    Ok(marks)
}

/// When `letter` came next.
pub(super) fn wait_for(marks: &Receiver<Mark>, letter: u8) -> Result<u64, Trouble> {
    let end = Instant::now() + BOUND;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mark = marks
            .recv_timeout(left)
            .map_err(|_| Trouble::new(format!("the guest never wrote {:?}", char::from(letter))))?;
        if mark.letter == letter {
            return Ok(mark.at);
        }
    }
}

/// When anything at all came.
fn wait_for_any(marks: &Receiver<Mark>) -> Result<u64, Trouble> {
    let mark = marks.recv_timeout(BOUND);
    mark.map(|mark| mark.at)
        .map_err(|_| Trouble::new("the guest never wrote anything"))
}

impl Marked {
    fn spawn(mut program: Command) -> Result<Self, Trouble> {
        let begun = monotonic_ns();
        program
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for us alone: what is measured comes to its end.
            .process_group(0);
        let mut child: Child = program.spawn().map_err(|error| {
            let name = program.get_program().to_string_lossy().into_owned();
            Trouble::new(format!("{name} cannot be started: {error}"))
        })?;
        let pipe = child.stdout.take();
        let process = Killed(child);
        let pipe = pipe.ok_or_else(|| Trouble::new("no pipe"))?;
        Ok(Self {
            process,
            marks: tap(pipe)?,
            begun,
        })
    }

    /// The smallest machine.
    pub(crate) fn floor(kernel: &Path, mib: u32, cmdline: &str) -> Result<Self, Trouble> {
        Self::floor_with(&Guest::bare(kernel, mib, cmdline))
    }

    /// The smallest machine, with this guest.
    pub(crate) fn floor_with(guest: &Guest) -> Result<Self, Trouble> {
        let mut program = Command::new("/proc/self/exe");
        program
            .args([floor_vm::SUBCOMMAND])
            .arg(&guest.kernel)
            .args([&guest.memory_mib.to_string(), &guest.cmdline])
            .args(&guest.initrd);
        Self::spawn(program)
    }

    /// QEMU on KVM with these arguments beside.
    pub(crate) fn qemu(machine: &str, mib: u32, arguments: &[&str]) -> Result<Self, Trouble> {
        let mut program = Command::new(QEMU);
        program
            .args(["-M", machine, "-accel", "kvm", "-m", &format!("{mib}M")])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-serial", "file:/proc/self/fd/1"])
            .args(arguments);
        Self::spawn(program)
    }

    pub(crate) fn wait_for(&self, letter: u8) -> Result<u64, Trouble> {
        wait_for(&self.marks, letter)
    }

    pub(crate) fn wait_for_any(&self) -> Result<u64, Trouble> {
        wait_for_any(&self.marks)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

impl KennelMarked {
    pub(crate) fn start(
        kernel: &Path,
        mib: u32,
        cmdline: &str,
        watchdog: Option<WatchdogConfig>,
    ) -> Result<Self, Trouble> {
        Self::start_with(&Guest::bare(kernel, mib, cmdline), watchdog)
    }

    pub(crate) fn start_with(
        guest: &Guest,
        watchdog: Option<WatchdogConfig>,
    ) -> Result<Self, Trouble> {
        let begun = monotonic_ns();
        let (reader, writer) = std::io::pipe().map_err(Trouble::new)?;
        let config = MachineConfig {
            watchdog,
            ..guest.config()
        };
        let ends = ConsoleEnds {
            input: Stdio::null(),
            output: Stdio::from(writer),
        };
        let (sender, news) = channel();
        let process = VmProcess::start(config, ends, sender).map_err(Trouble::new)?;
        Ok(Self {
            process,
            marks: tap(reader)?,
            news,
            begun,
        })
    }

    pub(crate) fn wait_for(&self, letter: u8) -> Result<u64, Trouble> {
        wait_for(&self.marks, letter)
    }

    pub(crate) fn wait_for_any(&self) -> Result<u64, Trouble> {
        wait_for_any(&self.marks)
    }

    /// The next notice that `pick` knows.
    pub(crate) fn news<T>(&self, pick: impl Fn(&Notice) -> Option<T>) -> Result<T, Trouble> {
        let end = Instant::now() + BOUND;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(Word::Notice(notice)) => {
                    if let Some(picked) = pick(&notice) {
                        return Ok(picked);
                    }
                    if let News::Failed { message } = &notice.news {
                        return Err(Trouble::new(message));
                    }
                }
                Ok(Word::Gone) | Err(_) => {
                    return Err(Trouble::new("the VM process does not tell what it should"));
                }
            }
        }
    }

    pub(crate) fn tell(&mut self, order: &Order) -> Result<(), Trouble> {
        self.process.tell(order).map_err(Trouble::new)
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.process.pid()
    }
}
