// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ring work of the virtio console: what the guest prints there goes where the serial console
//! goes, and the agent's port meets the agent's socket.

use event_manager::EventOps;
use kennel_virtio::{ConsoleEvent, PortId, QueueFault};

use super::agent_socket::AgentSocket;
use crate::machine::Machine;

/// Rounds of ring work in one turn of the loop; a guest that keeps on waits for the next.
const ROUNDS: usize = 4;
/// What the agent says in one round, in bytes at most.
const AGENT_OUTPUT: usize = 64 << 10;

/// Input that waits for the guest's console, in bytes at most.
const TYPED: usize = 64;

/// The work, and what it needs.
#[derive(Debug)]
pub(super) struct SerialPorts {
    pub(super) agent: AgentSocket,
    printed: Vec<u8>,
    said: Vec<u8>,
    /// Input for the guest's console that it has not taken yet.
    typed: Vec<u8>,
    /// A guest can break its device at any rate; once is said aloud.
    warned: bool,
}

impl SerialPorts {
    pub(super) fn new(agent: AgentSocket) -> Self {
        Self {
            agent,
            printed: vec![],
            said: vec![0; AGENT_OUTPUT],
            typed: vec![],
            warned: false,
        }
    }

    /// How many bytes [`Self::type_in`] takes now.
    pub(super) fn room_for_input(&self) -> usize {
        if self.typed.is_empty() { TYPED } else { 0 }
    }

    /// Input for the guest's console; what exceeds the room is dropped.
    pub(super) fn type_in(&mut self, bytes: &[u8]) {
        let room = self.room_for_input();
        self.typed.extend(bytes.iter().take(room));
    }

    /// Does what there is to do, for a while.
    pub(super) fn turn(&mut self, machine: &Machine, ops: &mut EventOps<'_>) {
        let console = &machine.board().virtio_console;
        for _ in 0..ROUNDS {
            if !self.round(machine, ops) {
                return;
            }
        }
        console.wake();
    }

    /// Whether there is more to do.
    fn round(&mut self, machine: &Machine, ops: &mut EventOps<'_>) -> bool {
        let console = &machine.board().virtio_console;
        if console.take_reset() {
            self.agent.port_closed(true, ops);
        }
        // The port's epoch changes in `process` only, and the agent's socket hears of it right after.
        let taken = console.agent_input(self.agent.port_output());
        self.agent.port_sent(taken);
        let typed = console.console_input(&self.typed);
        self.typed.drain(..typed.min(self.typed.len()));
        let effects = console.process(machine.memory(), &mut self.printed);
        self.broken(effects.fault.as_ref());
        machine.board().console.print(&self.printed);
        self.printed.clear();
        for event in effects.events {
            match event {
                ConsoleEvent::PortOpened {
                    port: PortId::Agent,
                } => self.agent.port_opened(ops),
                ConsoleEvent::PortClosed {
                    port: PortId::Agent,
                    reset,
                } => self.agent.port_closed(reset, ops),
                ConsoleEvent::PortOpened { .. } | ConsoleEvent::PortClosed { .. } => {}
            }
        }
        let output = console.agent_output(machine.memory(), &mut self.said);
        self.broken(output.fault.as_ref());
        if let Some(said) = self.said.get(..output.len).filter(|said| !said.is_empty()) {
            self.agent.port_bytes(said, ops);
        }
        let input_fits = effects.agent_input_room > 0 && !self.agent.port_output().is_empty();
        effects.more || output.more || output.process_first || input_fits
    }

    fn broken(&mut self, fault: Option<&QueueFault>) {
        let Some(fault) = fault else { return };
        let level = if std::mem::replace(&mut self.warned, true) {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        log::log!(
            level,
            "the guest broke its virtio console, which stands still until it is reset: {fault:?}"
        );
    }
}
