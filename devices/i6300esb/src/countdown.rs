// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The down-counter: clocks to nanoseconds without rounding away, rounds of one or two stages.

use core::num::{NonZeroU32, NonZeroU64};

use crate::spec;
use crate::time::VmInstant;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// The clock that the prescaler divides, as an exact ratio.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ClockRate {
    /// One clock takes `numerator / denominator` nanoseconds, in lowest terms.
    numerator: u32,
    denominator: NonZeroU32,
}

impl ClockRate {
    /// 30 ns a clock, 33.33 MHz (QEMU behaviour; EFI Boot Guard computes with it). The default.
    pub const NS_30: Self = Self {
        numerator: 30,
        denominator: NonZeroU32::MIN,
    };

    /// 33 MHz exactly (datasheet: the PCI clock).
    pub const MHZ_33: Self = match NonZeroU32::new(33) {
        Some(denominator) => Self {
            numerator: 1_000,
            denominator,
        },
        None => Self::NS_30,
    };

    /// A clock of `hertz`, kept as an exact ratio.
    #[must_use]
    pub const fn from_hz(hertz: NonZeroU32) -> Self {
        let divisor = gcd(NANOS_PER_SECOND, hertz.get());
        let numerator = match NANOS_PER_SECOND.checked_div(divisor) {
            Some(numerator) => numerator,
            None => NANOS_PER_SECOND,
        };
        let denominator = match hertz.get().checked_div(divisor) {
            Some(denominator) => NonZeroU32::new(denominator),
            None => None,
        };
        match denominator {
            Some(denominator) => Self {
                numerator,
                denominator,
            },
            None => Self {
                numerator: NANOS_PER_SECOND,
                denominator: hertz,
            },
        }
    }

    /// Nanoseconds that `clocks` take, rounded up. Saturates at `u64::MAX`.
    #[must_use]
    pub fn nanos(self, clocks: u64) -> u64 {
        self.expiry_after(Expiry::exactly(VmInstant::ZERO), clocks)
            .at
            .as_nanos()
    }

    /// The instant `clocks` after `start`, exact to a fraction of a nanosecond. Saturates at [`VmInstant::MAX`].
    #[inline]
    pub(crate) fn expiry_after(self, start: Expiry, clocks: u64) -> Expiry {
        self.expiry_in_64_bits(start, clocks)
            .unwrap_or_else(|| self.expiry_in_128_bits(start, clocks))
    }

    /// `None` where a number does not fit, or the end lies before `start.at`.
    #[inline]
    fn expiry_in_64_bits(self, start: Expiry, clocks: u64) -> Option<Expiry> {
        let denominator = NonZeroU64::from(self.denominator);
        let parts = clocks
            .checked_mul(u64::from(self.numerator))?
            .checked_sub(u64::from(start.ahead))?;
        // Whole nanoseconds a clock are usual, and a division is slow.
        let (whole, rest) = match denominator {
            NonZeroU64::MIN => (parts, 0),
            denominator => (parts / denominator, parts % denominator),
        };
        let (whole, ahead) = match denominator.get().checked_sub(rest) {
            Some(ahead) if rest > 0 => (whole.saturating_add(1), ahead),
            _ => (whole, 0),
        };
        Some(Expiry {
            at: start.at.saturating_add(whole),
            ahead: u32::try_from(ahead).unwrap_or(0),
        })
    }

    #[cold]
    #[inline(never)]
    fn expiry_in_128_bits(self, start: Expiry, clocks: u64) -> Expiry {
        let denominator = u128::from(self.denominator.get());
        let scaled = u128::from(clocks).saturating_mul(u128::from(self.numerator));
        let Some(parts) = scaled.checked_sub(u128::from(start.ahead)) else {
            let ahead = u128::from(start.ahead).saturating_sub(scaled);
            return Expiry {
                at: start.at,
                ahead: u32::try_from(ahead).unwrap_or(0),
            };
        };
        let whole = parts.div_ceil(denominator);
        let ahead = whole.saturating_mul(denominator).saturating_sub(parts);
        Expiry {
            at: start
                .at
                .saturating_add(u64::try_from(whole).unwrap_or(u64::MAX)),
            ahead: u32::try_from(ahead).unwrap_or(0),
        }
    }

