// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ring work of the network card. A fault of a ring ends it early; the transport sees to the rest.

use vm_memory::GuestMemory;

use super::{
    FRAME_BYTES_MAX, FRAME_BYTES_MIN, FRAMES_PER_ROUND, FrameCounters, HEADER_BYTES, Net,
    RECEIVE_QUEUE, TRANSMIT_QUEUE, count,
};
use crate::ring::{Chain, RingFault, Rings};

/// In front of a frame for the guest: no offloads, one buffer.
const HEADER: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

impl FrameCounters {
    /// Whether a frame may have `len` bytes; counted if not.
    fn admit(&mut self, len: u64) -> bool {
        if len < FRAME_BYTES_MIN as u64 {
            count(&mut self.undersize);
            return false;
        }
        if len > FRAME_BYTES_MAX as u64 {
            count(&mut self.oversize);
            return false;
        }
        true
    }

    fn handed_on(&mut self, len: usize) {
        count(&mut self.frames);
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(len);
    }
}

impl Net {
    /// Hands the guest's frames to `sink`; whether there are more.
    pub(super) fn take_frames<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, RingFault> {
        let mut scratch = [0; FRAME_BYTES_MAX];
        for _ in 0..rings.waiting(memory, TRANSMIT_QUEUE)?.min(FRAMES_PER_ROUND) {
            if !rings.pop_into(memory, TRANSMIT_QUEUE, &mut self.chain)? {
                break;
            }
            if let Some(frame) = self.frame(memory, &mut scratch)? {
                sink(frame);
                self.counters.transmitted.handed_on(frame.len());
            }
            rings.add_used(memory, TRANSMIT_QUEUE, self.chain.head, 0)?;
        }
        Ok(rings.waiting(memory, TRANSMIT_QUEUE)? > 0)
    }

    /// The frame in the element at hand, if there is one.
    fn frame<'s, M: GuestMemory>(
        &mut self,
        memory: &M,
        scratch: &'s mut [u8; FRAME_BYTES_MAX],
    ) -> Result<Option<&'s [u8]>, RingFault> {
        let Chain {
            readable, writable, ..
        } = &mut self.chain;
        if readable.is_empty() || !writable.is_empty() {
            count(&mut self.counters.malformed);
            return Ok(None);
        }
        let len = readable.len().saturating_sub(HEADER_BYTES as u64);
        if !self.counters.transmitted.admit(len) {
            return Ok(None);
        }
        readable.read(memory, &mut [0; HEADER_BYTES])?;
        let len = readable.read(memory, scratch)?;
        Ok(scratch.get(..len))
    }

    /// Puts frames into the guest's buffers as far as there are any, and counts them in `taken`; whether it ended
    /// because it had done enough.
    pub(super) fn give_frames<'f, M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        frames: impl Iterator<Item = &'f [u8]>,
        taken: &mut usize,
    ) -> Result<bool, RingFault> {
        let buffers = rings.waiting(memory, RECEIVE_QUEUE)?.min(FRAMES_PER_ROUND);
        for frame in frames.take(buffers.into()) {
            if self.admit_received(frame) {
                if !rings.pop_into(memory, RECEIVE_QUEUE, &mut self.chain)? {
                    return Ok(false);
                }
                let written = self.store(memory, frame)?;
                rings.add_used(memory, RECEIVE_QUEUE, self.chain.head, written)?;
            }
            *taken = taken.saturating_add(1);
        }
        let enough = buffers > 0 && *taken >= buffers.into();
        Ok(enough && rings.waiting(memory, RECEIVE_QUEUE)? > 0)
    }

    fn admit_received(&mut self, frame: &[u8]) -> bool {
        let len = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        self.counters.received.admit(len)
    }

    /// Puts a frame into the buffer at hand, if it has room; how many bytes were written.
    fn store<M: GuestMemory>(&mut self, memory: &M, frame: &[u8]) -> Result<u32, RingFault> {
        let buffer = &mut self.chain.writable;
        let needed = frame.len().saturating_add(HEADER_BYTES);
        if u64::try_from(needed).is_ok_and(|needed| needed <= buffer.len()) {
            buffer.write(memory, &HEADER)?;
            buffer.write(memory, frame)?;
            self.counters.received.handed_on(frame.len());
            return Ok(u32::try_from(needed).unwrap_or(u32::MAX));
        }
        count(&mut self.counters.no_room);
        Ok(0)
    }
}
