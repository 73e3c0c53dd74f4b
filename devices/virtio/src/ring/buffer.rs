// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The readable, or the writable, half of a chain: pieces of guest memory, used up from the front.

use std::collections::VecDeque;

use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::RingFault;

#[derive(Clone, Copy, Debug)]
struct Piece {
    address: GuestAddress,
    len: u32,
}

/// Pieces of guest memory of one chain, used up from the front.
///
/// What the descriptors said was read once: a driver that changes them later changes nothing here.
#[derive(Debug, Default)]
pub struct Buffer {
    pieces: VecDeque<Piece>,
}

impl Buffer {
    /// Appends a piece; an empty one is left out.
    pub(super) fn push(&mut self, address: GuestAddress, len: u32) {
        if len > 0 {
            self.pieces.push_back(Piece { address, len });
        }
    }

    /// Forgets what is left; the memory that it took stays for the next chain.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Bytes that are left.
    #[must_use]
    pub fn len(&self) -> u64 {
        let lens = self.pieces.iter().map(|piece| u64::from(piece.len));
        lens.fold(0, u64::saturating_add)
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Fills `data` as far as the buffer goes; the number of bytes.
    ///
    /// # Errors
    /// [`RingFault::Memory`].
    pub fn read<M: GuestMemory>(
        &mut self,
        memory: &M,
        data: &mut [u8],
    ) -> Result<usize, RingFault> {
        let mut done = 0_usize;
        while let Some((address, count)) = self.take(data.len().saturating_sub(done)) {
            let end = done.saturating_add(count);
            let part = data.get_mut(done..end).ok_or(RingFault::Memory)?;
            let read = memory.read_slice(part, address);
            read.map_err(|_| RingFault::Memory)?;
            done = end;
        }
        Ok(done)
    }

    /// Stores `data` as far as the buffer goes; the number of bytes.
    ///
    /// # Errors
    /// [`RingFault::Memory`].
    pub fn write<M: GuestMemory>(&mut self, memory: &M, data: &[u8]) -> Result<usize, RingFault> {
        let mut done = 0_usize;
        while let Some((address, count)) = self.take(data.len().saturating_sub(done)) {
            let end = done.saturating_add(count);
            let part = data.get(done..end).ok_or(RingFault::Memory)?;
            let written = memory.write_slice(part, address);
            written.map_err(|_| RingFault::Memory)?;
            done = end;
        }
        Ok(done)
    }

    /// Takes up to `max` bytes, at least one, in one piece from the front.
    fn take(&mut self, max: usize) -> Option<(GuestAddress, usize)> {
        let piece = self.pieces.front_mut()?;
        let count = piece.len.min(u32::try_from(max).unwrap_or(u32::MAX));
        if count == 0 {
            return None;
        }
        let address = piece.address;
        piece.len = piece.len.saturating_sub(count);
        if piece.len == 0 {
            self.pieces.pop_front();
        } else {
            // The piece's whole range was checked to lie in guest memory.
            piece.address = GuestAddress(address.0.wrapping_add(count.into()));
        }
        Some((address, usize::try_from(count).unwrap_or(0)))
    }
}
