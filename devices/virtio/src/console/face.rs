// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the owner of a console calls on its loop.

use vm_memory::GuestMemory;

use super::work::Left;
use super::{Console, ConsoleEvent};
use crate::effects::Interrupts;
use crate::ring::QueueFault;
use crate::transport::VirtioPci;

/// What a round of ring work wants from the owner.
#[must_use = "the guest waits for its interrupt, and there may be more to do"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleEffects {
    /// Interrupts.
    pub interrupts: Interrupts,
    /// What happened to ports since the last round, in its order; at most a few more than
    /// [`CONTROL_MESSAGES`](super::CONTROL_MESSAGES).
    pub events: Vec<ConsoleEvent>,
    /// The round ended because it had done enough: call again, after others had their turn.
    pub more: bool,
    /// The agent has said something: [`VirtioPci::agent_output`] has it.
    pub agent_output: bool,
    /// Bytes that [`Console::agent_input`] would take now.
    pub agent_input_room: usize,
    /// The device stopped in this round, because this queue made no sense; told once.
    pub fault: Option<QueueFault>,
}

/// What the agent has said, and what its taking wants from the owner.
#[must_use = "the guest waits for its interrupt, and there may be more to do"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentOutput {
    /// Bytes that were stored.
    pub len: usize,
    /// There is more: call again, with room.
    pub more: bool,
    /// Nothing was taken, because the guest has sent control messages since, or because the device stopped: call
    /// [`VirtioPci::process`] first, so that bytes and events stay in order.
    pub process_first: bool,
    /// Interrupts.
    pub interrupts: Interrupts,
    /// The device stopped, because this queue made no sense; told once.
    pub fault: Option<QueueFault>,
}

impl VirtioPci<Console> {
    /// One round of ring work: control messages, console output and input, agent input. To be called when an access
    /// says that there is work, after input was queued, and again while it says that there is more.
    ///
    /// What the guest printed is appended to `printed`, at most
    /// [`CONSOLE_OUTPUT_BYTES`](super::CONSOLE_OUTPUT_BYTES). The owner writes or drops it; the guest is not held up.
    /// A round takes a bounded number of steps, whatever the guest does.
    pub fn process<M: GuestMemory>(&mut self, memory: &M, printed: &mut Vec<u8>) -> ConsoleEffects {
        let work = self.with_rings(memory, |console, rings| {
            console.work(memory, rings, printed)
        });
        // A fault is with the transport; nothing is left to do then.
        let left = work.result.and_then(Result::ok).unwrap_or_default();
        let left = if work.fault.is_some() {
            Left::default()
        } else {
            left
        };
        ConsoleEffects {
            interrupts: work.interrupts,
            events: std::mem::take(&mut self.device_mut().events),
            more: left.more,
            agent_output: left.agent_output,
            agent_input_room: self.device().agent_input_room(),
            fault: work.fault,
        }
    }

    /// Takes what the agent has said, as far as `data` has room. What is not taken stays with the guest: its program
    /// waits when the queue is full.
    ///
    /// It belongs to the present [`epoch`](Console::epoch), and to the last event that
    /// [`process`](Self::process) told.
    pub fn agent_output<M: GuestMemory>(&mut self, memory: &M, data: &mut [u8]) -> AgentOutput {
        let work = self.with_rings(memory, |console, rings| {
            console.take_agent_output(memory, rings, data)
        });
        let taken = work.result.and_then(Result::ok);
        let taken = taken.filter(|_| work.fault.is_none()).unwrap_or_default();
        AgentOutput {
            len: taken.len,
            more: taken.more,
            process_first: taken.process_first || work.fault.is_some(),
            interrupts: work.interrupts,
            fault: work.fault,
        }
    }

    /// [`Console::agent_input`] of the device.
    pub fn agent_input(&mut self, epoch: u64, bytes: &[u8]) -> usize {
        self.device_mut().agent_input(epoch, bytes)
    }

    /// [`Console::console_input`] of the device.
    pub fn console_input(&mut self, bytes: &[u8]) -> usize {
        self.device_mut().console_input(bytes)
    }

    /// [`Console::epoch`] of the device.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.device().epoch()
    }
}
