// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The console: its owner's promises, and a guest that does anything to its rings.

use kennel_virtio::console::{AGENT_INPUT_BYTES, CONSOLE_OUTPUT_BYTES, CONTROL_MESSAGES};
use kennel_virtio::spec::*;
use kennel_virtio::{Console, ConsoleEvent, PortId};

use crate::bytes::Bytes;
use crate::guest::{LENGTHS, address, queue, register_step, ring_step};
use crate::owner::{Fuzzed, Owner, used};

const CONTROL_IN: u16 = 2;
const CONTROL_OUT: u16 = 3;
const AGENT_RX: u16 = 4;
const AGENT_TX: u16 = 5;

/// What the owner knows of the ports.
#[derive(Default)]
pub(crate) struct Ports {
    open: [bool; 2],
    epoch: u64,
    printed: Vec<u8>,
}

impl Fuzzed for Console {
    const QUEUES: u16 = 6;
    const FEATURES: u32 = 2;
    type Knows = Ports;

    fn new() -> Self {
        Self::new()
    }

    fn round(owner: &mut Owner<Self>) -> bool {
        owner.knows.printed.clear();
        let driven = owner.device.is_driven();
        let effects = owner
            .device
            .process(&owner.memory, &mut owner.knows.printed);
        owner.interrupts(effects.interrupts);
        assert!(owner.knows.printed.len() <= CONSOLE_OUTPUT_BYTES);
        assert!(effects.agent_input_room <= AGENT_INPUT_BYTES);
        assert!(effects.events.len() <= CONTROL_MESSAGES + 2);
        follow(owner, &effects.events);
        if !driven {
            assert!(owner.knows.printed.is_empty() && !effects.more && effects.fault.is_none());
        }
        if effects.fault.is_some() {
            assert!(!owner.device.is_driven());
            assert_eq!(owner.knows.open, [false; 2]);
        }
        effects.more
    }

    fn check_it_still_works(owner: &mut Owner<Self>) {
        owner.start_over(true);
        while owner.round() {}
        owner.post(CONTROL_IN, 64);
        owner.post(CONTROL_IN, 64);
        control(owner, u32::MAX, 0, 1);
        control(owner, 1, 6, 1);
        owner.post(AGENT_RX, 64);
        while owner.round() {}
        assert_eq!(owner.load16(used(CONTROL_IN) + 2), 2);
        assert_eq!(owner.load16(used(CONTROL_OUT) + 2), 2);
        assert_eq!(owner.device.agent_input(owner.device.epoch(), b"ping"), 4);
        while owner.round() {}
        assert_eq!(owner.load16(used(AGENT_RX) + 2), 1);
        owner.send(AGENT_TX, b"pong");
        assert_eq!(take_output(owner, 64), b"pong");
        owner.send(1, b"alive");
        owner.round();
        assert_eq!(owner.knows.printed, b"alive");
    }
}

/// Opens and closes take turns, and each close of the agent's port ends an epoch.
fn follow(owner: &mut Owner<Console>, events: &[ConsoleEvent]) {
    let knows = &mut owner.knows;
    let mut closes = 0;
    for event in events {
        let (port, open) = match *event {
            ConsoleEvent::PortOpened { port } => (port, true),
            ConsoleEvent::PortClosed { port, .. } => (port, false),
        };
        let was = &mut knows.open[usize::from(port == PortId::Agent)];
        assert_ne!(*was, open, "{event:?}");
        *was = open;
        closes += u64::from(port == PortId::Agent && !open);
    }
    assert!(owner.device.epoch() >= knows.epoch + closes, "epoch");
    knows.epoch = owner.device.epoch();
    let console = owner.device.device();
    let open = [PortId::Console, PortId::Agent].map(|port| console.is_open(port));
    assert_eq!(knows.open, open, "told and asked");
}

fn input(owner: &mut Owner<Console>, len: usize, stale: bool) {
    let epoch = owner.device.epoch().wrapping_sub(stale.into());
    let taken = owner.device.agent_input(epoch, &vec![0x55; len]);
    let open = owner.device.device().is_open(PortId::Agent);
    assert!(taken <= len && (taken == 0 || (open && !stale)));
}

fn take_output(owner: &mut Owner<Console>, room: usize) -> Vec<u8> {
    let open = owner.device.device().is_open(PortId::Agent);
    let mut data = vec![0; room];
    let output = owner.device.agent_output(&owner.memory, &mut data);
    owner.interrupts(output.interrupts);
    assert!(output.len <= room && (open || output.len == 0));
    assert!(!output.process_first || output.len == 0);
    data.truncate(output.len);
    data
}

fn control(owner: &mut Owner<Console>, id: u32, event: u16, value: u16) {
    let mut data = id.to_le_bytes().to_vec();
    data.extend(event.to_le_bytes());
    data.extend(value.to_le_bytes());
    owner.send(CONTROL_OUT, &data);
}

/// One step on rings and messages, seldom on registers.
pub(crate) fn step(owner: &mut Owner<Console>, bytes: &mut Bytes<'_>) {
    match bytes.byte() {
        0..=39 => {
            let (id, event, value) = (bytes.below(3), bytes.below(9), bytes.below(3));
            control(owner, id.into(), event.into(), value.into());
        }
        40..=69 => {
            let (queue, len) = (queue::<Console>(bytes), bytes.pick(&LENGTHS[..8]));
            owner.send(queue, &vec![0x73; len as usize % 5000]);
        }
        70..=99 => {
            let (queue, len) = (queue::<Console>(bytes), bytes.pick(&LENGTHS));
            owner.post(queue, len);
        }
        100..=129 => ring_step(owner, bytes, false),
        130..=149 => ring_step(owner, bytes, true),
        150..=199 => {
            owner.round();
        }
        200..=214 => {
            let room = bytes.pick(&LENGTHS[..7]) as usize;
            take_output(owner, room);
        }
        215..=229 => {
            let (len, stale) = (bytes.pick(&LENGTHS[..9]) as usize, bytes.below(8) == 0);
            input(owner, len, stale);
        }
        230..=234 => {
            let len = bytes.pick(&LENGTHS[..8]) as usize;
            assert!(owner.device.console_input(&vec![0x63; len]) <= len);
        }
        235..=239 => {
            let (address, data) = (address::<Console>(bytes), bytes.array::<6>());
            owner.store(address, &data);
        }
        240..=241 => owner.start_over(bytes.below(2) == 0),
        242..=244 => owner.write(STATUS, &[0]),
        _ => register_step(owner, bytes),
    }
}
