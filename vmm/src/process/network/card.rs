// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's end of the link, as the link's thread sees it.

use std::fmt;
use std::sync::Arc;

use kennel_virtio::NetEffects;
use vmm_sys_util::eventfd::EventFd;

use crate::memory::GuestRam;
use crate::virtio_net::VirtioNet;

/// A network card: the machine's own, or one that stands for it where there is no machine.
pub trait Card: fmt::Debug + Send {
    /// Readable when there is work with it.
    fn work(&self) -> &EventFd;

    /// Whether a driver drives it.
    fn is_driven(&self) -> bool;

    /// Whether it was reset since the last call: whoever drove it is gone.
    fn take_reset(&mut self) -> bool;

    /// One bounded round of the guest's frames, each of which `sink` gets.
    fn transmit(&mut self, sink: &mut dyn FnMut(&[u8])) -> NetEffects;

    /// Gives the guest frames as far as it has room; how many were taken.
    fn receive(&mut self, frames: &mut dyn Iterator<Item = &[u8]>) -> (usize, NetEffects);
}

/// The machine's.
#[derive(Debug)]
pub(super) struct InMachine {
    pub(super) device: Arc<VirtioNet>,
    pub(super) memory: GuestRam,
}

impl Card for InMachine {
    fn work(&self) -> &EventFd {
        self.device.work()
    }

    fn is_driven(&self) -> bool {
        self.device.is_driven()
    }

    fn take_reset(&mut self) -> bool {
        self.device.take_reset()
    }

    fn transmit(&mut self, sink: &mut dyn FnMut(&[u8])) -> NetEffects {
        self.device.transmit(&self.memory, sink)
    }

    fn receive(&mut self, frames: &mut dyn Iterator<Item = &[u8]>) -> (usize, NetEffects) {
        self.device.receive(&self.memory, frames)
    }
}
