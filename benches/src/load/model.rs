// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VM process without a machine: Kennel's link, its dial socket and their thread are the real
//! ones; the guest is a thread with a TCP/IP stack, and the network card between them two queues of
//! frames with a doorbell each.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kennel_virtio::{Interrupts, NetEffects};
use kennel_vmm::config::{NetworkConfig, Uplink};
use kennel_vmm::process::network::{Card, Network};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::directory;
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
const GLANCE: Duration = Duration::from_millis(50);

type Frames = VecDeque<Vec<u8>>;

#[derive(Debug)]
struct Queues {
    to_guest: Mutex<Frames>,
    /// Rings when the guest had nothing to do and has.
    interrupt: Condvar,
    from_guest: Mutex<Frames>,
    /// And this one for the link.
    doorbell: EventFd,
}

fn lock(frames: &Mutex<Frames>) -> MutexGuard<'_, Frames> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts in what there is room for: how many, and whether there was nothing before.
fn put(ring: &Mutex<Frames>, frames: &mut dyn Iterator<Item = Vec<u8>>) -> (usize, bool) {
    let mut ring = lock(ring);
    let before = ring.len();
    ring.extend(frames.take(RING.saturating_sub(before)));
    (ring.len() - before, before == 0)
}

impl Queues {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            to_guest: Mutex::default(),
            interrupt: Condvar::new(),
            from_guest: Mutex::default(),
            doorbell: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// What has come for the guest, or nothing for a while.
    fn wait(&self) -> Frames {
        let ring = lock(&self.to_guest);
        let waited = self
            .interrupt
            .wait_timeout_while(ring, GLANCE, |ring| ring.is_empty());
        let (mut ring, _late) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ring)
    }

    fn ring(&self) {
        // Only a full counter fails, and then the link is awake already.
        let _rung = self.doorbell.write(1);
    }
}

/// The link's end of them.
#[derive(Debug)]
struct ModelCard(Arc<Queues>);

const fn quiet(more: bool) -> NetEffects {
    NetEffects {
        interrupts: Interrupts::NONE,
        more,
        fault: None,
    }
}

impl Card for ModelCard {
    fn work(&self) -> &EventFd {
        &self.0.doorbell
    }

    fn is_driven(&self) -> bool {
        true
    }

    fn take_reset(&mut self) -> bool {
        false
    }

    fn transmit(&mut self, sink: &mut dyn FnMut(&[u8])) -> NetEffects {
        let mut ring = lock(&self.0.from_guest);
        let count = ring.len().min(ROUND);
        let round: Frames = ring.drain(..count).collect();
        let more = !ring.is_empty();
        drop(ring);
        round.iter().for_each(|frame| sink(frame));
        quiet(more)
    }

    fn receive(&mut self, frames: &mut dyn Iterator<Item = &[u8]>) -> (usize, NetEffects) {
        let (count, was_empty) = put(&self.0.to_guest, &mut frames.map(<[u8]>::to_vec));
        if was_empty && count > 0 {
            self.0.interrupt.notify_one();
        }
        (count, quiet(false))
    }
}

/// The guest: takes frames and answers them, for ever.
fn guest(queues: &Queues, health: &AtomicU8) {
    let mut stack = Stack::new();
    let mut looked = 0;
    loop {
        let arrived = queues.wait();
        if arrived.len() >= RING {
            queues.ring();
        }
        let now = monotonic_ns();
        let at = usize::from(health.load(Ordering::Relaxed));
        let health = Health::ALL.get(at).copied().unwrap_or(Health::Well);
        for frame in arrived {
            stack.take(frame, health, now);
        }
        if u128::from(now - looked) > GLANCE.as_nanos() {
            looked = now;
            stack.time_passed(now);
        }
        // What does not fit waits here.
        let (count, was_empty) = put(&queues.from_guest, &mut std::iter::from_fn(|| stack.send()));
        if was_empty && count > 0 {
            queues.ring();
        }
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
    let queues = Arc::new(Queues::new().map_err(Trouble::new)?);
    let config = NetworkConfig {
        uplink: Uplink::None,
        dial_socket: socket.to_owned(),
    };
    let card = Box::new(ModelCard(Arc::clone(&queues)));
    let network =
        Network::without_machine(&config, card, Arc::new(|_| {})).map_err(Trouble::new)?;
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
    drop(network);
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
        let directory = directory()?;
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
