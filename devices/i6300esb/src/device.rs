// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The public face: accesses in, [`Effects`] out, with the one lazily armed timer.

use crate::config::{AfterBite, Config};
use crate::countdown::{Mode, Stage};
use crate::effects::{Bite, Effects, Events, FirstStage, StallForgiven, Switched};
use crate::packed::Packed;
use crate::registers::{DataPhases, Lanes, Written, read_lanes};
use crate::reports::{Reports, WAKE_INTERVAL_NS};
use crate::spec;
use crate::time::{TimerRequest, VmInstant};
use crate::watchdog::Watchdog;

/// What kind of reset the machine goes through.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// A reset of the platform, whoever caused it. The timed-out flag survives, as it sits in the resume well.
    Platform,
    /// Power was off: the timed-out flag and the counts of [`Status`] are gone too.
    PowerOn,
}

/// The state of the watchdog in a few plain values, for people and for metrics.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The guest has enabled it.
    pub armed: bool,
    /// The guest has locked it.
    pub locked: bool,
    /// Stage that is counting down; `None` while the counter stands still.
    pub stage: Option<Stage>,
    /// Two-stage watchdog or free-running, as the register says.
    pub mode: Mode,
    /// Nanoseconds until the current stage ends.
    pub stage_left_ns: Option<u64>,
    /// Nanoseconds until the watchdog bites if nobody pings.
    pub time_left_ns: Option<u64>,
    /// Nanoseconds that a ping would buy now: both stages as programmed.
    pub timeout_ns: u64,
    /// Nanoseconds since the last ping; `None` if there was none since the watchdog was armed.
    pub last_ping_age_ns: Option<u64>,
    /// The output is enabled, so that the end of the second stage bites. A guest can switch it off, also under the lock.
    pub output_enabled: bool,
    /// The timed-out flag, as the guest reads it.
    pub timed_out: bool,
    /// Level of the interrupt pin.
    pub interrupt: bool,
    /// Pings since power-on, counting only those while armed.
    pub pings: u64,
    /// Ends of the first stage since power-on.
    pub first_stages: u64,
    /// Bites since power-on.
    pub bites: u64,
    /// Ends of the second stage while the output was disabled, since power-on.
    pub muted_bites: u64,
    /// Guest writes without effect since power-on: no unlock, lock set, or beyond the BAR.
    pub ignored_writes: u64,
}

/// An Intel 6300ESB watchdog.
///
/// Every method takes the VM time `now`, which must not run backwards. Expiries up to and including `now` are accounted
/// before the access, at their exact instants, also when the timer is late.
#[derive(Clone, Debug)]
pub struct I6300Esb {
    // Static configuration.
    config: Config,
    // Runtime glue: what the embedder was last told.
    armed_for: Option<Packed<VmInstant>>,
    /// Before this instant nothing is due and nothing waits to be reported. Kept by `move_timer`.
    at_rest_until: VmInstant,
    /// While rounds repeat, the host is not woken again before this instant.
    next_wake: VmInstant,
    interrupt: bool,
    first_stage_reports: Reports,
    bite_reports: Reports,
    // Volatile state.
    watchdog: Watchdog,
}

/// What an access or the timer brought, beside what is reported.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Brought {
    pub(crate) stall: Option<StallForgiven>,
    pub(crate) switched: Switched,
}

