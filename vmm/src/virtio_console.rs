// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtio console in its PCI slot, with the guest agent's port.

use std::sync::Arc;

use kennel_virtio::{AgentOutput, Console, ConsoleEffects};

use crate::board::BoardError;
use crate::interrupts::Interrupts;
use crate::layout;
use crate::memory::GuestRam;
use crate::virtio_function::VirtioFunction;

/// The console as the machine holds it.
pub type VirtioConsole = VirtioFunction<Console>;

impl VirtioConsole {
    /// A console in its power-on state.
    ///
    /// # Errors
    ///
    /// [`BoardError`]: the kernel gives no eventfd, or [`layout`] and the device contradict each other.
    pub fn new(lines: &Arc<Interrupts>) -> Result<Self, BoardError> {
        let (slot, bar) = (layout::CONSOLE_SLOT, layout::CONSOLE_BAR);
        Self::in_slot(Console::new(), slot, bar, lines)
    }

    /// One round of ring work; what the guest printed is appended to `printed`. Whether the device was
    /// reset since the round before, which came before all that the round tells of.
    pub fn process(&self, memory: &GuestRam, printed: &mut Vec<u8>) -> (bool, ConsoleEffects) {
        let mut device = self.lock();
        let was_reset = self.take_reset();
        let effects = device.process(memory, printed);
        self.interrupt(effects.interrupts);
        (was_reset, effects)
    }

    /// Takes what the agent has said, as far as `data` has room.
    pub fn agent_output(&self, memory: &GuestRam, data: &mut [u8]) -> AgentOutput {
        let mut device = self.lock();
        let output = device.agent_output(memory, data);
        self.interrupt(output.interrupts);
        output
    }

    /// Queues bytes for the agent that has the port open; how many were taken.
    #[must_use]
    pub fn agent_input(&self, bytes: &[u8]) -> usize {
        let mut device = self.lock();
        let epoch = device.epoch();
        device.agent_input(epoch, bytes)
    }

    /// Queues bytes for the guest's console; how many were taken.
    #[must_use]
    pub fn console_input(&self, bytes: &[u8]) -> usize {
        self.lock().console_input(bytes)
    }
}
