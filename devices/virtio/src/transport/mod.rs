// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A modern virtio function on conventional PCI.
//!
//! *Emulated:* one 32-bit memory BAR with common configuration, notification addresses, interrupt status and device
//! configuration; feature negotiation, device status, queue set-up, driver reset; MSI-X with one vector for
//! configuration changes and one for all queues, INTx with the interrupt status byte otherwise; bus mastering (no
//! ring work without it).
//!
//! *Not emulated:* the legacy interface; notification data, queue reset, shared memory; the capability by which
//! firmware reaches the BAR through configuration space.
//!
//! *Differs from hardware:* status bits once set stay until a reset, whatever the driver writes; a write with a width
//! that the field does not have is ignored and counted; with MSI-X the interrupt status stays zero. A ring that makes
//! no sense stops the whole device until its driver resets it.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, sections 2.1, 3.1 and 4.1. Where things lie in the BAR: QEMU behaviour.
//! Which accesses and which order a driver uses: observed with Linux 6.1.

use kennel_pci::{Bar, BarError, DecodedBars, InterruptPin, LayoutError, MsiX, MsixLayout, Type0};
use vm_memory::GuestMemory;

use crate::device::VirtioDevice;
use crate::effects::{AccessEffects, DriverChange, Interrupts};
use crate::ring::{QueueFault, Rings};
use crate::spec;

mod common;
mod header;
mod interrupts;

use common::Common;

/// Where the function is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    bar: u64,
    pin: Option<(InterruptPin, u8)>,
}

impl Placement {
    /// BAR 0 at guest-physical `bar` after each reset, and no interrupt pin: messages only.
    #[must_use]
    pub fn at(bar: u64) -> Self {
        Self { bar, pin: None }
    }

    /// With an interrupt pin, and the value of the interrupt line register after each reset.
    #[must_use]
    pub fn with_pin(self, pin: InterruptPin, line: u8) -> Self {
        Self {
            pin: Some((pin, line)),
            ..self
        }
    }
}

/// Why a function cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// BAR 0 cannot be where it is put.
    #[error("BAR 0: {0}")]
    Bar(#[from] BarError),
    /// The capabilities do not fit.
    #[error("capabilities: {0}")]
    Layout(#[from] LayoutError),
    /// Queue sizes must be powers of two.
    #[error(
        "a device has 1 to {} queues, each with a power of two of entries",
        spec::QUEUES_MAX
    )]
    Queues,
    /// The device's configuration space is too large.
    #[error("the device's configuration space has {0:#x} bytes, more than {max:#x}", max = spec::DEVICE_BYTES_MAX)]
    ConfigBytes(u32),
}

/// What a host-side observer may want to know; nothing of it is reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Writes that no driver should make: unknown field or width, bad value, wrong moment.
    pub ignored_writes: u64,
    /// Resets by the driver.
    pub driver_resets: u64,
    /// Times that a ring made no sense and the device stopped.
    pub broken_queues: u64,
    /// Notifications by the driver.
    pub notifications: u64,
}

/// A virtio device as a PCI function.
///
/// Not synchronised: the owner locks. Accesses to BAR 0 and to configuration space belong on vCPU threads; ring work
/// ([`with_rings`](Self::with_rings) and what devices build on it) belongs on the owner's loop.
#[derive(Debug)]
pub struct VirtioPci<D> {
    header: Type0,
    msix: MsiX,
    isr: u8,
    common: Common,
    rings: Rings,
    device: D,
    counters: TransportCounters,
}

