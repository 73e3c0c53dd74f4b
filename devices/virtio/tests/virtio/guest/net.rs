// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A network card's guest and owner.

use std::collections::VecDeque;

use kennel_virtio::Net;
use kennel_virtio::net::{F_MAC, F_STATUS, HEADER_BYTES, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use kennel_virtio::spec::F_VERSION_1;

use super::{Guest, Owned, Piece, page};

pub(crate) const MAC: [u8; 6] = [0x02, 0x00, 0x5e, 0x10, 0x20, 0x30];
/// What Linux 6.1 posts for each frame: header, 14 + 1500 bytes, a VLAN tag.
pub(crate) const LINUX_BUFFER: u32 = 12 + 1518;

/// A guest with a network card.
pub(crate) type NetGuest = Guest<Net>;

#[derive(Debug, Default)]
pub(crate) struct NetTold {
    /// Frames of the guest.
    pub(crate) sent: Vec<Vec<u8>>,
    /// Frames for the guest.
    pub(crate) waiting: VecDeque<Vec<u8>>,
}

impl Owned for Net {
    type Told = NetTold;

    fn round(guest: &mut Guest<Self>) -> bool {
        let sent = &mut guest.told.sent;
        let mut sink = |frame: &[u8]| sent.push(frame.to_vec());
        let effects = guest.device.transmit(&guest.memory, &mut sink);
        guest.interrupts(effects.interrupts);
        guest.faults.extend(effects.fault);
        let waiting = guest.told.waiting.iter().map(Vec::as_slice);
        let (taken, received) = guest.device.receive(&guest.memory, waiting);
        guest.interrupts(received.interrupts);
        guest.faults.extend(received.fault);
        guest.told.waiting.drain(..taken);
        effects.more || received.more && !guest.told.waiting.is_empty()
    }
}

impl NetGuest {
    /// A machine whose guest has no driver yet.
    pub(crate) fn no_driver() -> Self {
        Self::without_driver(Net::new(MAC))
    }

    /// A guest whose driver has messages, and no buffers posted.
    pub(crate) fn driven() -> Self {
        let mut guest = Self::no_driver();
        guest.choose_messages();
        guest.start(F_MAC | F_STATUS | F_VERSION_1);
        guest
    }

    /// A guest as Linux has it after its driver's probe.
    pub(crate) fn like_linux() -> Self {
        let mut guest = Self::driven();
        for _ in 0..256 {
            guest.add_buffer(LINUX_BUFFER);
        }
        guest.notify(RECEIVE_QUEUE);
        guest
    }

    /// Makes a buffer for one frame available, without telling the device.
    pub(crate) fn add_buffer(&mut self, len: u32) -> u16 {
        let next = self.queues[usize::from(RECEIVE_QUEUE)].next_descriptor;
        let address = page(RECEIVE_QUEUE, next);
        let writable = true;
        self.add(
            RECEIVE_QUEUE,
            &[Piece {
                address,
                len,
                writable,
            }],
        )
    }

    /// Makes header and frame available in one descriptor, without telling the device.
    pub(crate) fn add_frame(&mut self, frame: &[u8]) -> u16 {
        let bytes = [&[0; HEADER_BYTES], frame].concat();
        self.add_bytes(TRANSMIT_QUEUE, &bytes)
    }

    /// Makes `bytes`, header and frame, available in pieces of these lengths, without telling the device; the head.
    pub(crate) fn add_pieces(&mut self, bytes: &[u8], lengths: &[usize]) -> u16 {
        let next = self.queues[usize::from(TRANSMIT_QUEUE)].next_descriptor;
        let mut address = page(TRANSMIT_QUEUE, next);
        self.store(address, bytes);
        let pieces: Vec<_> = lengths
            .iter()
            .map(|&len| {
                let piece = Piece {
                    address,
                    len: u32::try_from(len).expect("short"),
                    writable: false,
                };
                address += len as u64;
                piece
            })
            .collect();
        self.add(TRANSMIT_QUEUE, &pieces)
    }

    /// The owner has frames for the guest.
    pub(crate) fn give(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.told.waiting.extend(frames);
        self.process();
    }

    /// What the buffers hold that came back, header included; those that Linux posts, one descriptor each.
    pub(crate) fn arrived(&mut self) -> Vec<Vec<u8>> {
        self.returned(RECEIVE_QUEUE)
            .iter()
            .map(|&(head, len)| self.load(page(RECEIVE_QUEUE, head), len as usize))
            .collect()
    }
}

/// A frame of so many bytes, unlike others of another `tag`.
pub(crate) fn frame(len: usize, tag: u8) -> Vec<u8> {
    (0..len)
        .map(|at| tag.wrapping_mul(31).wrapping_add(at.to_le_bytes()[0]))
        .collect()
}

/// What the guest is to find in its buffer.
pub(crate) fn with_header(frame: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], frame].concat()
}
