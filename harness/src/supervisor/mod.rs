// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs instances from start to verdict, and tells what happens to them.
//!
//! What is to be done is decided by [`controller`], which is pure. The rest is its edge: it reads
//! the clock, starts VM processes, asks guests, and turns whatever comes back into the controller's
//! happenings, over one channel.
//!
//! Each VM is another process, so a VM that crashes or wedges never takes its supervisor along; and
//! when the supervisor is killed, the kernel kills its VM processes.

pub mod asking;
pub mod console;
pub mod controller;
mod edge;
pub mod events;
mod hosted;
pub mod phase;
pub mod publish;
mod sockets;
mod spawner;
pub mod terminal;
pub mod uptime;
pub mod verdict;
pub mod vm_process;

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use kennel_vmm::config::{MachineConfig, Uplink};
use kennel_vmm::protocol::{Command, Notice};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use asking::Asking;
use console::Console;
use controller::{Controller, Happening, InstanceId, Table};
use edge::Edge;
use events::Event;
use publish::Ports;
use terminal::TerminalGuard;
use verdict::Verdict;
use vm_process::Word;

use crate::moment::Moment;
use crate::runtime_dir::RuntimeDir;

/// Somebody who wants to know, and may have a say.
pub trait Watcher {
    /// An event of an instance's. What comes back is done once all that comes of the same cause
    /// has been told.
    fn event(&mut self, event: &Event) -> Vec<Order>;

    /// News before they become events, and also those that are none. What comes back is sent to
    /// the machines.
    fn news(&mut self, _notice: &Notice) -> Vec<Order> {
        vec![]
    }

    /// A line that the guest printed, if the watcher taps the console.
    fn console_line(&mut self, _line: &str) -> Vec<Order> {
        vec![]
    }

    /// The table of instances is not what it was.
    fn table(&mut self, _table: &Table, _now: Moment) {}
}

/// What a watcher may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// Tell the machines.
    Now(Command),
    /// Tell the machines after a while.
    After(Duration, Command),
    /// Enough seen: end the machines.
    Finish,
}

/// What the supervisor's loop waits for.
#[derive(Debug)]
enum Arrival {
    /// A VM process spoke.
    Word(InstanceId, Word),
    /// A signal for the supervisor.
    Signal(i32),
    /// The guest printed a line (only from a tapped console).
    ConsoleLine(String),
    /// Somebody who was asked has an answer.
    Answer(Happening),
}

/// Something that the supervisor needs cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "the VM process, this program once more, cannot be {what}: {source}; free some processes or \
     descriptors, or start it anew if it was replaced"
)]
pub struct SuperviseError {
    what: &'static str,
    source: io::Error,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> SuperviseError {
    move |source| SuperviseError { what, source }
}

/// What a run is made of.
#[derive(Debug)]
pub struct Run {
    /// Which instances there are to be.
    pub controller: Controller,
    /// Their namespace.
    pub namespace: String,
    /// The machine of each.
    pub config: MachineConfig,
    /// The guests' consoles.
    pub console: Console,
    /// How guests are asked.
    pub asking: Asking,
    /// Where their sockets are; they have none without.
    pub runtime_dir: Option<RuntimeDir>,
    /// What lies beyond their network; they have none without, nor without sockets.
    pub uplink: Option<Uplink>,
    /// Ports of this host that lead to them.
    pub ports: Ports,
    /// Longest wall-clock time.
    pub timeout: Option<Duration>,
}

/// Runs the instances to their verdict.
///
/// # Errors
///
/// Signals cannot be waited for. A VM process that cannot be started is the controller's business.
pub fn supervise(run: Run, watcher: &mut dyn Watcher) -> Result<Verdict, SuperviseError> {
    let (sender, arrivals) = mpsc::channel();
    // Before any child exists: a signal in between must not leave it behind.
    let signals = forward_signals(sender.clone()).map_err(failed("guarded against signals"))?;
    let _terminal = TerminalGuard::new();
    let verdict = Edge::new(run, watcher, sender).run(&arrivals);
    signals.close();
    Ok(verdict)
}

fn forward_signals(sender: mpsc::Sender<Arrival>) -> io::Result<Handle> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT])?;
    let handle = signals.handle();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(Arrival::Signal(signal)).is_err() {
                    break;
                }
            }
        })?;
    Ok(handle)
}
