// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupt lines into KVM's in-kernel chips, and doorbells out of it, kept by devices across
//! rebuilds of the KVM VM.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

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
    refusals: Refusals,
}

/// What KVM refused. Devices call with their locks held, so it is counted there and logged later.
#[derive(Debug, Default)]
struct Refusals {
    count: AtomicU64,
    last_errno: AtomicI32,
}

impl Refusals {
    fn note<T>(&self, done: Result<T, kvm_ioctls::Error>) {
        if let Err(error) = done {
            self.last_errno.store(error.errno(), Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn log(&self) {
        let count = self.count.swap(0, Ordering::Relaxed);
        if count > 0 {
            let errno = self.last_errno.load(Ordering::Relaxed);
            let last = std::io::Error::from_raw_os_error(errno);
            // The guest chooses where messages and doorbells go, so it is no fault of the host's.
            log::debug!("KVM refused {count} interrupts and doorbells of this boot; last: {last}");
        }
    }
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
        self.refusals.note(done);
    }

    pub(crate) fn connect(&self, vm: Arc<VmFd>) {
        *self.vm.write() = Some(vm);
    }

    pub(crate) fn disconnect(&self) {
        *self.vm.write() = None;
        self.refusals.log();
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
        if let Some(vm) = self.lines.vm.read().as_ref() {
            let done = vm.set_irq_line(self.gsi, level);
            self.lines.refusals.note(done);
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
        if let Some(vm) = self.lines.vm.read().as_ref() {
            self.lines.refusals.note(vm.signal_msi(message));
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
