// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! [`State`] as bytes: magic, version, then every field little-endian at a fixed place. Optional parts are preceded by a
//! presence byte and are zero when absent, so the length never varies.

use core::fmt;

use crate::countdown::{Mode, Stage};
use crate::registers::UnlockPhase;
use crate::state::{RoundState, STATE_VERSION, State, UnreportedBites, UnreportedFirstStage};

/// Length of a saved state in bytes, version 1.
pub const STATE_BYTES: usize = 181;

const MAGIC: [u8; 8] = *b"i6300esb";

/// Why bytes are not a [`State`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not [`STATE_BYTES`] bytes.
    Length {
        /// Bytes given.
        found: usize,
    },
    /// They do not begin as a saved watchdog does.
    Foreign,
    /// Written by a newer or unknown version.
    Version {
        /// Version in the bytes.
        found: u16,
    },
    /// A byte holds none of the values defined for it.
    Value {
        /// Name of the field.
        field: &'static str,
        /// The byte.
        value: u8,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { found } => {
                write!(
                    f,
                    "a saved watchdog is {STATE_BYTES} bytes long, not {found}; the state is truncated or not a watchdog's"
                )
            }
            Self::Foreign => f.write_str(
                "the bytes do not begin with \"i6300esb\"; they are not a saved watchdog",
            ),
            Self::Version { found } => {
                write!(
                    f,
                    "the saved watchdog has state version {found}, this one reads version {STATE_VERSION}; restore it with the version that saved it"
                )
            }
            Self::Value { field, value } => {
                write!(
                    f,
                    "the saved watchdog has {value:#04x} in {field}, which means nothing; the state is damaged"
                )
            }
        }
    }
}

impl core::error::Error for DecodeError {}

impl State {
    /// The state as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        let mut writer = Writer(bytes.iter_mut());
        writer.state(self);
        bytes
    }

    /// The state that [`State::to_bytes`] wrote. Values are checked when a device is restored from it.
    ///
    /// # Errors
    ///
    /// If the bytes are too short, too long, of something else, of an unknown version, or hold an undefined value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wrong_length = DecodeError::Length { found: bytes.len() };
        let mut reader = Reader(bytes);
        if reader.take::<8>().ok_or(wrong_length)? != MAGIC {
            return Err(DecodeError::Foreign);
        }
        let version = u16::from_le_bytes(reader.take().ok_or(wrong_length)?);
        if version != STATE_VERSION {
            return Err(DecodeError::Version { found: version });
        }
        if bytes.len() != STATE_BYTES {
            return Err(wrong_length);
        }
        reader.state(version)
    }
}

struct Writer<'a>(core::slice::IterMut<'a, u8>);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        for (from, to) in bytes.iter().zip(self.0.by_ref()) {
            *to = *from;
        }
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn optional(&mut self, value: Option<u64>) {
        self.put(&[u8::from(value.is_some())]);
        self.u64(value.unwrap_or(0));
    }

    fn state(&mut self, state: &State) {
        let State {
            version,
            clock: (numerator, denominator),
            preload1,
            preload2,
            config,
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
        self.put(&MAGIC);
        self.put(&version.to_le_bytes());
        for value in [numerator, denominator, preload1, preload2] {
            self.put(&value.to_le_bytes());
        }
        self.put(&config.to_le_bytes());
        let unlock = match unlock {
            UnlockPhase::Locked => 0,
            UnlockPhase::FirstKey => 1,
            UnlockPhase::Unlocked => 2,
        };
        self.put(&[
            lock,
            unlock,
            u8::from(interrupt_active),
            u8::from(timed_out),
        ]);
        self.round(round.as_ref());
        self.u64(armed_age_ns);
        self.optional(last_ping_age_ns);
        for value in [pings, first_stages, bites, muted_bites, ignored_writes] {
            self.u64(value);
        }
        let UnreportedFirstStage { due_age_ns, count } =
            unreported_first_stage.unwrap_or(UnreportedFirstStage {
                due_age_ns: 0,
                count: 0,
            });
        self.put(&[u8::from(unreported_first_stage.is_some())]);
        self.u64(due_age_ns);
        self.u64(count);
        self.bites(unreported_bites.as_ref());
    }

    fn round(&mut self, round: Option<&RoundState>) {
        let Some(&RoundState {
            mode,
            stage,
            remaining_ns,
            ahead,
            clocks,
            repeated,
            forgiven,
            output_active,
        }) = round
        else {
            return self.put(&[0; 25]);
        };
        let mode = match mode {
            Mode::Watchdog => 0,
            Mode::FreeRunning => 1,
        };
        let stage = match stage {
            Stage::First => 0,
            Stage::Second => 1,
        };
        let origin = match (repeated, forgiven) {
            (false, false) => 0,
            (true, _) => 1,
            (false, true) => 2,
        };
        self.put(&[1, mode, stage, origin, u8::from(output_active)]);
        self.u64(remaining_ns);
        self.put(&ahead.to_le_bytes());
        self.u64(clocks);
    }

    fn bites(&mut self, bites: Option<&UnreportedBites>) {
        let Some(&UnreportedBites {
            due_age_ns,
            last_due_age_ns,
            ping_to_due_ns,
            armed_to_due_ns,
            timeout_ns,
            count,
        }) = bites
        else {
            return self.put(&[0; 50]);
        };
        self.put(&[1]);
        self.u64(due_age_ns);
        self.u64(last_due_age_ns);
        self.optional(ping_to_due_ns);
        for value in [armed_to_due_ns, timeout_ns, count] {
            self.u64(value);
        }
    }
}

