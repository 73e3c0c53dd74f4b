// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers, decoded by byte lane: BAR 0 with its unlock sequence, and config space 0x60 to 0x6B.
//!
//! An access of any width and alignment is split into the 32-bit data phases in which a PCI bus would carry it, lowest
//! first. Each phase names the byte lanes it drives; a register takes the lanes that reach it and keeps the others.

use crate::countdown::{Mode, Program};
use crate::spec;

/// One 32-bit data phase of a write: the lanes driven (`mask`, all ones per byte) and what they carry; lanes
/// that are not driven are 0 in `value`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lanes {
    pub(crate) value: u32,
    pub(crate) mask: u32,
}

impl Lanes {
    /// One to four bytes that start at lane 0.
    #[inline]
    fn from_first(bytes: &[u8]) -> Option<Self> {
        let (value, mask) = match *bytes {
            [a] => (u32::from(a), 0xff),
            [a, b] => (u32::from(u16::from_le_bytes([a, b])), 0xffff),
            [a, b, c] => (u32::from_le_bytes([a, b, c, 0]), 0x00ff_ffff),
            [a, b, c, d] => (u32::from_le_bytes([a, b, c, d]), u32::MAX),
            _ => return None,
        };
        Some(Self { value, mask })
    }

    /// Up to four bytes that start at `lane` 0 to 3.
    #[inline]
    fn new(lane: u64, bytes: &[u8]) -> Self {
        let Self { value, mask } = Self::from_first(bytes).unwrap_or(Self { value: 0, mask: 0 });
        let shift = match lane {
            0 => 0,
            1 => 8,
            2 => 16,
            _ => 24,
        };
        Self {
            value: value << shift,
            mask: mask << shift,
        }
    }

    /// An access that stays within one dword, with the offset of that dword.
    #[inline]
    pub(crate) fn within_dword(offset: u64, bytes: &[u8]) -> Option<(u64, Self)> {
        let lane = offset & 3;
        if lane == 0 {
            // Where drivers write: nothing to shift.
            return Some((offset, Self::from_first(bytes)?));
        }
        let fits = match bytes.len() {
            1 => true,
            2 => lane < 3,
            3 => lane < 2,
            _ => false,
        };
        fits.then(|| (offset & !3, Self::new(lane, bytes)))
    }

    /// `old` with the driven lanes replaced.
    const fn merge(self, old: u32) -> u32 {
        (old & !self.mask) | self.value
    }

    /// Bits driven and set.
    const fn set(self) -> u32 {
        self.value
    }

    /// Whether any lane of `bits` is driven.
    const fn drives(self, bits: u32) -> bool {
        self.mask & bits != 0
    }
}

/// Splits a write into its data phases: `(offset of the dword, lanes)`, below `end`.
pub(crate) struct DataPhases<'a> {
    offset: u64,
    end: u64,
    data: &'a [u8],
}

impl<'a> DataPhases<'a> {
    pub(crate) const fn new(offset: u64, data: &'a [u8], end: u64) -> Self {
        Self { offset, end, data }
    }
}

impl Iterator for DataPhases<'_> {
    type Item = (u64, Lanes);

    fn next(&mut self) -> Option<Self::Item> {
        if self.data.is_empty() || self.offset >= self.end {
            return None;
        }
        let lane = self.offset & 3;
        let room = match lane {
            0 => 4,
            1 => 3,
            2 => 2,
            _ => 1,
        };
        let (phase, rest) = self.data.split_at_checked(room).unwrap_or((self.data, &[]));
        let dword = self.offset & !3;
        self.offset = dword.saturating_add(4);
        self.data = rest;
        Some((dword, Lanes::new(lane, phase)))
    }
}

