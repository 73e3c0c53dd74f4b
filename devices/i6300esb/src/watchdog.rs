// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watchdog itself: registers and counter together, and what happens when a stage runs out.
//!
//! Expiries are accounted at their exact instants whenever somebody looks, so it does not matter how late that is: a
//! late ping does not rescue, and a late timer delays nothing that follows. However much time has passed, the work is
//! the same: whole rounds are counted by division.

use crate::config::{AfterBite, Config, STALL_NS};
use crate::countdown::{Expiry, Mode, Origin, Program, Round, Stage};
use crate::effects::{Bite, FirstStage, StallForgiven};
use crate::packed::Packed;
use crate::pending::{KeptBite, Pending};
use crate::registers::{Lanes, LockWritten, Registers, Written};
use crate::spec;
use crate::time::{Past, VmInstant};

/// Steps that any catching up takes at most: two to end the round, one for the stage after the skipped rounds, and one
/// for a change of mode at the end of a round.
const MAX_STEPS: usize = 5;
/// Counts since power-on.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) pings: u64,
    pub(crate) first_stages: u64,
    pub(crate) bites: u64,
    pub(crate) muted_bites: u64,
    pub(crate) ignored_writes: u64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watchdog {
    pub(crate) registers: Registers,
    /// `None` while the counter stands still.
    pub(crate) round: Option<Round>,
    /// When a round that a ping started at instant 0 would first expire. Follows the registers, so that a ping need not
    /// multiply.
    pub(crate) next_expiry: Expiry,
    /// When the guest last enabled the watchdog.
    pub(crate) armed_at: Past,
    /// The last ping since then.
    pub(crate) last_ping: Option<Packed<Past>>,
    pub(crate) counters: Counters,
    pub(crate) first_stage: Option<Pending<FirstStage>>,
    pub(crate) bites: Option<Pending<KeptBite>>,
}

impl Watchdog {
    pub(crate) fn power_on(config: &Config) -> Self {
        let registers = Registers::power_on();
        Self {
            registers,
            next_expiry: next_expiry(&registers, config),
            round: None,
            armed_at: Past::at(VmInstant::ZERO),
            last_ping: None,
            counters: Counters::default(),
            first_stage: None,
            bites: None,
        }
    }

    /// Platform reset. What has not been reported yet is dropped: acting on it would hit the next boot.
    pub(crate) fn reset(&mut self, config: &Config) {
        self.registers.reset();
        self.reprogram(config);
        self.round = None;
        self.last_ping = None;
        self.first_stage = None;
        self.bites = None;
    }

    pub(crate) const fn has_unreported(&self) -> bool {
        self.first_stage.is_some() || self.bites.is_some()
    }

    /// Accounts every expiry up to and including `now`, or forgives the stall in which they fell due.
    pub(crate) fn advance(&mut self, config: &Config, now: VmInstant) -> Option<StallForgiven> {
        match self.round {
            Some(round) if round.expiry.is_over(now) => {
                let stall = forgivable(config, &round, now);
                if stall.is_some() {
                    self.start_stage_over(config, round, now);
                } else {
                    self.catch_up(config, now);
                }
                stall
            }
            _ => None,
        }
    }

    /// The guest has as long from `now` on as it had at the beginning of the stage: when in that it ceased to run is not
    /// known.
    #[cold]
    fn start_stage_over(&mut self, config: &Config, round: Round, now: VmInstant) {
        let clocks = match (round.mode, round.stage) {
            (Mode::Watchdog, Stage::Second) => self.registers.program().second,
            (Mode::Watchdog, Stage::First) | (Mode::FreeRunning, _) => round.clocks,
        };
        self.round = Some(Round {
            expiry: config.clock.expiry_after(Expiry::exactly(now), clocks),
            origin: Origin::Forgiven,
            ..round
        });
    }

    /// When the stage ends, or would have ended but for a stall.
    fn due(&self, config: &Config, round: &Round, now: VmInstant) -> VmInstant {
        if !config.forgive_stalls || round.origin == Origin::Repeated {
            return round.expiry.at;
        }
        let start = self.last_ping.map_or(self.armed_at, Packed::get);
        now.saturating_add(config.clock.nanos(round.clocks))
            .saturating_sub(start.age_ns(now))
    }

    /// The round goes from step to step by value: read again right after it was written piece by piece, it would have to
    /// wait for that.
    #[cold]
    fn catch_up(&mut self, config: &Config, now: VmInstant) {
        let mut next = self.round;
        for _ in 0..MAX_STEPS {
            let Some(round) = next.filter(|round| round.expiry.is_over(now)) else {
                break;
            };
            next = match (round.mode, round.stage) {
                (Mode::Watchdog, Stage::First) => Some(self.end_first_stage(config, round, now)),
                (Mode::Watchdog, Stage::Second) => self.end_second_stage(config, round, now),
                (Mode::FreeRunning, _) => self.end_free_running(config, round, now),
            }
        }
        self.round = next;
    }

