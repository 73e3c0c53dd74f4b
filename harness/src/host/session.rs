// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The caller's side of a box: what to run in it, how that can fail, and the way from start to end.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;

use self::exchange::Exchange;
use super::image::{self, ImageError};
use super::install::InstallError;
use super::protocol::{Start, Stream};
use super::qemu::{self, Machine};
use super::terminal::window_size;
use crate::guest;

mod exchange;

/// Memory of a box unless the caller says otherwise.
const MEMORY_MIB: u32 = 3072;
/// Less than this does not boot.
const MEMORY_MIB_MIN: u32 = 512;
/// Virtual CPUs of a box unless the caller says otherwise; why no more is told with [`BoxCommand::vcpus`].
const VCPUS: u32 = 1;
/// More virtual CPUs than this gain nothing.
const VCPUS_MAX: u32 = 8;
/// How long a box may take until its agent answers: some 3 s on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long a box may be silent whose agent speaks up every few seconds: busy machines are slow.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// A command to run in a box of its own.
#[derive(Debug)]
pub struct BoxCommand {
    /// The program: a path, or a name that the box looks up in `env`'s PATH.
    pub program: OsString,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// Its whole environment; [`super::BOX_MARKER`] and `XDG_RUNTIME_DIR` are added or replaced.
    pub env: Vec<(OsString, OsString)>,
    /// The directory it runs in.
    pub cwd: PathBuf,
    /// The box's memory in MiB; it must hold the guests' memory and about 2 GiB beside it.
    pub memory_mib: u32,
    /// The box's virtual CPUs: one. With more, QEMU breaks guests and the box itself within minutes (seen with 7.2 and
    /// 10.0): a virtual interrupt that KVM puts into a guest at VMRUN stays noted as an exception to be delivered, and is
    /// delivered once more when another of QEMU's threads breaks into the CPU's loop before the guest's next exit.
    /// Another CPU does that all the time, by its atomic accesses alone.
    pub vcpus: u32,
    /// The command's standard streams.
    pub stdio: BoxStdio,
    /// How long the box may take to boot.
    pub boot_limit: Duration,
    /// How long a box that runs may be silent before it is taken for hung and ended.
    pub silence_limit: Duration,
    /// The `kennel` program, which the box runs as its agent (with the argument `box-agent`).
    pub agent: PathBuf,
}

/// Standard streams on this machine. Those that are terminals become a terminal in the box.
#[derive(Debug)]
pub struct BoxStdio {
    /// Read from.
    pub stdin: OwnedFd,
    /// Written to.
    pub stdout: OwnedFd,
    /// Written to.
    pub stderr: OwnedFd,
}

impl BoxStdio {
    /// This process' own.
    ///
    /// # Errors
    /// One of them is closed, or no more descriptors are to be had.
    pub fn inherit() -> io::Result<Self> {
        Ok(Self {
            stdin: io::stdin().as_fd().try_clone_to_owned()?,
            stdout: io::stdout().as_fd().try_clone_to_owned()?,
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
        })
    }
}

impl BoxCommand {
    /// Runs `program` as if it were started here: same streams, environment and directory; this very program is the
    /// agent.
    ///
    /// # Errors
    /// This process has no working directory, standard streams or program file any more.
    pub fn new(program: impl Into<OsString>) -> Result<Self, BoxError> {
        let failed = |what| move |source| BoxError::Surroundings { what, source };
        Ok(Self {
            program: program.into(),
            args: Vec::new(),
            env: std::env::vars_os().collect(),
            cwd: std::env::current_dir().map_err(failed("the working directory"))?,
            memory_mib: MEMORY_MIB,
            vcpus: VCPUS,
            stdio: BoxStdio::inherit().map_err(failed("stdin, stdout and stderr"))?,
            boot_limit: BOOT_LIMIT,
            silence_limit: SILENCE_LIMIT,
            agent: std::env::current_exe().map_err(failed("this program's own file"))?,
        })
    }

