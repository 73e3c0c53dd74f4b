// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VM process from its supervisor's side: started, spoken to, and gone when this is dropped.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Program, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use super::spawner;
use command_fds::{CommandFdExt, FdMapping};
use kennel_vmm::config::MachineConfig;
use kennel_vmm::protocol::{Command, Notice};
use kennel_vmm::pulse::{PULSE_BYTES, Pulse, Sender as PulseSender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::controller::{Answers, Questions};

/// The hidden subcommand that makes this program a VM process.
pub const SUBCOMMAND: &str = "vm-process";
/// Where a VM process finds its supervisor's socket.
pub const CONTROL_FD: i32 = 3;
/// Where a VM process gives signs of life.
pub const PULSE_FD: i32 = 4;
/// This very program, also when its file has been replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// How long a VM process may take to end after it was told to.
const STOP_BOUND: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 500_000_000,
};
/// How long a killed one may take. Beyond that the kernel holds it, and nobody knows for how long.
const KILL_BOUND: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// The console's two ends.
#[derive(Debug)]
pub struct ConsoleEnds {
    /// What the guest reads.
    pub input: Stdio,
    /// What the guest prints.
    pub output: Stdio,
}

/// More answers than questions are under way.
const MOST_ANSWERS: usize = 8;

/// What a VM process has to say.
#[derive(Debug)]
pub enum Word {
    /// A notice.
    Notice(Box<Notice>),
    /// The process has closed its socket and ended, or been killed: see [`VmProcess::reap`].
    Gone,
}

/// The process.
#[derive(Debug)]
pub struct VmProcess {
    pid: u32,
    /// None once somebody else waits for it.
    child: Option<Child>,
    pidfd: Arc<OwnedFd>,
    socket: UnixStream,
    pulse: OwnedFd,
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
        Self::start_logging_to(config, console, Stdio::inherit(), say)
    }

    /// The same with its log lines at `log`.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub fn start_logging_to(
        config: MachineConfig,
        console: ConsoleEnds,
        log: Stdio,
        say: impl FnMut(Word) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let reader = ours.try_clone()?;
        let (pulse, theirs_pulse) = pulse_sockets()?;
        let mut program = Program::new(THIS_PROGRAM);
        program
            .arg(SUBCOMMAND)
            .arg0("kennel")
            .stdin(console.input)
            .stdout(console.output)
            .stderr(log);
        let mapping = |parent_fd, child_fd| FdMapping {
            parent_fd,
            child_fd,
        };
        let mappings = vec![
            mapping(OwnedFd::from(theirs), CONTROL_FD),
            mapping(theirs_pulse, PULSE_FD),
        ];
        program.fd_mappings(mappings).map_err(io::Error::other)?;
        let child = spawner::spawn(program)?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let mut process = Self {
            pid: child.id(),
            child: Some(child),
            pidfd: Arc::new(pidfd),
            socket: ours,
            pulse,
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
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a command. It waits for no process that reads none: the supervisor has others.
    ///
    /// # Errors
    ///
    /// The process is gone, or has so many commands to read that it takes no more.
    pub fn tell(&mut self, command: &Command) -> io::Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        // The kernel calls a socket writable while most of its buffer is free: a line is taken whole.
        let mut ends = [PollFd::new(&self.socket, PollFlags::OUT)];
        if poll(&mut ends, Some(&Timespec::default()))? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.socket.write_all(&line)
    }

    /// Asks for signs of life: the event loop and the second thread, each if there is a number for it.
    pub fn ask_pulse(&mut self, questions: Questions) {
        if let Some(number) = questions.to_loop
            && let Err(error) = self.tell(&Command::Pulse(number))
        {
            log::debug!("the VM process was not asked for a sign of life: {error}");
        }
        if let Some(number) = questions.to_second_thread {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            if let Err(error) = send(&self.pulse, &number.to_le_bytes(), flags) {
                log::debug!("the VM process' second thread was not asked: {error}");
            }
        }
    }

    /// What the VM process has answered since, and whether it runs.
    #[must_use]
    pub fn take_pulse(&self) -> Answers {
        let mut answers = Answers {
            state: process_state(self.pid),
            ..Answers::default()
        };
        let mut bytes = [0; PULSE_BYTES];
        for _ in 0..MOST_ANSWERS {
            let Ok((count, _)) = recv(&self.pulse, &mut bytes, RecvFlags::DONTWAIT) else {
                break;
            };
            let Some(pulse) = bytes.get(..count).and_then(Pulse::from_bytes) else {
                continue;
            };
            match pulse.sender {
                PulseSender::EventLoop => answers.from_loop = Some(pulse),
                PulseSender::SecondThread => answers.from_second_thread = Some(pulse),
            }
        }
        answers
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

    /// How a process ended that said its last word. Waits for nothing: one that the kernel still
    /// holds, although it was killed, is left to a thread that waits for it.
    ///
    /// # Errors
    ///
    /// It has not ended, or the kernel's.
    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        let Some(child) = &mut self.child else {
            return Err(self.held());
        };
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let Some(child) = self.child.take() {
            let _reaper = reap_later(child)?;
        }
        Err(self.held())
    }

    /// Waits for a process that said its last word; kills one that does not go. Takes a few seconds
    /// at most.
    ///
    /// # Errors
    ///
    /// As for [`Self::reap`].
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let running = match &mut self.child {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        };
        if running {
            end(&self.pidfd)?;
        }
        self.reap()
    }

    fn held(&self) -> io::Error {
        io::Error::other(format!(
            "process {} does not end although it was killed; the kernel holds it, which may be for \
             a disk or a network file system that does not answer",
            self.pid
        ))
    }
}

