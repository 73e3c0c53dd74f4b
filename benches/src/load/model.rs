// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VM process without a machine: Kennel's link, its dial socket and their thread are the real
//! ones; the guest is a thread with a TCP/IP stack, and the network card between them two queues of
//! frames with a doorbell each.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kennel_virtio::{Interrupts, NetEffects};
use kennel_vmm::config::{NetworkConfig, Uplink};
use kennel_vmm::process::network::{Card, Network};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::stack::{Health, Stack};
use crate::Trouble;
use crate::clock::monotonic_ns;

/// The hidden subcommand, with the dial socket's path.
pub(crate) const SUBCOMMAND: &str = "model-vm";
/// Frames that either side holds for the other, as a ring of virtio's does.
const RING: usize = 256;
/// Frames of one round, as the network device has them.
const ROUND: usize = 64;
const READY: &str = "ready\n";
/// How often the guest looks for what was lost.
const GLANCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

type Frames = VecDeque<Vec<u8>>;

/// One direction.
#[derive(Debug)]
struct Ring {
    frames: Mutex<Frames>,
    doorbell: EventFd,
}

impl Ring {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            frames: Mutex::default(),
            doorbell: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    fn with<R>(&self, act: impl FnOnce(&mut Frames) -> R) -> R {
        act(&mut self.frames.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts in what there is room for; rings if the other side had nothing to do.
    fn put(&self, frames: &mut dyn Iterator<Item = Vec<u8>>) -> usize {
        let (was_empty, count) = self.with(|ring| {
            let before = ring.len();
            ring.extend(frames.take(RING.saturating_sub(before)));
            (before == 0, ring.len() - before)
        });
        if was_empty && count > 0 {
            self.ring();
        }
        count
    }

    fn ring(&self) {
        // Only a full counter fails, and then the other side is awake already.
        let _rung = self.doorbell.write(1);
    }
}

#[derive(Clone, Debug)]
struct Queues {
    to_guest: Arc<Ring>,
    from_guest: Arc<Ring>,
}

impl Queues {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            to_guest: Arc::new(Ring::new()?),
            from_guest: Arc::new(Ring::new()?),
        })
    }
}

const fn quiet(more: bool) -> NetEffects {
    NetEffects {
        interrupts: Interrupts::NONE,
        more,
        fault: None,
    }
}

impl Card for Queues {
    fn work(&self) -> &EventFd {
        &self.from_guest.doorbell
    }

    fn is_driven(&self) -> bool {
        true
    }

    fn take_reset(&mut self) -> bool {
        false
    }

    fn transmit(&mut self, sink: &mut dyn FnMut(&[u8])) -> NetEffects {
        let (round, more) = self.from_guest.with(|ring| {
            let round: Frames = ring.drain(..ring.len().min(ROUND)).collect();
            (round, !ring.is_empty())
        });
        round.iter().for_each(|frame| sink(frame));
        quiet(more)
    }

    fn receive(&mut self, frames: &mut dyn Iterator<Item = &[u8]>) -> (usize, NetEffects) {
        (
            self.to_guest.put(&mut frames.map(<[u8]>::to_vec)),
            quiet(false),
        )
    }
}

/// The guest: takes frames and answers them, for ever.
fn guest(queues: &Queues, health: &AtomicU8) {
    let mut stack = Stack::new();
    let mut looked = 0;
    loop {
        let doorbell = &queues.to_guest.doorbell;
        let mut rings = [PollFd::new(doorbell, PollFlags::IN)];
        let _rung_or_late = poll(&mut rings, Some(&GLANCE));
        let _count = doorbell.read();
        let (arrived, was_full) = queues.to_guest.with(|ring| {
            let was_full = ring.len() >= RING;
            (std::mem::take(ring), was_full)
        });
        if was_full {
            queues.from_guest.ring();
        }
        let now = monotonic_ns();
        let at = usize::from(health.load(Ordering::Relaxed));
        let health = Health::ALL.get(at).copied().unwrap_or(Health::Well);
        for frame in arrived {
            stack.take(frame, health, now);
        }
        if now - looked > GLANCE.tv_nsec.unsigned_abs() {
            looked = now;
            stack.time_passed(now);
        }
        let _what_does_not_fit_is_lost = queues
            .from_guest
            .put(&mut std::iter::from_fn(|| stack.send()));
    }
}

/// The process.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let [_, socket] = arguments else {
        return ExitCode::FAILURE;
    };
    match run(Path::new(socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("kennel-benches {SUBCOMMAND}: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Until the input ends; each line of it is one digit, how the guest is.
fn run(socket: &Path) -> Result<(), Trouble> {
    let queues = Queues::new().map_err(Trouble::new)?;
    let config = NetworkConfig {
        uplink: Uplink::None,
        dial_socket: socket.to_owned(),
    };
    let card = Box::new(queues.clone());
    let mut network =
        Network::without_machine(&config, card, Box::new(|_| {})).map_err(Trouble::new)?;
    let health = Arc::new(AtomicU8::new(Health::Well as u8));
    let of_guest = Arc::clone(&health);
    std::thread::Builder::new()
        .name("guest".into())
        .spawn(move || guest(&queues, &of_guest))
        .map_err(Trouble::new)?;
    let mut out = std::io::stdout();
    out.write_all(READY.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Trouble::new)?;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        health.store(line.parse().unwrap_or(0), Ordering::Relaxed);
    }
    network.stop();
    Ok(())
}

/// Such a process, until this is dropped.
#[derive(Debug)]
pub(crate) struct Model {
    directory: tempfile::TempDir,
    child: Child,
    input: Option<ChildStdin>,
}

impl Model {
    /// Returns once it can be dialled.
    pub(crate) fn start() -> Result<Self, Trouble> {
        let directory = tempfile::tempdir().map_err(Trouble::new)?;
        let mut child = Command::new("/proc/self/exe")
            .arg(SUBCOMMAND)
            .arg(socket_in(directory.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Trouble::new(format!("{SUBCOMMAND} cannot be started: {error}")))?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let mut line = String::new();
        let model = Self {
            directory,
            child,
            input,
        };
        let read = output.map(|output| BufReader::new(output).read_line(&mut line));
        match read {
            Some(Ok(_)) if line == READY => Ok(model),
            _ => Err(Trouble::new(format!("{SUBCOMMAND} ended at once"))),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// From now on the guest is so.
    pub(crate) fn becomes(&mut self, health: Health) -> Result<(), Trouble> {
        let line = format!("{}\n", health as u8);
        self.input
            .as_mut()
            .map_or(Ok(()), |input| input.write_all(line.as_bytes()))
            .map_err(|error| Trouble::new(format!("{SUBCOMMAND}: {error}")))
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.input = None;
        let _status = self.child.wait();
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("dial")
}
