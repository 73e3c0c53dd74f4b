// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtio network device in its PCI slot.

use std::sync::Arc;

use kennel_virtio::{Net, NetEffects};

use crate::board::BoardError;
use crate::interrupts::Interrupts;
use crate::layout;
use crate::memory::GuestRam;
use crate::virtio_function::VirtioFunction;

/// The guest's MAC address: locally administered, and the same in every machine, each of which has
/// a link of its own.
pub const GUEST_MAC: [u8; 6] = [0x02, 0x00, 0x0a, 0x00, 0x02, 0x02];
/// The MAC address of the link's other end: the probe host's and the router's.
pub const HOST_MAC: [u8; 6] = [0x02, 0x00, 0x0a, 0x00, 0x02, 0x01];

/// The network device as the machine holds it.
pub type VirtioNet = VirtioFunction<Net>;

impl VirtioNet {
    /// A device in its power-on state.
    ///
    /// # Errors
    ///
    /// [`BoardError`]: the kernel gives no eventfd, or [`layout`] and the device contradict each other.
    pub fn new(lines: &Arc<Interrupts>) -> Result<Self, BoardError> {
        let (slot, bar) = (layout::NET_SLOT, layout::NET_BAR);
        Self::in_slot(Net::new(GUEST_MAC), slot, bar, lines)
    }

    /// Whether a driver drives it.
    #[must_use]
    pub fn is_driven(&self) -> bool {
        self.lock().is_driven()
    }

    /// One round of the guest's frames, each of which `sink` gets.
    pub fn transmit(&self, memory: &GuestRam, sink: &mut dyn FnMut(&[u8])) -> NetEffects {
        let mut device = self.lock();
        let effects = device.transmit(memory, sink);
        self.interrupt(effects.interrupts);
        effects
    }

    /// Gives the guest frames as far as it has buffers; how many were taken.
    pub fn receive<'f>(
        &self,
        memory: &GuestRam,
        frames: impl Iterator<Item = &'f [u8]>,
    ) -> (usize, NetEffects) {
        let mut device = self.lock();
        let (taken, effects) = device.receive(memory, frames);
        self.interrupt(effects.interrupts);
        (taken, effects)
    }
}