/// The outcome of ring work.
#[derive(Debug)]
pub struct RingWork<R> {
    /// What the work gave back; `None` if the device is not driven now.
    pub result: Option<R>,
    /// Interrupts for what was given back to the driver.
    pub interrupts: Interrupts,
    /// The fault, if a ring stopped the device in this work.
    pub fault: Option<QueueFault>,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// A function in its power-on state.
    ///
    /// # Errors
    /// [`TransportError`]: placement and device do not fit this transport.
    pub fn new(device: D, placement: Placement) -> Result<Self, TransportError> {
        let sizes = device.queue_sizes();
        if sizes.is_empty() || sizes.len() > spec::QUEUES_MAX {
            return Err(TransportError::Queues);
        }
        let rings = Rings::new(sizes).ok_or(TransportError::Queues)?;
        let common = Common::new(device.features() | spec::F_VERSION_1, sizes);
        let mut header = header::build(&device)?;
        let bar = Bar::memory32(spec::BAR_SIZE.into())?.at(placement.bar)?;
        header.add_bar(0, bar)?;
        let msix = MsiX::add_to(&mut header, MSIX)?;
        header::add_capabilities(&mut header, &device)?;
        if let Some((pin, line)) = placement.pin {
            header.set_interrupt_pin(pin, line);
        }
        Ok(Self {
            header,
            msix,
            isr: 0,
            common,
            rings,
            device,
            counters: TransportCounters::default(),
        })
    }

    /// The device behind the transport.
    #[must_use]
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device behind the transport. What its ring work is, is a method of the transport.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> TransportCounters {
        self.counters
    }

    /// Device status as the driver reads it: see [`spec::STATUS`].
    #[must_use]
    pub fn status(&self) -> u8 {
        self.common.status()
    }

    /// Whether ring work may be done: the driver drives the device, nothing is broken, the bus may be mastered.
    #[must_use]
    pub fn is_driven(&self) -> bool {
        self.common.is_driven() && self.header.bus_master()
    }

    /// Reads configuration space.
    pub fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.header.read(offset, data);
    }

    /// Writes configuration space.
    pub fn config_write(&mut self, offset: u16, data: &[u8]) -> AccessEffects {
        let driven = self.is_driven();
        let config = self.header.write(offset, data);
        let messages = self.msix.header_written(&self.header);
        let line = self.line_level();
        AccessEffects {
            config: config.with_intx(None),
            interrupts: Interrupts::sent(messages)
                .with_intx(config.intx())
                .with_intx(line),
            work: !driven && self.is_driven(),
            ..AccessEffects::NONE
        }
    }

    /// Where the BAR is decoded now.
    #[must_use]
    pub fn decoded_bars(&self) -> DecodedBars {
        self.header.decoded_bars()
    }

    /// The pin, if the function has one.
    #[must_use]
    pub fn interrupt_pin(&self) -> Option<InterruptPin> {
        self.header.interrupt_pin()
    }

    /// Reads BAR 0, any bytes. Reading the interrupt status clears it.
    pub fn bar_read(&mut self, offset: u64, data: &mut [u8]) -> AccessEffects {
        data.fill(0);
        match Region::of(offset) {
            Region::Common(at) => self.common.read(at, data),
            Region::Isr => return self.read_isr(data),
            Region::Device(at) => self.device.config_read(at, data),
            Region::MsixTable(at) => self.msix.table_read(at, data),
            Region::MsixPending(at) => self.msix.pending_read(at, data),
            Region::Notify(_) | Region::Nothing => {}
        }
        AccessEffects::NONE
    }

    /// Writes BAR 0, any bytes.
    pub fn bar_write(&mut self, offset: u64, data: &[u8]) -> AccessEffects {
        match Region::of(offset) {
            Region::Common(at) => self.write_common(at, data),
            Region::Device(at) => {
                self.device.config_write(at, data);
                AccessEffects::NONE
            }
            Region::Notify(at) => self.notify(at, data),
            Region::MsixTable(at) => AccessEffects::interrupt(Interrupts::sent(
                self.msix.table_write(&self.header, at, data),
            )),
            Region::Isr | Region::MsixPending(_) | Region::Nothing => self.ignore(),
        }
    }

    fn ignore(&mut self) -> AccessEffects {
        self.counters.ignored_writes = self.counters.ignored_writes.saturating_add(1);
        AccessEffects::NONE
    }

    fn notify(&mut self, at: u64, data: &[u8]) -> AccessEffects {
        let step = u64::from(spec::NOTIFY_MULTIPLIER);
        let queue = u16::try_from(at.checked_div(step).unwrap_or(u64::MAX)).ok();
        let known = queue.filter(|&queue| at.is_multiple_of(step) && self.common.has(queue));
        let Some(queue) = known.filter(|_| matches!(data.len(), 2 | 4)) else {
            return self.ignore();
        };
        self.counters.notifications = self.counters.notifications.saturating_add(1);
        AccessEffects {
            work: self.is_driven(),
            notified: Some(queue),
            ..AccessEffects::NONE
        }
    }

    fn write_common(&mut self, at: u64, data: &[u8]) -> AccessEffects {
        match self.common.write(at, data) {
            common::Written::Nothing => AccessEffects::NONE,
            common::Written::Ignored => self.ignore(),
            common::Written::QueueEnabled(queue, place) => {
                self.rings.start(queue, place);
                AccessEffects {
                    work: self.is_driven(),
                    ..AccessEffects::NONE
                }
            }
            common::Written::DriverOk(features) => {
                self.device.activate(features);
                AccessEffects::driver(DriverChange::Ready, Interrupts::NONE)
            }
            common::Written::Reset => {
                let resets = &mut self.counters.driver_resets;
                *resets = resets.saturating_add(1);
                AccessEffects::driver(DriverChange::Reset, self.reset_device())
            }
        }
    }

    /// What a driver's reset does; the line falls with the interrupt status.
    fn reset_device(&mut self) -> Interrupts {
        self.common.reset();
        self.rings.stop();
        self.device.reset();
        self.isr = 0;
        Interrupts::NONE.with_intx(self.line_level())
    }

    /// Puts the function into its state after a platform reset.
    pub fn reset(&mut self) -> AccessEffects {
        let mut effects = AccessEffects::driver(DriverChange::Reset, self.reset_device());
        let config = self.header.reset();
        self.msix.reset();
        effects.interrupts = effects.interrupts.with_intx(config.intx());
        effects.config = config.with_intx(None);
        effects
    }

    /// Does ring work, if the device is driven: `work` is given the device and its rings. The rings' faults need no
    /// handling by `work`: it just ends early.
    pub fn with_rings<M: GuestMemory, R>(
        &mut self,
        memory: &M,
        work: impl FnOnce(&mut D, &mut Rings) -> R,
    ) -> RingWork<R> {
        if !self.is_driven() {
            return RingWork {
                result: None,
                interrupts: Interrupts::NONE,
                fault: None,
            };
        }
        let result = Some(work(&mut self.device, &mut self.rings));
        let signals = self.rings.take_signals(memory);
        let fault = self.rings.fault();
        if fault.is_some() {
            self.counters.broken_queues = self.counters.broken_queues.saturating_add(1);
            self.common.needs_reset();
            self.device.stopped();
        }
        RingWork {
            result,
            interrupts: self.interrupt(&signals, fault.is_some()),
            fault,
        }
    }

    /// The device's configuration space has changed: the driver is told.
    pub fn config_changed(&mut self) -> Interrupts {
        self.common.config_changed();
        if self.common.is_driven() {
            self.interrupt(&[], true)
        } else {
            Interrupts::NONE
        }
    }
}