/// Fills `data` from the dwords that `read` gives for the offsets in `window`; other bytes are left alone.
pub(crate) fn read_lanes(
    offset: u64,
    data: &mut [u8],
    window: core::ops::Range<u64>,
    read: impl Fn(u64) -> u32,
) {
    for (at, byte) in (offset..=u64::MAX).zip(data) {
        if at >= window.end {
            return;
        }
        if at >= window.start {
            let [a, b, c, d] = read(at & !3).to_le_bytes();
            *byte = match at & 3 {
                0 => a,
                1 => b,
                2 => c,
                _ => d,
            };
        }
    }
}

/// How far the unlock sequence has come. Reads never move it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum UnlockPhase {
    /// Protected registers ignore writes.
    #[default]
    Locked,
    /// The first key has been written.
    FirstKey,
    /// Both keys have been written: the next protected write counts, and ends this phase.
    Unlocked,
}

/// What a BAR 0 write asks beyond what the registers keep to themselves.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Taken.
    Stored,
    /// A preload, which the next load of the counter takes.
    Programmed,
    /// The interrupt may have been acknowledged.
    Acknowledged,
    /// A ping.
    Ping,
    /// A protected register written without its unlock sequence.
    Ignored,
}

/// What a write to `CONFIG_LOCK` did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum LockWritten {
    /// Lock, enable and mode are now as written; `was_enabled` tells the edge.
    Stored { was_enabled: bool },
    /// The register is locked.
    Ignored,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) preload1: u32,
    pub(crate) preload2: u32,
    pub(crate) config: u16,
    pub(crate) lock: u8,
    pub(crate) unlock: UnlockPhase,
    pub(crate) interrupt_active: bool,
    pub(crate) timed_out: bool,
}

impl Registers {
    pub(crate) const fn power_on() -> Self {
        Self {
            preload1: spec::PRELOAD_RESET,
            preload2: spec::PRELOAD_RESET,
            config: 0,
            lock: 0,
            unlock: UnlockPhase::Locked,
            interrupt_active: false,
            timed_out: false,
        }
    }

