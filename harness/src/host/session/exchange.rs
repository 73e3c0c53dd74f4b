// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Passes everything between the caller's streams and a running box, until the command has ended.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{BoxCommand, BoxError, BoxExit, BoxStep, target};
use crate::host::link::Link;
use crate::host::protocol::{CHUNK, Ended, Frame, Start, Stream, VERSION, WINDOW};
use crate::host::qemu::Running;
use crate::host::signals::{Caught, Signals};
use crate::host::tail::Tail;
use crate::host::terminal::{RawMode, window_size};
use crate::host::writer::{Report, Reports};

/// A second signal ends the box, but not one that comes with the first: some send the same signal twice in a row.
const SECOND_SIGNAL: Duration = Duration::from_millis(500);
/// How often a running box is nudged. QEMU 7.2 at times leaves an emulated CPU asleep that has an interrupt waiting; the
/// next one, of whatever kind, wakes it.
const NUDGE_EVERY: Duration = Duration::from_secs(1);
/// How long a QEMU that has closed its connection may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Kills QEMU when dropped.
#[derive(Debug)]
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended already; either way it is reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the box has come to.
#[derive(Debug)]
enum Phase {
    Booting,
    Running,
    /// The command has ended; its last output is being written.
    Ended(BoxExit),
}

/// One of the command's output streams on this side.
#[derive(Debug)]
struct Output {
    stream: Stream,
    /// Dropped when no more is to come.
    writer: Option<Sender<Vec<u8>>>,
    done: bool,
}

/// A box and everything that is connected to it.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    /// Fields are dropped in this order: the terminal is itself again before signals take their usual effect.
    raw: Option<RawMode>,
    command: &'a BoxCommand,
    start: Start,
    link: Link,
    console: Option<OwnedFd>,
    complaints: Option<OwnedFd>,
    tail: Tail,
    outputs: Vec<Output>,
    reports: Reports,
    signals: Signals,
    /// Bytes of stdin that the box has room for; None when no more is to be read.
    stdin: Option<usize>,
    first_signal: Option<Instant>,
    phase: Phase,
    started: Instant,
    /// When the box last said anything.
    heard: Instant,
    nudged: Instant,
    qemu: Qemu,
}

