// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes to operations, weighted: most opcodes are what drivers do, so that a few bytes go deep, and the rest is anything.

use std::num::NonZeroU32;

use i6300esb::{AfterBite, ClockRate, Config, ResetKind};

/// One operation on a device.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A write to BAR 0.
    MmioWrite {
        /// From the start of the BAR, or beyond.
        offset: u64,
        /// Bytes of `data` written.
        length: usize,
        /// What is written.
        data: [u8; 16],
    },
    /// A write to config space.
    ConfigWrite {
        /// In config space.
        offset: u16,
        /// Bytes of `data` written.
        length: usize,
        /// What is written.
        data: [u8; 16],
    },
    /// Time passes.
    Pass {
        /// So much of it.
        nanos: u64,
    },
    /// Time passes to around the end of the current stage.
    PassToDeadline {
        /// 0 is a nanosecond before, 1 the very instant.
        beyond: u64,
    },
    /// The timer is said to have fired.
    SpuriousTimer,
    /// A reset.
    Reset {
        /// Of this kind.
        kind: ResetKind,
    },
    /// Saved, and restored.
    SaveAndRestore {
        /// Also in a VM whose time is this.
        at: u64,
    },
}

/// The operations that some bytes encode.
#[derive(Clone, Debug)]
pub struct Ops<'a> {
    data: &'a [u8],
    queued: [Option<Op>; 2],
}

const PRELOADS: [u32; 16] = [
    0,
    1,
    2,
    3,
    7,
    31,
    100,
    512,
    1_000,
    0x3c00,
    0x7fff,
    0x8000,
    0xf_fffe,
    0xf_ffff,
    0x10_0000,
    u32::MAX,
];

impl<'a> Ops<'a> {
    /// Operations encoded by `data`.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            queued: [None; 2],
        }
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.data.split_first()?;
        self.data = rest;
        Some(*byte)
    }

    /// The next eight bytes.
    pub fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.data.split_first_chunk()?;
        self.data = rest;
        Some(u64::from_le_bytes(*word))
    }

    /// A configuration, from the first two bytes.
    pub fn config(&mut self) -> Option<Config> {
        let (clock, after_bite) = (self.byte()?, self.byte()?);
        let clock = match clock {
            0..=127 => ClockRate::NS_30,
            128..=191 => ClockRate::MHZ_33,
            // From 1 Hz to the fastest there is, most of them odd.
            _ => ClockRate::from_hz(
                NonZeroU32::new(u32::MAX >> (clock & 31)).unwrap_or(NonZeroU32::MIN),
            ),
        };
        let after_bite = match after_bite % 4 {
            0 | 3 => AfterBite::Rearm,
            1 => AfterBite::Disarm,
            _ => AfterBite::Halt,
        };
        Some(Config {
            clock,
            after_bite,
            ..Config::default()
        })
    }

    fn mmio(offset: u64, value: u64, length: usize) -> Op {
        let mut data = [0; 16];
        data[..8].copy_from_slice(&value.to_le_bytes());
        Op::MmioWrite {
            offset,
            length,
            data,
        }
    }

    fn config_write(offset: u16, value: u64, length: usize) -> Op {
        let mut data = [0; 16];
        data[..8].copy_from_slice(&value.to_le_bytes());
        Op::ConfigWrite {
            offset,
            length,
            data,
        }
    }

    /// Both keys, then `write`.
    fn unlocked(&mut self, width: usize, write: Op) -> Op {
        self.queued = [Some(write), Some(Self::mmio(0x0c, 0x86, width))];
        Self::mmio(0x0c, 0x80, width)
    }

    fn decode(&mut self) -> Option<Op> {
        let opcode = self.byte()?;
        let width = [1, 2, 4][usize::from(opcode) % 3];
        Some(match opcode {
            0x00..=0x0f => Self::mmio(0x0c, 0x80, width),
            0x10..=0x1f => Self::mmio(0x0c, 0x86, width),
            0x20..=0x27 => {
                let preload = PRELOADS[usize::from(self.byte()?) % PRELOADS.len()];
                let offset = u64::from(opcode & 1) * 4;
                self.unlocked(width, Self::mmio(offset, preload.into(), 4))
            }
            0x28..=0x37 => self.unlocked(width, Self::mmio(0x0c, 0x100, 2)),
            0x38..=0x3b => self.unlocked(width, Self::mmio(0x0c, 0x300, 4)),
            0x3c..=0x3f => self.unlocked(width, Self::mmio(0x0d, 0x02, 1)),
            0x40..=0x4f => Self::config_write(0x60, self.byte()?.into(), width),
            0x50..=0x5b => Self::config_write(0x68, self.byte()?.into(), width),
            0x5c..=0x5f => Self::config_write(0x68, 0x02, 1),
            0x60..=0x6f => Self::mmio(0x08, 0x01, width),
            0x70..=0x7f => Op::PassToDeadline {
                beyond: u64::from(self.byte()?),
            },
            0x80..=0x8f => Op::Pass {
                nanos: u64::from(self.byte()?) << (opcode & 15) << (opcode & 15),
            },
            0x90..=0x97 => Op::Pass {
                nanos: self.word()? >> (opcode & 7) >> (opcode & 7) >> 8,
            },
            0x98..=0x9f => Op::SpuriousTimer,
            0xa0..=0xa7 => Op::Reset {
                kind: ResetKind::Platform,
            },
            0xa8 => Op::Reset {
                kind: ResetKind::PowerOn,
            },
            0xa9..=0xaf => Op::SaveAndRestore { at: self.word()? },
            0xb0..=0xcf => {
                let (offset, length) = (self.byte()?, self.byte()?);
                let (low, high) = (self.word()?, self.byte()?);
                let mut data = [high; 16];
                data[..8].copy_from_slice(&low.to_le_bytes());
                let offset = if offset == 0xff {
                    u64::MAX - u64::from(high)
                } else {
                    offset.into()
                };
                Op::MmioWrite {
                    offset,
                    length: usize::from(length) % 17,
                    data,
                }
            }
            0xd0..=0xef => {
                let (offset, length) = (self.byte()?, self.byte()?);
                Op::ConfigWrite {
                    offset: offset.into(),
                    length: usize::from(length) % 9,
                    data: {
                        let mut data = [0; 16];
                        data[..8].copy_from_slice(&self.word()?.to_le_bytes());
                        data
                    },
                }
            }
            0xf0..=0xff => {
                let value = self.word()?;
                self.unlocked(width, Self::mmio(u64::from(opcode & 15), value, width))
            }
        })
    }
}

impl Iterator for Ops<'_> {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        for place in [1, 0] {
            if let Some(op) = self.queued[place].take() {
                return Some(op);
            }
        }
        self.decode()
    }
}
