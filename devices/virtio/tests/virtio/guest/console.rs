// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A console's guest and owner.

use kennel_virtio::spec::F_VERSION_1;
use kennel_virtio::{Console, ConsoleEvent};

use super::{Guest, Owned};

pub(crate) const CONSOLE_RX: u16 = 0;
pub(crate) const CONSOLE_TX: u16 = 1;
pub(crate) const CONTROL_IN: u16 = 2;
pub(crate) const CONTROL_OUT: u16 = 3;
pub(crate) const AGENT_RX: u16 = 4;
pub(crate) const AGENT_TX: u16 = 5;
pub(crate) const QUEUES: u16 = 6;

pub(crate) const DEVICE_READY: u16 = 0;
pub(crate) const PORT_ADD: u16 = 1;
pub(crate) const PORT_READY: u16 = 3;
pub(crate) const CONSOLE_PORT: u16 = 4;
pub(crate) const PORT_OPEN: u16 = 6;
pub(crate) const PORT_NAME: u16 = 7;

pub(crate) const MULTIPORT: u64 = 1 << 1;

/// A control message as the guest read it.
pub(crate) type Heard = (u32, u16, u16, Vec<u8>);

#[derive(Debug, Default)]
pub(crate) struct ConsoleTold {
    pub(crate) events: Vec<ConsoleEvent>,
    pub(crate) printed: Vec<u8>,
    pub(crate) room: usize,
    pub(crate) agent_output: bool,
}

impl Owned for Console {
    type Told = ConsoleTold;

    fn round(guest: &mut Guest<Self>) -> bool {
        let effects = guest.device.process(&guest.memory, &mut guest.told.printed);
        guest.interrupts(effects.interrupts);
        guest.told.events.extend(effects.events);
        guest.faults.extend(effects.fault);
        guest.told.room = effects.agent_input_room;
        guest.told.agent_output = effects.agent_output;
        effects.more
    }
}

impl Guest<Console> {
    /// A machine whose guest has no driver yet.
    pub(crate) fn off() -> Self {
        Self::without_driver(Console::new())
    }

    /// A guest as Linux has it after its driver's probe: messages chosen, buffers posted, nothing said yet.
    pub(crate) fn up() -> Self {
        let mut guest = Self::off();
        guest.choose_messages();
        guest.probe(MULTIPORT | F_VERSION_1);
        guest
    }

    /// A guest whose agent has its port open, with all its messages read.
    pub(crate) fn with_agent() -> Self {
        let mut guest = Self::up();
        guest.control(u32::MAX, DEVICE_READY, 1);
        guest.control(0, PORT_READY, 1);
        guest.control(1, PORT_READY, 1);
        guest.control(0, PORT_OPEN, 1);
        guest.hear();
        guest.control(1, PORT_OPEN, 1);
        guest.post(AGENT_RX, 16);
        guest.post(CONSOLE_RX, 16);
        guest.told.events.clear();
        guest.messages.clear();
        guest
    }

    /// The driver's probe, as Linux 6.1 does it, and buffers for control messages.
    pub(crate) fn probe(&mut self, features: u64) {
        self.start(features);
        self.post(CONTROL_IN, 32);
    }

    pub(crate) fn control(&mut self, id: u32, event: u16, value: u16) {
        self.send(CONTROL_OUT, &control_bytes(id, event, value));
    }

    /// Control messages that arrived.
    pub(crate) fn hear(&mut self) -> Vec<Heard> {
        let messages = self.received(CONTROL_IN);
        messages
            .into_iter()
            .map(|bytes| {
                let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
                let id = u32::from(half(0)) | u32::from(half(2)) << 16;
                (id, half(4), half(6), bytes[8..].to_vec())
            })
            .collect()
    }

    /// What the owner takes of the agent's output, with room for so much.
    pub(crate) fn take_agent_output(&mut self, room: usize) -> Vec<u8> {
        let mut data = vec![0; room];
        let output = self.device.agent_output(&self.memory, &mut data);
        self.interrupts(output.interrupts);
        self.faults.extend(output.fault);
        data.truncate(output.len);
        data
    }

    pub(crate) fn agent_input(&mut self, bytes: &[u8]) -> usize {
        let epoch = self.device.epoch();
        let taken = self.device.agent_input(epoch, bytes);
        self.process();
        taken
    }
}

pub(crate) fn control_bytes(id: u32, event: u16, value: u16) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(event.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes
}
