// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the owner of a network card calls on its loop.

use vm_memory::GuestMemory;

use super::Net;
use crate::effects::Interrupts;
use crate::ring::{QueueFault, RingFault};
use crate::transport::{RingWork, VirtioPci};

/// What a round of ring work wants from the owner.
#[must_use = "the guest waits for its interrupt, and there may be more to do"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetEffects {
    /// Interrupts: at most one for all frames of the round.
    pub interrupts: Interrupts,
    /// The round ended because it had done enough: call again, after others had their turn.
    pub more: bool,
    /// The device stopped in this round, because this queue made no sense; told once.
    pub fault: Option<QueueFault>,
}

impl NetEffects {
    /// The work's result is whether there is more; after a fault nothing is.
    fn of(work: RingWork<Result<bool, RingFault>>) -> Self {
        Self {
            interrupts: work.interrupts,
            more: work.result.and_then(Result::ok).unwrap_or(false),
            fault: work.fault,
        }
    }
}

impl VirtioPci<Net> {
    /// One round of the guest's frames: each, without its header, is handed to `sink`, and its buffer goes back. To be
    /// called when an access says that there is work, and again while it says that there is more.
    ///
    /// At most [`FRAMES_PER_ROUND`](super::FRAMES_PER_ROUND) are looked at. The guest is not held up: what `sink`
    /// has no room for, it drops. To leave frames in the guest's memory, do not call.
    pub fn transmit<M: GuestMemory>(
        &mut self,
        memory: &M,
        sink: &mut dyn FnMut(&[u8]),
    ) -> NetEffects {
        NetEffects::of(self.with_rings(memory, |net, rings| net.take_frames(memory, rings, sink)))
    }

    /// One round of frames for the guest, as far as it has buffers: how many were taken, from the first on. Those that
    /// were dropped, because they cannot be frames or do not fit the guest's buffer, are among them. The others stay
    /// with the owner, who calls again when an access says that there is work, and while this says that there is more
    /// and frames are left.
    ///
    /// At most [`FRAMES_PER_ROUND`](super::FRAMES_PER_ROUND) are taken; none if the device is not driven.
    pub fn receive<'f, M: GuestMemory>(
        &mut self,
        memory: &M,
        frames: impl Iterator<Item = &'f [u8]>,
    ) -> (usize, NetEffects) {
        let mut taken = 0;
        let work = self.with_rings(memory, |net, rings| {
            net.give_frames(memory, rings, frames, &mut taken)
        });
        (taken, NetEffects::of(work))
    }
}