const MSIX: MsixLayout = MsixLayout {
    vectors: spec::MSIX_VECTORS,
    bar: 0,
    table: spec::MSIX_TABLE,
    pending: spec::MSIX_PENDING,
};

/// First byte, bytes, and what lies there.
type Place = (u32, u64, fn(u64) -> Region);

/// What lies at an offset of BAR 0, and the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Common(u64),
    Isr,
    Device(u64),
    Notify(u64),
    MsixTable(u64),
    MsixPending(u64),
    Nothing,
}

impl Region {
    fn of(offset: u64) -> Self {
        let within = |start: u32, bytes: u64| {
            let at = offset.checked_sub(start.into())?;
            (at < bytes).then_some(at)
        };
        let places: [Place; 6] = [
            (spec::COMMON, spec::COMMON_BYTES.into(), Self::Common),
            (spec::ISR, 1, |_| Self::Isr),
            (spec::DEVICE, spec::DEVICE_BYTES_MAX.into(), Self::Device),
            (spec::NOTIFY, 0x1000, Self::Notify),
            (spec::MSIX_TABLE, MSIX.table_bytes(), Self::MsixTable),
            (spec::MSIX_PENDING, MSIX.pending_bytes(), Self::MsixPending),
        ];
        places
            .into_iter()
            .find_map(|(start, bytes, region)| within(start, bytes).map(region))
            .unwrap_or(Self::Nothing)
    }
}