    fn end_first_stage(&mut self, config: &Config, round: Round, now: VmInstant) -> Round {
        self.registers.interrupt_active = true;
        let due = self.due(config, &round, now);
        self.note_first_stages(1, due, round.is_fresh());
        round.into_second_stage(&self.registers.program(), config.clock)
    }

    fn end_second_stage(&mut self, config: &Config, round: Round, now: VmInstant) -> Option<Round> {
        let (due, at) = (self.due(config, &round, now), round.expiry.at);
        let acts = self.registers.output_enabled();
        if acts {
            let timeout_ns = config.clock.nanos(round.clocks);
            self.note_bites(1, due, at, timeout_ns, round.is_fresh());
        } else {
            self.counters.muted_bites = self.counters.muted_bites.saturating_add(1);
        }
        match config.after_bite {
            AfterBite::Rearm => Some(self.start_over(config, round.expiry, now)),
            AfterBite::Disarm if acts => {
                self.reset_as_qemu(config);
                None
            }
            AfterBite::Disarm | AfterBite::Halt => None,
        }
    }

    /// The round that starts over at `at`, past the whole rounds that are over by `now`.
    fn start_over(&mut self, config: &Config, at: Expiry, now: VmInstant) -> Round {
        let program = self.registers.program();
        let start = match program.mode {
            _ if stalled(config, at, now).is_some() => Expiry::exactly(now),
            Mode::Watchdog => self.pass_whole_rounds(config, &program, at, now),
            Mode::FreeRunning => at,
        };
        Round {
            origin: Origin::Repeated,
            ..Round::start(&program, start, config.clock)
        }
    }

    fn pass_whole_rounds(
        &mut self,
        config: &Config,
        program: &Program,
        at: Expiry,
        now: VmInstant,
    ) -> Expiry {
        let clock = config.clock;
        let rounds = clock.whole_periods(at, now, program.round());
        if rounds == 0 {
            return at;
        }
        let end = clock.expiry_after(at, program.round().saturating_mul(rounds));
        self.registers.interrupt_active = true;
        self.note_first_stages(rounds, clock.expiry_after(at, program.first).at, false);
        if self.registers.output_enabled() {
            let first_end = clock.expiry_after(at, program.round());
            self.note_bites(
                rounds,
                first_end.at,
                end.at,
                clock.nanos(program.round()),
                false,
            );
        } else {
            self.counters.muted_bites = self.counters.muted_bites.saturating_add(rounds);
        }
        end
    }

    /// Free-running mode: every expiry toggles the output; turning active is the bite.
    fn end_free_running(&mut self, config: &Config, round: Round, now: VmInstant) -> Option<Round> {
        let clock = config.clock;
        let program = self.registers.program();
        let stalled = stalled(config, round.expiry, now).is_some();
        let more = match program.mode {
            _ if stalled => 0,
            Mode::FreeRunning => clock.whole_periods(round.expiry, now, program.second),
            Mode::Watchdog => 0,
        };
        let expiry =
            |index: u64| clock.expiry_after(round.expiry, program.second.saturating_mul(index));
        // Expiries 0 to `more`: every other one turns the output active.
        let first = u64::from(round.output_active);
        let turns = more.saturating_add(2).saturating_sub(first) / 2;
        let last = first.saturating_add(turns.saturating_sub(1).saturating_mul(2));
        if turns > 0 && self.registers.output_enabled() {
            let stops = config.after_bite != AfterBite::Rearm;
            let (turns, last) = if stops { (1, first) } else { (turns, last) };
            let due = match first {
                0 => self.due(config, &round, now),
                _ => expiry(first).at,
            };
            self.note_bites(
                turns,
                due,
                expiry(last).at,
                clock.nanos(round.clocks),
                round.is_fresh(),
            );
            match config.after_bite {
                AfterBite::Rearm => {}
                AfterBite::Disarm => {
                    self.reset_as_qemu(config);
                    return None;
                }
                AfterBite::Halt => return None,
            }
        } else {
            self.counters.muted_bites = self.counters.muted_bites.saturating_add(turns);
        }
        let start = if stalled {
            Expiry::exactly(now)
        } else {
            expiry(more)
        };
        Some(Round {
            origin: Origin::Repeated,
            output_active: program.mode == Mode::FreeRunning
                && round.output_active ^ (more & 1 == 0),
            ..Round::start(&program, start, clock)
        })
    }

    /// QEMU behaviour: the device resets itself, and counts no more; the timed-out flag stays.
    fn reset_as_qemu(&mut self, config: &Config) {
        self.registers.reset();
        self.reprogram(config);
    }

    fn note_first_stages(&mut self, count: u64, due: VmInstant, fresh: bool) {
        self.counters.first_stages = self.counters.first_stages.saturating_add(count);
        match &mut self.first_stage {
            Some(pending) => pending.add(count, fresh),
            none => *none = Some(Pending::new(FirstStage { due, count }, fresh)),
        }
    }

