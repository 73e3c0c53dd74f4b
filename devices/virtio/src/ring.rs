// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rings of one device, as its ring work sees them.
//!
//! *Emulated:* split rings. Rings come from the `virtio-queue` crate; here is what keeps a driver that lies in
//! bounds: ranges are checked before the first use, a chain has at most as many descriptors as its queue has
//! entries, its buffers lie in guest memory, and the first thing that makes no sense stops the ring until the device
//! is reset.
//!
//! *Not emulated:* packed rings, event indices, indirect tables. A driver that uses an indirect table although none
//! was offered is served as long as the table is no longer than the queue.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, section 2.7.

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

mod buffer;

pub use buffer::Buffer;

/// What makes no sense about a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingFault {
    /// Descriptor table, available ring and used ring must be aligned to 16, 2 and 4 bytes.
    #[error("an address of the ring is not aligned")]
    Alignment,
    /// Part of the ring is not in guest memory.
    #[error("part of the ring lies outside guest memory")]
    Placement,
    /// More new entries than the queue has room for, or fewer than a moment ago.
    #[error("the available index is further ahead than the queue has entries, or went back")]
    AvailableIndex,
    /// A head that is no index into the descriptor table.
    #[error("the available ring holds {0}, which is no descriptor of the queue")]
    Head(u16),
    /// A chain that loops, is longer than the queue or than 4 GiB, or leads out of its table.
    #[error("the descriptor chain at {0} loops, is too long, or leads out of its table")]
    Chain(u16),
    /// A buffer outside guest memory.
    #[error("a buffer of {len} bytes at {address:#x} lies outside guest memory")]
    Buffer {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        len: u32,
    },
    /// Guest memory could not be accessed, although its range had been checked.
    #[error("guest memory could not be accessed")]
    Memory,
}

/// A ring that makes no sense, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("virtio queue {queue}: {fault}")]
pub struct QueueFault {
    /// Index of the queue.
    pub queue: u16,
    /// What is wrong.
    pub fault: RingFault,
}

/// One element that the driver made available.
#[derive(Debug, Default)]
pub struct Chain {
    /// What [`Rings::add_used`] gives back.
    pub head: u16,
    /// What the device may read.
    pub readable: Buffer,
    /// What the device may write.
    pub writable: Buffer,
}

/// Where a queue lies and how large it is, as the driver has programmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingPlace {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    Unchecked,
    Live,
    Faulty(RingFault),
}

#[derive(Debug)]
struct Ring {
    queue: Queue,
    state: State,
    used_added: bool,
}

