// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's driver: the register sequence of Linux 6.1, rings in guest memory, and an owner that applies effects.

use kennel_pci::{InterruptPin, MsiMessage, spec as pci};
use kennel_virtio::spec::*;
use kennel_virtio::{
    AccessEffects, Console, DriverChange, Interrupts, Placement, QueueFault, VirtioDevice,
    VirtioPci,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

mod console;
mod net;

pub(crate) use console::*;
pub(crate) use net::*;

pub(crate) const BAR: u64 = 0xe000_0000;
pub(crate) const MEMORY: u32 = 8 << 20;
pub(crate) const WRITE: u16 = 2;
pub(crate) const NEXT: u16 = 1;
const PAGE: u32 = 4096;

/// What a vector sends: the config vector is 0, the queues' is 1.
pub(crate) fn message(vector: u16) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_0000,
        data: 0x40 + u32::from(vector),
    }
}

/// A piece of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) writable: bool,
}

/// One queue as its driver sees it.
#[derive(Debug, Default)]
pub(crate) struct DriverQueue {
    pub(crate) size: u16,
    pub(crate) next_descriptor: u16,
    pub(crate) available: u16,
    pub(crate) seen_used: u16,
}

/// A device with an owner who runs its ring work.
pub(crate) trait Owned: VirtioDevice + Sized {
    /// What the owner has for the guest, and what it was told.
    type Told: Default;

    /// One round of the owner's loop; whether there is more.
    fn round(guest: &mut Guest<Self>) -> bool;
}

#[derive(Debug)]
pub(crate) struct Guest<D: Owned = Console> {
    pub(crate) memory: GuestMemoryMmap<()>,
    pub(crate) device: VirtioPci<D>,
    pub(crate) queues: Vec<DriverQueue>,
    // What the owner was told.
    pub(crate) messages: Vec<MsiMessage>,
    pub(crate) line: bool,
    pub(crate) changes: Vec<DriverChange>,
    pub(crate) faults: Vec<QueueFault>,
    pub(crate) told: D::Told,
}

pub(crate) fn descriptors(queue: u16) -> u64 {
    0x1_0000 + u64::from(queue) * 0x4000
}

pub(crate) fn available(queue: u16) -> u64 {
    descriptors(queue) + 0x1000
}

pub(crate) fn used(queue: u16) -> u64 {
    descriptors(queue) + 0x2000
}

/// A page of its own for each descriptor of each queue.
pub(crate) fn page(queue: u16, descriptor: u16) -> u64 {
    0x10_0000 + (u64::from(queue) * 256 + u64::from(descriptor)) * u64::from(PAGE)
}

impl<D: Owned> Guest<D> {
    /// A machine whose guest has no driver yet.
    pub(crate) fn without_driver(device: D) -> Self {
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("memory");
        let placement = Placement::at(BAR).with_pin(InterruptPin::A, 11);
        Self {
            memory,
            device: VirtioPci::new(device, placement).expect("it fits"),
            queues: Vec::new(),
            messages: Vec::new(),
            line: false,
            changes: Vec::new(),
            faults: Vec::new(),
            told: D::Told::default(),
        }
    }

    pub(crate) fn apply(&mut self, effects: AccessEffects) {
        self.interrupts(effects.interrupts);
        self.changes.extend(effects.driver);
        if effects.work {
            self.process();
        }
    }

    pub(crate) fn interrupts(&mut self, interrupts: Interrupts) {
        self.messages.extend(interrupts.messages());
        self.line = interrupts.intx().unwrap_or(self.line);
    }

    /// The owner's loop, until there is nothing more to do.
    pub(crate) fn process(&mut self) {
        while self.round() {}
    }

    /// One round of the owner's loop; whether there is more.
    pub(crate) fn round(&mut self) -> bool {
        D::round(self)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let effects = self.device.bar_write(offset, data);
        self.apply(effects);
    }

