// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupt lines into KVM's in-kernel chips, and doorbells out of it, kept by devices across
//! rebuilds of the KVM VM.

use std::sync::Arc;

use kennel_pci::MsiMessage;
use kvm_bindings::kvm_msi;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use parking_lot::RwLock;
use vm_superio::Trigger;
use vmm_sys_util::eventfd::EventFd;

/// All lines of the machine; connected to whichever KVM VM runs at present.
#[derive(Debug, Default)]
pub struct Interrupts {
    vm: RwLock<Option<Arc<VmFd>>>,
}

impl Interrupts {
    /// Lines that lead nowhere yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The line of one global system interrupt.
    #[must_use]
    pub fn line(self: &Arc<Self>, gsi: u32) -> IrqLine {
        IrqLine {
            lines: Arc::clone(self),
            gsi,
        }
    }

    /// Lets a guest's write at `address` signal `event` without an exit to this process, or no longer.
    /// If KVM has no room for it, the write comes as an exit.
    pub(crate) fn set_doorbell(&self, event: &EventFd, address: u64, rings: bool) {
        let guard = self.vm.read();
        let Some(vm) = guard.as_ref() else { return };
        let place = IoEventAddress::Mmio(address);
        let done = if rings {
            vm.register_ioevent(event, &place, NoDatamatch)
        } else {
            vm.unregister_ioevent(event, &place, NoDatamatch)
        };
        if let Err(error) = done {
            log::debug!("doorbell at {address:#x} to {rings}: {error}");
        }
    }

    pub(crate) fn connect(&self, vm: Arc<VmFd>) {
        *self.vm.write() = Some(vm);
    }

    pub(crate) fn disconnect(&self) {
        *self.vm.write() = None;
    }
}

/// One line.
#[derive(Clone, Debug)]
pub struct IrqLine {
    lines: Arc<Interrupts>,
    gsi: u32,
}

impl IrqLine {
    /// Drives the line; nothing happens between two KVM VMs.
    pub fn set(&self, level: bool) {
        log::trace!("GSI {} to {level}", self.gsi);
        if let Some(vm) = self.lines.vm.read().as_ref()
            && let Err(error) = vm.set_irq_line(self.gsi, level)
        {
            log::warn!("GSI {} could not be set to {level}: {error}", self.gsi);
        }
    }
}

impl IrqLine {
    /// Sends a message past the line; nothing happens between two KVM VMs.
    pub fn send(&self, message: MsiMessage) {
        let [a, b, c, d, e, f, g, h] = message.address.to_le_bytes();
        let message = kvm_msi {
            address_lo: u32::from_le_bytes([a, b, c, d]),
            address_hi: u32::from_le_bytes([e, f, g, h]),
            data: message.data,
            ..Default::default()
        };
        if let Some(vm) = self.lines.vm.read().as_ref()
            && let Err(error) = vm.signal_msi(message)
        {
            // The guest chose the address, as often as it likes.
            log::debug!("the message {message:x?} could not be sent: {error}");
        }
    }
}

/// An edge, as an ISA device gives it.
impl Trigger for IrqLine {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.set(true);
        self.set(false);
        Ok(())
    }
}