impl Ring {
    fn start(&mut self, place: RingPlace) {
        let queue = &mut self.queue;
        queue.reset();
        let placed = queue
            .try_set_size(place.size)
            .and_then(|()| queue.try_set_desc_table_address(GuestAddress(place.descriptors)))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(place.driver)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(place.device)));
        queue.set_ready(true);
        self.state = match placed {
            Ok(()) => State::Unchecked,
            Err(_) => State::Faulty(RingFault::Alignment),
        };
    }

    fn stop(&mut self) {
        self.queue.reset();
        self.state = State::Off;
        self.used_added = false;
    }

    fn fault<T>(&mut self, fault: RingFault) -> Result<T, RingFault> {
        self.state = State::Faulty(fault);
        Err(fault)
    }

    /// `Ok(false)` if the queue is not in use. The ranges are checked here, silently, because `virtio-queue` would log
    /// each time.
    fn usable<M: GuestMemory>(&mut self, memory: &M) -> Result<bool, RingFault> {
        match self.state {
            State::Off => Ok(false),
            State::Live => Ok(true),
            State::Faulty(fault) => Err(fault),
            State::Unchecked if self.placed_in(memory) => {
                self.state = State::Live;
                Ok(true)
            }
            State::Unchecked => self.fault(RingFault::Placement),
        }
    }

    fn placed_in<M: GuestMemory>(&self, memory: &M) -> bool {
        let size = usize::from(self.queue.size());
        let parts = [
            (self.queue.desc_table(), 0, 16, Permissions::Read),
            (self.queue.avail_ring(), 6, 2, Permissions::Read),
            (self.queue.used_ring(), 6, 8, Permissions::Write),
        ];
        parts.into_iter().all(|(address, fixed, entry, access)| {
            let bytes = size.saturating_mul(entry).saturating_add(fixed);
            // Zero stands for a ring that was never placed.
            address != 0 && memory.check_range(GuestAddress(address), bytes, access)
        })
    }

    fn waiting<M: GuestMemory>(&mut self, memory: &M) -> Result<u16, RingFault> {
        if !self.usable(memory)? {
            return Ok(0);
        }
        let Ok(index) = self.queue.avail_idx(memory, Ordering::Acquire) else {
            return self.fault(RingFault::Memory);
        };
        let waiting = index.0.wrapping_sub(self.queue.next_avail());
        if waiting > self.queue.size() {
            return self.fault(RingFault::AvailableIndex);
        }
        Ok(waiting)
    }

    fn next<'m, M: GuestMemory>(
        &mut self,
        memory: &'m M,
    ) -> Result<Option<DescriptorChain<&'m M>>, RingFault> {
        if self.waiting(memory)? == 0 {
            return Ok(None);
        }
        let chain = match self.queue.iter(memory) {
            Ok(mut available) => available.next(),
            Err(_) => return self.fault(RingFault::AvailableIndex),
        };
        let Some(chain) = chain else {
            // The driver has taken it back.
            return self.fault(RingFault::AvailableIndex);
        };
        if chain.head_index() >= self.queue.size() {
            return self.fault(RingFault::Head(chain.head_index()));
        }
        Ok(Some(chain))
    }

    fn pop_into<M: GuestMemory>(
        &mut self,
        memory: &M,
        chain: &mut Chain,
    ) -> Result<bool, RingFault> {
        let Some(descriptors) = self.next(memory)? else {
            return Ok(false);
        };
        match collect(memory, descriptors, self.queue.size(), chain) {
            Ok(()) => Ok(true),
            Err(fault) => self.fault(fault),
        }
    }

    fn add_used<M: GuestMemory>(
        &mut self,
        memory: &M,
        head: u16,
        len: u32,
    ) -> Result<(), RingFault> {
        if !self.usable(memory)? {
            return Ok(());
        }
        if self.queue.add_used(memory, head, len).is_err() {
            return self.fault(RingFault::Memory);
        }
        self.used_added = true;
        Ok(())
    }

    /// Whether elements were given back since the last call and the driver wants to hear of it.
    fn take_signal<M: GuestMemory>(&mut self, memory: &M) -> bool {
        if !std::mem::take(&mut self.used_added) || self.state != State::Live {
            return false;
        }
        // Also the barrier between the used index and the flags.
        let wanted = self.queue.needs_notification(memory).unwrap_or(true);
        let flags: u16 = memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_or(0, u16::from_le);
        wanted && u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }
}

/// Walks a chain: at most `limit` descriptors. They replace what `chain` was before.
fn collect<M: GuestMemory>(
    memory: &M,
    descriptors: DescriptorChain<&M>,
    limit: u16,
    chain: &mut Chain,
) -> Result<(), RingFault> {
    chain.head = descriptors.head_index();
    chain.readable.clear();
    chain.writable.clear();
    let mut complete = false;
    for descriptor in descriptors.take(limit.into()) {
        complete = !descriptor.has_next();
        let (address, len) = (descriptor.addr(), descriptor.len());
        let (buffer, access) = if descriptor.is_write_only() {
            (&mut chain.writable, Permissions::Write)
        } else {
            (&mut chain.readable, Permissions::Read)
        };
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        if len > 0 && !memory.check_range(address, bytes, access) {
            let address = address.0;
            return Err(RingFault::Buffer { address, len });
        }
        buffer.push(address, len);
    }
    if !complete {
        return Err(RingFault::Chain(chain.head));
    }
    Ok(())
}