    /// How many whole periods of `period` clocks fit between `start` and `now`; by arithmetic, however many there are.
    #[inline]
    pub(crate) fn whole_periods(self, start: Expiry, now: VmInstant, period: u64) -> u64 {
        self.periods_in_64_bits(start, now, period)
            .unwrap_or_else(|| self.periods_in_128_bits(start, now, period))
    }

    /// `None` where a number does not fit.
    #[inline]
    fn periods_in_64_bits(self, start: Expiry, now: VmInstant, period: u64) -> Option<u64> {
        let elapsed = now
            .nanos_since(start.at)
            .checked_mul(u64::from(self.denominator.get()))?
            .checked_add(u64::from(start.ahead))?;
        let period = period.checked_mul(u64::from(self.numerator))?;
        // On time there is none.
        if elapsed < period {
            return Some(0);
        }
        elapsed.checked_div(period)
    }

    #[cold]
    #[inline(never)]
    fn periods_in_128_bits(self, start: Expiry, now: VmInstant, period: u64) -> u64 {
        let denominator = u128::from(self.denominator.get());
        let elapsed = u128::from(now.nanos_since(start.at))
            .saturating_mul(denominator)
            .saturating_add(u128::from(start.ahead));
        let period = u128::from(period).saturating_mul(u128::from(self.numerator));
        u64::try_from(elapsed.checked_div(period).unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// Clocks from `now` to `expiry`, rounded up.
    pub(crate) fn clocks_until(self, expiry: Expiry, now: VmInstant) -> u64 {
        let nanos = u128::from(expiry.at.nanos_since(now));
        let parts = nanos
            .saturating_mul(u128::from(self.denominator.get()))
            .saturating_sub(u128::from(expiry.ahead));
        let clocks = parts.div_ceil(u128::from(self.numerator.max(1)));
        u64::try_from(clocks).unwrap_or(u64::MAX)
    }

    /// Nanoseconds a clock, as numerator and denominator in lowest terms.
    #[must_use]
    pub const fn as_ratio(self) -> (u32, u32) {
        (self.numerator, self.denominator.get())
    }

    /// Parts of a nanosecond that [`Expiry::ahead`] counts in.
    pub(crate) const fn parts_per_nano(self) -> u32 {
        self.denominator.get()
    }
}

impl Default for ClockRate {
    fn default() -> Self {
        Self::NS_30
    }
}

const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while let Some(rest) = a.checked_rem(b) {
        a = b;
        b = rest;
    }
    a
}

/// The exact instant a stage ends: `at`, less a fraction of a nanosecond. Firing at `at` is therefore never early,
/// and the next stage starts from the exact instant, so rounding never adds up.
///
/// Packed, as each watchdog keeps two of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub(crate) struct Expiry {
    /// The first whole nanosecond at or after the end.
    pub(crate) at: VmInstant,
    /// How far the end lies before `at`, in parts of a nanosecond: below [`ClockRate::parts_per_nano`].
    pub(crate) ahead: u32,
}

impl Expiry {
    pub(crate) const fn exactly(at: VmInstant) -> Self {
        Self { at, ahead: 0 }
    }

    /// Whether it has come by `now`. The last instant there is stands for never.
    pub(crate) fn is_over(self, now: VmInstant) -> bool {
        let at = self.at;
        at <= now && at != VmInstant::MAX
    }

    /// As long after `now` as this is after instant 0.
    #[inline]
    pub(crate) const fn counted_from(self, now: VmInstant) -> Self {
        Self {
            at: now.saturating_add(self.at.as_nanos()),
            ahead: self.ahead,
        }
    }
}

