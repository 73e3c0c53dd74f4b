// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A console with two ports: port 0 is the guest's console, port 1 is the channel of the QEMU guest agent.
//!
//! *Emulated:* several ports with their control messages; a console port that never holds the guest up; an agent port
//! with back-pressure in both directions. A driver that does not know several ports gets port 0 alone.
//!
//! *Not emulated:* window size, emergency write, adding and removing ports at run time. The host end of both ports is
//! open for as long as the device lives: Linux' agent spins when it is closed in mid-reply (observed with qemu-ga 7.2).
//!
//! *Differs from hardware, that is, from QEMU 7.2:* control messages to the guest wait for buffers, where QEMU drops
//! them. What the host had to say to an agent that closed its port, or to the last boot's, is dropped, where QEMU
//! delivers it to the next one. What a closed agent port still held is dropped.
//!
//! Which bytes go where: console output is always taken, because Linux' console spins with interrupts off until it is;
//! agent output is taken when the owner asks for it, into the room that the owner has.
//!
//! Sources: Virtual I/O Device (VIRTIO) 1.2, section 5.3, for layout and messages; Linux 6.1 source for what a driver
//! expects.

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use crate::device::{Identity, VirtioDevice};
use crate::ring::Rings;

mod control;
mod face;
mod port;
mod work;

use control::Owed;
pub use face::{AgentOutput, ConsoleEffects};
use port::Port;

/// Feature: more than one port, and control messages.
pub const F_MULTIPORT: u64 = 1 << 1;
/// The agent port's name, by which a guest finds it.
pub const AGENT_PORT_NAME: &str = "org.qemu.guest_agent.0";
/// Bytes for the agent that wait for the guest to take them, at most.
pub const AGENT_INPUT_BYTES: usize = 64 * 1024;
/// Bytes for the guest's console that wait for the guest to take them, at most.
pub const CONSOLE_INPUT_BYTES: usize = 4 * 1024;
/// Bytes of console output that one call of [`process`](crate::VirtioPci::process) gives out, at most.
pub const CONSOLE_OUTPUT_BYTES: usize = 64 * 1024;
/// Control messages of the guest that one call of [`process`](crate::VirtioPci::process) looks at, at most.
pub const CONTROL_MESSAGES: usize = 64;

/// Entries of the queues: data as QEMU has them, control as QEMU has them.
const QUEUE_SIZES: [u16; 6] = [128, 128, 32, 32, 128, 128];
const CONSOLE_RX: u16 = 0;
const CONSOLE_TX: u16 = 1;
const CONTROL_IN: u16 = 2;
const CONTROL_OUT: u16 = 3;
const AGENT_RX: u16 = 4;
const AGENT_TX: u16 = 5;

/// Columns and rows (not offered), number of ports.
const CONFIG: [u8; 8] = [0, 0, 0, 0, 2, 0, 0, 0];
/// PCI: other communication device.
const CLASS: [u8; 3] = [0x07, 0x80, 0x00];

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortId {
    /// Port 0: the guest's console.
    Console,
    /// Port 1: the guest agent.
    Agent,
}

impl PortId {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Console, Self::Agent];

    /// Number in control messages.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Console => 0,
            Self::Agent => 1,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|port| port.number() == number)
    }
}

/// What happened to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleEvent {
    /// The guest has opened the port: a program in it has the agent's port, its console driver port 0.
    PortOpened {
        /// Which.
        port: PortId,
    },
    /// The guest no longer has the port open.
    PortClosed {
        /// Which.
        port: PortId,
        /// The device was reset, by its driver or with the machine, or stopped: no program closed the port.
        reset: bool,
    },
}

/// What a host-side observer may want to know; nothing of it is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsoleCounters {
    /// Control messages of the guest that were too short, of an unknown kind or port, or with a value that makes no
    /// sense.
    pub ignored_messages: u64,
    /// The guest said that it could not set up the device, or a port.
    pub guest_failures: u64,
    /// Control messages to the guest that its buffers were too small for.
    pub lost_messages: u64,
    /// Elements of a closed agent port that were given back unread, whole or in part.
    pub discarded_elements: u64,
    /// Bytes for a port that were dropped because the guest closed it or was reset.
    pub dropped_input_bytes: u64,
}

