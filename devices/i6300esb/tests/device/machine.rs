// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine in virtual time around the device: a clock, one timer that fires exactly, and a record of what happened.

use i6300esb::{
    Bite, Config, Effects, Event, I6300Esb, ResetKind, State, Status, TimerRequest, VmInstant,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// An unlocked write of this pings.
pub(crate) const PING: u64 = 0x100;

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) device: I6300Esb,
    pub(crate) now: VmInstant,
    pub(crate) timer: Option<VmInstant>,
    pub(crate) interrupt: bool,
    /// Every event, with the instant it was told.
    pub(crate) events: Vec<(VmInstant, Event)>,
    /// Calls that moved the timer, as system calls would have been made.
    pub(crate) timer_moves: u64,
    pub(crate) wakes: Vec<VmInstant>,
}

impl Machine {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            device: I6300Esb::new(config),
            now: VmInstant::ZERO,
            timer: None,
            interrupt: false,
            events: Vec::new(),
            timer_moves: 0,
            wakes: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, effects: Effects) {
        if let Some(level) = effects.interrupt {
            assert_ne!(
                level, self.interrupt,
                "the level is named only when it changes"
            );
            self.interrupt = level;
        }
        match effects.timer {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => self.timer = None,
            TimerRequest::ArmAt(at) => self.timer = Some(at),
        }
        self.timer_moves += u64::from(effects.timer != TimerRequest::Keep);
        for event in effects.events {
            if let Event::Bite(bite) = event {
                assert!(bite.due <= self.now, "{bite:?} at {:?} is early", self.now);
            }
            self.events.push((self.now, event));
        }
    }

    /// Lets `nanos` pass; the timer fires at its exact instant.
    pub(crate) fn advance(&mut self, nanos: u64) {
        let end = self.now.saturating_add(nanos);
        let wakes = self.wakes.len();
        while let Some(due) = self.timer.filter(|due| *due <= end) {
            assert!(
                self.wakes.len() - wakes < 100_000,
                "the timer is asked for over and over: {due:?}"
            );
            self.timer = None;
            self.now = self.now.max(due);
            self.wakes.push(self.now);
            let effects = self.device.timer_fired(self.now);
            self.apply(effects);
        }
        self.now = end;
    }

    /// Lets `nanos` pass while the host is too busy to serve the timer.
    pub(crate) fn stall(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(nanos);
    }

    pub(crate) fn reset(&mut self, kind: ResetKind) {
        let effects = self.device.reset(self.now, kind);
        self.apply(effects);
    }

    /// Goes on in a new device whose clock begins elsewhere, as after a migration.
    pub(crate) fn save_and_restore(&mut self) {
        let state =
            State::from_bytes(&self.device.save(self.now).to_bytes()).expect("its own bytes");
        let (device, effects) =
            I6300Esb::restore(*self.device.config(), &state, self.now).expect("its own state");
        self.device = device;
        self.timer = None;
        self.interrupt = !effects.interrupt.expect("a restore always names the level");
        self.apply(effects);
    }

    pub(crate) fn write(&mut self, offset: u64, size: usize, value: u64) {
        let effects = self
            .device
            .mmio_write(self.now, offset, &value.to_le_bytes()[..size]);
        self.apply(effects);
    }

    pub(crate) fn read(&self, offset: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        self.device.mmio_read(self.now, offset, &mut bytes[..size]);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn config_write(&mut self, offset: u16, size: usize, value: u64) {
        let effects = self
            .device
            .config_write(self.now, offset, &value.to_le_bytes()[..size]);
        self.apply(effects);
    }

    pub(crate) fn config_read(&self, offset: u16, size: usize) -> u64 {
        let mut bytes = [0; 8];
        self.device
            .config_read(self.now, offset, &mut bytes[..size]);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn unlock(&mut self, size: usize) {
        self.write(0x0c, size, 0x80);
        self.write(0x0c, size, 0x86);
    }

    /// The three writes of a Linux ping.
    pub(crate) fn ping(&mut self) {
        self.unlock(2);
        self.write(0x0c, 2, PING);
    }

    pub(crate) fn set_preloads(&mut self, first: u64, second: u64) {
        self.unlock(2);
        self.write(0x00, 4, first);
        self.unlock(2);
        self.write(0x04, 4, second);
    }

    /// Programs both preloads and `CONFIG_WDT`, and enables.
    pub(crate) fn start(&mut self, first: u64, second: u64, config: u64) {
        self.config_write(0x60, 2, config);
        self.set_preloads(first, second);
        self.config_write(0x68, 1, 2);
    }

    pub(crate) fn status(&self) -> Status {
        self.device.status(self.now)
    }

    pub(crate) fn bites(&self) -> Vec<Bite> {
        let bite = |(_, event): &(VmInstant, Event)| match event {
            Event::Bite(bite) => Some(*bite),
            _ => None,
        };
        self.events.iter().filter_map(bite).collect()
    }

    pub(crate) fn event_names(&self) -> Vec<&'static str> {
        let name = |(_, event): &(VmInstant, Event)| match event {
            Event::FirstStage(_) => "FirstStage",
            Event::Bite(_) => "Bite",
            Event::Disarmed => "Disarmed",
            Event::Armed => "Armed",
            Event::StallForgiven(_) => "StallForgiven",
            Event::Locked => "Locked",
            _ => "unknown",
        };
        self.events.iter().map(name).collect()
    }
}
