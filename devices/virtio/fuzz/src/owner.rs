// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The owner's side of the contract, with a driver's set-up for it to own something.

use std::cell::RefCell;

use kennel_pci::InterruptPin;
use kennel_virtio::spec::*;
use kennel_virtio::{AccessEffects, Interrupts, Placement, VirtioDevice, VirtioPci};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

pub(crate) const MEMORY: u64 = 0x4_0000;
/// Most queues of a device.
const QUEUES_MAX: usize = 6;
/// Message control of MSI-X, the first capability.
pub(crate) const MSIX_CONTROL: u16 = 0x42;
/// Few entries, so that a few bytes fill a queue.
pub(crate) const SIZE: u16 = 8;

thread_local! {
    static MAPPED: RefCell<Option<GuestMemoryMmap<()>>> = const { RefCell::new(None) };
}

/// Descriptors, available ring and used ring are 0x200 bytes apart.
pub(crate) fn descriptors(queue: u16) -> u64 {
    0x1000 + u64::from(queue) * 0x1000
}

pub(crate) fn available(queue: u16) -> u64 {
    descriptors(queue) + 0x400
}

pub(crate) fn used(queue: u16) -> u64 {
    descriptors(queue) + 0x800
}

pub(crate) fn page(index: u64) -> u64 {
    0x1_0000 + index % 48 * 0x1000
}

/// A device, and how its owner runs it.
pub(crate) trait Fuzzed: VirtioDevice + Sized {
    /// How many queues it has.
    const QUEUES: u16;
    /// What the driver agrees to of the first 32 features.
    const FEATURES: u32;
    /// What the owner has for the guest, and knows of it.
    type Knows: Default;

    fn new() -> Self;

    /// One round of the loop, held to its promises; whether there is more.
    fn round(owner: &mut Owner<Self>) -> bool;

    /// A driver that starts over gets an answer on each queue.
    fn check_it_still_works(owner: &mut Owner<Self>);
}

pub(crate) struct Owner<D: Fuzzed> {
    pub(crate) memory: GuestMemoryMmap<()>,
    pub(crate) device: VirtioPci<D>,
    pub(crate) knows: D::Knows,
    line: bool,
    pub(crate) offered: [u16; QUEUES_MAX],
}

