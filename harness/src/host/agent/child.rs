// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command: started with its streams, sent signals, reaped.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::streams::{Input, Output};
use crate::host::check::BOX_MARKER;
use crate::host::link::Link;
use crate::host::protocol::{Ended, Frame, Start, Stream, WindowSize};

/// A place for sockets and FIFOs, which the machine's own file systems can't hold in the box.
pub(super) const RUNTIME_DIRECTORY: &str = "/run/kennel";
/// Where programs are looked for without a PATH, as execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// The shell's exit statuses for "cannot be run" and "not found".
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Why the command did not start.
#[derive(Debug)]
pub(super) struct SpawnError {
    pub code: u8,
    pub reason: String,
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        let (code, reason) = match error.kind() {
            io::ErrorKind::NotFound => (
                NOT_FOUND,
                "no such program (give its path, or put its directory into PATH)".to_owned(),
            ),
            io::ErrorKind::PermissionDenied => (
                CANNOT_RUN,
                "this user may not execute it (see its permissions with `ls -l`)".to_owned(),
            ),
            _ => (CANNOT_RUN, error.to_string()),
        };
        Self { code, reason }
    }
}

impl From<rustix::io::Errno> for SpawnError {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// The running command.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    gone: bool,
    /// Becomes readable whenever any process of the box has ended.
    deaths: UnixStream,
    input: Input,
    outputs: Vec<Output>,
    terminal: Option<Arc<OwnedFd>>,
}

/// What a new command gets, and what the agent keeps of it.
struct Streams {
    /// The command's ends of stdin, stdout and stderr.
    ends: [Stdio; 3],
    input: Input,
    outputs: Vec<Output>,
    terminal: Option<Arc<OwnedFd>>,
}

impl Child {
    pub(super) fn spawn(start: &Start) -> Result<Self, SpawnError> {
        if !Path::new(&start.cwd).is_dir() {
            return Err(SpawnError {
                code: CANNOT_RUN,
                reason: format!(
                    "the box has no directory {} to run it in (/run, /dev, /proc and /sys are the box's own)",
                    Path::new(&start.cwd).display()
                ),
            });
        }
        if !is_there(start) {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        let (deaths, death) = UnixStream::pair()?;
        deaths.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, death)?;
        let streams = Streams::open(start)?;
        let [stdin, stdout, stderr] = streams.ends;
        rustix::process::umask(Mode::from_raw_mode(start.umask));
        let child = command(start)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.ok_or(io::Error::from(io::ErrorKind::InvalidData))?,
            gone: false,
            deaths,
            input: streams.input,
            outputs: streams.outputs,
            terminal: streams.terminal,
        })
    }

    /// Whether more output may come.
    pub(super) fn output_is_open(&self) -> bool {
        self.outputs.iter().any(Output::is_open)
    }

    /// Whether output waits for the caller to take some first.
    pub(super) fn output_is_starved(&self) -> bool {
        self.outputs.iter().any(Output::is_starved)
    }

    pub(super) fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.deaths, PollFlags::IN));
        fds.extend(self.input.poll_fd());
        fds.extend(self.outputs.iter().filter_map(Output::poll_fd));
    }

    /// Moves what can be moved without waiting.
    pub(super) fn exchange(&mut self, link: &mut Link) {
        self.input.pass_on(link);
        for output in &mut self.outputs {
            output.pass_on(link);
        }
    }

    /// Does what the caller says.
    pub(super) fn obey(&mut self, frame: Frame) {
        match frame {
            Frame::Data(Stream::Stdin, data) => self.input.push(&data),
            Frame::End(Stream::Stdin) => self.input.end(),
            Frame::End(stream) => self.each(stream, Output::close),
            Frame::Credit(stream, bytes) => self.each(stream, |output| output.grant(bytes)),
            Frame::Signal(number) => self.signal(number),
            Frame::Window(size) => self.resize(size),
            // The rest is what an agent says, or has been said already.
            _ => {}
        }
    }

    fn each(&mut self, stream: Stream, act: impl Fn(&mut Output)) {
        self.outputs
            .iter_mut()
            .filter(|output| output.stream() == stream)
            .for_each(act);
    }

    /// What a terminal would send goes to the whole group, as a terminal would send it; the rest to the command alone.
    fn signal(&self, number: u8) {
        let Some(signal) = Signal::from_named_raw(i32::from(number)).filter(|_| !self.gone) else {
            return;
        };
        let from_terminal = matches!(signal, Signal::INT | Signal::QUIT | Signal::HUP);
        if !from_terminal || rustix::process::kill_process_group(self.pid, signal).is_err() {
            // It can have ended just now, and that is all that can be wrong.
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    fn resize(&self, size: WindowSize) {
        if let Some(terminal) = &self.terminal {
            // A size is a courtesy; the command runs without it too.
            let _ = tcsetwinsize(terminal, winsize(size));
        }
    }

    /// Reaps whatever has ended (orphans come to process 1), and tells how the command did, if it is among them.
    pub(super) fn reap(&mut self) -> Option<Ended> {
        let mut scratch = [0; 64];
        while rustix::io::read(&self.deaths, &mut scratch).is_ok_and(|count| count > 0) {}
        let mut ended = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid != self.pid {
                continue;
            }
            self.gone = true;
            let small = |number: Option<i32>| number.and_then(|n| u8::try_from(n).ok());
            ended = match small(status.terminating_signal()) {
                Some(number) => Some(Ended::Signal(number)),
                None => Some(Ended::Code(small(status.exit_status()).unwrap_or(u8::MAX))),
            };
        }
        ended
    }
}