impl Drop for VmProcess {
    fn drop(&mut self) {
        self.disconnect();
        // One that was handed over has been told of.
        let ended = self.child.is_none() || self.wait().is_ok();
        if !ended {
            log::warn!("VM process {} is left behind: it does not end", self.pid);
        }
    }
}

/// Ours, and the VM process'.
fn pulse_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// The letter that the kernel gives for what the process does: T and t are stopped.
fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may have any letter in it.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits for `child` without holding anybody up.
fn reap_later(mut child: Child) -> io::Result<JoinHandle<io::Result<ExitStatus>>> {
    thread::Builder::new()
        .name("vm-reaper".into())
        .spawn(move || child.wait())
}

/// Waits until the process has ended; kills one that takes too long, and waits for that, too, but
/// not for ever.
fn end(pidfd: &OwnedFd) -> io::Result<()> {
    if !ends_within(pidfd, &STOP_BOUND)? {
        pidfd_send_signal(pidfd, Signal::KILL)?;
        ends_within(pidfd, &KILL_BOUND)?;
    }
    Ok(())
}

fn ends_within(pidfd: &OwnedFd, bound: &Timespec) -> io::Result<bool> {
    let mut ends = [PollFd::new(pidfd, PollFlags::IN)];
    loop {
        match poll(&mut ends, Some(bound)) {
            Err(Errno::INTR) => {}
            answer => return Ok(answer? > 0),
        }
    }
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
    // Whoever hears of it finds the process gone, and need not wait: other VMs want something, too.
    if let Err(error) = end(pidfd) {
        log::debug!("the VM process cannot be waited for: {error}");
    }
    // Nobody listens any more once the supervisor has its verdict.
    let _heard = say(Word::Gone);
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// `cat`, which takes no notice of a closed socket, in the place of a VM process.
    fn stubborn() -> VmProcess {
        let mut program = Program::new("cat");
        let child = program.stdin(Stdio::piped()).spawn().expect("cat");
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("a pidfd");
        VmProcess {
            pid: child.id(),
            child: Some(child),
            pidfd: Arc::new(pidfd),
            socket: UnixStream::pair().expect("sockets").0,
            pulse: pulse_sockets().expect("sockets").0,
        }
    }

    /// One that is held by the kernel cannot be had; one that lives is as little ended.
    #[test]
    fn process_that_does_not_end_holds_up_nobody() {
        let mut process = stubborn();
        let mut child = process.child.take().expect("a child");
        let input = child.stdin.take();
        process.child = Some(child);
        let error = process.reap().expect_err("it lives").to_string();
        assert!(error.contains(&process.pid().to_string()), "{error}");
        assert!(process.reap().is_err(), "somebody else waits for it");
        // Nothing to wait for, or to kill.
        let pidfd = Arc::clone(&process.pidfd);
        drop(process);
        assert!(!ends_within(&pidfd, &Timespec::default()).expect("a poll"));
        drop(input);
        end(&pidfd).expect("it ends with its input");
    }

    #[test]
    fn process_that_reads_no_command_holds_up_nobody() {
        let mut process = stubborn();
        let (ours, _unread) = UnixStream::pair().expect("sockets");
        process.socket = ours;
        let refused = (0..1_000_000).find_map(|_| process.tell(&Command::Resume).err());
        let kind = refused.map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn process_that_was_handed_over_is_reaped() {
        let mut child = stubborn().child.take().expect("a child");
        let input = child.stdin.take();
        let reaper = reap_later(child).expect("a thread");
        drop(input);
        let status = reaper.join().expect("no panic").expect("its status");
        assert!(status.success(), "{status}");
    }

    #[test]
    fn process_that_stays_is_killed() {
        let mut process = stubborn();
        let mut child = process.child.take().expect("a child");
        let _input = child.stdin.take();
        process.child = Some(child);
        end(&process.pidfd).expect("it can be killed");
        let status = process.reap().expect("its status");
        assert_eq!(status.signal(), Some(9));
    }
}
