// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The box's side: process 1 of the box, once its init has put the machine's root in place.
//!
//! It runs one command for its caller, passes the standard streams, signals and the window's size through, and powers
//! the box off when the command has ended or the caller is gone. What the command left running is killed: a box lives
//! exactly as long as its command.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use thiserror::Error;

use self::child::{Child, SpawnError};
use super::link::{Link, LinkError};
use super::protocol::{ALIVE_EVERY, Ended, Frame, Start, VERSION};
use super::qemu::PORT;

mod child;
mod streams;

/// Where virtio-serial ports tell their names.
const PORTS: &str = "/sys/class/virtio-ports";
/// How often, and after what time each, the port is looked for: the drivers find it shortly after they are loaded.
const PORT_TRIES: u32 = 2000;
const PORT_WAIT: Duration = Duration::from_millis(5);
/// How long output may stay open after everything that could write was killed, and the caller may take to hang up.
const LAST_WAIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Why the agent gives up; it goes to the box's console.
#[derive(Debug, Error)]
enum AgentError {
    #[error("no virtio-serial port is called {PORT}")]
    NoPort,
    #[error("cannot {action}: {source}")]
    System {
        action: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the caller hung up before it said what to run")]
    NoCommand,
}

impl AgentError {
    fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            action,
            source: source.into(),
        }
    }
}

/// Serves the caller, then powers the box off. Refuses to do anything on a machine that is not a box.
#[must_use]
pub fn main() -> ExitCode {
    if rustix::process::getpid() != Pid::INIT || !fs::exists(PORTS).unwrap_or(false) {
        eprintln!(
            "box-agent is what a box starts by itself; use `kennel host run --box -- COMMAND`"
        );
        return ExitCode::from(2);
    }
    if let Err(error) = serve() {
        eprintln!("kennel box: {error}");
    }
    kill_all();
    rustix::fs::sync();
    // If this fails, the end of process 1 stops the kernel, which ends the box as well.
    if let Err(error) = rustix::system::reboot(rustix::system::RebootCommand::PowerOff) {
        eprintln!("kennel box: cannot power off: {error}");
    }
    ExitCode::FAILURE
}

fn serve() -> Result<(), AgentError> {
    let mut link = connect()?;
    let start = await_command(&mut link)?;
    prepare(&start)?;
    let outcome = match Child::spawn(&start) {
        Ok(child) => Service::new(link, child).run()?,
        Err(SpawnError { code, reason }) => {
            link.queue(&Frame::NotStarted(code, reason));
            Some(link)
        }
    };
    match outcome {
        Some(link) => say_last(link),
        None => Ok(()),
    }
}

/// Sends what is queued and waits until the caller has hung up or time is over.
fn say_last(mut link: Link) -> Result<(), AgentError> {
    loop {
        link.flush()
            .map_err(AgentError::system("answer the caller"))?;
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, link.has_queued());
        let mut fds = [PollFd::new(&link, flags)];
        let ready = poll(&mut fds, Some(&LAST_WAIT)).map_err(AgentError::system("wait"))?;
        if ready == 0 || fds[0].revents().contains(PollFlags::HUP) {
            return Ok(());
        }
        if fds[0].revents().contains(PollFlags::IN) && !link.receive().unwrap_or(false) {
            return Ok(());
        }
    }
}

/// Opens the port once it is there and the other end is open.
fn connect() -> Result<Link, AgentError> {
    let port = (0..PORT_TRIES)
        .find_map(|tried| {
            if tried > 0 {
                thread::sleep(PORT_WAIT);
            }
            find_port()
        })
        .ok_or(AgentError::NoPort)?;
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(port)
        .map_err(AgentError::system("open the virtio-serial port"))?;
    // The port says "hung up" until it has heard from the host that somebody is there.
    for _ in 0..PORT_TRIES {
        let mut fds = [PollFd::new(&port, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).map_err(AgentError::system("wait"))?;
        if !fds[0].revents().contains(PollFlags::HUP) {
            break;
        }
        thread::sleep(PORT_WAIT);
    }
    Ok(Link::new(port.into()))
}

/// The device of the port with our name.
fn find_port() -> Option<PathBuf> {
    let entries = fs::read_dir(PORTS).ok()?;
    let ours = entries.flatten().find(|entry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == PORT)
    })?;
    Some(PathBuf::from("/dev").join(ours.file_name())).filter(|path| path.exists())
}

