// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VM time: the host's monotonic clock with every pause cut out, and timers on it.
//!
//! The only place below the harness that reads a clock. Devices are handed a [`VmInstant`].

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use i6300esb::VmInstant;
use parking_lot::{Mutex, RwLock};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline]
fn host_now() -> u64 {
    to_nanos(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds since the Unix epoch, for people who read events.
pub fn realtime_ns() -> u64 {
    to_nanos(clock_gettime(ClockId::Realtime))
}

fn to_nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(NANOS_PER_SECOND)
        .saturating_add(nanos)
}

fn to_timespec(nanos: u64) -> Timespec {
    let seconds = nanos / NANOS_PER_SECOND;
    Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0),
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// VM time is host time less this many nanoseconds.
    Running { behind: u64 },
    /// VM time stands at this many nanoseconds.
    Frozen { at: u64 },
}

/// The machine's clock: starts frozen at 0, runs between [`VmClock::resume`] and [`VmClock::freeze`].
#[derive(Debug)]
pub struct VmClock {
    phase: RwLock<Phase>,
}

impl VmClock {
    /// A frozen clock at VM time 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: RwLock::new(Phase::Frozen { at: 0 }),
        }
    }

    /// VM time now.
    #[must_use]
    #[inline]
    pub fn now(&self) -> VmInstant {
        VmInstant::from_nanos(match *self.phase.read() {
            Phase::Running { behind } => host_now().saturating_sub(behind),
            Phase::Frozen { at } => at,
        })
    }

    /// Stops VM time; a second call changes nothing.
    pub fn freeze(&self) {
        let mut phase = self.phase.write();
        if let Phase::Running { behind } = *phase {
            *phase = Phase::Frozen {
                at: host_now().saturating_sub(behind),
            };
        }
    }

    /// Lets VM time go on from where it stood; a second call changes nothing.
    pub fn resume(&self) {
        let mut phase = self.phase.write();
        if let Phase::Frozen { at } = *phase {
            *phase = Phase::Running {
                behind: host_now().saturating_sub(at),
            };
        }
    }

    /// The host's monotonic nanosecond at which VM time will be `instant`; `None` while frozen.
    pub(crate) fn host_instant(&self, instant: VmInstant) -> Option<u64> {
        match *self.phase.read() {
            Phase::Running { behind } => Some(instant.as_nanos().saturating_add(behind)),
            Phase::Frozen { .. } => None,
        }
    }
}

impl Default for VmClock {
    fn default() -> Self {
        Self::new()
    }
}

/// One deadline in VM time on an absolute timerfd, which the kernel never fires early and, unlike
/// a poll timeout, never 0.1 % late.
///
/// While the clock is frozen the deadline is kept and the timerfd is not armed.
#[derive(Debug)]
pub struct VmTimer {
    clock: Arc<VmClock>,
    fd: OwnedFd,
    deadline: Mutex<Option<VmInstant>>,
}

impl VmTimer {
    /// A disarmed timer.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no timerfd.
    pub fn new(clock: Arc<VmClock>) -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            clock,
            fd,
            deadline: Mutex::new(None),
        })
    }

    /// Fires once VM time reaches `instant`, replacing the deadline before.
    pub fn arm(&self, instant: VmInstant) {
        self.set(Some(instant));
    }

    /// Fires once VM time reaches `instant`, or before: an earlier deadline stays.
    pub fn arm_by(&self, instant: VmInstant) {
        let mut deadline = self.deadline.lock();
        if deadline.is_none_or(|at| at > instant) {
            *deadline = Some(instant);
            self.program(*deadline);
        }
    }

    /// Forgets the deadline.
    pub fn disarm(&self) {
        self.set(None);
    }

    /// Arms or disarms; costs a system call only where something changes.
    pub(crate) fn set(&self, wanted: Option<VmInstant>) {
        let mut deadline = self.deadline.lock();
        if *deadline != wanted {
            *deadline = wanted;
            self.program(wanted);
        }
    }

    /// Follows the clock after it was frozen or resumed.
    pub fn follow_clock(&self) {
        let deadline = self.deadline.lock();
        self.program(*deadline);
    }

    /// Takes the expiry that made the timerfd readable; false when it was moved or disarmed since.
    pub fn take_expiry(&self) -> bool {
        // Locked first: a deadline set meanwhile must not be taken for the expired one.
        let mut deadline = self.deadline.lock();
        let mut count = [0u8; 8];
        let expired = rustix::io::read(&self.fd, &mut count).is_ok();
        if expired {
            *deadline = None;
        }
        expired
    }

    fn program(&self, deadline: Option<VmInstant>) {
        // A zero value disarms, so the first representable instant is 1 ns.
        let host = deadline
            .and_then(|at| self.clock.host_instant(at))
            .map_or(0, |at| at.max(1));
        let value = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: to_timespec(host),
        };
        if let Err(error) = timerfd_settime(self.fd.as_fd(), TimerfdTimerFlags::ABSTIME, &value) {
            // Only a wrong argument can fail here, and to_timespec makes none.
            log::error!("timerfd_settime at {host} ns: {error}");
        }
    }
}