/// Which descriptors a wait found something on.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    link: bool,
    stdin: bool,
    timed_out: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        command: &'a BoxCommand,
        running: Running,
        agent: OwnedFd,
        console: OwnedFd,
    ) -> Result<Self, BoxError> {
        // From here on, every way out kills QEMU.
        let qemu = Qemu(running.child);
        let failed = |what| move |source: io::Error| BoxError::Surroundings { what, source };
        rustix::io::ioctl_fionbio(&running.stderr, true)
            .map_err(|errno| failed("a pipe")(errno.into()))?;
        let mut link = Link::new(agent);
        let start = command.to_start();
        link.queue(&Frame::Start(Box::new(start.clone())));
        let reports = Reports::new().map_err(failed("a socket"))?;
        let mut outputs = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr, Stream::Terminal] {
            let Some(fd) = target(stream, &command.stdio) else {
                continue;
            };
            let writer = fd
                .try_clone()
                .and_then(|fd| reports.writer(stream, fd))
                .map_err(failed("the output"))?;
            outputs.push(Output {
                stream,
                writer: Some(writer),
                done: false,
            });
        }
        Ok(Self {
            command,
            start,
            link,
            console: Some(console),
            complaints: Some(running.stderr),
            tail: Tail::default(),
            outputs,
            reports,
            signals: Signals::watch().map_err(failed("signals"))?,
            stdin: Some(WINDOW),
            first_signal: None,
            phase: Phase::Booting,
            started: Instant::now(),
            heard: Instant::now(),
            nudged: Instant::now(),
            raw: None,
            qemu,
        })
    }

    pub(super) fn run(mut self, progress: &dyn Fn(&BoxStep)) -> Result<BoxExit, BoxError> {
        loop {
            self.nudge();
            // A box that has just gone away is noticed by reading.
            let _ = self.link.flush();
            let ready = self.wait()?;
            self.read_console();
            if let Some(exit) = self.take_signals() {
                return Ok(exit);
            }
            self.take_reports();
            if let Phase::Ended(exit) = self.phase {
                if self.outputs.iter().all(|output| output.done) {
                    return Ok(exit);
                }
                continue;
            }
            if ready.timed_out {
                return Err(self.timed_out());
            }
            if ready.stdin {
                self.read_stdin();
            }
            if ready.link {
                self.read_link(progress)?;
            }
        }
    }

    /// Whatever is sent is an interrupt in the box.
    fn nudge(&mut self) {
        if matches!(self.phase, Phase::Running) && self.nudged.elapsed() >= NUDGE_EVERY {
            self.nudged = Instant::now();
            if !self.link.has_queued() {
                self.link.queue(&Frame::Alive);
            }
        }
    }

    fn wait(&self) -> Result<Ready, BoxError> {
        let ended = matches!(self.phase, Phase::Ended(_));
        let booting = matches!(self.phase, Phase::Booting);
        let mut fds = Vec::new();
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.link.has_queued());
        if !ended {
            fds.push(PollFd::new(&self.link, flags));
        }
        let stdin = (!ended && !booting && self.stdin.is_some_and(|room| room > 0)).then(|| {
            fds.push(PollFd::new(&self.command.stdio.stdin, PollFlags::IN));
            fds.len() - 1
        });
        fds.push(PollFd::new(&self.reports.bell, PollFlags::IN));
        for fd in [&self.console, &self.complaints].into_iter().flatten() {
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        self.signals.poll_fds(&mut fds);
        let limit = (!ended).then(|| self.time_left().min(NUDGE_EVERY));
        let limit = limit.map(|limit| Timespec::try_from(limit).unwrap_or_default());
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => {
                return Err(BoxError::Surroundings {
                    what: "poll",
                    source: errno.into(),
                });
            }
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let link = !ended && is_ready(0);
        let late = !ended && self.time_left().is_zero();
        Ok(Ready {
            link,
            stdin: stdin.is_some_and(is_ready),
            // What it said while this process stood still counts.
            timed_out: late && !link,
        })
    }

    /// How long the box may still take to boot, or to say something.
    fn time_left(&self) -> Duration {
        match self.phase {
            Phase::Booting => self
                .command
                .boot_limit
                .saturating_sub(self.started.elapsed()),
            Phase::Running | Phase::Ended(_) => self
                .command
                .silence_limit
                .saturating_sub(self.heard.elapsed()),
        }
    }

    fn timed_out(&self) -> BoxError {
        let console = self.tail.lines();
        match self.phase {
            Phase::Booting => BoxError::BootTimeout {
                limit: self.command.boot_limit,
                console,
            },
            Phase::Running | Phase::Ended(_) => BoxError::Hung {
                limit: self.command.silence_limit,
                console,
            },
        }
    }

    fn read_console(&mut self) {
        let mut buffer = [0; 4096];
        for source in [&mut self.console, &mut self.complaints] {
            while let Some(fd) = source {
                match rustix::io::read(&*fd, &mut buffer) {
                    Ok(count) if count > 0 => {
                        self.tail.push(buffer.get(..count).unwrap_or_default());
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Ok(_) | Err(_) => *source = None,
                }
            }
        }
    }

    /// Passes signals on; gives an exit if the box is to end at once.
    fn take_signals(&mut self) -> Option<BoxExit> {
        for caught in self.signals.caught() {
            match caught {
                Caught::Resized => {
                    let stdio = &self.command.stdio;
                    let size = target(Stream::Terminal, stdio).and_then(window_size);
                    if let Some(size) = size {
                        self.link.queue(&Frame::Window(size));
                    }
                }
                Caught::Continue(number) => self.link.queue(&Frame::Signal(number)),
                Caught::Forward(number) => {
                    let first = *self.first_signal.get_or_insert_with(Instant::now);
                    let again = first.elapsed() >= SECOND_SIGNAL;
                    if again || !matches!(self.phase, Phase::Running) {
                        return Some(BoxExit::Signal(number));
                    }
                    self.link.queue(&Frame::Signal(number));
                }
            }
        }
        None
    }

    fn take_reports(&mut self) {
        let mut scratch = [0; 64];
        while rustix::io::read(&self.reports.bell, &mut scratch).is_ok_and(|count| count > 0) {}
        while let Ok((stream, report)) = self.reports.receiver.try_recv() {
            match report {
                Report::Written(count) => {
                    let count = u32::try_from(count).unwrap_or(u32::MAX);
                    self.link.queue(&Frame::Credit(stream, count));
                }
                Report::Broken => {
                    self.close(stream);
                    self.link.queue(&Frame::End(stream));
                }
                Report::Done => {
                    for output in &mut self.outputs {
                        output.done |= output.stream == stream;
                    }
                }
            }
        }
    }

    fn close(&mut self, stream: Stream) {
        for output in &mut self.outputs {
            if output.stream == stream {
                output.writer = None;
            }
        }
    }

    fn read_stdin(&mut self) {
        let Some(room) = self.stdin else {
            return;
        };
        let mut buffer = vec![0; room.min(CHUNK)];
        match rustix::io::read(&self.command.stdio.stdin, &mut buffer) {
            Ok(count) if count > 0 => {
                buffer.truncate(count);
                self.stdin = Some(room - buffer.len());
                self.link.queue(&Frame::Data(Stream::Stdin, buffer));
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(_) | Err(_) => {
                self.stdin = None;
                self.link.queue(&Frame::End(Stream::Stdin));
            }
        }
    }

    fn read_link(&mut self, progress: &dyn Fn(&BoxStep)) -> Result<(), BoxError> {
        let failed = |reason: String| BoxError::Connection(reason);
        let open = self.link.receive().map_err(|e| failed(e.to_string()))?;
        self.heard = Instant::now();
        while let Some(frame) = self.link.next().map_err(|e| failed(e.to_string()))? {
            self.obey(frame, progress)?;
        }
        if !open && !matches!(self.phase, Phase::Ended(_)) {
            return Err(self.died());
        }
        Ok(())
    }

    fn obey(&mut self, frame: Frame, progress: &dyn Fn(&BoxStep)) -> Result<(), BoxError> {
        match frame {
            Frame::Hello(VERSION) => {
                self.phase = Phase::Running;
                progress(&BoxStep::Running {
                    boot: self.started.elapsed(),
                });
                self.take_terminal()?;
            }
            Frame::Hello(other) => {
                return Err(BoxError::Connection(format!(
                    "{} speaks version {other}, this program version {VERSION}; start it again",
                    self.command.agent.display()
                )));
            }
            Frame::Data(stream, data) => {
                let outputs = self.outputs.iter().filter(|output| output.stream == stream);
                for writer in outputs.filter_map(|output| output.writer.as_ref()) {
                    // A writer that gave up has reported so.
                    let _ = writer.send(data.clone());
                }
            }
            Frame::End(Stream::Stdin) => self.stdin = None,
            Frame::End(stream) => self.close(stream),
            Frame::Credit(Stream::Stdin, bytes) => {
                let bytes = usize::try_from(bytes).unwrap_or(0);
                self.stdin = self
                    .stdin
                    .map(|room| room.saturating_add(bytes).min(WINDOW));
            }
            Frame::Exit(ended) => {
                for output in &mut self.outputs {
                    output.writer = None;
                }
                self.phase = Phase::Ended(match ended {
                    Ended::Code(code) => BoxExit::Code(code),
                    Ended::Signal(number) => BoxExit::Signal(number),
                });
            }
            Frame::NotStarted(code, reason) => {
                return Err(BoxError::NotStarted {
                    program: self.command.program.clone(),
                    reason,
                    code,
                });
            }
            // Heard is heard.
            Frame::Alive => {}
            // The rest is what a caller says.
            Frame::Start(_) | Frame::Signal(_) | Frame::Window(_) | Frame::Credit(..) => {}
        }
        Ok(())
    }

    /// From now on keys are the command's. Until now they were the caller's, so that Ctrl-C could end the boot.
    fn take_terminal(&mut self) -> Result<(), BoxError> {
        if self.start.terminal[0] {
            let raw = RawMode::enter(&self.command.stdio.stdin).map_err(|source| {
                BoxError::Surroundings {
                    what: "the terminal",
                    source,
                }
            })?;
            self.raw = Some(raw);
        }
        Ok(())
    }

    /// QEMU has closed the connection: waits for its end and its last words.
    fn died(&mut self) -> BoxError {
        let closed = Instant::now();
        let mut how = None;
        while how.is_none() && closed.elapsed() < END_LIMIT {
            how = self.qemu.0.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(10));
        }
        self.read_console();
        BoxError::Died {
            how: how.map_or("its connection is closed".into(), |how| {
                format!("QEMU: {how}")
            }),
            console: self.tail.lines(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::host::protocol::Decoder;
    use crate::host::session::socket_pair;

    /// Far longer than the limit under test.
    const BOUND: Duration = Duration::from_secs(30);

    /// How the command ends in a box that does what `speak` does, and as little as a hung QEMU beside.
    fn run(
        command: &BoxCommand,
        speak: impl FnOnce(UnixStream) + Send + 'static,
    ) -> Result<BoxExit, BoxError> {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stderr(Stdio::piped())
            .spawn()
            .expect("sleep runs");
        let stderr = child.stderr.take().expect("piped").into();
        let (agent, far) = socket_pair().expect("sockets");
        let (console, _console_far) = socket_pair().expect("sockets");
        let speaker = std::thread::spawn(move || {
            let mut far = UnixStream::from(far);
            say(&mut far, &Frame::Hello(VERSION));
            speak(far);
        });
        let running = Running { child, stderr };
        let exchange = Exchange::new(command, running, agent, console).expect("resources");
        let exit = exchange.run(&|_| {});
        speaker.join().expect("no panic");
        exit
    }

    fn say(far: &mut UnixStream, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        far.write_all(&bytes).expect("somebody listens");
    }

    #[test]
    fn a_box_that_says_nothing_any_more_is_ended() {
        let mut command = BoxCommand::new("true").expect("a process has these");
        command.silence_limit = Duration::from_millis(20);
        let exit = run(&command, |mut far| {
            // A caller that waits for ever would take this for the box's end.
            far.set_read_timeout(Some(BOUND)).expect("a socket");
            while far.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        });
        assert!(matches!(exit, Err(BoxError::Hung { .. })), "{exit:?}");
    }

    #[test]
    fn a_box_is_nudged_until_it_is_over() {
        let command = BoxCommand::new("true").expect("a process has these");
        let exit = run(&command, |mut far| {
            let (mut decoder, mut nudges) = (Decoder::default(), 0);
            far.set_read_timeout(Some(BOUND)).expect("a socket");
            while nudges < 2 {
                let mut bytes = [0; 4096];
                let count = far.read(&mut bytes).expect("a nudge");
                decoder.push(&bytes[..count]);
                while let Some(frame) = decoder.next().expect("frames") {
                    nudges += i32::from(frame == Frame::Alive);
                }
            }
            say(&mut far, &Frame::Exit(Ended::Code(7)));
        });
        assert!(matches!(exit, Ok(BoxExit::Code(7))), "{exit:?}");
    }
}