/// The console without its transport: put it into a [`VirtioPci`](crate::VirtioPci).
#[derive(Debug)]
pub struct Console {
    multiport: bool,
    console: Port,
    agent: Port,
    owed: [Owed; 2],
    epoch: u64,
    events: Vec<ConsoleEvent>,
    counters: ConsoleCounters,
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// A console that no driver has found yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            multiport: false,
            console: Port::new(CONSOLE_RX, CONSOLE_TX, CONSOLE_INPUT_BYTES),
            agent: Port::new(AGENT_RX, AGENT_TX, AGENT_INPUT_BYTES),
            owed: [Owed::default(); 2],
            epoch: 0,
            events: Vec::new(),
            counters: ConsoleCounters::default(),
        }
    }

    /// Whether the guest has the port open.
    #[must_use]
    pub fn is_open(&self, port: PortId) -> bool {
        self.port(port).is_open()
    }

    /// Counts the lives of the agent's port: another number means that whoever was at the guest's end is gone.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> ConsoleCounters {
        self.counters
    }

    /// Queues bytes for the agent; how many were taken. None if the guest does not have the port open, or `epoch` is
    /// not the present one: what was meant for an agent reaches no other.
    ///
    /// They reach the guest by [`process`](crate::VirtioPci::process).
    pub fn agent_input(&mut self, epoch: u64, bytes: &[u8]) -> usize {
        if epoch != self.epoch || !self.agent.is_open() {
            return 0;
        }
        self.agent.push_input(bytes)
    }

    /// Queues bytes for the guest's console; how many were taken. None before the guest's driver has opened it.
    ///
    /// They reach the guest by [`process`](crate::VirtioPci::process).
    pub fn console_input(&mut self, bytes: &[u8]) -> usize {
        if !self.console.is_open() {
            return 0;
        }
        self.console.push_input(bytes)
    }

    fn port(&self, port: PortId) -> &Port {
        match port {
            PortId::Console => &self.console,
            PortId::Agent => &self.agent,
        }
    }

    fn port_mut(&mut self, port: PortId) -> &mut Port {
        match port {
            PortId::Console => &mut self.console,
            PortId::Agent => &mut self.agent,
        }
    }

    fn opened(&mut self, port: PortId) {
        if !self.port(port).is_open() {
            self.port_mut(port).open();
            self.events.push(ConsoleEvent::PortOpened { port });
        }
    }

    /// A port's end: what waits for the guest is dropped. Whether it had been open.
    fn closed(&mut self, port: PortId, reset: bool) -> bool {
        let was_open = self.port(port).is_open();
        let dropped = self.port_mut(port).close();
        let counter = &mut self.counters.dropped_input_bytes;
        *counter = counter.saturating_add(dropped);
        if was_open {
            self.events.push(ConsoleEvent::PortClosed { port, reset });
        }
        if port == PortId::Agent && (was_open || reset) {
            self.epoch = self.epoch.wrapping_add(1);
        }
        was_open
    }

    fn forget_guest(&mut self) {
        for port in PortId::ALL {
            self.closed(port, true);
            // The rings it came from are no more, or stopped.
            drop(self.port_mut(port).take_held());
        }
        self.owed = [Owed::default(); 2];
        self.multiport = false;
    }
}

impl VirtioDevice for Console {
    fn identity(&self) -> Identity {
        Identity {
            device_type: u16::try_from(VIRTIO_ID_CONSOLE).unwrap_or(0),
            class: CLASS,
        }
    }

    fn features(&self) -> u64 {
        F_MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_bytes(&self) -> u32 {
        u32::try_from(CONFIG.len()).unwrap_or(0)
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, value) in data.iter_mut().zip(CONFIG.into_iter().skip(skip)) {
            *byte = value;
        }
    }

    fn activate(&mut self, features: u64) {
        self.multiport = features & F_MULTIPORT != 0;
    }

    fn reset(&mut self) {
        self.forget_guest();
    }

    fn stopped(&mut self) {
        self.forget_guest();
    }
}
