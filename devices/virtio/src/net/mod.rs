// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A network card: Ethernet frames to and from the guest, one queue for each direction.
//!
//! *Emulated:* a fixed MAC address; a link that is always up; frames of 14 to 1514 bytes behind a header of 12 bytes,
//! laid out over descriptors in any way.
//!
//! *Not emulated:* checksum and segmentation offloads, buffers merged for one frame, the control queue and what it
//! carries (filters, VLANs, announcements, several queue pairs, another MAC address), an MTU. The guest computes
//! whole checksums and checks those it gets. No frame is filtered: whatever address it has, it is handed on.
//!
//! *Differs from hardware, that is, from QEMU 7.2:* what can be no frame (too long, too short, nothing to read, a part
//! that the device may write) is dropped and counted and its buffer given back, where QEMU takes any length, and stops
//! the device if there is nothing to read, or less than a header. A frame that the guest's next buffer has no room for
//! uses that buffer up: it goes back with length 0. What the header of a frame of the guest says is not looked at:
//! without offloads there is nothing that it could say.
//!
//! Which frames wait where: frames of the guest stay in its memory until the owner asks for them; frames for the guest
//! stay with the owner until the guest has a buffer.
//!
//! Sources: Virtual I/O Device (VIRTIO) 1.2, section 5.1, for layout; Linux 6.1 source for what a driver expects: its
//! buffers have 12 + 1518 bytes, and it refuses a device with features of the control queue but none.

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP};

use crate::device::{Identity, VirtioDevice};
use crate::ring::Chain;

mod face;
mod work;

pub use face::NetEffects;

/// Feature: the configuration space has the MAC address.
pub const F_MAC: u64 = 1 << VIRTIO_NET_F_MAC;
/// Feature: the configuration space has the link's state.
pub const F_STATUS: u64 = 1 << VIRTIO_NET_F_STATUS;
/// Queue of frames for the guest.
pub const RECEIVE_QUEUE: u16 = 0;
/// Queue of frames of the guest.
pub const TRANSMIT_QUEUE: u16 = 1;
/// Bytes in front of each frame, both ways; the last two, of a frame for the guest, hold the number of its buffers.
pub const HEADER_BYTES: usize = 12;
/// Shortest frame: destination, source, type.
pub const FRAME_BYTES_MIN: usize = 14;
/// Longest frame: 1500 bytes of payload, no VLAN tag, no checksum.
pub const FRAME_BYTES_MAX: usize = 1514;
/// Frames that one call of [`transmit`](crate::VirtioPci::transmit) or [`receive`](crate::VirtioPci::receive) deals
/// with, at most; dropped ones are among them.
pub const FRAMES_PER_ROUND: u16 = 64;

/// Entries of the queues, as QEMU has them.
const QUEUE_SIZES: [u16; 2] = [256, 256];
/// PCI: Ethernet controller.
const CLASS: [u8; 3] = [0x02, 0x00, 0x00];
const CONFIG_BYTES: usize = 8;

/// What became of frames in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounters {
    /// Frames that were handed on.
    pub frames: u64,
    /// Bytes of these, without the header.
    pub bytes: u64,
    /// Frames that were dropped because they had more than [`FRAME_BYTES_MAX`] bytes.
    pub oversize: u64,
    /// Frames that were dropped because they had fewer than [`FRAME_BYTES_MIN`] bytes, or not even a header.
    pub undersize: u64,
}

/// What a host-side observer may want to know; nothing of it is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Frames of the guest.
    pub transmitted: FrameCounters,
    /// Frames for the guest.
    pub received: FrameCounters,
    /// Frames for the guest that were dropped because its next buffer had no room for them.
    pub no_room: u64,
    /// Elements of the guest that can be no frame: with a part that the device may write, or with nothing to read.
    pub malformed: u64,
    /// Writes to the configuration space, in which nothing can be written.
    pub ignored_writes: u64,
}

/// The network card without its transport: put it into a [`VirtioPci`](crate::VirtioPci).
#[derive(Debug)]
pub struct Net {
    mac: [u8; 6],
    counters: NetCounters,
    /// The element at hand, in memory that is used again for the next one.
    chain: Chain,
}

impl Net {
    /// A card that no driver has found yet, with its MAC address: a unicast one.
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            counters: NetCounters::default(),
            chain: Chain::default(),
        }
    }

    /// Its MAC address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> NetCounters {
        self.counters
    }

    /// MAC address, link state.
    fn config(&self) -> [u8; CONFIG_BYTES] {
        let [a, b, c, d, e, f] = self.mac;
        let [low, high] = u16::try_from(VIRTIO_NET_S_LINK_UP)
            .unwrap_or(0)
            .to_le_bytes();
        [a, b, c, d, e, f, low, high]
    }
}

impl VirtioDevice for Net {
    fn identity(&self) -> Identity {
        Identity {
            device_type: u16::try_from(VIRTIO_ID_NET).unwrap_or(0),
            class: CLASS,
        }
    }

    fn features(&self) -> u64 {
        F_MAC | F_STATUS
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_bytes(&self) -> u32 {
        u32::try_from(CONFIG_BYTES).unwrap_or(0)
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, value) in data.iter_mut().zip(self.config().into_iter().skip(skip)) {
            *byte = value;
        }
    }

    fn config_write(&mut self, _offset: u64, _data: &[u8]) {
        count(&mut self.counters.ignored_writes);
    }

    fn activate(&mut self, _features: u64) {}

    // No element is held from one round to the next.
    fn reset(&mut self) {}

    fn stopped(&mut self) {}
}

fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
