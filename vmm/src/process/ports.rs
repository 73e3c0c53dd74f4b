// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread of the guest's ports: consoles and agent's channel, beside the loop that acts on bites.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use event_manager::{EventManager, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::agent_socket::AgentSocket;
use super::console_input::ConsoleInput;
use super::network::Tell;
use super::ports_loop::{Parts, PortsLoop};
use super::worker::{Worker, guarded};
use crate::machine::Machine;
use crate::protocol::News;

/// The thread.
#[derive(Debug)]
pub(super) struct Ports {
    stop: Arc<EventFd>,
    thread: Option<Worker>,
}

impl Ports {
    /// Starts it for `machine`.
    pub(super) fn start(
        machine: &Machine,
        agent: AgentSocket,
        input: ConsoleInput,
        tell: Tell,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("the guest's consoles cannot be had: {error}");
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(failed)?);
        let board = machine.board();
        let parts = Parts {
            device: Arc::clone(&board.virtio_console),
            memory: machine.memory().clone(),
            console: Arc::clone(&board.console),
            agent,
            input,
            types_at_device: machine.reads_virtio_console(),
            stop: Arc::clone(&stop),
            tell: Arc::clone(&tell),
        };
        let manager =
            EventManager::new().map_err(|error| format!("no event loop for the ports: {error}"))?;
        let thread = Worker::start("ports", 512 << 10, move || {
            if let Err(why) = guarded(|| work(manager, parts)) {
                log::error!(
                    "the guest's virtio console, console input and agent have ended: {why}; to have \
                     them back, end the machine and start it again"
                );
                tell(News::AgentDisconnected);
            }
        })
        .map_err(failed)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the thread, with the agent's clients and its socket; waits for it until `deadline`.
    pub(super) fn stop_by(&mut self, deadline: Instant) {
        // Only a full counter fails, and then the thread is awake already.
        let _woken = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            thread.end_by(deadline);
        }
    }
}

/// What the thread does, until the machine has ended.
fn work(mut manager: EventManager<PortsLoop>, parts: Parts) -> Result<(), String> {
    let text = |error: event_manager::Error| error.to_string();
    let id = manager.add_subscriber(PortsLoop::new(parts));
    loop {
        if let Some(over) = manager.subscriber_mut(id).map_err(text)?.over() {
            return over;
        }
        manager.run().map_err(text)?;
    }
}
