// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VM process from its supervisor's side: started, spoken to, and gone when this is dropped.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Program, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use command_fds::{CommandFdExt, FdMapping};
use kennel_vmm::config::MachineConfig;
use kennel_vmm::protocol::{Command, Notice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The hidden subcommand that makes this program a VM process.
pub const SUBCOMMAND: &str = "vm-process";
/// Where a VM process finds its supervisor's socket.
pub const CONTROL_FD: i32 = 3;
/// This very program, also when its file has been replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// How long a VM process may take to end after it was told to.
const STOP_BOUND: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 500_000_000,
};

/// The console's two ends.
#[derive(Debug)]
pub struct ConsoleEnds {
    /// What the guest reads.
    pub input: Stdio,
    /// What the guest prints.
    pub output: Stdio,
}

/// What a VM process has to say.
#[derive(Debug)]
pub enum Word {
    /// A notice.
    Notice(Box<Notice>),
    /// The process has closed its socket and ended.
    Gone,
}

/// The process.
#[derive(Debug)]
pub struct VmProcess {
    child: Child,
    pidfd: Arc<OwnedFd>,
    socket: UnixStream,
}

impl VmProcess {
    /// Starts a VM process for `config`; what it says goes to `words`.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub fn start<W: From<Word> + Send + 'static>(
        config: MachineConfig,
        console: ConsoleEnds,
        words: Sender<W>,
    ) -> io::Result<Self> {
        Self::start_telling(config, console, move |word| words.send(word.into()).is_ok())
    }

    /// Starts a VM process for `config`; what it says goes to `say`, until that wants no more.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub fn start_telling(
        config: MachineConfig,
        console: ConsoleEnds,
        say: impl FnMut(Word) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let reader = ours.try_clone()?;
        let mut program = Program::new(THIS_PROGRAM);
        program
            .arg(SUBCOMMAND)
            .arg0("kennel")
            .stdin(console.input)
            .stdout(console.output);
        let mapping = FdMapping {
            parent_fd: OwnedFd::from(theirs),
            child_fd: CONTROL_FD,
        };
        program
            .fd_mappings(vec![mapping])
            .map_err(io::Error::other)?;
        let child = program.spawn()?;
        // Our copy of the child's end would keep the socket open after the child's death.
        drop(program);
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let mut process = Self {
            child,
            pidfd: Arc::new(pidfd),
            socket: ours,
        };
        process.tell(&Command::Start(Box::new(config)))?;
        let pidfd = Arc::clone(&process.pidfd);
        thread::Builder::new()
            .name("vm-words".into())
            .spawn(move || listen(reader, &pidfd, say))?;
        Ok(process)
    }

    /// Process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub fn tell(&mut self, command: &Command) -> io::Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        self.socket.write_all(&line)
    }

    /// Closes the socket, which tells the process that its supervisor is gone.
    pub fn disconnect(&self) {
        // It fails for a process that has closed its own end, which is as good.
        let _told = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Kills it.
    ///
    /// # Errors
    ///
    /// It has ended already, or the kernel's.
    pub fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, Signal::KILL)?)
    }

    /// Waits for a process that said its last word; kills one that does not go.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        end(&self.pidfd)?;
        self.child.wait()
    }
}

impl Drop for VmProcess {
    fn drop(&mut self) {
        self.disconnect();
        // It fails for a process that has been waited for, which is how it usually is.
        let _status = self.wait();
    }
}

/// Waits until the process has ended; kills one that takes too long.
fn end(pidfd: &OwnedFd) -> io::Result<()> {
    let mut ends = [PollFd::new(pidfd, PollFlags::IN)];
    let ended = loop {
        match poll(&mut ends, Some(&STOP_BOUND)) {
            Err(Errno::INTR) => {}
            answer => break answer?,
        }
    };
    if ended == 0 {
        pidfd_send_signal(pidfd, Signal::KILL)?;
    }
    Ok(())
}

fn listen(socket: UnixStream, pidfd: &OwnedFd, mut say: impl FnMut(Word) -> bool) {
    for line in BufReader::new(socket).lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(notice) => {
                if !say(Word::Notice(Box::new(notice))) {
                    return;
                }
            }
            Err(error) => log::error!("the VM process said {line:?}, which is no notice: {error}"),
        }
    }
    // Whoever hears of it finds the process gone, and need not wait.
    if let Err(error) = end(pidfd) {
        log::debug!("the VM process cannot be waited for: {error}");
    }
    // Nobody listens any more once the supervisor has its verdict.
    let _heard = say(Word::Gone);
}