    /// Platform reset: everything but the timed-out flag, which the guest must find at its next boot.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            timed_out: self.timed_out,
            ..Self::power_on()
        };
    }

    pub(crate) const fn enabled(&self) -> bool {
        self.lock & spec::ENABLE != 0
    }

    pub(crate) const fn locked(&self) -> bool {
        self.lock & spec::LOCK != 0
    }

    pub(crate) const fn output_enabled(&self) -> bool {
        self.config & spec::OUTPUT_DISABLE == 0
    }

    /// The level of the interrupt pin: pending, and routed to it.
    pub(crate) const fn interrupt_level(&self) -> bool {
        self.interrupt_active && self.config & spec::INT_TYPE_MASK == 0
    }

    pub(crate) const fn mode(&self) -> Mode {
        if self.lock & spec::FREE_RUN == 0 {
            Mode::Watchdog
        } else {
            Mode::FreeRunning
        }
    }

    pub(crate) fn program(&self) -> Program {
        Program::new(self.mode(), self.preload1, self.preload2, self.fast())
    }

    pub(crate) const fn fast(&self) -> bool {
        self.config & spec::PRE_SEL != 0
    }

    /// One dword of BAR 0. Key bytes read 0.
    pub(crate) const fn mmio_read(&self, dword: u64) -> u32 {
        match dword {
            spec::PRELOAD1 => self.preload1,
            spec::PRELOAD2 => self.preload2,
            spec::GINTSR if self.interrupt_active => spec::INT_ACTIVE,
            spec::RELOAD if self.timed_out => spec::RELOAD_TIMEOUT,
            _ => 0,
        }
    }

    /// One data phase of a write to BAR 0.
    #[inline]
    pub(crate) const fn mmio_write(&mut self, dword: u64, lanes: Lanes) -> Written {
        match dword {
            spec::GINTSR => {
                // An acknowledge needs no unlock and leaves the sequence alone, so an interrupt handler cannot spoil a ping.
                if lanes.set() & spec::INT_ACTIVE != 0 {
                    self.interrupt_active = false;
                }
                Written::Acknowledged
            }
            _ if self.unlock_step(dword, lanes) => Written::Stored,
            _ => self.protected_write(dword, lanes),
        }
    }

    /// A key of the unlock sequence, where it is the next one; else nothing is done, and false.
    #[inline]
    pub(crate) const fn unlock_step(&mut self, dword: u64, lanes: Lanes) -> bool {
        if dword != spec::RELOAD {
            return false;
        }
        if lanes.set() == spec::UNLOCK_KEY1 {
            self.unlock = UnlockPhase::FirstKey;
            return true;
        }
        let next = lanes.set() == spec::UNLOCK_KEY2 && matches!(self.unlock, UnlockPhase::FirstKey);
        if next {
            self.unlock = UnlockPhase::Unlocked;
        }
        next
    }

    /// Any other write takes the unlock with it, or restarts the sequence if it was not complete.
    const fn protected_write(&mut self, dword: u64, lanes: Lanes) -> Written {
        let unlocked = matches!(self.unlock, UnlockPhase::Unlocked);
        self.unlock = UnlockPhase::Locked;
        if !unlocked {
            return Written::Ignored;
        }
        match dword {
            spec::PRELOAD1 => {
                self.preload1 = lanes.merge(self.preload1) & spec::PRELOAD_MASK;
                return Written::Programmed;
            }
            spec::PRELOAD2 => {
                self.preload2 = lanes.merge(self.preload2) & spec::PRELOAD_MASK;
                return Written::Programmed;
            }
            spec::RELOAD => {
                if lanes.set() & (spec::RELOAD_TIMEOUT | spec::RELOAD_TIMEOUT_LINUX_2_6) != 0 {
                    self.timed_out = false;
                }
                if lanes.set() & spec::RELOAD_PING != 0 {
                    return Written::Ping;
                }
            }
            _ => {}
        }
        Written::Stored
    }

    /// One data phase of a write to `CONFIG_WDT`; the lock does not cover it.
    pub(crate) fn config_write(&mut self, lanes: Lanes) {
        let [a, b, ..] = lanes.merge(u32::from(self.config)).to_le_bytes();
        self.config = u16::from_le_bytes([a, b]) & spec::CONFIG_WDT_WRITABLE;
    }

    /// One data phase of a write to `CONFIG_LOCK`.
    pub(crate) const fn lock_write(&mut self, lanes: Lanes) -> LockWritten {
        let was_enabled = self.enabled();
        if !lanes.drives(0xff) {
            return LockWritten::Stored { was_enabled };
        }
        if self.locked() {
            return LockWritten::Ignored;
        }
        let [value, ..] = lanes.value.to_le_bytes();
        self.lock = value & spec::CONFIG_LOCK_WRITABLE;
        LockWritten::Stored { was_enabled }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{DataPhases, Lanes, LockWritten, Registers, UnlockPhase, Written, read_lanes};
    use crate::spec;

    fn write(registers: &mut Registers, offset: u64, bytes: &[u8]) -> Vec<Written> {
        DataPhases::new(offset, bytes, spec::BAR_SIZE)
            .map(|(dword, lanes)| registers.mmio_write(dword, lanes))
            .collect()
    }

    fn unlock(registers: &mut Registers) {
        write(registers, spec::RELOAD, &[0x80]);
        write(registers, spec::RELOAD, &[0x86]);
        assert_eq!(registers.unlock, UnlockPhase::Unlocked);
    }

    #[test]
    fn accesses_split_into_data_phases() {
        let phases: Vec<_> = DataPhases::new(2, &[1, 2, 3, 4, 5, 6, 7, 8], 16).collect();
        assert_eq!(
            phases,
            [
                (
                    0,
                    Lanes {
                        value: 0x0201_0000,
                        mask: 0xffff_0000
                    }
                ),
                (
                    4,
                    Lanes {
                        value: 0x0605_0403,
                        mask: 0xffff_ffff
                    }
                ),
                (
                    8,
                    Lanes {
                        value: 0x0000_0807,
                        mask: 0x0000_ffff
                    }
                ),
            ]
        );
        assert_eq!(
            DataPhases::new(15, &[9, 9, 9], 16).collect::<Vec<_>>(),
            [(
                12,
                Lanes {
                    value: 0x0900_0000,
                    mask: 0xff00_0000
                }
            )]
        );
        assert_eq!(DataPhases::new(16, &[1], 16).count(), 0);
        assert_eq!(DataPhases::new(u64::MAX, &[1, 2], u64::MAX).count(), 0);
    }

    #[test]
    fn the_short_way_is_the_one_data_phase_there_is() {
        let bytes = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
        for offset in 0..16 {
            for size in 0..=8 {
                let mut phases = DataPhases::new(offset, &bytes[..size], u64::MAX);
                let only = phases.next().filter(|_| phases.next().is_none());
                let short = Lanes::within_dword(offset, &bytes[..size]);
                assert_eq!(short, only, "{size} bytes at {offset:#x}");
            }
        }
    }

    #[test]
    fn reads_by_lane_leave_bytes_outside_the_window_alone() {
        let mut data = [0xaa; 8];
        read_lanes(0x5e, &mut data, 0x60..0x64, |_| 0x0403_0201);
        assert_eq!(data, [0xaa, 0xaa, 1, 2, 3, 4, 0xaa, 0xaa]);
        let mut far = [0xaa; 4];
        read_lanes(u64::MAX - 1, &mut far, 0..16, |_| 0);
        assert_eq!(far, [0xaa; 4]);
    }

    #[test]
    fn unlock_takes_keys_of_every_width() {
        for width in 1..=4_usize {
            let mut registers = Registers::power_on();
            write(&mut registers, spec::RELOAD, &[0x80, 0, 0, 0][..width]);
            assert_eq!(registers.unlock, UnlockPhase::FirstKey, "width {width}");
            write(&mut registers, spec::RELOAD, &[0x86, 0, 0, 0][..width]);
            assert_eq!(registers.unlock, UnlockPhase::Unlocked, "width {width}");
        }
    }

    #[test]
    fn a_key_with_other_bits_is_no_key() {
        let mut registers = Registers::power_on();
        assert_eq!(
            write(&mut registers, spec::RELOAD, &[0x80, 0x01]),
            [Written::Ignored]
        );
        assert_eq!(registers.unlock, UnlockPhase::Locked);
    }

    #[test]
    fn any_other_write_restarts_the_sequence() {
        for (offset, bytes) in [
            (spec::RELOAD, 0x00),
            (spec::RELOAD, 0x86),
            (spec::PRELOAD1, 1),
            (spec::PRELOAD2, 1),
            (0x0d, 1),
            (0x0e, 0),
        ] {
            let mut registers = Registers::power_on();
            if bytes != 0x86 {
                write(&mut registers, spec::RELOAD, &[0x80]);
            }
            assert_eq!(write(&mut registers, offset, &[bytes]), [Written::Ignored]);
            write(&mut registers, spec::RELOAD, &[0x86]);
            assert_eq!(registers.unlock, UnlockPhase::Locked, "{offset:#x}");
        }
    }

    #[test]
    fn an_acknowledge_leaves_the_sequence_alone() {
        let mut registers = Registers {
            interrupt_active: true,
            ..Registers::power_on()
        };
        write(&mut registers, spec::RELOAD, &[0x80]);
        write(&mut registers, spec::GINTSR, &[0]);
        assert!(registers.interrupt_active, "writing 0 clears nothing");
        write(&mut registers, spec::GINTSR, &[1]);
        assert!(!registers.interrupt_active);
        write(&mut registers, spec::RELOAD, &[0x86]);
        assert_eq!(registers.unlock, UnlockPhase::Unlocked);
    }

    #[test]
    fn each_protected_write_needs_its_own_unlock() {
        let mut registers = Registers::power_on();
        unlock(&mut registers);
        assert_eq!(
            write(&mut registers, spec::PRELOAD1, &[1, 2, 0xf3, 0xff]),
            [Written::Programmed]
        );
        assert_eq!(registers.preload1, 0x3_0201, "bits 31:20 do not exist");
        assert_eq!(
            write(&mut registers, spec::PRELOAD2, &[1, 0, 0, 0]),
            [Written::Ignored]
        );
        assert_eq!(registers.preload2, spec::PRELOAD_RESET);
    }

    #[test]
    fn an_eight_byte_write_spends_the_unlock_on_its_first_phase() {
        let mut registers = Registers::power_on();
        unlock(&mut registers);
        assert_eq!(
            write(&mut registers, spec::PRELOAD1, &[1, 0, 0, 0, 2, 0, 0, 0]),
            [Written::Programmed, Written::Ignored]
        );
        assert_eq!(
            (registers.preload1, registers.preload2),
            (1, spec::PRELOAD_RESET)
        );
    }

    #[test]
    fn a_preload_takes_single_lanes() {
        let mut registers = Registers::power_on();
        unlock(&mut registers);
        write(&mut registers, spec::PRELOAD2 + 1, &[0x12]);
        assert_eq!(registers.preload2, 0xf_12ff);
    }

    #[test]
    fn ping_and_clear_by_every_lane_that_carries_them() {
        for (offset, bytes, ping, clears) in [
            (0x0c, &[0x00, 0x01][..], true, false),
            (0x0c, &[0x00, 0x02, 0, 0], false, true),
            (0x0c, &[0x00, 0x03, 0, 0], true, true),
            (0x0c, &[0x00, 0x11], true, true),
            (0x0d, &[0x01], true, false),
            (0x0d, &[0x02], false, true),
            (0x0c, &[0xff], false, false),
            (0x0e, &[0xff, 0xff], false, false),
        ] {
            let mut registers = Registers {
                timed_out: true,
                ..Registers::power_on()
            };
            unlock(&mut registers);
            let expected = if ping { Written::Ping } else { Written::Stored };
            assert_eq!(
                write(&mut registers, offset, bytes),
                [expected],
                "{bytes:x?} at {offset:#x}"
            );
            assert_eq!(registers.timed_out, !clears, "{bytes:x?} at {offset:#x}");
            assert_eq!(registers.unlock, UnlockPhase::Locked);
        }
    }

    #[test]
    fn config_keeps_only_bits_that_exist() {
        let mut registers = Registers::power_on();
        registers.config_write(Lanes {
            value: u32::MAX,
            mask: u32::MAX,
        });
        assert_eq!(registers.config, 0x27);
        registers.config_write(Lanes {
            value: 0,
            mask: 0xff00,
        });
        assert_eq!(registers.config, 0x27, "the high lane holds no bits");
    }

    #[test]
    fn lock_ignores_lanes_beside_it_and_writes_once_locked() {
        let mut registers = Registers::power_on();
        assert_eq!(
            registers.lock_write(Lanes {
                value: 0x0300,
                mask: 0xff00
            }),
            LockWritten::Stored { was_enabled: false }
        );
        assert_eq!(registers.lock, 0);
        assert_eq!(
            registers.lock_write(Lanes {
                value: 0xfb,
                mask: 0xff
            }),
            LockWritten::Stored { was_enabled: false }
        );
        assert_eq!(registers.lock, spec::LOCK | spec::ENABLE);
        assert_eq!(
            registers.lock_write(Lanes {
                value: 0,
                mask: 0xff
            }),
            LockWritten::Ignored
        );
        assert_eq!(registers.lock, spec::LOCK | spec::ENABLE);
    }

    #[test]
    fn reset_keeps_the_timed_out_flag_alone() {
        let mut registers = Registers {
            preload1: 1,
            preload2: 2,
            config: 0x27,
            lock: 7,
            unlock: UnlockPhase::Unlocked,
            interrupt_active: true,
            timed_out: true,
        };
        registers.reset();
        assert_eq!(
            registers,
            Registers {
                timed_out: true,
                ..Registers::power_on()
            }
        );
    }
}