    pub(crate) fn read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0xaa; N];
        let effects = self.device.bar_read(offset, &mut data);
        self.apply(effects);
        data
    }

    pub(crate) fn read8(&mut self, offset: u64) -> u8 {
        u8::from_le_bytes(self.read(offset))
    }

    pub(crate) fn read16(&mut self, offset: u64) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    pub(crate) fn read32(&mut self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    pub(crate) fn write8(&mut self, offset: u64, value: u8) {
        self.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn write16(&mut self, offset: u64, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn write32(&mut self, offset: u64, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn config_write(&mut self, offset: u16, data: &[u8]) {
        let effects = self.device.config_write(offset, data);
        self.apply(effects);
    }

    pub(crate) fn config_read<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.device.config_read(offset, &mut data);
        data
    }

    /// Offset of a capability and its bytes.
    pub(crate) fn capabilities(&self) -> Vec<(u16, [u8; 20])> {
        let mut found = Vec::new();
        let [mut at] = self.config_read::<1>(pci::CAPABILITIES_POINTER);
        while at != 0 {
            let bytes = self.config_read::<20>(at.into());
            found.push((at.into(), bytes));
            at = bytes[1];
        }
        found
    }

    fn msix_control(&self) -> u16 {
        let capability = self
            .capabilities()
            .into_iter()
            .find(|(_, bytes)| bytes[0] == 0x11);
        capability.expect("MSI-X").0 + 2
    }

    /// Enables MSI-X as Linux does: masked as a whole while entries are written.
    pub(crate) fn choose_messages(&mut self) {
        let control = self.msix_control();
        self.config_write(control, &0xc000_u16.to_le_bytes());
        for vector in 0..MSIX_VECTORS {
            let (entry, message) = (vector_entry(vector), message(vector));
            self.write32(entry, half(message.address, 0));
            self.write32(entry + 4, 0);
            self.write32(entry + 8, message.data);
            self.write32(entry + 12, 0);
        }
        self.config_write(control, &0x8000_u16.to_le_bytes());
    }

    pub(crate) fn mask(&mut self, vector: u16, masked: bool) {
        self.write32(vector_entry(vector) + 12, masked.into());
    }

    pub(crate) fn start(&mut self, features: u64) {
        self.start_with(features, u16::MAX);
    }

    /// With queues of at most so many entries.
    pub(crate) fn start_with(&mut self, features: u64, entries: u16) {
        self.config_write(pci::COMMAND, &[0x06, 0]);
        self.write8(STATUS, 0);
        assert_eq!(self.read8(STATUS), 0);
        self.write8(STATUS, 1);
        self.write8(STATUS, 3);
        for (select, half) in [(0, half(features, 0)), (1, half(features, 1))] {
            self.write32(DRIVER_FEATURE_SELECT, select);
            self.write32(DRIVER_FEATURE, half);
        }
        self.write8(STATUS, 0x0b);
        assert_eq!(self.read8(STATUS), 0x0b, "features are agreed");
        self.write16(CONFIG_VECTOR, 0);
        let count = self.read16(NUM_QUEUES);
        self.queues.clear();
        for queue in 0..count {
            self.place(queue, entries);
        }
        for queue in 0..count {
            self.write16(QUEUE_SELECT, queue);
            self.write16(QUEUE_ENABLE, 1);
        }
        self.write8(STATUS, 0x0f);
        assert_eq!(self.read8(STATUS) & 0x0f, 0x0f);
    }

    fn place(&mut self, queue: u16, entries: u16) {
        self.write16(QUEUE_SELECT, queue);
        let size = self.read16(QUEUE_SIZE);
        assert!(size.is_power_of_two());
        assert_eq!(self.read16(QUEUE_ENABLE), 0);
        let size = size.min(entries);
        self.write16(QUEUE_SIZE, size);
        let places = [descriptors(queue), available(queue), used(queue)];
        for (field, address) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE]
            .iter()
            .zip(places)
        {
            self.write32(*field, half(address, 0));
            self.write32(*field + 4, half(address, 1));
        }
        self.write16(QUEUE_VECTOR, 1);
        assert_eq!(self.read16(QUEUE_VECTOR), 1);
        assert_eq!(self.read16(QUEUE_NOTIFY_OFFSET), queue);
        let zeroes = vec![0; 0x3000];
        self.store(descriptors(queue), &zeroes);
        self.queues.push(DriverQueue {
            size,
            ..DriverQueue::default()
        });
    }

    pub(crate) fn store(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .expect("in memory");
    }

    pub(crate) fn load(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("in memory");
        bytes
    }

    fn load16(&self, address: u64) -> u16 {
        self.memory
            .read_obj(GuestAddress(address))
            .expect("in memory")
    }

    pub(crate) fn descriptor(
        &self,
        queue: u16,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.store(descriptors(queue) + u64::from(index) * 16, &bytes);
    }

    /// Makes the chain that starts at `head` available, without telling the device.
    pub(crate) fn offer(&mut self, queue: u16, head: u16) {
        let state = &mut self.queues[usize::from(queue)];
        let slot = state.available % state.size;
        state.available = state.available.wrapping_add(1);
        let index = state.available;
        self.store(
            available(queue) + 4 + u64::from(slot) * 2,
            &head.to_le_bytes(),
        );
        self.store(available(queue) + 2, &index.to_le_bytes());
    }

    fn free_descriptor(&mut self, queue: u16) -> u16 {
        let state = &mut self.queues[usize::from(queue)];
        let index = state.next_descriptor;
        state.next_descriptor = (index + 1) % state.size;
        index
    }

    /// Makes a chain available, without telling the device; its head.
    pub(crate) fn add(&mut self, queue: u16, pieces: &[Piece]) -> u16 {
        let indices: Vec<_> = pieces.iter().map(|_| self.free_descriptor(queue)).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let next = indices.get(at + 1).copied();
            let flags =
                if piece.writable { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 };
            self.descriptor(
                queue,
                indices[at],
                piece.address,
                piece.len,
                flags,
                next.unwrap_or(0),
            );
        }
        self.offer(queue, indices[0]);
        indices[0]
    }

    /// Puts `bytes` into pages and makes them available, without telling the device; the head.
    pub(crate) fn add_bytes(&mut self, queue: u16, bytes: &[u8]) -> u16 {
        let at = page(queue, self.queues[usize::from(queue)].next_descriptor);
        self.store(at, bytes);
        self.add(
            queue,
            &[Piece {
                address: at,
                len: u32::try_from(bytes.len()).expect("short"),
                writable: false,
            }],
        )
    }

    pub(crate) fn notify(&mut self, queue: u16) {
        self.write16(u64::from(NOTIFY) + u64::from(queue) * 4, queue);
    }

    pub(crate) fn send(&mut self, queue: u16, bytes: &[u8]) -> u16 {
        let head = self.add_bytes(queue, bytes);
        self.notify(queue);
        head
    }

    /// Posts `count` empty pages.
    pub(crate) fn post(&mut self, queue: u16, count: usize) {
        for _ in 0..count {
            let address = page(queue, self.queues[usize::from(queue)].next_descriptor);
            self.add(
                queue,
                &[Piece {
                    address,
                    len: PAGE,
                    writable: true,
                }],
            );
        }
        self.notify(queue);
    }

    /// Elements that came back since the last call: head and length.
    pub(crate) fn returned(&mut self, queue: u16) -> Vec<(u16, u32)> {
        let index = self.load16(used(queue) + 2);
        let state = &mut self.queues[usize::from(queue)];
        let (size, from) = (state.size, state.seen_used);
        state.seen_used = index;
        let count = index.wrapping_sub(from);
        assert!(count <= size, "more came back than there are");
        (0..count)
            .map(|step| {
                let slot = from.wrapping_add(step) % size;
                let bytes = self.load(used(queue) + 4 + u64::from(slot) * 8, 8);
                let head = u32::from_le_bytes(bytes[..4].try_into().expect("4"));
                let len = u32::from_le_bytes(bytes[4..].try_into().expect("4"));
                (u16::try_from(head).expect("an index"), len)
            })
            .collect()
    }

    /// The content of the pages that came back, which are posted again.
    pub(crate) fn received(&mut self, queue: u16) -> Vec<Vec<u8>> {
        let returned = self.returned(queue);
        let pages = returned
            .iter()
            .map(|&(head, len)| self.load(page(queue, head), len as usize))
            .collect();
        self.post(queue, returned.len());
        pages
    }
}

/// The lower (0) or upper (1) 32 bits.
pub(crate) fn half(value: u64, which: u32) -> u32 {
    u32::try_from(value >> (32 * which) & 0xffff_ffff).expect("masked")
}

pub(crate) fn vector_entry(vector: u16) -> u64 {
    u64::from(MSIX_TABLE) + u64::from(vector) * 16
}
