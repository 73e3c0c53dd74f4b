// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VM as a process: one machine, one event loop, one supervisor at the other end of a socket.
//!
//! The supervisor starts this process with the guest's console as standard input and output. When
//! the supervisor closes the socket, the machine ends; when the supervisor dies, the kernel kills this
//! process, whatever state it is in.

mod agent_socket;
mod arrivals;
pub mod bounded_log;
mod console_input;
mod control;
mod event_loop;
mod listener;
pub mod network;
mod notices;
mod ports;
mod ports_loop;
mod pulse_thread;
mod teller;
mod worker;

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};
use i6300esb::VmInstant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};
use vmm_sys_util::signal::block_signal;

use crate::clock::realtime_ns;
use crate::config::MachineConfig;
use crate::machine::{Machine, Outcome};
use crate::protocol::{Command, News, Notice};
use crate::pulse::Phase;
use agent_socket::AgentSocket;
use console_input::ConsoleInput;
use control::Reader;
use event_loop::EventLoop;
use network::Network;
use ports::Ports;
use pulse_thread::PulseSocket;
use teller::Teller;

/// How long the process of an ended machine waits for those who read console, log and notices.
const CLOSE_BOUND: Duration = Duration::from_secs(1);

/// When a process that begins to end now has ended.
fn close_deadline() -> Instant {
    let now = Instant::now();
    now.checked_add(CLOSE_BOUND).unwrap_or(now)
}

/// Runs the machine that the supervisor at the other end of `control` describes, until it ends; signs of
/// life go out at `pulse`.
#[must_use]
pub fn run(control: UnixStream, pulse: OwnedFd) -> ExitCode {
    // They reach the whole terminal or service; the supervisor alone decides what they mean, and
    // its end is told by the socket.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        if let Err(error) = block_signal(signal) {
            log::warn!("signal {signal} will end the machine at once: {error}");
        }
    }
    let (mut reader, teller) = match control::split(control) {
        Ok(ends) => ends,
        Err(error) => {
            log::error!("the supervisor's socket cannot be used: {error}");
            return ExitCode::FAILURE;
        }
    };
    let pulse = PulseSocket::new(pulse, Arc::default());
    if let Err(error) = pulse.start_thread() {
        log::error!("no thread can be had that gives signs of life: {error}");
        return ExitCode::FAILURE;
    }
    let start = match reader.wait_for_start() {
        Ok(start) => start,
        Err(error) => {
            log::error!("the supervisor sent no machine to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut deadline = None;
    let status = match run_machine(start, (reader, teller.clone()), pulse, &mut deadline) {
        Ok(Outcome::Failed(message)) | Err(message) => {
            teller.tell(notice(VmInstant::ZERO, News::Failed { message }));
            ExitCode::FAILURE
        }
        Ok(Outcome::Running | Outcome::Ended(_)) => ExitCode::SUCCESS,
    };
    let deadline = deadline.unwrap_or_else(close_deadline);
    teller.close_by(deadline);
    bounded_log::close_by(deadline);
    status
}

fn run_machine(
    (config, commands): (MachineConfig, Vec<Command>),
    (reader, teller): (Reader, Teller),
    pulse: PulseSocket,
    deadline: &mut Option<Instant>,
) -> Result<Outcome, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let agent = AgentSocket::new(
        config.agent_socket.as_deref(),
        ports_loop::LISTENER,
        ports_loop::CLIENTS,
    )
    .map_err(|error| agent_failed(&config, &error))?;
    let network = config.network.as_ref().map(network::prepare).transpose()?;
    let mut machine = Machine::new(config, Box::new(io::stdout())).map_err(|error| text(&error))?;
    machine.report_to(pulse.progress());
    let mut tell = |now, news| teller.tell(notice(now, news));
    machine.power_on(&mut tell).map_err(|error| text(&error))?;

    let network = network
        .map(|prepared| Network::start(prepared, &machine, thread_news(&teller, &machine)))
        .transpose()?;
    let input = ConsoleInput::standard_input();
    let ports = Ports::start(&machine, agent, input, thread_news(&teller, &machine))?;
    let mut manager = EventManager::new().map_err(|error| format!("no event loop: {error}"))?;
    let herald = Herald { teller, network };
    let mut events = EventLoop::new(machine, reader, herald, ports, pulse);
    events.obey(commands);
    let id = manager.add_subscriber(events);
    loop {
        let events = manager.subscriber_mut(id).map_err(|error| text(&error))?;
        if let Some(outcome) = events.take_outcome() {
            events.close_by(*deadline.insert(close_deadline()));
            return Ok(outcome);
        }
        manager
            .run()
            .map_err(|error| format!("the event loop failed: {error}"))?;
    }
}

/// What a thread beside the loop has to tell, dated in VM time.
fn thread_news(teller: &Teller, machine: &Machine) -> network::Tell {
    let (teller, clock) = (teller.clone(), Arc::clone(&machine.board().clock));
    Arc::new(move |news| teller.tell(notice(clock.now(), news)))
}

/// Tells everybody who has to know: the supervisor, and the link's thread.
struct Herald {
    teller: Teller,
    network: Option<Network>,
}

impl Herald {
    /// Whose thread has not done yet what it was told, and how much it has done.
    fn waits_for(&self) -> Option<(Phase, u16)> {
        let done = self.network.as_ref().and_then(Network::is_behind)?;
        Some((Phase::WaitForLink, done))
    }

    fn tell(&self, now: VmInstant, news: News) {
        if let Some(network) = &self.network {
            network.heed(&news);
        }
        self.teller.tell(notice(now, news));
    }
}

fn agent_failed(config: &MachineConfig, error: &io::Error) -> String {
    match &config.agent_socket {
        Some(_) if error.kind() == io::ErrorKind::AddrInUse => {
            "another machine of this name runs here: end it, or rename this one".to_owned()
        }
        Some(_) => format!(
            "the guest agent's socket cannot be made: {error}; its directory must be on a file \
             system that holds sockets (set XDG_RUNTIME_DIR to choose another)"
        ),
        None => format!("the guest agent's timer cannot be had: {error}"),
    }
}

fn notice(now: VmInstant, news: News) -> Notice {
    Notice {
        realtime_ns: realtime_ns(),
        uptime_ns: now.as_nanos(),
        news,
    }
}

/// Has the kernel kill this process when the supervisor at the other end of `control` dies: more exactly,
/// the thread of the supervisor's that started this process.
///
/// Called by the main thread, and before any other is started.
///
/// # Errors
///
/// The supervisor is gone already, or the kernel's.
pub fn die_with_supervisor(control: &UnixStream) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // One that died before has closed its end.
    let mut ends = [PollFd::new(control, PollFlags::empty())];
    poll(&mut ends, Some(&Timespec::default()))?;
    let gone = PollFlags::HUP | PollFlags::ERR;
    if ends.iter().any(|end| end.revents().intersects(gone)) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// The sockets that a supervisor starts this process with: commands and notices at `control`, signs of
/// life at `pulse`.
///
/// Called once, before any thread is started.
///
/// # Errors
///
/// One of them is not an open socket.
pub fn inherited(control: RawFd, pulse: RawFd) -> io::Result<(UnixStream, OwnedFd)> {
    Ok((inherited_socket(control)?.into(), inherited_socket(pulse)?))
}

fn inherited_socket(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only looked at; nothing is closed or kept.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(borrowed)?.st_mode);
    if kind != rustix::fs::FileType::Socket {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the descriptor is not a socket",
        ));
    }
    // SAFETY: the descriptor is open, as fstat just told, and was put at this number for us alone
    // by the supervisor that started this process; nothing else in the process knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
