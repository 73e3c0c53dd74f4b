// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Saved state: plain data, versioned, relative in time, and checked before a device is built from it.

use core::fmt;

use crate::config::Config;
use crate::countdown::{ClockRate, Expiry, Mode, Origin, Round, Stage};
use crate::device::{Brought, I6300Esb};
use crate::effects::{Bite, Effects, FirstStage};
use crate::packed::Packed;
use crate::pending::Pending;
use crate::registers::{Registers, UnlockPhase};
use crate::spec;
use crate::time::{Past, TimerRequest, VmInstant};
use crate::watchdog::{Counters, Watchdog, next_expiry};

/// The version of [`State`] that this crate writes, and the newest it reads.
pub const STATE_VERSION: u16 = 1;

/// Longest stage there is, in clocks.
const MAX_STAGE_CLOCKS: u64 = (spec::PRELOAD_MASK as u64) << spec::DIVIDER_SHIFT_1KHZ;

/// Everything a device needs to go on elsewhere. Holds no absolute time: what lies ahead is kept as time left, what lies
/// behind as an age.
///
/// Keep it as bytes ([`State::to_bytes`]) or, with the feature `serde`, in any format.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct State {
    /// [`STATE_VERSION`] of the writer.
    pub version: u16,
    /// The clock under which `round` was counting: nanoseconds a clock, as numerator and denominator.
    pub clock: (u32, u32),
    /// Preload of the first stage.
    pub preload1: u32,
    /// Preload of the second stage.
    pub preload2: u32,
    /// `CONFIG_WDT` register.
    pub config: u16,
    /// `CONFIG_LOCK` register.
    pub lock: u8,
    /// How far the unlock sequence had come.
    pub unlock: UnlockPhase,
    /// `GINTSR` bit 0.
    pub interrupt_active: bool,
    /// The timed-out flag.
    pub timed_out: bool,
    /// The running counter; `None` if it stood still.
    pub round: Option<RoundState>,
    /// Nanoseconds since the watchdog was last armed.
    pub armed_age_ns: u64,
    /// Nanoseconds since the last ping.
    pub last_ping_age_ns: Option<u64>,
    /// See [`Status::pings`](crate::Status::pings).
    pub pings: u64,
    /// See [`Status::first_stages`](crate::Status::first_stages).
    pub first_stages: u64,
    /// See [`Status::bites`](crate::Status::bites).
    pub bites: u64,
    /// See [`Status::muted_bites`](crate::Status::muted_bites).
    pub muted_bites: u64,
    /// See [`Status::ignored_writes`](crate::Status::ignored_writes).
    pub ignored_writes: u64,
    /// Ends of the first stage that no event has told of yet.
    pub unreported_first_stage: Option<UnreportedFirstStage>,
    /// Bites that no event has told of yet.
    pub unreported_bites: Option<UnreportedBites>,
}

/// The running counter in a [`State`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct RoundState {
    /// Mode the round began in.
    pub mode: Mode,
    /// Current stage.
    pub stage: Stage,
    /// Nanoseconds until it ends, rounded up.
    pub remaining_ns: u64,
    /// How far the exact end lies before that, in parts of a nanosecond (denominator of the clock).
    pub ahead: u32,
    /// Clocks loaded so far in this round.
    pub clocks: u64,
    /// No ping or enable since the last round ended.
    pub repeated: bool,
    /// A stall since the last ping or enable was forgiven.
    #[cfg_attr(feature = "serde", serde(default))]
    pub forgiven: bool,
    /// Free-running mode: the output is in its active half.
    pub output_active: bool,
}

/// A [`FirstStage`] event still to come, in a [`State`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct UnreportedFirstStage {
    /// Nanoseconds since the first end it stands for.
    pub due_age_ns: u64,
    /// Ends it stands for.
    pub count: u64,
}

/// A [`Bite`] event still to come, in a [`State`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct UnreportedBites {
    /// Nanoseconds since the first bite it stands for.
    pub due_age_ns: u64,
    /// Nanoseconds since the last bite it stands for.
    pub last_due_age_ns: u64,
    /// See [`Bite::ping_to_due_ns`].
    pub ping_to_due_ns: Option<u64>,
    /// See [`Bite::armed_to_due_ns`].
    pub armed_to_due_ns: u64,
    /// See [`Bite::timeout_ns`].
    pub timeout_ns: u64,
    /// Bites it stands for.
    pub count: u64,
}

