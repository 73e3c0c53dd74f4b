// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Time as the device sees it: an argument, in nanoseconds, chosen by the embedder.

/// An instant of VM time, in nanoseconds.
///
/// The embedder picks the origin and freezes the clock while the VM is paused. It must not run backwards; if it does,
/// nothing expires early and ages count as zero.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmInstant(u64);

impl VmInstant {
    /// The origin of VM time.
    pub const ZERO: Self = Self(0);
    /// The last instant there is, 584 years after the origin. A deadline here never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `nanos` later, or [`VmInstant::MAX`].
    #[must_use]
    pub const fn saturating_add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// `nanos` earlier, or [`VmInstant::ZERO`].
    #[must_use]
    pub const fn saturating_sub(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }

    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is the later one.
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the embedder must do with the device's one timer.
///
/// The timer is one-shot and absolute in VM time. [`timer_fired`](crate::I6300Esb::timer_fired) is called when it expires.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum TimerRequest {
    /// Leave it as it is. The answer to every ordinary ping, so a ping costs no system call.
    #[default]
    Keep,
    /// Stop it; nothing is due. Leaving it armed is harmless but wakes the host once for nothing.
    Disarm,
    /// Arm it, or move it, to this instant. An instant that has passed means "at once".
    ArmAt(VmInstant),
}

/// When something happened, for ages only. Survives a restore into a VM whose time is younger than the age, because it wraps.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past(u64);

impl Past {
    pub(crate) const fn at(now: VmInstant) -> Self {
        Self(now.0)
    }

    pub(crate) const fn with_age(age_ns: u64, now: VmInstant) -> Self {
        Self(now.0.wrapping_sub(age_ns))
    }

    /// Age in nanoseconds; 0 if the clock ran backwards.
    pub(crate) const fn age_ns(self, now: VmInstant) -> u64 {
        let age = now.0.wrapping_sub(self.0);
        if age > u64::MAX >> 1 { 0 } else { age }
    }
}

#[cfg(test)]
mod tests {
    use super::{Past, VmInstant};

    #[test]
    fn an_age_survives_a_younger_clock() {
        let young = VmInstant::from_nanos(5);
        let past = Past::with_age(1_000, young);
        assert_eq!(past.age_ns(young), 1_000);
        assert_eq!(past.age_ns(young.saturating_add(7)), 1_007);
    }

    #[test]
    fn a_clock_that_runs_backwards_ages_nothing() {
        assert_eq!(
            Past::at(VmInstant::from_nanos(10)).age_ns(VmInstant::from_nanos(9)),
            0
        );
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(VmInstant::MAX.saturating_add(1), VmInstant::MAX);
        assert_eq!(VmInstant::ZERO.saturating_sub(1), VmInstant::ZERO);
        assert_eq!(VmInstant::ZERO.nanos_since(VmInstant::MAX), 0);
        assert_eq!(
            VmInstant::from_nanos(9).nanos_since(VmInstant::from_nanos(4)),
            5
        );
    }
}
