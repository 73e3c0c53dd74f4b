// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The i6300esb in its PCI slot: the device from its crate, a type-0 header, one timer in VM time.
//!
//! Registers and their differences from hardware: [`i6300esb`].

use std::sync::Arc;

use i6300esb::{Config, Effects, Events, I6300Esb, ResetKind, Status, TimerRequest, spec};
use kennel_pci::{
    Bar, BarError, ConfigEffects, ConfigWindow, DecodedBars, Identity, InterruptPin, LayoutError,
    Msi, PciFunction, Type0,
};
use parking_lot::Mutex;
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::clock::{VmClock, VmTimer};
use crate::config::{AfterBite, WatchdogConfig};
use crate::interrupts::IrqLine;
use crate::layout;
use crate::mailbox::{Mailbox, Request};

/// The device's own registers in configuration space.
const OWN_REGISTERS: ConfigWindow = ConfigWindow::new(
    spec::CONFIG_FIRST,
    spec::CONFIG_LAST - spec::CONFIG_FIRST + 1,
);

/// [`layout`] and the device disagree about its configuration space.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// BAR 0 cannot be where it is put.
    #[error(transparent)]
    Bar(#[from] BarError),
    /// Registers or capabilities do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

#[derive(Debug)]
struct Inner {
    header: Type0,
    msi: Option<Msi>,
    device: I6300Esb,
}

/// The watchdog as the machine holds it.
#[derive(Debug)]
pub struct Watchdog {
    inner: Mutex<Inner>,
    clock: Arc<VmClock>,
    timer: Arc<VmTimer>,
    irq: IrqLine,
    mailbox: Arc<Mailbox>,
}

impl Watchdog {
    /// A watchdog in its power-on state.
    ///
    /// # Errors
    ///
    /// [`HeaderError`].
    pub fn new(
        config: &WatchdogConfig,
        clock: Arc<VmClock>,
        timer: Arc<VmTimer>,
        irq: IrqLine,
        mailbox: Arc<Mailbox>,
    ) -> Result<Self, HeaderError> {
        let device = I6300Esb::new(Config {
            after_bite: match config.after_bite {
                AfterBite::Rearm => i6300esb::AfterBite::Rearm,
                AfterBite::Disarm => i6300esb::AfterBite::Disarm,
                AfterBite::Halt => i6300esb::AfterBite::Halt,
            },
            timed_out: config.timed_out,
            ..Config::default()
        });
        let mut header = header()?;
        let msi = config.msi.then(|| Msi::add_to(&mut header)).transpose()?;
        let inner = Mutex::new(Inner {
            header,
            msi,
            device,
        });
        Ok(Self {
            inner,
            clock,
            timer,
            irq,
            mailbox,
        })
    }

    /// The timer went off.
    pub fn timer_fired(&self) {
        let mut inner = self.inner.lock();
        let effects = inner.device.timer_fired(self.clock.now());
        self.apply(&mut inner, effects);
    }

    /// What a host-side observer sees.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.lock().device.status(self.clock.now())
    }

    /// Done under the device's lock: the effects of two vCPUs in the wrong order could leave the
    /// timer disarmed or the line high. Nothing here calls back. The interrupt goes first: it is the one
    /// that the guest waits for.
    #[inline]
    fn apply(&self, inner: &mut Inner, effects: Effects) {
        if let Some(level) = effects.interrupt {
            self.interrupt(inner, level);
        }
        match effects.timer {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => self.timer.disarm(),
            TimerRequest::ArmAt(instant) => self.timer.arm(instant),
        }
        if !effects.events.is_empty() {
            self.tell(effects.events);
        }
    }

    #[cold]
    fn tell(&self, events: Events) {
        for event in events {
            self.mailbox.post(Request::Watchdog(event));
        }
    }

    /// A message if the guest has chosen that, else the line; a line that was high when it chose
    /// falls.
    fn interrupt(&self, inner: &mut Inner, level: bool) {
        let msi = inner.msi.filter(|msi| msi.enabled(&inner.header));
        if let Some(message) = msi
            .filter(|_| level)
            .and_then(|msi| msi.message(&inner.header))
        {
            self.irq.send(message);
        }
        self.drive(inner.header.set_interrupt(level && msi.is_none()));
    }

    fn drive(&self, line: Option<bool>) {
        if let Some(level) = line {
            self.irq.set(level);
        }
    }
}

fn header() -> Result<Type0, HeaderError> {
    let [_, class @ ..] = spec::CLASS_CODE.to_be_bytes();
    let mut header = Type0::new(Identity {
        vendor: spec::VENDOR_ID,
        device: spec::DEVICE_ID,
        class,
        ..Identity::default()
    });
    header.add_bar(
        0,
        Bar::memory32(spec::BAR_SIZE)?.at(layout::WATCHDOG_BAR.into())?,
    )?;
    let line = u8::try_from(layout::pci_intx_gsi(layout::WATCHDOG_SLOT, 0)).unwrap_or(0xff);
    header.set_interrupt_pin(InterruptPin::A, line);
    header.reserve(OWN_REGISTERS)?;
    Ok(header)
}

impl PciFunction for Watchdog {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let inner = self.inner.lock();
        inner.header.read(offset, data);
        if let Some((offset, part)) = OWN_REGISTERS.part_mut(offset, data) {
            inner.device.config_read(self.clock.now(), offset, part);
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffects {
        let mut inner = self.inner.lock();
        let header_effects = inner.header.write(offset, data);
        self.drive(header_effects.intx());
        if let Some((offset, part)) = OWN_REGISTERS.part(offset, data) {
            let effects = inner.device.config_write(self.clock.now(), offset, part);
            self.apply(&mut inner, effects);
        }
        header_effects.with_intx(None)
    }

    fn reset(&self) -> ConfigEffects {
        let mut inner = self.inner.lock();
        let effects = inner.device.reset(self.clock.now(), ResetKind::Platform);
        self.apply(&mut inner, effects);
        let header_effects = inner.header.reset();
        self.irq.set(false);
        header_effects.with_intx(None)
    }

    fn decoded_bars(&self) -> DecodedBars {
        self.inner.lock().header.decoded_bars()
    }

    fn interrupt_pin(&self) -> Option<InterruptPin> {
        Some(InterruptPin::A)
    }
}

impl DeviceMmio for Watchdog {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.inner
            .lock()
            .device
            .mmio_read(self.clock.now(), offset, data);
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let mut inner = self.inner.lock();
        if inner.device.unlock_step(offset, data) {
            return;
        }
        let effects = inner.device.mmio_write(self.clock.now(), offset, data);
        self.apply(&mut inner, effects);
    }
}
