// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The type-0 configuration space of one function.
//!
//! *Emulated:* identification, command and status, six BARs (32-bit memory, 64-bit memory, I/O) with
//! sizing and relocation at any time, capability list, interrupt pin and line, INTx status and disable;
//! accesses of any length and alignment, each byte lane on its own.
//!
//! *Not emulated:* expansion ROM, built-in self-test, latency timer, CardBus; error bits of the status
//! register, which no emulated function ever sets.
//!
//! *Differs from hardware:* a reset brings BARs, command and interrupt line to the values the function was
//! built with, as if firmware had assigned them again.

use crate::bar::{AddressSpace, Bar, BarError, BarRange};
use crate::function::{ConfigEffects, ConfigWindow, DecodedBars};
use crate::intx::InterruptPin;
use crate::msix::MsixLayout;
use crate::register_file::RegisterFile;
use crate::spec;

/// What a function says it is; every field is read-only for the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class, subclass, programming interface.
    pub class: [u8; 3],
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// Why something cannot be placed in the space behind the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not enough free bytes in one piece.
    #[error("no {len} free bytes in one piece for capability {id:#04x}")]
    NoSpace {
        /// Capability ID.
        id: u8,
        /// Length with its two header bytes.
        len: usize,
    },
    /// Body and mask of a capability must cover the same bytes.
    #[error("capability {id:#04x} has a body of {body} bytes but a write mask of {mask}")]
    MaskLength {
        /// Capability ID.
        id: u8,
        /// Bytes of the body.
        body: usize,
        /// Bytes of the mask.
        mask: usize,
    },
    /// A device window must lie behind the header and over nothing else.
    #[error(
        "device registers {start:#x}..{end:#x} overlap the header, a capability or the end: reserve them within 0x40..0x100, before adding capabilities"
    )]
    Window {
        /// First byte.
        start: u16,
        /// First byte after it.
        end: u16,
    },
    /// MSI-X needs 1 to 2048 vectors, and table and pending bits side by side in a memory BAR, at multiples of 8.
    #[error(
        "MSI-X layout {0:?} does not lie in a memory BAR of the function, or overlaps itself: add the BAR first, and give 1 to 2048 vectors"
    )]
    MsixLayout(MsixLayout),
}

/// Dwords 0x00..0x40, one bit each.
const HEADER_DWORDS: u64 = 0xffff;

/// Type-0 configuration space of one function: see the [module](self) for what is emulated.
///
/// Built with the `add_` and `set_` methods, then driven with [`read`](Self::read) and
/// [`write`](Self::write). Not synchronised: the function that owns it locks.
#[derive(Clone, Debug)]
pub struct Type0 {
    // Static configuration.
    power_on: RegisterFile,
    writable: RegisterFile,
    bars: [Option<Bar>; spec::BAR_COUNT],
    taken_dwords: u64,
    last_capability: Option<u16>,
    pin: Option<InterruptPin>,
    // Volatile state.
    registers: RegisterFile,
}

