// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest without a vCPU: its port and memory accesses on the machine's buses, and a watchdog
//! driver made of them.

use i6300esb::spec;
use std::sync::Arc;

use kennel_vmm::bus::{Bus, View};
use kennel_vmm::layout::{PCI_CONFIG_ADDRESS_PORT, PCI_CONFIG_DATA_PORT};

/// PCI command register.
pub(crate) const COMMAND: u16 = 0x04;
/// PCI command: decode memory BARs.
pub(crate) const MEMORY_ENABLE: u16 = 1 << 1;
/// PCI status register.
pub(crate) const STATUS: u16 = 0x06;
/// PCI status: the function asks for an interrupt.
pub(crate) const INTERRUPT_STATUS: u16 = 1 << 3;
/// First base address register.
pub(crate) const BAR0: u16 = 0x10;

/// An access of 1, 2 or 4 bytes.
pub(crate) trait Value: Copy {
    fn write(self, write: impl FnOnce(&[u8]));
    fn read(read: impl FnOnce(&mut [u8])) -> Self;
}

macro_rules! value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn write(self, write: impl FnOnce(&[u8])) {
                write(&self.to_le_bytes());
            }

            fn read(read: impl FnOnce(&mut [u8])) -> Self {
                let mut bytes = [0; size_of::<Self>()];
                read(&mut bytes);
                Self::from_le_bytes(bytes)
            }
        }
    )*};
}

value!(u8, u16, u32);

/// What a vCPU sees of the bus.
fn view(bus: &Arc<Bus>) -> View {
    View::new(Arc::clone(bus))
}

pub(crate) fn outs<V: Value>(bus: &Arc<Bus>, port: u16, value: V) {
    value.write(|bytes| view(bus).pio_write(port, bytes));
}

pub(crate) fn ins<V: Value>(bus: &Arc<Bus>, port: u16) -> V {
    V::read(|bytes| view(bus).pio_read(port, bytes))
}

pub(crate) fn mmio_read<V: Value>(bus: &Arc<Bus>, address: u64) -> V {
    V::read(|bytes| view(bus).mmio_read(address, bytes))
}

/// A PCI function on bus 0, reached through configuration mechanism #1.
#[derive(Clone, Copy)]
pub(crate) struct Function<'a> {
    bus: &'a Arc<Bus>,
    device: u8,
    function: u8,
}

impl<'a> Function<'a> {
    pub(crate) fn new(bus: &'a Arc<Bus>, device: u8, function: u8) -> Self {
        Self {
            bus,
            device,
            function,
        }
    }

    /// Selects the dword and gives the data port of `register` in it.
    fn select(self, register: u16) -> u16 {
        let address = 1 << 31
            | u32::from(self.device) << 11
            | u32::from(self.function) << 8
            | u32::from(register & !3);
        outs(self.bus, PCI_CONFIG_ADDRESS_PORT, address);
        PCI_CONFIG_DATA_PORT + (register & 3)
    }

    pub(crate) fn read<V: Value>(self, register: u16) -> V {
        ins(self.bus, self.select(register))
    }

    pub(crate) fn write<V: Value>(self, register: u16, value: V) {
        outs(self.bus, self.select(register), value);
    }

    /// Vendor and device, or none where nothing answers.
    pub(crate) fn identity(self) -> Option<(u16, u16)> {
        match self.read::<u32>(0) {
            u32::MAX => None,
            both => Some((
                u16::try_from(both & 0xffff).expect("16 bits"),
                u16::try_from(both >> 16).expect("16 bits"),
            )),
        }
    }

    /// BAR 0's size mask, found as Linux finds it: decoding off, all ones, mask, old value back.
    pub(crate) fn size_bar0(self) -> u32 {
        let command: u16 = self.read(COMMAND);
        self.write(COMMAND, command & !MEMORY_ENABLE);
        let place: u32 = self.read(BAR0);
        self.write(BAR0, u32::MAX);
        let mask = self.read(BAR0);
        self.write(BAR0, place);
        self.write(COMMAND, command);
        mask
    }

    pub(crate) fn enable_memory(self) {
        let command: u16 = self.read(COMMAND);
        self.write(COMMAND, command | MEMORY_ENABLE);
    }
}

/// Where the watchdog is found: bus 0, whichever slot, function 0.
pub(crate) fn find_watchdog(bus: &Arc<Bus>) -> Function<'_> {
    let slots = 0..kennel_vmm::layout::PCI_SLOTS;
    slots
        .map(|slot| Function::new(bus, slot, 0))
        .find(|function| function.identity() == Some((spec::VENDOR_ID, spec::DEVICE_ID)))
        .expect("a watchdog on the bus")
}

/// A watchdog driver that does what Linux 6.1's does, access by access: the same order, the same
/// widths ("observed with Linux 6.1").
pub(crate) struct Driver<'a> {
    bus: &'a Arc<Bus>,
    pub(crate) function: Function<'a>,
    pub(crate) base: u64,
    /// "Last reset by the watchdog", as the probe found it.
    pub(crate) card_reset: bool,
}

impl<'a> Driver<'a> {
    /// Finds the device and maps its registers.
    pub(crate) fn attach(bus: &'a Arc<Bus>) -> Self {
        let function = find_watchdog(bus);
        function.enable_memory();
        Self {
            bus,
            function,
            base: u64::from(function.read::<u32>(BAR0) & !0xf),
            card_reset: false,
        }
    }

    /// Linux's probe with `preload` ticks in each stage; `config` goes to 0x60, where Linux writes 3.
    pub(crate) fn probe(bus: &'a Arc<Bus>, config: u16, preload: u32) -> Self {
        let mut driver = Self::attach(bus);
        let function = driver.function;
        function.write(spec::CONFIG_WDT, config);
        let lock: u8 = function.read(spec::CONFIG_LOCK);
        assert_eq!(lock & spec::LOCK, 0, "nobody locked it before the driver");
        function.write(spec::CONFIG_LOCK, 0_u8);
        driver.unlock();
        driver.card_reset = u32::from(driver.read::<u16>(spec::RELOAD)) & spec::RELOAD_TIMEOUT != 0;
        driver.unlock();
        driver.write(spec::RELOAD, 0x0300_u16);
        driver.set_preloads(preload);
        driver
    }

    pub(crate) fn set_preloads(&self, preload: u32) {
        for register in [spec::PRELOAD1, spec::PRELOAD2] {
            self.unlock();
            self.write(register, preload);
        }
        self.ping();
    }

    pub(crate) fn ping(&self) {
        self.unlock();
        self.write(spec::RELOAD, 0x0100_u16);
    }

    /// `lock` as with the module parameter `nowayout`.
    pub(crate) fn start(&self, lock: bool) {
        self.ping();
        self.function
            .write(spec::CONFIG_LOCK, spec::ENABLE | u8::from(lock));
    }

    /// True when it did stop.
    pub(crate) fn stop(&self) -> bool {
        self.ping();
        self.function.write(spec::CONFIG_LOCK, 0_u8);
        self.function.read::<u8>(spec::CONFIG_LOCK) & spec::ENABLE == 0
    }

    pub(crate) fn read<V: Value>(&self, register: u64) -> V {
        mmio_read(self.bus, self.base + register)
    }

    pub(crate) fn write<V: Value>(&self, register: u64, value: V) {
        value.write(|bytes| view(self.bus).mmio_write(self.base + register, bytes));
    }

    fn unlock(&self) {
        self.write(spec::RELOAD, 0x80_u16);
        self.write(spec::RELOAD, 0x86_u16);
    }
}
