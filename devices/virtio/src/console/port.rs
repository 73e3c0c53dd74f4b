// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One port: its queues, what waits for the guest, the element of the guest that is not used up yet.

use std::collections::VecDeque;

use vm_memory::GuestMemory;

use crate::ring::{Chain, RingFault, Rings};

/// One port.
#[derive(Debug)]
pub(super) struct Port {
    rx: u16,
    tx: u16,
    open: bool,
    input: VecDeque<u8>,
    input_max: usize,
    held: Option<Chain>,
}

impl Port {
    pub(super) fn new(rx: u16, tx: u16, input_max: usize) -> Self {
        Self {
            rx,
            tx,
            open: false,
            input: VecDeque::new(),
            input_max,
            held: None,
        }
    }

    pub(super) fn tx(&self) -> u16 {
        self.tx
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// How many bytes were dropped that waited for the guest.
    pub(super) fn close(&mut self) -> u64 {
        self.open = false;
        let dropped = std::mem::take(&mut self.input).len();
        u64::try_from(dropped).unwrap_or(u64::MAX)
    }

    pub(super) fn take_held(&mut self) -> Option<Chain> {
        self.held.take()
    }

    /// How many bytes were taken.
    pub(super) fn push_input(&mut self, bytes: &[u8]) -> usize {
        let room = self.input_room().min(bytes.len());
        self.input.extend(bytes.iter().take(room));
        room
    }

    pub(super) fn input_room(&self) -> usize {
        self.input_max.saturating_sub(self.input.len())
    }

    /// Moves input into the guest's buffers, as far as there are any.
    pub(super) fn deliver<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
    ) -> Result<(), RingFault> {
        if self.input.is_empty() {
            return Ok(());
        }
        for _ in 0..rings.waiting(memory, self.rx)? {
            if self.input.is_empty() {
                break;
            }
            let Some(mut chain) = rings.pop(memory, self.rx)? else {
                break;
            };
            let (front, back) = self.input.as_slices();
            let mut count = chain.writable.write(memory, front)?;
            count = count.saturating_add(chain.writable.write(memory, back)?);
            self.input.drain(..count.min(self.input.len()));
            let written = u32::try_from(count).unwrap_or(u32::MAX);
            rings.add_used(memory, self.rx, chain.head, written)?;
        }
        Ok(())
    }

    /// Whether the guest has said something that was not taken yet.
    pub(super) fn has_output<M: GuestMemory>(
        &self,
        memory: &M,
        rings: &mut Rings,
    ) -> Result<bool, RingFault> {
        Ok(self.held.is_some() || rings.waiting(memory, self.tx)? > 0)
    }

    /// Takes output as far as `data` has room, and `elements`, which is counted down, allows to begin new elements; the
    /// number of bytes. An element goes back to the guest when its last byte was taken.
    pub(super) fn take_output<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        elements: &mut u16,
        data: &mut [u8],
    ) -> Result<usize, RingFault> {
        let mut done = 0_usize;
        while let Some(part) = data.get_mut(done..).filter(|part| !part.is_empty()) {
            if self.held.is_none() && *elements > 0 {
                *elements = elements.saturating_sub(1);
                self.held = rings.pop(memory, self.tx)?;
            }
            let Some(chain) = &mut self.held else {
                break;
            };
            done = done.saturating_add(chain.readable.read(memory, part)?);
            if chain.readable.is_empty() {
                let head = chain.head;
                self.held = None;
                rings.add_used(memory, self.tx, head, 0)?;
            }
        }
        Ok(done)
    }
}