/// Why a device cannot be built from a [`State`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// Written by a newer or unknown version.
    Version {
        /// Version in the state.
        found: u16,
    },
    /// Saved under another clock, so the time left would mean something else.
    Clock {
        /// Nanoseconds a clock in the state, as numerator and denominator.
        found: (u32, u32),
        /// Nanoseconds a clock in the configuration.
        configured: (u32, u32),
    },
    /// A field holds a value that the device can never hold.
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The largest value it can hold.
        max: u64,
    },
    /// Two fields contradict each other.
    Contradiction(&'static str),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Version { found } => write!(
                f,
                "the saved watchdog has state version {found}, this one reads version {STATE_VERSION}; restore it with the version that saved it"
            ),
            Self::Clock { found, configured } => write!(
                f,
                "the saved watchdog ran at {}/{} ns a clock, the configuration says {}/{}; configure the clock it was saved with",
                found.0, found.1, configured.0, configured.1
            ),
            Self::OutOfRange { field, value, max } => {
                write!(
                    f,
                    "the saved watchdog has {field} = {value:#x}, which is above {max:#x}; the state is damaged"
                )
            }
            Self::Contradiction(what) => write!(
                f,
                "the saved watchdog contradicts itself: {what}; the state is damaged"
            ),
        }
    }
}

impl core::error::Error for RestoreError {}

impl I6300Esb {
    /// The state at `now`, as a timely timer would have left it. Time left is exact.
    #[must_use]
    pub fn save(&self, now: VmInstant) -> State {
        let Watchdog {
            registers,
            round,
            next_expiry: _,
            armed_at,
            last_ping,
            counters,
            first_stage,
            bites,
        } = self.seen_at(now);
        let Registers {
            preload1,
            preload2,
            config,
            lock,
            unlock,
            interrupt_active,
            timed_out,
        } = registers;
        let Counters {
            pings,
            first_stages,
            bites: bites_counted,
            muted_bites,
            ignored_writes,
        } = counters;
        State {
            version: STATE_VERSION,
            clock: self.config().clock.as_ratio(),
            preload1,
            preload2,
            config,
            lock,
            unlock,
            interrupt_active,
            timed_out,
            round: round.map(|round| save_round(self.config().clock, &round, now)),
            armed_age_ns: armed_at.age_ns(now),
            last_ping_age_ns: last_ping.map(|ping| ping.get().age_ns(now)),
            pings,
            first_stages,
            bites: bites_counted,
            muted_bites,
            ignored_writes,
            unreported_first_stage: first_stage.map(|pending| {
                let FirstStage { due, count } = pending.what();
                UnreportedFirstStage {
                    due_age_ns: now.nanos_since(due),
                    count,
                }
            }),
            unreported_bites: bites.map(|pending| save_bites(&pending.what().into(), now)),
        }
    }

    /// Builds a device that goes on where `state` left off.
    ///
    /// The effects always name the interrupt level and what to do with the timer, as the embedder's may be in any state,
    /// and bring at once the events that were not reported before the save.
    ///
    /// # Errors
    ///
    /// If the state is of an unknown version, was saved under another clock than `config` has, or holds what no device
    /// can hold.
    pub fn restore(
        config: Config,
        state: &State,
        now: VmInstant,
    ) -> Result<(Self, Effects), RestoreError> {
        let watchdog = check_and_build(&config, state, now)?;
        let mut device = Self::from_watchdog(config, watchdog);
        let mut effects = device.settle(now, Brought::default());
        effects.interrupt = Some(watchdog.registers.interrupt_level());
        if effects.timer == TimerRequest::Keep {
            effects.timer = TimerRequest::Disarm;
        }
        Ok((device, effects))
    }
}

fn save_round(clock: ClockRate, round: &Round, now: VmInstant) -> RoundState {
    let Round {
        mode,
        stage,
        expiry: Expiry { at, ahead },
        clocks,
        origin,
        output_active,
    } = *round;
    // A clock that ran backwards must not make a state that restore refuses.
    let remaining_ns = at.nanos_since(now).min(clock.nanos(MAX_STAGE_CLOCKS));
    RoundState {
        mode,
        stage,
        remaining_ns,
        ahead,
        clocks,
        repeated: origin == Origin::Repeated,
        forgiven: origin == Origin::Forgiven,
        output_active,
    }
}

fn save_bites(bite: &Bite, now: VmInstant) -> UnreportedBites {
    let Bite {
        due,
        last_due,
        ping_to_due_ns,
        armed_to_due_ns,
        timeout_ns,
        count,
    } = *bite;
    UnreportedBites {
        due_age_ns: now.nanos_since(due),
        last_due_age_ns: now.nanos_since(last_due),
        ping_to_due_ns,
        armed_to_due_ns,
        timeout_ns,
        count,
    }
}

