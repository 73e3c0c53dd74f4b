// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The common configuration: features, status, queues.

use crate::ring::RingPlace;
use crate::spec;

/// What a write to the common configuration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// A register has another value, or the same.
    Nothing,
    /// No driver should write this.
    Ignored,
    /// The queue is in use from now on.
    QueueEnabled(u16, RingPlace),
    /// The driver drives the device from now on, with these features.
    DriverOk(u64),
    /// The driver wants a reset.
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct QueueRegisters {
    max_size: u16,
    size: u16,
    vector: u16,
    enabled: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            vector: spec::NO_VECTOR,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
        }
    }

    fn place(&self) -> RingPlace {
        RingPlace {
            size: self.size,
            descriptors: self.descriptors,
            driver: self.driver,
            device: self.device,
        }
    }
}

/// The registers.
#[derive(Debug)]
pub(super) struct Common {
    offered: u64,
    offered_select: u32,
    accepted: u64,
    accepted_select: u32,
    config_vector: u16,
    status: u8,
    generation: u8,
    select: u16,
    queues: Vec<QueueRegisters>,
}

impl Common {
    pub(super) fn new(offered: u64, sizes: &[u16]) -> Self {
        Self {
            offered,
            offered_select: 0,
            accepted: 0,
            accepted_select: 0,
            config_vector: spec::NO_VECTOR,
            status: 0,
            generation: 0,
            select: 0,
            queues: sizes.iter().copied().map(QueueRegisters::new).collect(),
        }
    }

    /// Everything but the generation, which a driver compares over a reset, too.
    pub(super) fn reset(&mut self) {
        let sizes: Vec<_> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self {
            generation: self.generation,
            ..Self::new(self.offered, &sizes)
        };
    }

    pub(super) fn status(&self) -> u8 {
        self.status
    }

    pub(super) fn is_driven(&self) -> bool {
        self.status & (spec::STATUS_DRIVER_OK | spec::STATUS_NEEDS_RESET) == spec::STATUS_DRIVER_OK
    }

    pub(super) fn needs_reset(&mut self) {
        self.status |= spec::STATUS_NEEDS_RESET;
    }