impl AsRawFd for VmTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn readable(timer: &VmTimer, bound: Timespec) -> bool {
        let mut fds = [PollFd::new(&timer.fd, PollFlags::IN)];
        poll(&mut fds, Some(&bound)).expect("poll") == 1
    }

    const LONG: Timespec = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    const NOW: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };

    #[test]
    fn starts_frozen_at_zero_and_stands_still_while_frozen() {
        let clock = VmClock::new();
        assert_eq!(clock.now(), VmInstant::from_nanos(0));
        clock.resume();
        let mut last = clock.now();
        while clock.now() == last {}
        clock.freeze();
        last = clock.now();
        let host = host_now();
        while host_now() < host + 1_000_000 {}
        assert_eq!(clock.now(), last);
        clock.resume();
        assert!(clock.now().as_nanos() - last.as_nanos() < host_now() - host);
    }

    #[test]
    fn timer_is_never_early() {
        let clock = Arc::new(VmClock::new());
        let timer = VmTimer::new(Arc::clone(&clock)).expect("timerfd");
        clock.resume();
        for wait in [1, 1_000, 100_000, 3_000_000] {
            let at = VmInstant::from_nanos(clock.now().as_nanos() + wait);
            timer.arm(at);
            assert!(readable(&timer, LONG));
            assert!(clock.now() >= at);
            assert!(timer.take_expiry());
        }
    }

    #[test]
    fn timer_fires_again_at_an_instant_that_was_taken() {
        let clock = Arc::new(VmClock::new());
        let timer = VmTimer::new(Arc::clone(&clock)).expect("timerfd");
        clock.resume();
        for _ in 0..3 {
            timer.arm(VmInstant::from_nanos(1));
            timer.arm(VmInstant::from_nanos(1));
            assert!(readable(&timer, LONG));
            assert!(timer.take_expiry());
            assert!(!readable(&timer, NOW));
        }
    }

    #[test]
    fn a_deadline_by_which_it_fires_moves_it_to_be_earlier_only() {
        let clock = Arc::new(VmClock::new());
        let timer = VmTimer::new(Arc::clone(&clock)).expect("timerfd");
        clock.resume();
        let hour = VmInstant::from_nanos(3_600_000_000_000);
        timer.arm_by(hour);
        assert!(!readable(&timer, NOW));
        timer.arm_by(VmInstant::from_nanos(1));
        timer.arm_by(hour);
        assert!(readable(&timer, LONG));
        assert!(timer.take_expiry());
        timer.arm_by(hour);
        assert!(!readable(&timer, NOW), "the earlier one was taken");
    }

    #[test]
    fn frozen_clock_keeps_the_deadline_unarmed() {
        let clock = Arc::new(VmClock::new());
        let timer = VmTimer::new(Arc::clone(&clock)).expect("timerfd");
        timer.arm(VmInstant::from_nanos(1));
        assert!(!readable(&timer, NOW));
        clock.resume();
        timer.follow_clock();
        assert!(readable(&timer, LONG));
        clock.freeze();
        timer.follow_clock();
        assert!(
            !readable(&timer, NOW),
            "freezing disarms what had not been taken"
        );
    }

    #[test]
    fn disarmed_timer_stays_silent() {
        let clock = Arc::new(VmClock::new());
        clock.resume();
        let timer = VmTimer::new(clock).expect("timerfd");
        timer.arm(VmInstant::from_nanos(0));
        timer.disarm();
        assert!(!readable(&timer, NOW));
        assert!(!timer.take_expiry());
    }
}