/// Whether there is such a program. Starting it would tell as well, but setsid would be the one that is told.
fn is_there(start: &Start) -> bool {
    let program = Path::new(&start.program);
    if program.components().count() > 1 || program.is_absolute() {
        return Path::new(&start.cwd).join(program).exists();
    }
    let path = start.env.iter().rfind(|(name, _)| name == "PATH");
    let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path);
    std::env::split_paths(path)
        .any(|directory| Path::new(&start.cwd).join(directory).join(program).exists())
}

/// The command itself. With a terminal as its stdin it gets a session of its own with that terminal, by setsid
/// (util-linux), else a process group of its own.
fn command(start: &Start) -> Command {
    let mut command = if start.terminal[0] {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--"]).arg(&start.program);
        command
    } else {
        let mut command = Command::new(&start.program);
        command.process_group(0);
        command
    };
    command
        .args(&start.args)
        .env_clear()
        .envs(start.env.iter().map(|(name, value)| (name, value)))
        .env(BOX_MARKER, "1")
        .env("XDG_RUNTIME_DIR", RUNTIME_DIRECTORY)
        .current_dir(&start.cwd)
        .uid(start.uid)
        .gid(start.gid);
    command
}

impl Streams {
    fn open(start: &Start) -> Result<Self, SpawnError> {
        let (terminal, far_end) = if start.terminal.contains(&true) {
            let (near, far) = open_terminal(start.window)?;
            (Some(Arc::new(near)), Some(far))
        } else {
            (None, None)
        };
        let mut outputs: Vec<Output> = terminal
            .iter()
            .map(|near| Output::new(Stream::Terminal, Arc::clone(near)))
            .collect();
        let far = |wanted: bool| match &far_end {
            Some(far) if wanted => far.try_clone().map(Some),
            _ => Ok(None),
        };
        let (stdin, input) = match (far(start.terminal[0])?, &terminal) {
            (Some(far), Some(near)) => (far, Input::new(Arc::clone(near), true)),
            _ => {
                let (reader, writer) = pipe(End::Write)?;
                (reader, Input::new(Arc::new(writer), false))
            }
        };
        let mut output = |wanted: bool, stream| -> Result<OwnedFd, SpawnError> {
            if let Some(far) = far(wanted)? {
                return Ok(far);
            }
            let (reader, writer) = pipe(End::Read)?;
            outputs.push(Output::new(stream, Arc::new(reader)));
            Ok(writer)
        };
        let stdout = output(start.terminal[1], Stream::Stdout)?;
        let stderr = output(start.terminal[2], Stream::Stderr)?;
        Ok(Self {
            ends: [stdin.into(), stdout.into(), stderr.into()],
            input,
            outputs,
            terminal,
        })
    }
}

/// Which end of a pipe is the agent's, and so must never block.
enum End {
    Read,
    Write,
}

/// The reading and the writing end.
fn pipe(ours: End) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let ours = match ours {
        End::Read => &reader,
        End::Write => &writer,
    };
    rustix::io::ioctl_fionbio(ours, true)?;
    Ok((reader, writer))
}

/// A new terminal: the agent's end and the command's end.
fn open_terminal(size: Option<WindowSize>) -> io::Result<(OwnedFd, OwnedFd)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&near)?;
    let name = ptsname(&near, Vec::new())?;
    let far = rustix::fs::open(
        OsStr::from_bytes(name.as_bytes()),
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::io::ioctl_fionbio(&near, true)?;
    if let Some(size) = size {
        tcsetwinsize(&near, winsize(size))?;
    }
    Ok((near, far))
}

fn winsize(size: WindowSize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str, cwd: &str, path: Option<&str>) -> Start {
        Start {
            program: program.into(),
            args: Vec::new(),
            env: path
                .map(|path| ("PATH".into(), path.into()))
                .into_iter()
                .collect(),
            cwd: cwd.into(),
            uid: 0,
            gid: 0,
            umask: 0,
            terminal: [false; 3],
            window: None,
        }
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let found = |program, cwd, path| is_there(&start(program, cwd, path));
        assert!(found("sh", "/", None) && found("sh", "/", Some("/nowhere:/bin")));
        assert!(found("/bin/sh", "/", None) && found("./sh", "/bin", Some("/nowhere")));
        assert!(found("bin/sh", "/", None) && found("sh", "/", Some("bin")));
        assert!(!found("sh", "/bin", Some("/nowhere")) && !found("./sh", "/", Some("/bin")));
        assert!(!found("", "/", Some("/nowhere")) && !found("no such", "/", None));
    }

    #[test]
    fn a_missing_program_or_directory_is_told_from_one_that_may_not_run() {
        let failed = |start: Start| Child::spawn(&start).expect_err("cannot start");
        assert_eq!(failed(start("no such", "/", None)).code, NOT_FOUND);
        assert_eq!(failed(start("sh", "/no such", None)).code, CANNOT_RUN);
    }
}
