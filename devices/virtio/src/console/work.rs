// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ring work of the console. A fault of a ring ends it early; the transport sees to the rest.

use vm_memory::GuestMemory;

use super::control::{FromGuest, MESSAGE_BYTES};
use super::{
    AGENT_TX, CONSOLE_OUTPUT_BYTES, CONTROL_IN, CONTROL_MESSAGES, CONTROL_OUT, Console, PortId,
    Rings,
};
use crate::ring::RingFault;

const PRINT_CHUNK_BYTES: usize = 4096;
const PRINT_CHUNKS: usize = CONSOLE_OUTPUT_BYTES / PRINT_CHUNK_BYTES;

/// What is left after one round of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// There is more to do now.
    pub(super) more: bool,
    /// The agent has said something.
    pub(super) agent_output: bool,
}

/// What [`Console::take_agent_output`] took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) len: usize,
    pub(super) more: bool,
    pub(super) process_first: bool,
}

impl Console {
    /// One round over all queues but the agent's output, which waits for [`Console::take_agent_output`].
    pub(super) fn work<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        printed: &mut Vec<u8>,
    ) -> Result<Left, RingFault> {
        let mut left = Left::default();
        if !self.multiport {
            // No message will ever say so.
            self.opened(PortId::Console);
        } else {
            self.hear(memory, rings)?;
            self.tell(memory, rings)?;
            // The control queue always goes first: a port's bytes mean something only once it is known to be open.
            left.more = self.drop_agent_output(memory, rings)?;
            left.more |= rings.waiting(memory, CONTROL_OUT)? > 0;
        }
        left.more |= self.print(memory, rings, printed)?;
        self.console.deliver(memory, rings)?;
        if self.agent.is_open() {
            self.agent.deliver(memory, rings)?;
            left.agent_output = self.agent.has_output(memory, rings)?;
        }
        Ok(left)
    }

    /// Control messages of the guest. Each buffer is given back at once: Linux spins until it is.
    fn hear<M: GuestMemory>(&mut self, memory: &M, rings: &mut Rings) -> Result<(), RingFault> {
        for _ in 0..CONTROL_MESSAGES {
            let Some(mut chain) = rings.pop(memory, CONTROL_OUT)? else {
                break;
            };
            let mut message = [0; MESSAGE_BYTES];
            let complete = chain.readable.read(memory, &mut message)? == MESSAGE_BYTES;
            match complete.then(|| FromGuest::parse(message)).flatten() {
                Some(message) => self.obey(memory, rings, message)?,
                None => {
                    let ignored = &mut self.counters.ignored_messages;
                    *ignored = ignored.saturating_add(1);
                }
            }
            rings.add_used(memory, CONTROL_OUT, chain.head, 0)?;
        }
        Ok(())
    }

    fn obey<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        message: FromGuest,
    ) -> Result<(), RingFault> {
        match message {
            FromGuest::DeviceReady => {
                for owed in &mut self.owed {
                    owed.announce();
                }
            }
            FromGuest::PortReady(port) => {
                for (owed, id) in self.owed.iter_mut().zip(PortId::ALL) {
                    if id == port {
                        owed.describe();
                    }
                }
            }
            FromGuest::PortOpen(port, true) => self.opened(port),
            FromGuest::PortOpen(port, false) => {
                if self.closed(port, false) && port == PortId::Agent {
                    // Before the guest gets its message back: what is there now was said before.
                    self.give_back_held(memory, rings)?;
                    let count = rings.waiting(memory, AGENT_TX)?;
                    self.discard(memory, rings, count)?;
                }
            }
            FromGuest::Failed => {
                let failures = &mut self.counters.guest_failures;
                *failures = failures.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Control messages to the guest, as far as it has buffers; the rest stays owed.
    fn tell<M: GuestMemory>(&mut self, memory: &M, rings: &mut Rings) -> Result<(), RingFault> {
        for (owed, port) in self.owed.iter_mut().zip(PortId::ALL) {
            while !owed.is_empty() {
                let Some(mut chain) = rings.pop(memory, CONTROL_IN)? else {
                    return Ok(());
                };
                let Some(message) = owed.next(port) else {
                    break;
                };
                let fits =
                    u64::try_from(message.len()).is_ok_and(|len| len <= chain.writable.len());
                let mut written = 0;
                if fits {
                    written = chain.writable.write(memory, &message)?;
                } else {
                    let lost = &mut self.counters.lost_messages;
                    *lost = lost.saturating_add(1);
                }
                let written = u32::try_from(written).unwrap_or(u32::MAX);
                rings.add_used(memory, CONTROL_IN, chain.head, written)?;
            }
        }
        Ok(())
    }

    /// Gives out what the guest printed; whether there is more.
    fn print<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        printed: &mut Vec<u8>,
    ) -> Result<bool, RingFault> {
        let mut chunk = [0; PRINT_CHUNK_BYTES];
        let console = &mut self.console;
        let mut elements = rings.waiting(memory, console.tx())?;
        for _ in 0..PRINT_CHUNKS {
            let count = console.take_output(memory, rings, &mut elements, &mut chunk)?;
            printed.extend(chunk.iter().take(count));
            if count < PRINT_CHUNK_BYTES {
                break;
            }
        }
        self.console.has_output(memory, rings)
    }

    /// What the guest says on an agent port that it does not have open is not for anybody. Whether a control message
    /// has to be looked at first.
    fn drop_agent_output<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
    ) -> Result<bool, RingFault> {
        if self.agent.is_open() {
            return Ok(false);
        }
        // In this order: an open that the guest put before these bytes is seen.
        let count = rings.waiting(memory, AGENT_TX)?;
        if rings.waiting(memory, CONTROL_OUT)? > 0 {
            return Ok(true);
        }
        self.discard(memory, rings, count)?;
        Ok(false)
    }

    fn give_back_held<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
    ) -> Result<(), RingFault> {
        if let Some(chain) = self.agent.take_held() {
            rings.add_used(memory, AGENT_TX, chain.head, 0)?;
            self.count_discarded(1);
        }
        Ok(())
    }

    fn discard<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        count: u16,
    ) -> Result<(), RingFault> {
        let discarded = rings.discard(memory, AGENT_TX, count)?;
        self.count_discarded(discarded.into());
        Ok(())
    }

    fn count_discarded(&mut self, elements: u64) {
        let discarded = &mut self.counters.discarded_elements;
        *discarded = discarded.saturating_add(elements);
    }

    /// What the agent has said, as far as `data` has room; how much, whether there is more,
    /// and whether control messages must be looked at first.
    pub(super) fn take_agent_output<M: GuestMemory>(
        &mut self,
        memory: &M,
        rings: &mut Rings,
        data: &mut [u8],
    ) -> Result<Taken, RingFault> {
        if !self.multiport || !self.agent.is_open() {
            return Ok(Taken::default());
        }
        let mut elements = rings.waiting(memory, AGENT_TX)?;
        if rings.waiting(memory, CONTROL_OUT)? > 0 {
            // Whether these bytes are still the same agent's is known when that message is.
            let process_first = true;
            return Ok(Taken {
                process_first,
                ..Taken::default()
            });
        }
        let count = self.agent.take_output(memory, rings, &mut elements, data)?;
        Ok(Taken {
            len: count,
            more: self.agent.has_output(memory, rings)?,
            process_first: false,
        })
    }

    /// Bytes that the agent's port takes now.
    pub(super) fn agent_input_room(&self) -> usize {
        if self.agent.is_open() {
            self.agent.input_room()
        } else {
            0
        }
    }
}