/// Which stage the counter is in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Stage {
    /// Counting down preload 1; its end raises the interrupt.
    First,
    /// Counting down preload 2; its end bites. Free-running mode has only this one.
    Second,
}

/// What `CONFIG_LOCK` bit 2 selects.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mode {
    /// Two stages, then a bite.
    Watchdog,
    /// One stage, reloaded for ever; each end toggles the output.
    FreeRunning,
}

/// What the registers ask of the next load of the counter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) mode: Mode,
    /// Length of the first stage, in clocks; never 0.
    pub(crate) first: u64,
    /// Length of the second stage, in clocks; never 0.
    pub(crate) second: u64,
}

impl Program {
    /// `preload1` and `preload2` in ticks of `2^shift` clocks. 0 counts as one tick, so no program takes no time.
    pub(crate) fn new(mode: Mode, preload1: u32, preload2: u32, fast: bool) -> Self {
        let shift = if fast {
            spec::DIVIDER_SHIFT_1MHZ
        } else {
            spec::DIVIDER_SHIFT_1KHZ
        };
        let clocks = |preload: u32| u64::from((preload & spec::PRELOAD_MASK).max(1)) << shift;
        Self {
            mode,
            first: clocks(preload1),
            second: clocks(preload2),
        }
    }

    /// The stage that a round begins with, and its length in clocks.
    const fn load(&self) -> (Stage, u64) {
        match self.mode {
            Mode::Watchdog => (Stage::First, self.first),
            Mode::FreeRunning => (Stage::Second, self.second),
        }
    }

    /// When the first load of a round that starts at `start` runs out.
    pub(crate) fn expiry_after(&self, start: Expiry, rate: ClockRate) -> Expiry {
        let (_, clocks) = self.load();
        rate.expiry_after(start, clocks)
    }

    /// Clocks from the start of a round to its end.
    pub(crate) const fn round(&self) -> u64 {
        match self.mode {
            Mode::Watchdog => self.first.saturating_add(self.second),
            Mode::FreeRunning => self.second,
        }
    }
}

/// What a round goes back to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A ping or enable.
    Loaded,
    /// A ping or enable, and a stall since that has been forgiven: the next one is not.
    Forgiven,
    /// The end of the round before, with no ping or enable since.
    Repeated,
}

/// One round of the running counter: from a load by ping, enable or start-over to the end of its last stage.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Taken from the registers when the round began.
    pub(crate) mode: Mode,
    pub(crate) stage: Stage,
    pub(crate) expiry: Expiry,
    /// Clocks loaded so far in this round.
    pub(crate) clocks: u64,
    pub(crate) origin: Origin,
    /// Free-running mode: the output is in its active half.
    pub(crate) output_active: bool,
}

impl Round {
    pub(crate) fn start(program: &Program, start: Expiry, rate: ClockRate) -> Self {
        Self::until(program, program.expiry_after(start, rate))
    }

    /// A round whose first load runs out at `expiry`.
    #[inline]
    pub(crate) const fn until(program: &Program, expiry: Expiry) -> Self {
        let (stage, clocks) = program.load();
        Self {
            mode: program.mode,
            stage,
            expiry,
            clocks,
            origin: Origin::Loaded,
            output_active: false,
        }
    }

    /// Whether there was a ping or enable since the last round ended.
    pub(crate) const fn is_fresh(&self) -> bool {
        !matches!(self.origin, Origin::Repeated)
    }