/// All rings of a device. A queue that the driver has not enabled, or that does not exist, is an empty one.
///
/// The first fault stops the ring: every later call gives the same fault, until the device is reset.
#[derive(Debug)]
pub struct Rings {
    rings: Vec<Ring>,
}

impl Rings {
    /// `None` if a size is not a power of two.
    pub(crate) fn new(sizes: &[u16]) -> Option<Self> {
        let ring = |&size: &u16| {
            let queue = Queue::new(size).ok()?;
            Some(Ring {
                queue,
                state: State::Off,
                used_added: false,
            })
        };
        let rings = sizes.iter().map(ring).collect::<Option<_>>()?;
        Some(Self { rings })
    }

    fn ring(&mut self, queue: u16) -> Option<&mut Ring> {
        self.rings.get_mut(usize::from(queue))
    }

    pub(crate) fn start(&mut self, queue: u16, place: RingPlace) {
        if let Some(ring) = self.ring(queue) {
            ring.start(place);
        }
    }

    pub(crate) fn stop(&mut self) {
        for ring in &mut self.rings {
            ring.stop();
        }
    }

    /// The first ring that has stopped with a fault.
    #[must_use]
    pub fn fault(&self) -> Option<QueueFault> {
        (0..)
            .zip(&self.rings)
            .find_map(|(queue, ring)| match ring.state {
                State::Faulty(fault) => Some(QueueFault { queue, fault }),
                State::Off | State::Unchecked | State::Live => None,
            })
    }

    /// The queues of which the driver wants to hear.
    pub(crate) fn take_signals<M: GuestMemory>(&mut self, memory: &M) -> Vec<u16> {
        (0..)
            .zip(&mut self.rings)
            .filter_map(|(queue, ring)| ring.take_signal(memory).then_some(queue))
            .collect()
    }

    /// How many elements wait in `queue`: at most its size.
    ///
    /// # Errors
    /// The ring's fault.
    pub fn waiting<M: GuestMemory>(&mut self, memory: &M, queue: u16) -> Result<u16, RingFault> {
        self.ring(queue).map_or(Ok(0), |ring| ring.waiting(memory))
    }

    /// The next element of `queue`, if there is one. It belongs to the device until it is given back.
    ///
    /// # Errors
    /// The ring's fault.
    pub fn pop<M: GuestMemory>(
        &mut self,
        memory: &M,
        queue: u16,
    ) -> Result<Option<Chain>, RingFault> {
        let mut chain = Chain::default();
        let popped = self.pop_into(memory, queue, &mut chain)?;
        Ok(popped.then_some(chain))
    }

    /// [`pop`](Self::pop) into a chain of before, whose memory is used again; whether there was an element. After a
    /// fault, `chain` is nothing to go by.
    ///
    /// # Errors
    /// The ring's fault.
    pub fn pop_into<M: GuestMemory>(
        &mut self,
        memory: &M,
        queue: u16,
        chain: &mut Chain,
    ) -> Result<bool, RingFault> {
        self.ring(queue)
            .map_or(Ok(false), |ring| ring.pop_into(memory, chain))
    }

    /// Gives back an element, `len` bytes of it written.
    ///
    /// # Errors
    /// The ring's fault.
    pub fn add_used<M: GuestMemory>(
        &mut self,
        memory: &M,
        queue: u16,
        head: u16,
        len: u32,
    ) -> Result<(), RingFault> {
        self.ring(queue)
            .map_or(Ok(()), |ring| ring.add_used(memory, head, len))
    }

    /// Gives back up to `count` waiting elements unread; how many it were.
    ///
    /// # Errors
    /// The ring's fault.
    pub fn discard<M: GuestMemory>(
        &mut self,
        memory: &M,
        queue: u16,
        count: u16,
    ) -> Result<u16, RingFault> {
        let Some(ring) = self.ring(queue) else {
            return Ok(0);
        };
        for discarded in 0..count {
            let Some(descriptors) = ring.next(memory)? else {
                return Ok(discarded);
            };
            ring.add_used(memory, descriptors.head_index(), 0)?;
        }
        Ok(count)
    }
}