impl Type0 {
    /// A function without BARs, capabilities and interrupt pin.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut this = Self {
            power_on: RegisterFile::ZERO,
            writable: RegisterFile::ZERO,
            bars: [None; spec::BAR_COUNT],
            taken_dwords: HEADER_DWORDS,
            last_capability: None,
            pin: None,
            registers: RegisterFile::ZERO,
        };
        let [base, sub, interface] = identity.class;
        this.configure(spec::VENDOR_ID, &identity.vendor.to_le_bytes());
        this.configure(spec::DEVICE_ID, &identity.device.to_le_bytes());
        this.configure(spec::REVISION_ID, &[identity.revision]);
        this.configure(spec::CLASS_CODE, &[interface, sub, base]);
        this.configure(
            spec::SUBSYSTEM_VENDOR_ID,
            &identity.subsystem_vendor.to_le_bytes(),
        );
        this.configure(spec::SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        this.writable
            .put(spec::COMMAND, &spec::COMMAND_WRITABLE.to_le_bytes());
        this.writable.put(spec::CACHE_LINE_SIZE, &[0xff]);
        this.writable.put(spec::INTERRUPT_LINE, &[0xff]);
        this
    }

    /// Sets a register's value now and after each reset.
    fn configure(&mut self, offset: u16, data: &[u8]) {
        self.power_on.put(offset, data);
        self.registers.put(offset, data);
    }

    /// Adds BAR `index`; a 64-bit BAR takes `index` and the next.
    ///
    /// # Errors
    /// [`BarError::Index`], [`BarError::InUse`].
    pub fn add_bar(&mut self, index: usize, bar: Bar) -> Result<(), BarError> {
        let count = if bar.is_64bit() { 2 } else { 1 };
        let end = index.saturating_add(count);
        if end > spec::BAR_COUNT {
            return Err(BarError::Index(index));
        }
        if (index..end).any(|register| self.register_in_use(register)) {
            return Err(BarError::InUse(index));
        }
        let offset = bar_offset(index).ok_or(BarError::Index(index))?;
        let slot = self.bars.get_mut(index).ok_or(BarError::Index(index))?;
        *slot = Some(bar);
        let (value, mask) = (
            bar.power_on_value().to_le_bytes(),
            bar.address_mask().to_le_bytes(),
        );
        let len = count.saturating_mul(4);
        self.configure(offset, value.get(..len).unwrap_or(&value));
        self.writable.put(offset, mask.get(..len).unwrap_or(&mask));
        Ok(())
    }

    fn register_in_use(&self, index: usize) -> bool {
        let own = self.bars.get(index).is_some_and(Option::is_some);
        let below = index.checked_sub(1).and_then(|below| self.bars.get(below));
        own || below.is_some_and(|bar| bar.is_some_and(|bar| bar.is_64bit()))
    }

    /// What BAR `index` asks for, if the function has it.
    #[must_use]
    pub fn bar(&self, index: usize) -> Option<Bar> {
        self.bars.get(index).copied().flatten()
    }

    /// Appends a capability: `body` follows the two bytes of ID and next pointer, `writable` has a bit for
    /// each bit of `body` the guest can change. Returns the capability's offset.
    ///
    /// # Errors
    /// [`LayoutError::MaskLength`], [`LayoutError::NoSpace`].
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u16, LayoutError> {
        if body.len() != writable.len() {
            let (body, mask) = (body.len(), writable.len());
            return Err(LayoutError::MaskLength { id, body, mask });
        }
        let len = body.len().saturating_add(2);
        let offset = self
            .take_free(len)
            .ok_or(LayoutError::NoSpace { id, len })?;
        let pointer = offset.to_le_bytes()[0];
        let link = match self.last_capability {
            Some(last) => last.saturating_add(1),
            None => spec::CAPABILITIES_POINTER,
        };
        self.configure(link, &[pointer]);
        let status = self.power_on.u16(spec::STATUS) | spec::STATUS_CAPABILITIES;
        self.configure(spec::STATUS, &status.to_le_bytes());
        self.configure(offset, &[id, 0]);
        let first = offset.saturating_add(2);
        self.configure(first, body);
        self.writable.put(first, writable);
        self.last_capability = Some(offset);
        Ok(offset)
    }

    /// Keeps capabilities out of the device's own registers.
    ///
    /// # Errors
    /// [`LayoutError::Window`].
    pub fn reserve(&mut self, window: ConfigWindow) -> Result<(), LayoutError> {
        let (start, end) = (window.start(), window.end());
        let first = u32::from(start / 4);
        let count = u32::from(end.div_ceil(4)).saturating_sub(first);
        let mask = dwords(first, count).filter(|mask| mask & self.taken_dwords == 0);
        self.taken_dwords |= mask.ok_or(LayoutError::Window { start, end })?;
        Ok(())
    }

    /// The first free dwords that hold `len` bytes, marked as taken.
    fn take_free(&mut self, len: usize) -> Option<u16> {
        let count = u32::try_from(len.div_ceil(4)).ok()?;
        for first in 0..64 {
            let mask = dwords(first, count).filter(|mask| mask & self.taken_dwords == 0);
            if let Some(mask) = mask {
                self.taken_dwords |= mask;
                return u16::try_from(first.saturating_mul(4)).ok();
            }
        }
        None
    }

    /// Gives the function an interrupt pin, and the interrupt line register its value after each reset
    /// (firmware writes the legacy IRQ there; an operating system with ACPI does not read it).
    pub fn set_interrupt_pin(&mut self, pin: InterruptPin, line: u8) {
        self.pin = Some(pin);
        self.configure(spec::INTERRUPT_PIN, &[pin.register_value()]);
        self.configure(spec::INTERRUPT_LINE, &[line]);
    }

    /// Sets the command register after each reset; bits not in [`spec::COMMAND_WRITABLE`] are dropped.
    pub fn set_power_on_command(&mut self, command: u16) {
        let command = command & spec::COMMAND_WRITABLE;
        self.configure(spec::COMMAND, &command.to_le_bytes());
    }

    /// Says in the header that the device has more functions. Belongs on function 0.
    pub fn set_multifunction(&mut self) {
        self.configure(spec::HEADER_TYPE, &[spec::HEADER_MULTIFUNCTION]);
    }

    /// Reads any bytes; those after the 256th are all ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.registers.read(offset, data, spec::UNCLAIMED);
    }

    /// Writes any bytes; read-only bits keep their value.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> ConfigEffects {
        self.observe(|this| {
            this.registers.put_masked(offset, data, &this.writable);
        })
    }

    /// Brings every register to its value after a reset and releases the interrupt.
    pub fn reset(&mut self) -> ConfigEffects {
        self.observe(|this| this.registers = this.power_on.clone())
    }

    /// Makes a change and says what it did to the outside.
    fn observe(&mut self, change: impl FnOnce(&mut Self)) -> ConfigEffects {
        let (bars, line) = (self.decoded_bars(), self.intx_line());
        change(self);
        let after = self.intx_line();
        ConfigEffects::between(&bars, &self.decoded_bars())
            .with_intx((line != after).then_some(after))
    }

    /// Where each BAR is decoded now: nowhere, unless the command register enables its space.
    #[must_use]
    pub fn decoded_bars(&self) -> DecodedBars {
        std::array::from_fn(|index| self.decoded_bar(index))
    }

    fn decoded_bar(&self, index: usize) -> Option<BarRange> {
        let bar = self.bar(index)?;
        let enable = match bar.space() {
            AddressSpace::Memory => spec::COMMAND_MEMORY,
            AddressSpace::Io => spec::COMMAND_IO,
        };
        (self.command() & enable != 0).then_some(())?;
        let offset = bar_offset(index)?;
        let raw = if bar.is_64bit() {
            self.registers.u64(offset)
        } else {
            self.registers.u32(offset).into()
        };
        Some(bar.range(raw))
    }

    /// Sets whether the function wants its interrupt; the line's new level if that changed it.
    ///
    /// The status register shows the wish even while INTx is disabled. A function without a pin has no
    /// line.
    #[must_use = "the interrupt controller must be told the line's new level"]
    pub fn set_interrupt(&mut self, asserted: bool) -> Option<bool> {
        let before = self.intx_line();
        let status = self.registers.u16(spec::STATUS) & !spec::STATUS_INTERRUPT;
        let bit = if asserted { spec::STATUS_INTERRUPT } else { 0 };
        self.registers
            .put(spec::STATUS, &(status | bit).to_le_bytes());
        let after = self.intx_line();
        (before != after).then_some(after)
    }

    /// Level of the INTx line: the interrupt is wanted, not disabled, and there is a pin.
    #[must_use]
    pub fn intx_line(&self) -> bool {
        self.pin.is_some()
            && self.registers.u16(spec::STATUS) & spec::STATUS_INTERRUPT != 0
            && self.command() & spec::COMMAND_INTX_DISABLE == 0
    }

    /// The interrupt pin, if the function has one.
    #[must_use]
    pub fn interrupt_pin(&self) -> Option<InterruptPin> {
        self.pin
    }

    /// Command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.registers.u16(spec::COMMAND)
    }

    /// Whether the function may access memory and send message-signalled interrupts.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.command() & spec::COMMAND_BUS_MASTER != 0
    }

    /// The byte at `offset`, as a device reads back its own capability.
    #[must_use]
    pub fn u8_at(&self, offset: u16) -> u8 {
        self.registers.u8(offset)
    }

    /// The 16 bits at `offset`.
    #[must_use]
    pub fn u16_at(&self, offset: u16) -> u16 {
        self.registers.u16(offset)
    }

    /// The 32 bits at `offset`.
    #[must_use]
    pub fn u32_at(&self, offset: u16) -> u32 {
        self.registers.u32(offset)
    }
}

/// Configuration offset of BAR `index`.
fn bar_offset(index: usize) -> Option<u16> {
    let index = u16::try_from(index).ok()?;
    index.checked_mul(4)?.checked_add(spec::BAR0)
}

/// A bit for each of `count` dwords from `first` on; `None` if that is none or past the end.
fn dwords(first: u32, count: u32) -> Option<u64> {
    let end = first.checked_add(count)?;
    let unused = 64_u32.checked_sub(count)?;
    (count > 0 && end <= 64)
        .then(|| u64::MAX.checked_shr(unused)?.checked_shl(first))
        .flatten()
}