    /// The second stage of this round; it starts at the exact instant the first one ended.
    pub(crate) fn into_second_stage(self, program: &Program, rate: ClockRate) -> Self {
        Self {
            stage: Stage::Second,
            expiry: rate.expiry_after(self.expiry, program.second),
            clocks: self.clocks.saturating_add(program.second),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClockRate, Expiry, Mode, Program, Round, Stage};
    use crate::time::VmInstant;
    use core::num::NonZeroU32;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn linux_default_heartbeat_is_two_stages_of_15_s() {
        let program = Program::new(Mode::Watchdog, 0x3c00, 0x3c00, false);
        assert_eq!(ClockRate::NS_30.nanos(program.first), 15_099_494_400);
        assert_eq!(
            ClockRate::MHZ_33.nanos(program.first),
            15_252_014_546,
            "15.252014545.. rounded up"
        );
    }

    #[test]
    fn preload_0_counts_as_one_tick() {
        let program = Program::new(Mode::Watchdog, 0, 0, true);
        assert_eq!((program.first, program.second), (32, 32));
    }

    #[test]
    fn stages_do_not_accumulate_rounding() {
        let rate = ClockRate::MHZ_33;
        let mut expiry = Expiry::exactly(VmInstant::ZERO);
        for _ in 0..33_000 {
            expiry = rate.expiry_after(expiry, 32);
        }
        assert_eq!(expiry, Expiry::exactly(VmInstant::from_nanos(32_000_000)));
    }

    #[test]
    fn an_expiry_is_never_rounded_down() {
        let rate = ClockRate::MHZ_33;
        for clocks in 1..10_000_u64 {
            let expiry = rate.expiry_after(Expiry::exactly(VmInstant::ZERO), clocks);
            let parts = u128::from(expiry.at.as_nanos()) * 33 - u128::from(expiry.ahead);
            assert_eq!(parts, u128::from(clocks) * 1000);
            assert!(expiry.ahead < 33);
        }
    }

    #[test]
    fn products_beyond_64_bits_saturate() {
        let slow = NonZeroU32::new(7).map(ClockRate::from_hz).expect("not 0");
        assert_eq!(slow.nanos(7 << 31), 1_000_000_000 << 31);
        assert_eq!(slow.nanos(7 << 34), 17_179_869_184_000_000_000);
        assert_eq!(slow.nanos(7 << 35), u64::MAX);
        assert_eq!(ClockRate::MHZ_33.nanos(u64::MAX), u64::MAX);
    }

    #[test]
    fn no_clocks_lose_no_fraction() {
        let start = Expiry {
            at: VmInstant::from_nanos(7),
            ahead: 5,
        };
        assert_eq!(ClockRate::MHZ_33.expiry_after(start, 0), start);
    }

    /// Numbers about that at which a product with `factor` leaves 64 bits, and about it the small and the largest.
    fn edges(factor: u32) -> impl Iterator<Item = u64> {
        let last = u64::MAX / u64::from(factor);
        let about = (0..4).flat_map(move |off| [last - off, last.saturating_add(off)]);
        about.chain([0, 1, 2, 31, 1 << 35, u64::MAX - 1, u64::MAX])
    }

    fn rates() -> Vec<ClockRate> {
        let odd = [
            1,
            2,
            3,
            7,
            999_999_937,
            1_000_000_000,
            4_294_967_291,
            u32::MAX,
        ];
        let odd = odd.map(|hertz| ClockRate::from_hz(NonZeroU32::new(hertz).expect("not 0")));
        [ClockRate::NS_30, ClockRate::MHZ_33]
            .into_iter()
            .chain(odd)
            .collect()
    }

    fn starts(rate: ClockRate) -> impl Iterator<Item = Expiry> {
        let ahead = [0, 1, rate.parts_per_nano() / 2, rate.parts_per_nano() - 1];
        let instants = [0, 5, 1 << 40, u64::MAX - 7, u64::MAX];
        instants.into_iter().flat_map(move |at| {
            let at = VmInstant::from_nanos(at);
            ahead.map(|ahead| Expiry {
                at,
                ahead: ahead.min(rate.parts_per_nano() - 1),
            })
        })
    }

    #[test]
    fn an_expiry_is_the_same_in_64_bits_and_taken_there_if_it_fits() {
        for rate in rates() {
            for (start, clocks) in starts(rate)
                .flat_map(|start| edges(rate.numerator).map(move |clocks| (start, clocks)))
            {
                let product = u128::from(clocks) * u128::from(rate.numerator);
                let fits = product <= u128::from(u64::MAX) && product >= u128::from(start.ahead);
                let expiry = rate.expiry_in_128_bits(start, clocks);
                assert_eq!(
                    rate.expiry_in_64_bits(start, clocks),
                    fits.then_some(expiry),
                    "{rate:?} {start:?} {clocks}"
                );
                assert_eq!(rate.expiry_after(start, clocks), expiry);
            }
        }
    }

    #[test]
    fn periods_are_the_same_in_64_bits_and_counted_there_if_they_fit() {
        for rate in rates() {
            let denominator = rate.parts_per_nano();
            for (start, elapsed) in
                starts(rate).flat_map(|start| edges(denominator).map(move |nanos| (start, nanos)))
            {
                let now = start.at.saturating_add(elapsed);
                let parts = u128::from(now.nanos_since(start.at)) * u128::from(denominator)
                    + u128::from(start.ahead);
                for period in edges(rate.numerator).filter(|period| *period > 0) {
                    let divisor = u128::from(period) * u128::from(rate.numerator);
                    let fits = parts.max(divisor) <= u128::from(u64::MAX);
                    let periods = rate.periods_in_128_bits(start, now, period);
                    assert_eq!(
                        rate.periods_in_64_bits(start, now, period),
                        fits.then_some(periods),
                        "{rate:?} {start:?} {now:?} {period}"
                    );
                    assert_eq!(rate.whole_periods(start, now, period), periods);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_clock_counts_the_same_in_64_bits_and_in_128(
            numerator in 1..=u32::MAX, denominator in 1..=u32::MAX, ahead: u32, at: u64,
            clocks: u64, shift in 0..64_u32, elapsed: u64,
        ) {
            let denominator = NonZeroU32::new(denominator).expect("not 0");
            let rate = ClockRate { numerator, denominator };
            let start = Expiry { at: VmInstant::from_nanos(at >> shift), ahead: ahead % denominator };
            let clocks = clocks >> shift;
            let expiry = rate.expiry_in_128_bits(start, clocks);
            prop_assert_eq!(rate.expiry_in_64_bits(start, clocks).unwrap_or(expiry), expiry);
            let now = start.at.saturating_add(elapsed >> shift);
            let periods = rate.periods_in_128_bits(start, now, clocks);
            prop_assert_eq!(rate.periods_in_64_bits(start, now, clocks).unwrap_or(periods), periods);
        }
    }

    #[test]
    fn whole_periods_are_exact_at_the_edge() {
        let rate = ClockRate::MHZ_33;
        let start = Expiry::exactly(VmInstant::ZERO);
        // 33 clocks are 1000 ns.
        assert_eq!(rate.whole_periods(start, VmInstant::from_nanos(999), 33), 0);
        assert_eq!(
            rate.whole_periods(start, VmInstant::from_nanos(1_000), 33),
            1
        );
        assert_eq!(
            rate.whole_periods(start, VmInstant::MAX, 33),
            u64::MAX / 1000
        );
    }

    #[test]
    fn rates_reduce() {
        let hertz = |hz| NonZeroU32::new(hz).map(ClockRate::from_hz);
        assert_eq!(hertz(33_000_000), Some(ClockRate::MHZ_33));
        assert_eq!(hertz(1_000_000_000).map(|rate| rate.nanos(17)), Some(17));
        assert_eq!(hertz(1).map(|rate| rate.nanos(3)), Some(3_000_000_000));
    }

    #[test]
    fn free_running_rounds_have_only_the_second_stage() {
        let program = Program::new(Mode::FreeRunning, 9, 5, true);
        let round = Round::start(&program, Expiry::exactly(VmInstant::ZERO), ClockRate::NS_30);
        assert_eq!((round.stage, round.clocks), (Stage::Second, 5 * 32));
        assert_eq!(program.round(), 5 * 32);
    }
}