    fn note_bites(
        &mut self,
        count: u64,
        due: VmInstant,
        last_due: VmInstant,
        timeout_ns: u64,
        fresh: bool,
    ) {
        self.registers.timed_out = true;
        self.counters.bites = self.counters.bites.saturating_add(count);
        if let Some(pending) = &mut self.bites {
            pending.add(count, last_due, fresh);
            return;
        }
        let bite = Bite {
            due,
            last_due,
            ping_to_due_ns: self.last_ping.map(|ping| ping.get().age_ns(due)),
            armed_to_due_ns: self.armed_at.age_ns(due),
            timeout_ns,
            count,
        };
        self.bites = Some(Pending::new(bite.into(), fresh));
    }

    /// What a data phase of a write to BAR 0 asks for, done at `now`.
    pub(crate) fn after_write(&mut self, config: &Config, now: VmInstant, written: Written) {
        match written {
            Written::Stored | Written::Acknowledged => {}
            Written::Programmed => self.reprogram(config),
            Written::Ping => self.ping(now),
            Written::Ignored => self.note_ignored(),
        }
    }

    /// One data phase of a write to config space, at `now`. Dwords that are not the device's are passed over.
    pub(crate) fn config_write(
        &mut self,
        config: &Config,
        now: VmInstant,
        dword: u64,
        lanes: Lanes,
    ) {
        const WDT: u64 = spec::CONFIG_WDT as u64;
        const LOCK: u64 = spec::CONFIG_LOCK as u64;
        match dword {
            WDT => {
                self.registers.config_write(lanes);
                self.reprogram(config);
            }
            LOCK => {
                let written = self.registers.lock_write(lanes);
                self.reprogram(config);
                self.after_lock_write(now, written);
            }
            _ => {}
        }
    }

    fn after_lock_write(&mut self, now: VmInstant, written: LockWritten) {
        match written {
            LockWritten::Ignored => self.note_ignored(),
            LockWritten::Stored { was_enabled } => match (was_enabled, self.registers.enabled()) {
                (false, true) => self.enable(now),
                (true, false) => self.round = None,
                // Written again while it runs: nothing restarts.
                (true, true) | (false, false) => {}
            },
        }
    }

    /// Back to the first stage with the preloads as they are now. A no-op while disabled.
    #[inline]
    pub(crate) fn ping(&mut self, now: VmInstant) {
        if !self.registers.enabled() {
            return;
        }
        self.counters.pings = self.counters.pings.saturating_add(1);
        self.last_ping = Some(Packed::new(Past::at(now)));
        let next = self.next_round(now);
        let output_active = match next.mode {
            Mode::Watchdog => false,
            Mode::FreeRunning => self.round.is_some_and(|round| round.output_active),
        };
        self.round = Some(Round {
            output_active,
            ..next
        });
    }

    fn enable(&mut self, now: VmInstant) {
        self.armed_at = Past::at(now);
        self.last_ping = None;
        self.round = Some(self.next_round(now));
    }

    /// The round that starts at `now`.
    #[inline]
    fn next_round(&self, now: VmInstant) -> Round {
        Round::until(
            &self.registers.program(),
            self.next_expiry.counted_from(now),
        )
    }

    /// Must follow every change of preloads, prescaler or mode.
    fn reprogram(&mut self, config: &Config) {
        self.next_expiry = next_expiry(&self.registers, config);
    }

    pub(crate) fn note_ignored(&mut self) {
        self.counters.ignored_writes = self.counters.ignored_writes.saturating_add(1);
    }

    /// The live down-counter: ticks left in the current stage, rounded up; 0 while it stands still.
    pub(crate) fn ticks_left(&self, config: &Config, now: VmInstant) -> u32 {
        let Some(round) = &self.round else {
            return 0;
        };
        let clocks = config.clock.clocks_until(round.expiry, now);
        let shift = if self.registers.fast() {
            spec::DIVIDER_SHIFT_1MHZ
        } else {
            spec::DIVIDER_SHIFT_1KHZ
        };
        let ticks = clocks
            .div_ceil(1 << shift)
            .min(u64::from(spec::PRELOAD_MASK));
        u32::try_from(ticks).unwrap_or(spec::PRELOAD_MASK)
    }
}

/// How late `expiry` is found, where stalls are forgiven and that is one.
fn stalled(config: &Config, expiry: Expiry, now: VmInstant) -> Option<u64> {
    let late = config.forgive_stalls.then(|| now.nanos_since(expiry.at));
    late.filter(|late| *late > STALL_NS)
}

/// A stall that is to be forgiven: there was none since the last ping or enable.
fn forgivable(config: &Config, round: &Round, now: VmInstant) -> Option<StallForgiven> {
    let stalled_ns = stalled(config, round.expiry, now)?;
    let due = round.expiry.at;
    (round.origin == Origin::Loaded).then_some(StallForgiven { due, stalled_ns })
}

/// See [`Watchdog::next_expiry`].
pub(crate) fn next_expiry(registers: &Registers, config: &Config) -> Expiry {
    let start = Expiry::exactly(VmInstant::ZERO);
    registers.program().expiry_after(start, config.clock)
}