    fn to_start(&self) -> Start {
        let BoxStdio {
            stdin,
            stdout,
            stderr,
        } = &self.stdio;
        let is_terminal = |fd: &OwnedFd| rustix::termios::isatty(fd);
        Start {
            program: self.program.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone().into(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
            terminal: [stdin, stdout, stderr].map(is_terminal),
            window: [stdin, stdout, stderr].into_iter().find_map(window_size),
        }
    }

    fn check(&self) -> Result<(), BoxError> {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let most = total_mib(&meminfo).unwrap_or(u64::MAX);
        if self.memory_mib < MEMORY_MIB_MIN || u64::from(self.memory_mib) > most {
            return Err(BoxError::Memory {
                memory_mib: self.memory_mib,
                most,
            });
        }
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return Err(BoxError::Vcpus { vcpus: self.vcpus });
        }
        if !self.agent.is_file() {
            return Err(BoxError::Agent {
                path: self.agent.clone(),
            });
        }
        Ok(())
    }
}

/// How a command in a box ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxExit {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

impl BoxExit {
    /// As a shell tells it: the status, or 128 and the signal's number.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => number.saturating_add(128),
        }
    }
}

impl From<BoxExit> for ExitCode {
    fn from(exit: BoxExit) -> Self {
        exit.status().into()
    }
}

/// How far a box has come, for whoever shows progress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoxStep {
    /// QEMU is being installed.
    InstallingQemu,
    /// The box's kernel and initramfs are being made; this happens once.
    Image(guest::Step),
    /// The box is starting.
    Booting,
    /// The command is about to run; the box took this long to boot.
    Running {
        /// From power-on to the agent's first word.
        boot: Duration,
    },
}

impl fmt::Display for BoxStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstallingQemu => write!(f, "installing {}", qemu::PACKAGE),
            Self::Image(step) => write!(f, "preparing the box: {step}"),
            Self::Booting => write!(f, "booting the box"),
            Self::Running { boot } => {
                write!(f, "the box is up after {:.1} s", boot.as_secs_f64())
            }
        }
    }
}

