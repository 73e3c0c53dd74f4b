// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The i6300esb in its PCI slot: a type-0 header and an interrupt around the device, its lock and its timer.
//!
//! Registers and their differences from hardware: [`i6300esb`]. Lock and timer: [`i6300esb_rust_vmm`].

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use i6300esb::{Config, Event, ResetKind, Status, VmInstant, spec};
use i6300esb_rust_vmm::{Host, WatchdogDevice};
use kennel_pci::{
    Bar, BarError, ConfigEffects, ConfigWindow, DecodedBars, Identity, InterruptPin, LayoutError,
    Msi, PciFunction, Type0,
};
use parking_lot::Mutex;
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use crate::clock::VmClock;
use crate::config::{AfterBite, WatchdogConfig};
use crate::interrupts::IrqLine;
use crate::layout;
use crate::mailbox::{Mailbox, Request};

/// The device's own registers in configuration space.
const OWN_REGISTERS: ConfigWindow = ConfigWindow::new(
    spec::CONFIG_FIRST,
    spec::CONFIG_LAST - spec::CONFIG_FIRST + 1,
);

/// The watchdog cannot be built: the kernel gives no timer, or [`layout`] and the device disagree about its configuration
/// space.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchdogError {
    /// No timerfd.
    #[error("no timer for the watchdog: {0}; the process may be out of file descriptors")]
    Timer(#[from] io::Error),
    /// BAR 0 cannot be where it is put.
    #[error(transparent)]
    Bar(#[from] BarError),
    /// Registers or capabilities do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// The watchdog as the machine holds it.
#[derive(Debug)]
pub struct Watchdog {
    device: WatchdogDevice<Slot>,
}

/// What the device finds around it: its slot's header and interrupt, VM time, and the mailbox.
#[derive(Debug)]
struct Slot {
    /// Taken last, also under the device's lock: nothing under it reaches for the device.
    header: Mutex<Header>,
    irq: IrqLine,
    clock: Arc<VmClock>,
    mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
struct Header {
    registers: Type0,
    msi: Option<Msi>,
}

impl Watchdog {
    /// A watchdog in its power-on state.
    ///
    /// # Errors
    ///
    /// [`WatchdogError`].
    pub fn new(
        config: &WatchdogConfig,
        clock: Arc<VmClock>,
        irq: IrqLine,
        mailbox: Arc<Mailbox>,
    ) -> Result<Self, WatchdogError> {
        let device = Config {
            after_bite: match config.after_bite {
                AfterBite::Rearm => i6300esb::AfterBite::Rearm,
                AfterBite::Disarm => i6300esb::AfterBite::Disarm,
                AfterBite::Halt => i6300esb::AfterBite::Halt,
            },
            timed_out: config.timed_out,
            forgive_stalls: true,
            ..Config::default()
        };
        let mut registers = header()?;
        let msi = config
            .msi
            .then(|| Msi::add_to(&mut registers))
            .transpose()?;
        let slot = Slot {
            header: Mutex::new(Header { registers, msi }),
            irq,
            clock,
            mailbox,
        };
        Ok(Self {
            device: WatchdogDevice::new(device, slot)?,
        })
    }

    /// The timer is readable.
    pub fn timer_fired(&self) {
        self.device.timer_fired();
    }

    /// Must follow every stop and start of VM time.
    pub fn follow_clock(&self) {
        self.device.clock_changed();
    }

    /// What a host-side observer sees.
    #[must_use]
    pub fn status(&self) -> Status {
        self.device.status()
    }

    /// The same, and the instant that it is of.
    #[must_use]
    pub fn observe(&self) -> (VmInstant, Status) {
        self.device.observe()
    }

    /// The guest wrote what its next timeout follows from.
    #[cold]
    fn programmed(&self) {
        if self.status().armed {
            self.slot().mailbox.watchdog_changed();
        }
    }

    fn slot(&self) -> &Slot {
        self.device.host()
    }
}

/// Its timer, for the event loop.
impl AsRawFd for Watchdog {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

impl Host for Slot {
    #[inline]
    fn now(&self) -> VmInstant {
        self.clock.now()
    }

    fn monotonic_ns(&self, at: VmInstant) -> Option<u64> {
        self.clock.host_instant(at)
    }

    /// A message if the guest has chosen that, else the line; a line that was high when it chose
    /// falls.
    fn set_interrupt(&self, level: bool) {
        let mut header = self.header.lock();
        let Header { registers, msi } = &mut *header;
        let msi = msi.filter(|msi| msi.enabled(registers));
        if let Some(message) = msi.filter(|_| level).and_then(|msi| msi.message(registers)) {
            self.irq.send(message);
        }
        self.drive(registers.set_interrupt(level && msi.is_none()));
    }

    fn event(&self, _now: VmInstant, event: Event) {
        self.mailbox.post(Request::Watchdog(event));
    }
}

impl Slot {
    /// Under the header's lock, so that levels keep their order.
    fn drive(&self, line: Option<bool>) {
        if let Some(level) = line {
            self.irq.set(level);
        }
    }
}

fn header() -> Result<Type0, WatchdogError> {
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
        self.slot().header.lock().registers.read(offset, data);
        if let Some((offset, part)) = OWN_REGISTERS.part_mut(offset, data) {
            self.device.config_read(offset, part);
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffects {
        let effects = {
            let mut header = self.slot().header.lock();
            let effects = header.registers.write(offset, data);
            self.slot().drive(effects.intx());
            effects
        };
        if let Some((offset, part)) = OWN_REGISTERS.part(offset, data) {
            self.device.config_write(offset, part);
            if offset < spec::CONFIG_LOCK {
                self.programmed();
            }
        }
        effects.with_intx(None)
    }

    fn reset(&self) -> ConfigEffects {
        self.device.reset(ResetKind::Platform);
        let mut header = self.slot().header.lock();
        let effects = header.registers.reset();
        self.slot().irq.set(false);
        effects.with_intx(None)
    }

    fn decoded_bars(&self) -> DecodedBars {
        self.slot().header.lock().registers.decoded_bars()
    }

    fn interrupt_pin(&self) -> Option<InterruptPin> {
        Some(InterruptPin::A)
    }
}

impl DeviceMmio for Watchdog {
    fn mmio_read(&self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.device.mmio_read(base, offset, data);
    }

    fn mmio_write(&self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.device.mmio_write(base, offset, data);
        if offset < spec::GINTSR {
            self.programmed();
        }
    }
}