fn await_command(link: &mut Link) -> Result<Start, AgentError> {
    link.queue(&Frame::Hello(VERSION));
    loop {
        link.flush()
            .map_err(AgentError::system("greet the caller"))?;
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, link.has_queued());
        wait(&mut [PollFd::new(link, flags)], None)?;
        if !link.receive().map_err(LinkError::from)? {
            return Err(AgentError::NoCommand);
        }
        while let Some(frame) = link.next().map_err(LinkError::from)? {
            if let Frame::Start(start) = frame {
                return Ok(*start);
            }
        }
    }
}

/// What a command expects to find that belongs to the box, not to the machine.
fn prepare(start: &Start) -> Result<(), AgentError> {
    let runtime = child::RUNTIME_DIRECTORY;
    fs::create_dir_all(runtime).map_err(AgentError::system("make /run/kennel"))?;
    fs::set_permissions(runtime, Permissions::from_mode(0o700))
        .map_err(AgentError::system("protect /run/kennel"))?;
    std::os::unix::fs::chown(runtime, Some(start.uid), Some(start.gid))
        .map_err(AgentError::system("give /run/kennel away"))?;
    // The command runs as the caller, who need not be root. A box without KVM is still worth its console's message.
    if let Err(error) = fs::set_permissions("/dev/kvm", Permissions::from_mode(0o666)) {
        eprintln!("kennel box: /dev/kvm: {error}");
    }
    Ok(())
}

/// Kills every process of the box but this one.
fn kill_all() {
    // The process group of process 1, negated, is -1: "every process"; the kernel spares process 1 itself.
    let _ = rustix::process::kill_process_group(Pid::INIT, Signal::KILL);
}

fn wait(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, AgentError> {
    match poll(fds, timeout) {
        Err(rustix::io::Errno::INTR) => Ok(1),
        other => other.map_err(AgentError::system("wait")),
    }
}

/// A command being served.
#[derive(Debug)]
struct Service {
    link: Link,
    child: Child,
    /// When the caller was last told that this agent is there.
    told: Instant,
}

impl Service {
    fn new(link: Link, child: Child) -> Self {
        Self {
            link,
            child,
            told: Instant::now(),
        }
    }

    /// Until the command has ended and all it wrote is sent (then the link comes back with the exit status queued), or
    /// the caller is gone (then it doesn't).
    fn run(mut self) -> Result<Option<Link>, AgentError> {
        let mut ended = None;
        loop {
            self.child.exchange(&mut self.link);
            if let Some(status) = ended
                && !self.child.output_is_open()
            {
                return Ok(Some(self.finish(status)));
            }
            self.be_alive();
            self.link.flush().map_err(LinkError::from)?;
            // Output that the caller has no room for yet may take any time; else it must come to its end soon.
            let limit = (ended.is_some() && !self.child.output_is_starved()).then_some(&LAST_WAIT);
            let ready = self.wait(limit)?;
            if ready.idle
                && let Some(status) = ended
            {
                return Ok(Some(self.finish(status)));
            }
            if ready.link && !self.receive()? {
                return Ok(None);
            }
            if ended.is_none() {
                ended = self.child.reap();
                if ended.is_some() {
                    kill_all();
                }
            } else {
                self.child.reap();
            }
        }
    }

    fn finish(mut self, status: Ended) -> Link {
        // What the command wrote must be on the machine before the caller hears that it is done.
        rustix::fs::sync();
        self.link.queue(&Frame::Exit(status));
        self.link
    }

    /// A caller that does not hear of this for long takes the box for hung.
    fn be_alive(&mut self) {
        if self.told.elapsed() >= ALIVE_EVERY {
            self.told = Instant::now();
            // One that has not been taken yet does as well.
            if !self.link.has_queued() {
                self.link.queue(&Frame::Alive);
            }
        }
    }

    fn wait(&self, limit: Option<&Timespec>) -> Result<Ready, AgentError> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.link.has_queued());
        let mut fds = vec![PollFd::new(&self.link, flags)];
        self.child.poll_fds(&mut fds);
        let soon = ALIVE_EVERY.saturating_sub(self.told.elapsed());
        let soon = Timespec::try_from(soon).unwrap_or(LAST_WAIT);
        let count = wait(&mut fds, Some(limit.unwrap_or(&soon)))?;
        let link = fds[0].revents();
        Ok(Ready {
            idle: count == 0 && limit.is_some(),
            link: link.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
        })
    }

    /// False once the caller is gone.
    fn receive(&mut self) -> Result<bool, AgentError> {
        if !self.link.receive().map_err(LinkError::from)? {
            return Ok(false);
        }
        while let Some(frame) = self.link.next().map_err(LinkError::from)? {
            self.child.obey(frame);
        }
        Ok(true)
    }
}

/// What a wait came back with.
#[derive(Debug, Clone, Copy)]
struct Ready {
    /// Nothing happened in time.
    idle: bool,
    link: bool,
}
