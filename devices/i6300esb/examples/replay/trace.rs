// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recorded traces, and their replay in virtual time.

use std::fmt;

use i6300esb::{
    AfterBite, ClockRate, Config, Effects, I6300Esb, ResetKind, TimerRequest, VmInstant,
};

/// One recorded trace.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Its number in the recording.
    pub(crate) trace: u64,
    /// What was done, and what was seen.
    pub(crate) ops: Vec<Op>,
}

/// One step of a trace: something done, or something expected.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Write `size` bytes of the value to BAR 0.
    MmioWrite { offset: u64, size: u8, value: u64 },
    /// Write `size` bytes of the value to PCI config space.
    ConfigWrite { offset: u16, size: u8, value: u64 },
    /// Let so many nanoseconds pass; everything due happens at its exact instant.
    Advance(u64),
    /// Platform reset.
    Reset,
    /// Expected: bit 9 of a 16-bit read of BAR 0 + 0x0C.
    TimedOut(bool),
    /// Expected: an 8-bit read of config space 0x68.
    LockReads(u8),
}

/// Where the device and the recording part ways.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Divergence {
    /// Index of the operation in the trace, from 0.
    pub(crate) index: usize,
    /// What was looked at.
    pub(crate) what: &'static str,
    /// What the recording has.
    pub(crate) expected: String,
    /// What the device gave.
    pub(crate) got: String,
}

/// The settings under which a model is comparable with the recordings.
pub(crate) const COMPARABLE: Config = Config {
    clock: ClockRate::NS_30,
    after_bite: AfterBite::Disarm,
    revision: 0,
    timed_out: false,
    forgive_stalls: false,
};

/// Replays `ops` on a new device, up to the first divergence.
pub(crate) fn replay(ops: &[Op]) -> Result<(), Divergence> {
    let mut machine = Machine {
        device: I6300Esb::new(COMPARABLE),
        now: VmInstant::ZERO,
        timer: None,
    };
    for (index, op) in ops.iter().enumerate() {
        let differs = |what, expected: &dyn fmt::Display, got: &dyn fmt::Display| {
            Err(Divergence {
                index,
                what,
                expected: expected.to_string(),
                got: got.to_string(),
            })
        };
        match *op {
            Op::MmioWrite {
                offset,
                size,
                value,
            } => {
                let effects = machine.device.mmio_write(
                    machine.now,
                    offset,
                    low_bytes(&value.to_le_bytes(), size),
                );
                machine.apply(effects);
            }
            Op::ConfigWrite {
                offset,
                size,
                value,
            } => {
                let effects = machine.device.config_write(
                    machine.now,
                    offset,
                    low_bytes(&value.to_le_bytes(), size),
                );
                machine.apply(effects);
            }
            Op::Advance(nanos) => machine.advance(nanos),
            Op::Reset => {
                let effects = machine.device.reset(machine.now, ResetKind::Platform);
                machine.apply(effects);
            }
            Op::TimedOut(expected) => {
                let mut data = [0; 2];
                machine.device.mmio_read(machine.now, 0x0c, &mut data);
                let got = u16::from_le_bytes(data) & (1 << 9) != 0;
                if got != expected {
                    return differs("timed-out flag", &expected, &got);
                }
            }
            Op::LockReads(expected) => {
                let mut data = [0; 1];
                machine.device.config_read(machine.now, 0x68, &mut data);
                let [got] = data;
                if got != expected {
                    return differs(
                        "lock register",
                        &format_args!("{expected:#04x}"),
                        &format_args!("{got:#04x}"),
                    );
                }
            }
        }
    }
    Ok(())
}

fn low_bytes(bytes: &[u8; 8], size: u8) -> &[u8] {
    bytes.get(..usize::from(size)).unwrap_or(bytes)
}

/// An embedder in virtual time: a clock and one timer that fires exactly when it was armed for.
struct Machine {
    device: I6300Esb,
    now: VmInstant,
    timer: Option<VmInstant>,
}

impl Machine {
    fn apply(&mut self, effects: Effects) {
        match effects.timer {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => self.timer = None,
            TimerRequest::ArmAt(at) => self.timer = Some(at),
        }
    }

    fn advance(&mut self, nanos: u64) {
        let end = self.now.saturating_add(nanos);
        while let Some(due) = self.timer.filter(|due| *due <= end) {
            self.timer = None;
            self.now = self.now.max(due);
            let effects = self.device.timer_fired(self.now);
            self.apply(effects);
        }
        self.now = end;
    }
}
