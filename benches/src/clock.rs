// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's clocks and timers, as plain numbers of ns.

use std::os::fd::{AsFd, OwnedFd};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::Trouble;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// `CLOCK_REALTIME`.
pub(crate) fn realtime_ns() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

fn nanos(time: Timespec) -> u64 {
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec) * NANOS_PER_SECOND + part(time.tv_nsec)
}

/// What to add to an instant of `CLOCK_REALTIME` to have it on `CLOCK_MONOTONIC`, by the closest
/// of several pairs of readings.
pub(crate) fn realtime_to_monotonic() -> i64 {
    let signed = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
    let reading = || {
        let before = monotonic_ns();
        let realtime = realtime_ns();
        let after = monotonic_ns();
        (
            after - before,
            signed(before.midpoint(after)) - signed(realtime),
        )
    };
    let closest = (0..20).map(|_| reading()).min_by_key(|(apart, _)| *apart);
    closest.map_or(0, |(_, offset)| offset)
}

/// A timerfd on `CLOCK_MONOTONIC`, not armed.
pub(crate) fn timer() -> Result<OwnedFd, Trouble> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    timerfd_create(TimerfdClockId::Monotonic, flags)
        .map_err(|error| Trouble::new(format!("timerfd_create: {error}")))
}

/// Arms `timer` for an instant; zero disarms.
pub(crate) fn arm(timer: impl AsFd, at: u64) {
    let part = |part: u64| i64::try_from(part).unwrap_or(i64::MAX);
    let value = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: part(at / NANOS_PER_SECOND),
            tv_nsec: part(at % NANOS_PER_SECOND),
        },
    };
    let result = timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &value);
    debug_assert!(result.is_ok(), "only a wrong argument can fail: {result:?}");
}