    pub(super) fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector
    }

    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        let queue = self.queues.get(usize::from(queue));
        queue.map_or(spec::NO_VECTOR, |queue| queue.vector)
    }

    pub(super) fn has(&self, queue: u16) -> bool {
        usize::from(queue) < self.queues.len()
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.select))
    }

    /// Any bytes; those after the end stay as they are.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let image = self.image();
        for (byte, value) in data.iter_mut().zip(image.into_iter().skip(skip)) {
            *byte = value;
        }
    }

    /// All registers in their order.
    fn image(&self) -> Vec<u8> {
        let queue = self.selected();
        let of_queue = |value: fn(&QueueRegisters) -> u16| queue.map_or(0, value).to_le_bytes();
        let address = |value: fn(&QueueRegisters) -> u64| queue.map_or(0, value).to_le_bytes();
        let notify_offset = if queue.is_some() { self.select } else { 0 };
        let queues = u16::try_from(self.queues.len()).unwrap_or(u16::MAX);
        let vector = queue.map_or(spec::NO_VECTOR, |queue| queue.vector);
        let mut image = Vec::with_capacity(64);
        image.extend(self.offered_select.to_le_bytes());
        image.extend(half(self.offered, self.offered_select).to_le_bytes());
        image.extend(self.accepted_select.to_le_bytes());
        image.extend(half(self.accepted, self.accepted_select).to_le_bytes());
        image.extend(self.config_vector.to_le_bytes());
        image.extend(queues.to_le_bytes());
        image.extend([self.status, self.generation]);
        image.extend(self.select.to_le_bytes());
        image.extend(of_queue(|queue| queue.size));
        image.extend(vector.to_le_bytes());
        image.extend(of_queue(|queue| queue.enabled.into()));
        image.extend(notify_offset.to_le_bytes());
        image.extend(address(|queue| queue.descriptors));
        image.extend(address(|queue| queue.driver));
        image.extend(address(|queue| queue.device));
        image
    }

    /// A write of the field's own width; halves of an address are fields of their own.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Written {
        match *data {
            [value] if offset == spec::STATUS => self.write_status(value),
            [a, b] => self.write_u16(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write_u32(offset, u32::from_le_bytes([a, b, c, d])),
            _ => Written::Ignored,
        }
    }

    fn write_status(&mut self, value: u8) -> Written {
        if value == 0 {
            return Written::Reset;
        }
        let known = spec::STATUS_ACKNOWLEDGE
            | spec::STATUS_DRIVER
            | spec::STATUS_FEATURES_OK
            | spec::STATUS_DRIVER_OK
            | spec::STATUS_FAILED;
        let mut status = self.status | (value & known);
        let needed = spec::STATUS_ACKNOWLEDGE | spec::STATUS_DRIVER;
        if status & needed != needed || !self.features_acceptable() {
            status &= !spec::STATUS_FEATURES_OK;
        }
        if status & spec::STATUS_FEATURES_OK == 0 {
            status &= !spec::STATUS_DRIVER_OK;
        }
        let before = std::mem::replace(&mut self.status, status);
        if (status & !before) & spec::STATUS_DRIVER_OK != 0 {
            Written::DriverOk(self.accepted)
        } else {
            Written::Nothing
        }
    }

    fn features_acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & spec::F_VERSION_1 != 0
    }

    fn write_u16(&mut self, offset: u64, value: u16) -> Written {
        match offset {
            spec::CONFIG_VECTOR => self.config_vector = known_vector(value),
            spec::QUEUE_SELECT => self.select = value,
            spec::QUEUE_VECTOR => return self.change(|queue| queue.vector = known_vector(value)),
            spec::QUEUE_SIZE => return self.write_size(value),
            spec::QUEUE_ENABLE => return self.enable(value),
            _ => return Written::Ignored,
        }
        Written::Nothing
    }

    fn change(&mut self, change: impl FnOnce(&mut QueueRegisters)) -> Written {
        match self.queues.get_mut(usize::from(self.select)) {
            Some(queue) => {
                change(queue);
                Written::Nothing
            }
            None => Written::Ignored,
        }
    }

    /// Size and addresses are settled once the queue is in use.
    fn set_up(&mut self, change: impl FnOnce(&mut QueueRegisters)) -> Written {
        if self.selected().is_some_and(|queue| queue.enabled) {
            return Written::Ignored;
        }
        self.change(change)
    }

    fn write_size(&mut self, size: u16) -> Written {
        let max = self.selected().map_or(0, |queue| queue.max_size);
        if !size.is_power_of_two() || size > max {
            return Written::Ignored;
        }
        self.set_up(|queue| queue.size = size)
    }

    fn enable(&mut self, value: u16) -> Written {
        let number = self.select;
        let agreed = self.status & spec::STATUS_FEATURES_OK != 0;
        match self.queues.get_mut(usize::from(number)) {
            Some(queue) if value == 1 && !queue.enabled && agreed => {
                queue.enabled = true;
                Written::QueueEnabled(number, queue.place())
            }
            _ => Written::Ignored,
        }
    }

    fn write_u32(&mut self, offset: u64, value: u32) -> Written {
        match offset {
            spec::DEVICE_FEATURE_SELECT => self.offered_select = value,
            spec::DRIVER_FEATURE_SELECT => self.accepted_select = value,
            spec::DRIVER_FEATURE => return self.accept(value),
            _ => return self.write_address(offset, value),
        }
        Written::Nothing
    }

    fn accept(&mut self, value: u32) -> Written {
        if self.status & spec::STATUS_FEATURES_OK != 0 {
            return Written::Ignored;
        }
        match self.accepted_select {
            0 => set_half(&mut self.accepted, false, value),
            1 => set_half(&mut self.accepted, true, value),
            // Bits from 64 on are not offered: a driver that sets one does not get its features.
            _ if value == 0 => {}
            _ => return Written::Ignored,
        }
        Written::Nothing
    }

    fn write_address(&mut self, offset: u64, value: u32) -> Written {
        let upper = offset & 4 != 0;
        match offset & !4 {
            spec::QUEUE_DESCRIPTORS => {
                self.set_up(|queue| set_half(&mut queue.descriptors, upper, value))
            }
            spec::QUEUE_DRIVER => self.set_up(|queue| set_half(&mut queue.driver, upper, value)),
            spec::QUEUE_DEVICE => self.set_up(|queue| set_half(&mut queue.device, upper, value)),
            _ => Written::Ignored,
        }
    }
}

/// A vector that exists, or none: how the driver learns that it cannot have it.
fn known_vector(vector: u16) -> u16 {
    if vector < spec::MSIX_VECTORS {
        vector
    } else {
        spec::NO_VECTOR
    }
}

/// The 32 feature bits that `select` shows.
fn half(features: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(value: &mut u64, upper: bool, half: u32) {
    let half = u64::from(half);
    *value = if upper {
        (half << 32) | (*value & 0xffff_ffff)
    } else {
        (*value & !0xffff_ffff) | half
    };
}
