// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device is to its transport. Ring work is not in here: it is a function of each device, which takes guest
//! memory and [`Rings`](crate::Rings) and gives back effects of the device's own.

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Virtio device type, for instance 3 for a console.
    pub device_type: u16,
    /// PCI class code: base class, subclass, programming interface.
    pub class: [u8; 3],
}

/// A virtio device without its transport.
pub trait VirtioDevice {
    /// What it is.
    fn identity(&self) -> Identity;

    /// Feature bits it offers; the transport adds [`F_VERSION_1`](crate::spec::F_VERSION_1).
    fn features(&self) -> u64;

    /// Largest size of each queue, entries; powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Bytes of its configuration space; 0 if it has none.
    fn config_bytes(&self) -> u32;

    /// Reads its configuration space from byte `offset` on; `data` is zero before.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Writes its configuration space.
    fn config_write(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver has set up its queues and negotiated `features`.
    fn activate(&mut self, features: u64);

    /// The driver, or the machine, has reset the device: everything the guest brought in is forgotten. Descriptors
    /// that the device still holds belong to rings that are no more.
    fn reset(&mut self);

    /// A ring made no sense: nothing more is done until the driver resets the device.
    fn stopped(&mut self);
}
