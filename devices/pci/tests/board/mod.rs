// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small board: host bridge, a watchdog-like function with registers of its own, a two-function device;
//! and an owner that applies every effect to its own map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kennel_pci::{
    Bar, BarRange, ConfigEffects, ConfigMechanism1, ConfigWindow, DecodedBars, FunctionAddress,
    HostBridge, Identity, InterruptPin, PciFunction, PortEffects, ResetRequest, RootBus, Type0,
};

/// Device registers at 0x60..0x6C, of which the device keeps what is written.
pub(crate) const WINDOW: ConfigWindow = ConfigWindow::new(0x60, 12);

pub(crate) struct Device {
    state: Mutex<(Type0, [u8; 12])>,
}

impl Device {
    pub(crate) fn new(config: Type0) -> Self {
        Self {
            state: Mutex::new((config, [0; 12])),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Type0, [u8; 12])> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_interrupt(&self, asserted: bool) -> Option<bool> {
        self.lock().0.set_interrupt(asserted)
    }
}

impl PciFunction for Device {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let state = self.lock();
        state.0.read(offset, data);
        if let Some((first, data)) = WINDOW.part_mut(offset, data) {
            let at = usize::from(first - WINDOW.start());
            data.copy_from_slice(&state.1[at..at + data.len()]);
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffects {
        let mut state = self.lock();
        let effects = state.0.write(offset, data);
        if let Some((first, data)) = WINDOW.part(offset, data) {
            let at = usize::from(first - WINDOW.start());
            state.1[at..at + data.len()].copy_from_slice(data);
        }
        effects
    }

    fn reset(&self) -> ConfigEffects {
        let mut state = self.lock();
        state.1 = [0; 12];
        state.0.reset()
    }

    fn decoded_bars(&self) -> DecodedBars {
        self.lock().0.decoded_bars()
    }

    fn interrupt_pin(&self) -> Option<InterruptPin> {
        self.lock().0.interrupt_pin()
    }
}

pub(crate) fn at(device: u8, function: u8) -> FunctionAddress {
    FunctionAddress::new(device, function).expect("a valid address")
}

fn identity(device: u16) -> Identity {
    Identity {
        vendor: 0x1af4,
        device,
        class: [0x08, 0x80, 0x00],
        ..Identity::default()
    }
}

/// 00:04.0, BAR 0 of 16 bytes at 0xFEBF0000, INTA#, device registers.
pub(crate) fn watchdog() -> Type0 {
    let mut config = Type0::new(Identity {
        vendor: 0x8086,
        device: 0x25ab,
        ..identity(0)
    });
    let bar = Bar::memory32(16).and_then(|bar| bar.at(0xfebf_0000));
    config.add_bar(0, bar.expect("valid")).expect("free");
    config.set_interrupt_pin(InterruptPin::A, 10);
    config.reserve(WINDOW).expect("free");
    config
}

/// 00:05.0, with a 64-bit, an I/O and a large 32-bit BAR, two capabilities, and a sibling.
pub(crate) fn big() -> Type0 {
    let mut config = Type0::new(identity(0x1043));
    for (index, bar) in [
        (0, Bar::memory64(0x4000)),
        (2, Bar::io(32)),
        (3, Bar::memory32(0x8000)),
    ] {
        config.add_bar(index, bar.expect("valid")).expect("free");
    }
    config.reserve(WINDOW).expect("free");
    config
        .add_capability(0x09, &[3; 14], &[0; 14])
        .expect("fits");
    let mask = [0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0];
    config.add_capability(0x11, &[1; 10], &mask).expect("fits");
    config.set_interrupt_pin(InterruptPin::A, 0);
    config.set_multifunction();
    config
}

pub(crate) struct Board {
    pub(crate) ports: ConfigMechanism1,
    pub(crate) watchdog: Arc<Device>,
    /// What the owner's bus holds, built from effects alone.
    pub(crate) mapped: BTreeMap<(FunctionAddress, usize), BarRange>,
    /// Every effect on BARs, in order.
    pub(crate) moves: usize,
    pub(crate) resets: Vec<ResetRequest>,
}

impl Board {
    pub(crate) fn new() -> Self {
        let watchdog = Arc::new(Device::new(self::watchdog()));
        let mut bus = RootBus::new();
        let functions: [(FunctionAddress, Arc<dyn PciFunction>); 4] = [
            (at(0, 0), Arc::new(HostBridge::new())),
            (at(4, 0), watchdog.clone()),
            (at(5, 0), Arc::new(Device::new(big()))),
            (
                at(5, 3),
                Arc::new(Device::new(Type0::new(identity(0x1041)))),
            ),
        ];
        for (address, function) in functions {
            bus.add(address, function).expect("free");
        }
        Self {
            ports: ConfigMechanism1::new(Arc::new(bus)),
            watchdog,
            mapped: BTreeMap::new(),
            moves: 0,
            resets: Vec::new(),
        }
    }

    pub(crate) fn out(&mut self, port: u16, data: &[u8]) {
        match self.ports.write(port, data) {
            PortEffects::None => {}
            PortEffects::Config { function, effects } => self.apply(function, effects),
            PortEffects::Reset(request) => self.resets.push(request),
        }
    }

    pub(crate) fn apply(&mut self, function: FunctionAddress, effects: ConfigEffects) {
        for change in effects.bar_changes() {
            let removed = self.mapped.remove(&(function, change.bar));
            assert_eq!(removed, change.old, "{function} BAR {}", change.bar);
            assert_ne!(change.old, change.new);
            self.moves += 1;
        }
        for change in effects.bar_changes() {
            if let Some(range) = change.new {
                self.mapped.insert((function, change.bar), range);
            }
        }
    }

    pub(crate) fn reset(&mut self) {
        self.ports.reset();
        let all = self.ports.bus().reset();
        for (function, effects) in all {
            self.apply(function, effects);
        }
    }
}