/// Why a command did not run in a box, or not to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BoxError {
    /// QEMU is missing and cannot be installed by this user.
    #[error(
        "the box needs {}, which is not installed; {}",
        qemu::PROGRAM,
        qemu::INSTALL_HINT
    )]
    NoQemu,
    /// Installing QEMU failed.
    #[error(transparent)]
    Install(InstallError),
    /// The box's kernel or initramfs cannot be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The memory asked for is too little or too much.
    #[error(
        "a box with {memory_mib} MiB of memory: it must be {MEMORY_MIB_MIN} MiB at least and {most} MiB, all that this \
         machine has, at most"
    )]
    Memory {
        /// What was asked for.
        memory_mib: u32,
        /// The machine's memory in MiB.
        most: u64,
    },
    /// The number of virtual CPUs is out of range.
    #[error("a box with {vcpus} virtual CPUs: it must be 1 to {VCPUS_MAX}")]
    Vcpus {
        /// What was asked for.
        vcpus: u32,
    },
    /// The program that is to be the agent is not there, as after it was replaced while it runs.
    #[error("the box runs this program as its agent, but {} is no file (any more); start it again", path.display())]
    Agent {
        /// Its path.
        path: PathBuf,
    },
    /// This process lacks something every process has.
    #[error("cannot use {what}: {source}")]
    Surroundings {
        /// What.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU cannot be started.
    #[error("cannot start {}: {source}", program.display())]
    Spawn {
        /// Its path.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The box did not come up in time.
    #[error("the box did not boot within {} s; the end of its console:{console}", limit.as_secs())]
    BootTimeout {
        /// The limit.
        limit: Duration,
        /// The console's last lines.
        console: String,
    },
    /// The box runs and does nothing any more.
    #[error("the box hung: nothing was heard of it for {} s; try again; the end of its console:{console}", limit.as_secs())]
    Hung {
        /// The limit.
        limit: Duration,
        /// The console's last lines.
        console: String,
    },
    /// The box ended before its command did.
    #[error("the box ended unexpectedly ({how}); the end of its console:{console}")]
    Died {
        /// How QEMU ended.
        how: String,
        /// The last lines of console and QEMU.
        console: String,
    },
    /// The program cannot be run in the box.
    #[error("cannot run {} in the box: {reason}", program.to_string_lossy())]
    NotStarted {
        /// The program.
        program: OsString,
        /// What the box said.
        reason: String,
        /// The shell's exit status for this: 127 if there is no such program, else 126.
        code: u8,
    },
    /// Talking with the box failed.
    #[error("the connection to the box failed: {0}")]
    Connection(String),
}

/// Runs a command in a box of its own and waits for its end.
///
/// The first signal of SIGINT, SIGTERM, SIGHUP or SIGQUIT to this process is passed on to the command; a second one, or
/// one before the command runs, ends the box at once ([`BoxExit::Signal`]). While stdin is a terminal, it is in raw
/// mode: its Ctrl-C is the command's. The box never outlives the calling thread.
///
/// # Errors
/// See [`BoxError`]. The box is gone whatever is returned.
pub fn run_in_box(command: &BoxCommand, progress: &dyn Fn(&BoxStep)) -> Result<BoxExit, BoxError> {
    command.check()?;
    let qemu = qemu::provide(&|| progress(&BoxStep::InstallingQemu))?;
    let image = image::obtain(&|step| progress(&BoxStep::Image(step.clone())))?;
    progress(&BoxStep::Booting);
    let machine = Machine {
        image: &image,
        agent: &command.agent,
        memory_mib: command.memory_mib,
        vcpus: command.vcpus,
    };
    let (agent, agent_far) = socket_pair()?;
    let (console, console_far) = socket_pair()?;
    let running = qemu::start(&qemu, &machine, agent_far, console_far)?;
    Exchange::new(command, running, agent, console)?.run(progress)
}

/// A connection of which this side never blocks.
fn socket_pair() -> Result<(OwnedFd, OwnedFd), BoxError> {
    let failed = |source| BoxError::Surroundings {
        what: "a socket",
        source,
    };
    let (near, far) = UnixStream::pair().map_err(failed)?;
    near.set_nonblocking(true).map_err(failed)?;
    Ok((near.into(), far.into()))
}

/// The file creation mask in the text of `/proc/PID/status`.
fn umask(status: &str) -> u32 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))
        .and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o022)
}

/// The machine's memory in MiB, from the text of `/proc/meminfo`.
fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Which of the caller's descriptors shows what `stream` carries.
fn target(stream: Stream, stdio: &BoxStdio) -> Option<&OwnedFd> {
    match stream {
        Stream::Stdin => None,
        Stream::Stdout => Some(&stdio.stdout),
        Stream::Stderr => Some(&stdio.stderr),
        Stream::Terminal => [&stdio.stdout, &stdio.stderr, &stdio.stdin]
            .into_iter()
            .find(|fd| rustix::termios::isatty(fd)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_about_this_process_and_machine_are_read() {
        assert_eq!(umask("Name:\tx\nUmask:\t0077\n"), 0o077);
        assert_eq!(umask(""), 0o022);
        assert_eq!(
            total_mib("MemTotal:       24683656 kB\nMemFree: 1 kB\n"),
            Some(24105)
        );
        assert_eq!(total_mib("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_started() {
        let refused = |change: fn(&mut BoxCommand)| {
            let mut command = BoxCommand::new("true").expect("a process has these");
            change(&mut command);
            let started = run_in_box(&command, &|step| unreachable!("{step}"));
            started.expect_err("refused").to_string()
        };
        assert!(refused(|c| c.memory_mib = 100).contains("100 MiB"));
        assert!(refused(|c| c.memory_mib = u32::MAX).contains("4294967295 MiB"));
        assert!(refused(|c| c.vcpus = 0).contains("0 virtual CPUs"));
        assert!(refused(|c| c.agent = "/no/such/kennel".into()).contains("/no/such/kennel"));
    }

    #[test]
    fn signals_are_told_as_a_shell_tells_them() {
        assert_eq!(BoxExit::Code(7).status(), 7);
        assert_eq!(BoxExit::Signal(9).status(), 137);
    }
}
