// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The i6300esb in its PCI slot: the device from its crate, a type-0 header, one timer in VM time.
//!
//! Registers and their differences from hardware: [`i6300esb`].

use std::sync::Arc;

use i6300esb::{Config, Effects, I6300Esb, ResetKind, Status, TimerRequest, spec};
use kennel_pci::{
    Bar, BarError, ConfigEffects, ConfigWindow, DecodedBars, Identity, InterruptPin, PciFunction,
    Type0,
};
use parking_lot::Mutex;
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::clock::{VmClock, VmTimer};
use crate::config::AfterBite;
use crate::interrupts::IrqLine;
use crate::layout;
use crate::mailbox::{Mailbox, Request};

/// The device's own registers in configuration space.
const OWN_REGISTERS: ConfigWindow = ConfigWindow::new(
    spec::CONFIG_FIRST,
    spec::CONFIG_LAST - spec::CONFIG_FIRST + 1,
);

#[derive(Debug)]
struct Inner {
    header: Type0,
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
    /// [`layout`] gives BAR 0 an address that it cannot have.
    pub fn new(
        after_bite: AfterBite,
        clock: Arc<VmClock>,
        timer: Arc<VmTimer>,
        irq: IrqLine,
        mailbox: Arc<Mailbox>,
    ) -> Result<Self, BarError> {
        let device = I6300Esb::new(Config {
            after_bite: match after_bite {
                AfterBite::Rearm => i6300esb::AfterBite::Rearm,
                AfterBite::Disarm => i6300esb::AfterBite::Disarm,
                AfterBite::Halt => i6300esb::AfterBite::Halt,
            },
            ..Config::default()
        });
        let inner = Mutex::new(Inner {
            header: header()?,
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
        let line = self.apply(&mut inner, effects);
        self.drive(line);
    }

    /// What a host-side observer sees.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.lock().device.status(self.clock.now())
    }

    /// Everything but the line, whose new level comes back.
    ///
    /// Done under the device's lock: the effects of two vCPUs in the wrong order could leave the
    /// timer disarmed. Nothing here calls back.
    fn apply(&self, inner: &mut Inner, effects: Effects) -> Option<bool> {
        match effects.timer {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => self.timer.disarm(),
            TimerRequest::ArmAt(instant) => self.timer.arm(instant),
        }
        for event in effects.events {
            self.mailbox.post(Request::Watchdog(event));
        }
        effects
            .interrupt
            .and_then(|level| inner.header.set_interrupt(level))
    }

    fn drive(&self, line: Option<bool>) {
        if let Some(level) = line {
            self.irq.set(level);
        }
    }
}

fn header() -> Result<Type0, BarError> {
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
        let Some((offset, part)) = OWN_REGISTERS.part(offset, data) else {
            return header_effects;
        };
        let effects = inner.device.config_write(self.clock.now(), offset, part);
        let line = self.apply(&mut inner, effects);
        header_effects.with_intx(line.or(header_effects.intx()))
    }

    fn reset(&self) -> ConfigEffects {
        let mut inner = self.inner.lock();
        let effects = inner.device.reset(self.clock.now(), ResetKind::Platform);
        // The header's own reset below lowers the line and says so.
        let _line = self.apply(&mut inner, effects);
        inner.header.reset().with_intx(Some(false))
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
        let effects = inner.device.mmio_write(self.clock.now(), offset, data);
        let line = self.apply(&mut inner, effects);
        self.drive(line);
    }
}
