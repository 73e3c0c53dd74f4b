// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A virtio device in its PCI slot: the device from its crate, one lock, one eventfd that wakes a
//! loop for ring work.
//!
//! Registers, queues and their differences from hardware: [`kennel_virtio`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kennel_pci::{ConfigEffects, DecodedBars, InterruptPin, PciFunction};
use kennel_virtio::{
    AccessEffects, DriverChange, Interrupts, Placement, VirtioDevice, VirtioPci, spec,
};
use parking_lot::{Mutex, MutexGuard};
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::board::BoardError;
use crate::interrupts::{Interrupts as Lines, IrqLine};
use crate::layout;

/// A virtio device as the machine holds it.
#[derive(Debug)]
pub struct VirtioFunction<D> {
    device: Mutex<VirtioPci<D>>,
    /// How many queues have a doorbell.
    queues: usize,
    irq: IrqLine,
    lines: Arc<Lines>,
    work: EventFd,
    /// The device was reset since the loop last looked.
    was_reset: AtomicBool,
}

impl<D: VirtioDevice> VirtioFunction<D> {
    /// `device` in its power-on state, in `slot`, with its BAR 0 at `bar`.
    pub(crate) fn in_slot(
        device: D,
        slot: u8,
        bar: u32,
        lines: &Arc<Lines>,
    ) -> Result<Self, BoardError> {
        let gsi = layout::pci_intx_gsi(slot, 0);
        let line = u8::try_from(gsi).unwrap_or(0xff);
        let placement = Placement::at(bar.into()).with_pin(InterruptPin::A, line);
        Ok(Self {
            queues: device.queue_sizes().len(),
            device: Mutex::new(VirtioPci::new(device, placement)?),
            irq: lines.line(gsi),
            lines: Arc::clone(lines),
            work: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            was_reset: AtomicBool::new(false),
        })
    }

    /// Readable when there is ring work.
    #[must_use]
    pub fn work(&self) -> &EventFd {
        &self.work
    }

    /// Wakes the loop for ring work.
    pub fn wake(&self) {
        // Only a full counter fails, and then the loop is awake already.
        let _woken = self.work.write(1);
    }

    /// Whether the device was reset since the last call: whoever drove it is gone.
    #[must_use]
    pub fn take_reset(&self) -> bool {
        self.was_reset.swap(false, Ordering::AcqRel)
    }

    /// The device, for as long as the guard lives; what it wants meanwhile goes through
    /// [`Self::interrupt`] before that.
    pub(crate) fn lock(&self) -> MutexGuard<'_, VirtioPci<D>> {
        self.device.lock()
    }

    /// Done under the device's lock, so that two threads' levels do not cross.
    pub(crate) fn interrupt(&self, interrupts: Interrupts) {
        for message in interrupts.messages() {
            self.irq.send(message);
        }
        if let Some(level) = interrupts.intx() {
            self.irq.set(level);
        }
    }

    /// Most notifications then cost the vCPU no exit to this process and no wait for a lock.
    fn set_doorbells(&self, bar: u64, ring: bool) {
        let step = usize::try_from(spec::NOTIFY_MULTIPLIER).unwrap_or(1);
        for offset in (0..self.queues).map(|queue| queue.saturating_mul(step)) {
            let address = bar
                .saturating_add(spec::NOTIFY.into())
                .saturating_add(u64::try_from(offset).unwrap_or(u64::MAX));
            self.lines.set_doorbell(&self.work, address, ring);
        }
    }

    fn apply(&self, effects: AccessEffects) -> ConfigEffects {
        self.interrupt(effects.interrupts);
        let was_reset = effects.driver == Some(DriverChange::Reset);
        if was_reset {
            self.was_reset.store(true, Ordering::Release);
        }
        if effects.work || was_reset {
            self.wake();
        }
        // A machine that is reset has no KVM VM, and its BARs are not decoded in the next one.
        for change in effects.config.bar_changes() {
            for (range, rings) in [(change.old, false), (change.new, true)] {
                if let Some(range) = range {
                    self.set_doorbells(range.start(), rings);
                }
            }
        }
        effects.config
    }
}

impl<D: VirtioDevice + Send> PciFunction for VirtioFunction<D> {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.device.lock().config_read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffects {
        let mut device = self.device.lock();
        let effects = device.config_write(offset, data);
        self.apply(effects)
    }

    fn reset(&self) -> ConfigEffects {
        let mut device = self.device.lock();
        let effects = device.reset();
        self.irq.set(false);
        self.apply(effects)
    }

    fn decoded_bars(&self) -> DecodedBars {
        self.device.lock().decoded_bars()
    }

    fn interrupt_pin(&self) -> Option<InterruptPin> {
        self.device.lock().interrupt_pin()
    }
}

impl<D: VirtioDevice + Send> DeviceMmio for VirtioFunction<D> {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let mut device = self.device.lock();
        let effects = device.bar_read(offset, data);
        let _no_bar_moves = self.apply(effects);
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let mut device = self.device.lock();
        let effects = device.bar_write(offset, data);
        let _no_bar_moves = self.apply(effects);
    }
}