impl I6300Esb {
    /// A device at power-on: disarmed, unlocked, interrupt low, no timer; the timed-out flag as [`Config::timed_out`] says.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut watchdog = Watchdog::power_on(&config);
        watchdog.registers.timed_out = config.timed_out;
        Self::from_watchdog(config, watchdog)
    }

    pub(crate) fn from_watchdog(config: Config, watchdog: Watchdog) -> Self {
        Self {
            config,
            armed_for: None,
            at_rest_until: VmInstant::ZERO,
            next_wake: VmInstant::ZERO,
            interrupt: false,
            first_stage_reports: Reports::default(),
            bite_reports: Reports::default(),
            watchdog,
        }
    }

    /// The configuration the device was built with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Reads PCI config space. Only the bytes at [`spec::CONFIG_FIRST`] to [`spec::CONFIG_LAST`] are the device's:
    /// others in `data` are left as they are. Any width and alignment; no side effect.
    pub fn config_read(&self, now: VmInstant, offset: u16, data: &mut [u8]) {
        const WDT: u64 = spec::CONFIG_WDT as u64;
        const COUNT: u64 = spec::CONFIG_COUNT as u64;
        const LOCK: u64 = spec::CONFIG_LOCK as u64;
        let seen = self.seen_at(now);
        let window = u64::from(spec::CONFIG_FIRST)..u64::from(spec::CONFIG_LAST).saturating_add(1);
        read_lanes(u64::from(offset), data, window, |dword| match dword {
            WDT => u32::from(seen.registers.config),
            COUNT => seen.ticks_left(&self.config, now),
            LOCK => u32::from(seen.registers.lock),
            _ => 0,
        });
    }

    /// Writes PCI config space. Bytes that are not the device's are ignored. Any width and alignment.
    pub fn config_write(&mut self, now: VmInstant, offset: u16, data: &[u8]) -> Effects {
        let end = u64::from(spec::CONFIG_LAST).saturating_add(1);
        self.access(now, |watchdog, config| {
            for (dword, lanes) in DataPhases::new(u64::from(offset), data, end) {
                watchdog.config_write(config, now, dword, lanes);
            }
        })
    }

    /// Reads BAR 0 at `offset` from its start. Bytes beyond the BAR read all ones. Any width and alignment; no side effect.
    pub fn mmio_read(&self, now: VmInstant, offset: u64, data: &mut [u8]) {
        let seen = self.seen_at(now);
        data.fill(0xff);
        read_lanes(offset, data, 0..spec::BAR_SIZE, |dword| {
            seen.registers.mmio_read(dword)
        });
    }

    /// Does a write to BAR 0 if it is a key of the unlock sequence, at whatever time: it need not know it. False if it is
    /// not: nothing is done, and [`Self::mmio_write`] must follow.
    ///
    /// Two of the three writes of a ping are keys, so this saves the reading of two clocks. A key and the end of a stage
    /// come to the same in either order, unless the device resets itself when it bites: with
    /// [`AfterBite::Disarm`] this is always false.
    #[inline]
    pub fn unlock_step(&mut self, offset: u64, data: &[u8]) -> bool {
        if self.config.after_bite == AfterBite::Disarm {
            return false;
        }
        Lanes::within_dword(offset, data)
            .is_some_and(|(dword, lanes)| self.watchdog.registers.unlock_step(dword, lanes))
    }

    /// Writes BAR 0 at `offset` from its start. Bytes beyond the BAR are ignored. Any width and alignment.
    pub fn mmio_write(&mut self, now: VmInstant, offset: u64, data: &[u8]) -> Effects {
        // The short way, which the three writes of a ping take: one data phase, and nothing due or to be told.
        if now < self.at_rest_until
            && offset < spec::BAR_SIZE
            && let Some((dword, lanes)) = Lanes::within_dword(offset, data)
        {
            return match self.watchdog.registers.mmio_write(dword, lanes) {
                Written::Stored => Effects::none(),
                Written::Ping => self.ping(now),
                other => self.after_rare_write(now, other),
            };
        }
        self.mmio_write_in_phases(now, offset, data)
    }

    /// At rest, so the deadline is the end of the round; as a rule it moved later, and the timer stays.
    #[inline]
    fn ping(&mut self, now: VmInstant) -> Effects {
        self.watchdog.ping(now);
        let ends = self.watchdog.round.as_ref().map(|round| round.expiry.at);
        match (ends, self.armed_for) {
            (Some(ends), Some(armed_for)) if armed_for.get() <= ends => {
                self.at_rest_until = ends;
                Effects::none()
            }
            _ => self.settle_quietly(now),
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_quietly(&mut self, now: VmInstant) -> Effects {
        self.settle(now, Brought::default())
    }

    #[cold]
    fn after_rare_write(&mut self, now: VmInstant, written: Written) -> Effects {
        self.watchdog.after_write(&self.config, now, written);
        self.settle_quietly(now)
    }

    #[cold]
    fn mmio_write_in_phases(&mut self, now: VmInstant, offset: u64, data: &[u8]) -> Effects {
        self.access(now, |watchdog, config| {
            if offset >= spec::BAR_SIZE {
                watchdog.note_ignored();
            }
            for (dword, lanes) in DataPhases::new(offset, data, spec::BAR_SIZE) {
                let written = watchdog.registers.mmio_write(dword, lanes);
                watchdog.after_write(config, now, written);
            }
        })
    }

    /// The timer expired, or may have: early, late and spurious calls are all legal. Afterwards the timer counts as
    /// not armed, unless the effects ask for it.
    pub fn timer_fired(&mut self, now: VmInstant) -> Effects {
        self.armed_for = None;
        self.next_wake = now.saturating_add(WAKE_INTERVAL_NS);
        self.access(now, |_, _| {})
    }

    /// When [`Self::timer_fired`] should next be called: the next expiry, or `None` if nothing is due. An embedder with
    /// a loop of its own can wait for this instead of keeping a timer.
    #[must_use]
    pub fn deadline(&self) -> Option<VmInstant> {
        let expiry = match &self.watchdog.round {
            Some(round) if !round.is_fresh() => Some(self.spaced(round.expiry.at)),
            Some(round) => Some(round.expiry.at),
            None => None,
        };
        if self.watchdog.has_unreported() {
            self.or_report(expiry)
        } else {
            expiry
        }
    }

    /// The earlier of `expiry` and the instant at which a held-back report may go out.
    #[cold]
    fn or_report(&self, expiry: Option<VmInstant>) -> Option<VmInstant> {
        let first_stage = self
            .watchdog
            .first_stage
            .map(|_| self.first_stage_reports.next_allowed());
        let bites = self
            .watchdog
            .bites
            .map(|_| self.bite_reports.next_allowed());
        let report = first_stage
            .into_iter()
            .chain(bites)
            .min()
            .map(|at| self.spaced(at));
        expiry.into_iter().chain(report).min()
    }

    /// Not sooner after the last wake than the host can bear for ever.
    fn spaced(&self, at: VmInstant) -> VmInstant {
        at.max(self.next_wake)
    }

    /// Resets the device. A bite that was due before the reset is still reported; one that was reported before and only
    /// repeats is dropped, as acting on it would hit the next boot.
    pub fn reset(&mut self, now: VmInstant, kind: ResetKind) -> Effects {
        let was_armed = self.watchdog.registers.enabled();
        let stall = self.watchdog.advance(&self.config, now);
        let reported = self.report(now);
        match kind {
            ResetKind::Platform => self.watchdog.reset(&self.config),
            ResetKind::PowerOn => self.watchdog = Watchdog::power_on(&self.config),
        }
        self.first_stage_reports = Reports::default();
        self.bite_reports = Reports::default();
        let switched = Switched::new(was_armed, false, false);
        let mut effects = self.settle(now, Brought { stall, switched });
        (effects.events.first_stage, effects.events.bite) = reported;
        effects
    }

    /// The watchdog in plain values, as a timely timer would have left it at `now`.
    #[must_use]
    pub fn status(&self, now: VmInstant) -> Status {
        let Watchdog {
            registers,
            round,
            last_ping,
            counters,
            ..
        } = self.seen_at(now);
        let clock = self.config.clock;
        let program = registers.program();
        Status {
            armed: registers.enabled(),
            locked: registers.locked(),
            stage: round.map(|round| round.stage),
            mode: registers.mode(),
            stage_left_ns: round.map(|round| round.expiry.at.nanos_since(now)),
            time_left_ns: round.map(|round| {
                let bite = match (round.mode, round.stage) {
                    (Mode::Watchdog, Stage::First) => {
                        clock.expiry_after(round.expiry, program.second)
                    }
                    (Mode::FreeRunning, _) if round.output_active => {
                        clock.expiry_after(round.expiry, program.second)
                    }
                    _ => round.expiry,
                };
                bite.at.nanos_since(now)
            }),
            timeout_ns: clock.nanos(program.round()),
            last_ping_age_ns: last_ping.map(|ping| ping.get().age_ns(now)),
            output_enabled: registers.output_enabled(),
            timed_out: registers.timed_out,
            interrupt: registers.interrupt_level(),
            pings: counters.pings,
            first_stages: counters.first_stages,
            bites: counters.bites,
            muted_bites: counters.muted_bites,
            ignored_writes: counters.ignored_writes,
        }
    }

    /// The watchdog as a timely timer would have left it at `now`, without changing it.
    pub(crate) fn seen_at(&self, now: VmInstant) -> Watchdog {
        let mut seen = self.watchdog;
        let _forgiven = seen.advance(&self.config, now);
        seen
    }

    /// Expiries first, then the access, then everything that follows from both.
    #[inline]
    fn access(&mut self, now: VmInstant, act: impl FnOnce(&mut Watchdog, &Config)) -> Effects {
        let was_armed = self.watchdog.registers.enabled();
        let stall = self.watchdog.advance(&self.config, now);
        let stayed_armed = self.watchdog.registers.enabled();
        let was_locked = self.watchdog.registers.locked();
        act(&mut self.watchdog, &self.config);
        let registers = &self.watchdog.registers;
        let armed = registers.enabled();
        let switched = Switched::new(
            (was_armed && !stayed_armed) || (stayed_armed && !armed),
            !stayed_armed && armed,
            !was_locked && registers.locked(),
        );
        self.settle(now, Brought { stall, switched })
    }

    /// Compares the device with what the embedder was last told, and tells the rest.
    #[inline(never)]
    pub(crate) fn settle(&mut self, now: VmInstant, brought: Brought) -> Effects {
        let Brought { stall, switched } = brought;
        let (first_stage, bite) = self.report(now);
        let level = self.watchdog.registers.interrupt_level();
        let interrupt = (level != self.interrupt).then_some(level);
        self.interrupt = level;
        // Made at once: copied right after it was written part by part, it would have to wait for that.
        Effects {
            interrupt,
            timer: self.move_timer(),
            events: Events {
                first_stage,
                bite,
                stall,
                switched,
            },
        }
    }

    /// What may be reported now.
    #[inline]
    fn report(&mut self, now: VmInstant) -> (Option<FirstStage>, Option<Bite>) {
        let (mut first_stage, mut bite) = (None, None);
        if let Some(pending) = &self.watchdog.first_stage
            && self.first_stage_reports.admit(now, pending.fresh)
        {
            first_stage = Some(pending.what());
            self.watchdog.first_stage = None;
        }
        if let Some(pending) = &self.watchdog.bites
            && self.bite_reports.admit(now, pending.fresh)
        {
            bite = Some(pending.what().into());
            self.watchdog.bites = None;
        }
        (first_stage, bite)
    }

    /// A deadline that moved later leaves the timer alone: it will fire too early, and be moved then.
    fn move_timer(&mut self) -> TimerRequest {
        self.at_rest_until = match &self.watchdog.round {
            _ if self.watchdog.has_unreported() => VmInstant::ZERO,
            Some(round) => round.expiry.at,
            None => VmInstant::MAX,
        };
        match (self.deadline(), self.armed_for.map(Packed::get)) {
            (Some(deadline), Some(armed_for)) if armed_for <= deadline => TimerRequest::Keep,
            (Some(deadline), _) => {
                self.armed_for = Some(Packed::new(deadline));
                TimerRequest::ArmAt(deadline)
            }
            (None, Some(_)) => {
                self.armed_for = None;
                TimerRequest::Disarm
            }
            (None, None) => TimerRequest::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::I6300Esb;
    use crate::watchdog::Watchdog;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_host_keeps_thousands_of_watchdogs_in_a_few_megabytes() {
        assert_eq!(size_of::<Watchdog>(), 176);
        assert_eq!(size_of::<I6300Esb>(), 240);
    }
}