impl<D: Fuzzed> Owner<D> {
    pub(crate) fn new() -> Self {
        let memory = MAPPED.with_borrow_mut(|mapped| {
            let map = || GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]);
            mapped.get_or_insert_with(|| map().expect("memory")).clone()
        });
        let placement = Placement::at(0).with_pin(InterruptPin::A, 11);
        let mut owner = Self {
            memory,
            device: VirtioPci::new(D::new(), placement).expect("it fits"),
            knows: D::Knows::default(),
            line: false,
            offered: [0; QUEUES_MAX],
        };
        owner.store(0, &[0; MEMORY as usize]);
        owner
    }

    /// Bytes past the end of memory are dropped.
    pub(crate) fn store(&mut self, address: u64, data: &[u8]) {
        let _ = self.memory.write(data, GuestAddress(address));
    }

    pub(crate) fn load16(&self, address: u64) -> u16 {
        self.memory
            .read_obj(GuestAddress(address))
            .expect("in memory")
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let effects = self.device.bar_write(offset, data);
        self.apply(effects);
    }

    pub(crate) fn apply(&mut self, effects: AccessEffects) {
        assert!(
            effects.config.intx().is_none(),
            "the line is with interrupts"
        );
        self.interrupts(effects.interrupts);
    }

    pub(crate) fn interrupts(&mut self, interrupts: Interrupts) {
        if let Some(level) = interrupts.intx() {
            assert_ne!(level, self.line, "only changes are told");
            self.line = level;
        }
        let mut header = [0; 8];
        self.device.config_read(0, &mut header);
        let [.., command, command_high, status, _] = header;
        let disabled = command_high & 0x04 != 0;
        assert_eq!(self.line, status & 0x08 != 0 && !disabled, "line");
        let mut control = [0; 2];
        self.device.config_read(MSIX_CONTROL, &mut control);
        let chosen = control[1] & 0x80 != 0;
        assert!(!(chosen && self.line), "the line, with messages chosen");
        if interrupts.messages().next().is_some() {
            assert!(
                chosen && command & 0x04 != 0,
                "a message that was not allowed"
            );
        }
    }

    pub(crate) fn round(&mut self) -> bool {
        D::round(self)
    }

    pub(crate) fn check_it_still_works(&mut self) {
        D::check_it_still_works(self);
    }

    /// A platform reset and a driver's probe, with messages or the line.
    pub(crate) fn start_over(&mut self, messages: bool) {
        let effects = self.device.reset();
        self.apply(effects);
        self.round();
        let command = self.device.config_write(4, &[0x06, 0]);
        self.apply(command);
        if messages {
            self.choose_messages();
        }
        self.write(STATUS, &[3]);
        for (select, half) in [(0_u32, D::FEATURES), (1, 1)] {
            self.write(DRIVER_FEATURE_SELECT, &select.to_le_bytes());
            self.write(DRIVER_FEATURE, &half.to_le_bytes());
        }
        self.write(STATUS, &[0x0b]);
        self.offered = [0; QUEUES_MAX];
        for queue in 0..D::QUEUES {
            self.store(descriptors(queue), &[0; 0x1000]);
            self.write(QUEUE_SELECT, &queue.to_le_bytes());
            self.write(QUEUE_SIZE, &SIZE.to_le_bytes());
            self.write(QUEUE_VECTOR, &[1, 0]);
            let fields = [
                (QUEUE_DESCRIPTORS, descriptors(queue)),
                (QUEUE_DRIVER, available(queue)),
                (QUEUE_DEVICE, used(queue)),
            ];
            for (field, address) in fields {
                self.write(field, &(address as u32).to_le_bytes());
            }
            self.write(QUEUE_ENABLE, &[1, 0]);
        }
        self.write(STATUS, &[0x0f]);
        assert_eq!(self.device.status(), 0x0f);
    }

    fn choose_messages(&mut self) {
        let mut capability = [0];
        self.device.config_read(MSIX_CONTROL - 2, &mut capability);
        assert_eq!(capability, [0x11]);
        let enable = 0x8000_u16.to_le_bytes();
        let effects = self.device.config_write(MSIX_CONTROL, &enable);
        self.apply(effects);
        for vector in 0..2 {
            let entry = u64::from(MSIX_TABLE) + vector * 16;
            self.write(entry, &0xfee0_0000_u64.to_le_bytes());
            self.write(entry + 8, &[0; 8]);
        }
    }

    pub(crate) fn descriptor(
        &mut self,
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

    pub(crate) fn offer(&mut self, queue: u16, head: u16) {
        let index = &mut self.offered[usize::from(queue)];
        let slot = *index % SIZE;
        *index = index.wrapping_add(1);
        let index = *index;
        self.store(
            available(queue) + 4 + u64::from(slot) * 2,
            &head.to_le_bytes(),
        );
        self.store(available(queue) + 2, &index.to_le_bytes());
    }

    /// One element of one descriptor.
    pub(crate) fn send(&mut self, queue: u16, data: &[u8]) {
        let slot = self.offered[usize::from(queue)] % SIZE;
        let at = page(u64::from(queue * SIZE + slot));
        self.store(at, data);
        self.descriptor(queue, slot, at, data.len() as u32, 0, 0);
        self.offer(queue, slot);
    }

    pub(crate) fn post(&mut self, queue: u16, len: u32) {
        let slot = self.offered[usize::from(queue)] % SIZE;
        let at = page(u64::from(queue * SIZE + slot));
        self.descriptor(queue, slot, at, len, 2, 0);
        self.offer(queue, slot);
    }

    /// In two parts or at once, registers are the same; what must hold between them holds.
    pub(crate) fn check_registers(&mut self, split: u8) {
        let mut whole = [0; COMMON_BYTES as usize];
        let effects = self.device.bar_read(0, &mut whole);
        assert!(effects.is_none());
        let split = usize::from(split) % whole.len();
        let mut parts = [0; COMMON_BYTES as usize];
        let (first, second) = parts.split_at_mut(split);
        let effects = self.device.bar_read(0, first);
        assert!(effects.is_none());
        let effects = self.device.bar_read(split as u64, second);
        assert!(effects.is_none());
        assert_eq!(whole, parts, "split at {split:#x}");
        let status = whole[STATUS as usize];
        let without = |bit: u8, needs: u8| status & bit == 0 || status & needs == needs;
        assert!(without(STATUS_DRIVER_OK, STATUS_FEATURES_OK));
        assert!(without(
            STATUS_FEATURES_OK,
            STATUS_DRIVER | STATUS_ACKNOWLEDGE
        ));
        assert!(without(STATUS_NEEDS_RESET, STATUS_DRIVER_OK));
    }
}