/// Reads a buffer whose length has been checked; beyond its end everything is 0.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take().unwrap_or_default())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take().unwrap_or_default())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take().unwrap_or_default())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take().unwrap_or_default())
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8() {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Value { field, value }),
        }
    }

    fn optional(&mut self, field: &'static str) -> Result<Option<u64>, DecodeError> {
        let present = self.bool(field)?;
        let value = self.u64();
        Ok(present.then_some(value))
    }

    fn state(&mut self, version: u16) -> Result<State, DecodeError> {
        Ok(State {
            version,
            clock: (self.u32(), self.u32()),
            preload1: self.u32(),
            preload2: self.u32(),
            config: self.u16(),
            lock: self.u8(),
            unlock: match self.u8() {
                0 => UnlockPhase::Locked,
                1 => UnlockPhase::FirstKey,
                2 => UnlockPhase::Unlocked,
                value => {
                    return Err(DecodeError::Value {
                        field: "unlock",
                        value,
                    });
                }
            },
            interrupt_active: self.bool("interrupt_active")?,
            timed_out: self.bool("timed_out")?,
            round: self.round()?,
            armed_age_ns: self.u64(),
            last_ping_age_ns: self.optional("last_ping_age_ns")?,
            pings: self.u64(),
            first_stages: self.u64(),
            bites: self.u64(),
            muted_bites: self.u64(),
            ignored_writes: self.u64(),
            unreported_first_stage: {
                let present = self.bool("unreported_first_stage")?;
                let unreported = UnreportedFirstStage {
                    due_age_ns: self.u64(),
                    count: self.u64(),
                };
                present.then_some(unreported)
            },
            unreported_bites: self.bites()?,
        })
    }

    fn round(&mut self) -> Result<Option<RoundState>, DecodeError> {
        let present = self.bool("round")?;
        let damaged = |field, value| Err(DecodeError::Value { field, value });
        let mode = match self.u8() {
            0 => Mode::Watchdog,
            1 => Mode::FreeRunning,
            value => return damaged("round.mode", value),
        };
        let stage = match self.u8() {
            0 => Stage::First,
            1 => Stage::Second,
            value => return damaged("round.stage", value),
        };
        let (repeated, forgiven) = match self.u8() {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            value => return damaged("round.repeated", value),
        };
        let round = RoundState {
            mode,
            stage,
            repeated,
            forgiven,
            output_active: self.bool("round.output_active")?,
            remaining_ns: self.u64(),
            ahead: self.u32(),
            clocks: self.u64(),
        };
        Ok(present.then_some(round))
    }

    fn bites(&mut self) -> Result<Option<UnreportedBites>, DecodeError> {
        let present = self.bool("unreported_bites")?;
        let bites = UnreportedBites {
            due_age_ns: self.u64(),
            last_due_age_ns: self.u64(),
            ping_to_due_ns: self.optional("unreported_bites.ping_to_due_ns")?,
            armed_to_due_ns: self.u64(),
            timeout_ns: self.u64(),
            count: self.u64(),
        };
        Ok(present.then_some(bites))
    }
}