fn check_and_build(
    config: &Config,
    state: &State,
    now: VmInstant,
) -> Result<Watchdog, RestoreError> {
    let State {
        version,
        clock,
        preload1,
        preload2,
        config: config_register,
        lock,
        unlock,
        interrupt_active,
        timed_out,
        round,
        armed_age_ns,
        last_ping_age_ns,
        pings,
        first_stages,
        bites,
        muted_bites,
        ignored_writes,
        unreported_first_stage,
        unreported_bites,
    } = *state;
    if version != STATE_VERSION {
        return Err(RestoreError::Version { found: version });
    }
    if clock != config.clock.as_ratio() {
        return Err(RestoreError::Clock {
            found: clock,
            configured: config.clock.as_ratio(),
        });
    }
    at_most("preload1", preload1, spec::PRELOAD_MASK)?;
    at_most("preload2", preload2, spec::PRELOAD_MASK)?;
    only_bits("config", config_register, spec::CONFIG_WDT_WRITABLE)?;
    only_bits("lock", lock, spec::CONFIG_LOCK_WRITABLE)?;
    let registers = Registers {
        preload1,
        preload2,
        config: config_register,
        lock,
        unlock,
        interrupt_active,
        timed_out,
    };
    if round.is_some() && !registers.enabled() {
        return Err(RestoreError::Contradiction(
            "the counter runs although ENABLE is 0",
        ));
    }
    if unreported_first_stage
        .is_some_and(|unreported| unreported.count == 0 || unreported.count > first_stages)
    {
        return Err(RestoreError::Contradiction(
            "unreported ends of the first stage are none, or more than there were",
        ));
    }
    if unreported_bites.is_some_and(|unreported| unreported.count == 0 || unreported.count > bites)
    {
        return Err(RestoreError::Contradiction(
            "unreported bites are none, or more than there were",
        ));
    }
    if unreported_bites.is_some_and(|unreported| unreported.last_due_age_ns > unreported.due_age_ns)
    {
        return Err(RestoreError::Contradiction(
            "the last unreported bite is older than the first",
        ));
    }
    Ok(Watchdog {
        registers,
        next_expiry: next_expiry(&registers, config),
        round: round
            .map(|round| check_round(config.clock, &round, now))
            .transpose()?,
        armed_at: Past::with_age(armed_age_ns, now),
        last_ping: last_ping_age_ns.map(|age| Packed::new(Past::with_age(age, now))),
        counters: Counters {
            pings,
            first_stages,
            bites,
            muted_bites,
            ignored_writes,
        },
        first_stage: unreported_first_stage.map(|UnreportedFirstStage { due_age_ns, count }| {
            let due = now.saturating_sub(due_age_ns);
            Pending::new(FirstStage { due, count }, true)
        }),
        bites: unreported_bites
            .map(|unreported| Pending::new(build_bites(&unreported, now).into(), true)),
    })
}

fn check_round(
    clock: ClockRate,
    round: &RoundState,
    now: VmInstant,
) -> Result<Round, RestoreError> {
    let RoundState {
        mode,
        stage,
        remaining_ns,
        ahead,
        clocks,
        repeated,
        forgiven,
        output_active,
    } = *round;
    let origin = match (repeated, forgiven) {
        (false, false) => Origin::Loaded,
        (false, true) => Origin::Forgiven,
        (true, false) => Origin::Repeated,
        (true, true) => {
            return Err(RestoreError::Contradiction(
                "a stall was forgiven in a round that no ping began",
            ));
        }
    };
    at_most(
        "round.remaining_ns",
        remaining_ns,
        clock.nanos(MAX_STAGE_CLOCKS),
    )?;
    at_most(
        "round.ahead",
        ahead,
        clock.parts_per_nano().saturating_sub(1),
    )?;
    at_most("round.clocks", clocks, MAX_STAGE_CLOCKS.saturating_mul(2))?;
    match (mode, stage, output_active) {
        (Mode::FreeRunning, Stage::First, _) => Err(RestoreError::Contradiction(
            "free-running mode has no first stage",
        )),
        (Mode::Watchdog, _, true) => Err(RestoreError::Contradiction(
            "only free-running mode holds the output active",
        )),
        _ => Ok(Round {
            mode,
            stage,
            expiry: Expiry {
                at: now.saturating_add(remaining_ns),
                ahead,
            },
            clocks,
            origin,
            output_active,
        }),
    }
}

fn build_bites(unreported: &UnreportedBites, now: VmInstant) -> Bite {
    let UnreportedBites {
        due_age_ns,
        last_due_age_ns,
        ping_to_due_ns,
        armed_to_due_ns,
        timeout_ns,
        count,
    } = *unreported;
    Bite {
        due: now.saturating_sub(due_age_ns),
        last_due: now.saturating_sub(last_due_age_ns),
        ping_to_due_ns,
        armed_to_due_ns,
        timeout_ns,
        count,
    }
}

fn at_most(
    field: &'static str,
    value: impl Into<u64>,
    max: impl Into<u64>,
) -> Result<(), RestoreError> {
    let (value, max) = (value.into(), max.into());
    if value > max {
        Err(RestoreError::OutOfRange { field, value, max })
    } else {
        Ok(())
    }
}

fn only_bits(
    field: &'static str,
    value: impl Into<u64>,
    bits: impl Into<u64>,
) -> Result<(), RestoreError> {
    let (value, max) = (value.into(), bits.into());
    if value & !max == 0 {
        Ok(())
    } else {
        Err(RestoreError::OutOfRange { field, value, max })
    }
}
