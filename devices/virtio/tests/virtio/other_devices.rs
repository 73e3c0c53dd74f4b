// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The transport under a device that is no console.

use kennel_virtio::spec::*;
use kennel_virtio::{Identity, Placement, TransportError, VirtioDevice, VirtioPci};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Entropy, if you trust a counter: fills what the driver offers.
#[derive(Debug)]
struct Counter {
    sizes: Vec<u16>,
    config_bytes: u32,
    next: u8,
    features: Option<u64>,
}

impl Counter {
    fn new(sizes: &[u16], config_bytes: u32) -> Self {
        Self {
            sizes: sizes.to_vec(),
            config_bytes,
            next: 0,
            features: None,
        }
    }
}

impl VirtioDevice for Counter {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 4,
            class: [0xff, 0, 0],
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    fn config_bytes(&self) -> u32 {
        self.config_bytes
    }

    fn config_read(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, features: u64) {
        self.features = Some(features);
    }

    fn reset(&mut self) {
        *self = Self::new(&self.sizes, self.config_bytes);
    }

    fn stopped(&mut self) {}
}

#[test]
fn another_device_works_on_its_own_queue() {
    let memory =
        GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x1_0000)]).expect("memory");
    let mut function = VirtioPci::new(Counter::new(&[8], 0), Placement::at(0)).expect("it fits");
    let mut id = [0; 4];
    function.config_read(0, &mut id);
    assert_eq!(id, [0xf4, 0x1a, 0x44, 0x10]);
    assert!(function.interrupt_pin().is_none());
    let mut set = |offset: u64, data: &[u8]| {
        let effects = function.bar_write(offset, data);
        assert!(effects.interrupts.is_none());
    };
    set(STATUS, &[3]);
    set(DRIVER_FEATURE_SELECT, &1_u32.to_le_bytes());
    set(DRIVER_FEATURE, &1_u32.to_le_bytes());
    set(STATUS, &[0x0b]);
    for (field, address) in [
        (QUEUE_DESCRIPTORS, 0x1000_u32),
        (QUEUE_DRIVER, 0x2000),
        (QUEUE_DEVICE, 0x3000),
    ] {
        set(field, &address.to_le_bytes());
    }
    set(QUEUE_ENABLE, &[1, 0]);
    set(STATUS, &[0x0f]);
    assert_eq!(function.device().features, Some(F_VERSION_1));

    let fill = |function: &mut VirtioPci<Counter>| {
        function.with_rings(&memory, |device, rings| {
            let mut chain = rings.pop(&memory, 0).ok().flatten()?;
            device.next += 1;
            let data = vec![device.next; usize::try_from(chain.writable.len()).ok()?];
            let written = chain.writable.write(&memory, &data).ok()?;
            let written = u32::try_from(written).ok()?;
            rings.add_used(&memory, 0, chain.head, written).ok()
        })
    };
    assert!(fill(&mut function).result.is_none(), "no bus master yet");
    assert!(function.config_write(4, &[6, 0]).work);
    assert_eq!(fill(&mut function).result, Some(None), "nothing is offered");
    // Descriptor 0: 3 writable bytes at 0x4000; available ring: index 1.
    let mut descriptor = 0x4000_u64.to_le_bytes().to_vec();
    descriptor.extend([3, 0, 0, 0, 2, 0, 0, 0]);
    memory
        .write_slice(&descriptor, GuestAddress(0x1000))
        .expect("in memory");
    memory
        .write_slice(&[0, 0, 1, 0, 0, 0], GuestAddress(0x2000))
        .expect("in memory");
    assert_eq!(fill(&mut function).result, Some(Some(())));
    let mut data = [0; 4];
    memory
        .read_slice(&mut data, GuestAddress(0x4000))
        .expect("in memory");
    assert_eq!(data, [1, 1, 1, 0]);
}

#[test]
fn a_device_that_does_not_fit_is_refused() {
    let build =
        |sizes: &[u16], bytes| VirtioPci::new(Counter::new(sizes, bytes), Placement::at(0)).err();
    assert_eq!(build(&[], 0), Some(TransportError::Queues));
    assert_eq!(build(&[8, 12], 0), Some(TransportError::Queues));
    assert_eq!(build(&[8; QUEUES_MAX + 1], 0), Some(TransportError::Queues));
    assert_eq!(build(&[8; QUEUES_MAX], 0), None);
    assert_eq!(
        build(&[8], 0x1001),
        Some(TransportError::ConfigBytes(0x1001))
    );
    let placed = VirtioPci::new(Counter::new(&[8], 0), Placement::at(0x1000));
    assert!(matches!(placed.err(), Some(TransportError::Bar(_))));
}
