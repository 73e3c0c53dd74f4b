// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The [`i6300esb`] watchdog in a machine on rust-vmm's crates: BAR 0 on a vm-device bus, the timer in an event-manager
//! loop.
//!
//! [`WatchdogDevice`] holds the device, its lock and one absolute timerfd. The embedder implements [`Host`] and does three
//! things: put BAR 0 on its bus, pass on config accesses, and add the device to its event manager.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, EventSet, EventSubscriber, Events as ReadyEvents};
use i6300esb::{
    Config, Effects, Event, Events, I6300Esb, ResetKind, RestoreError, State, Status, TimerRequest,
    VmInstant,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What the device needs of the machine around it.
pub trait Host: Send + Sync {
    /// VM time now. Never runs backwards, stands still while the VM is paused.
    fn now(&self) -> VmInstant;

    /// The nanosecond of `CLOCK_MONOTONIC` at which VM time will be `at`; `None` while the VM is paused.
    fn monotonic_ns(&self, at: VmInstant) -> Option<u64>;

    /// Sets the level of the interrupt pin. Called under the device's lock, so that levels arrive in order: it must not
    /// call the device.
    fn set_interrupt(&self, level: bool);

    /// Something happened, at `now` or before. Called without a lock, so events of two threads may come in either order:
    /// [`WatchdogDevice::status`] says how the device is.
    fn event(&self, now: VmInstant, event: Event);
}

/// Why [`WatchdogDevice::restore`] failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreDeviceError {
    /// The state cannot be restored.
    State(RestoreError),
    /// The kernel gives no timerfd.
    Timer(io::Error),
}

impl fmt::Display for RestoreDeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(error) => error.fmt(f),
            Self::Timer(error) => write!(
                f,
                "no timer for the watchdog: timerfd_create: {error}; raise the limit of open files if it is reached"
            ),
        }
    }
}

impl std::error::Error for RestoreDeviceError {}

/// The watchdog as a part of a rust-vmm machine. Share it in an [`Arc`](std::sync::Arc).
#[derive(Debug)]
pub struct WatchdogDevice<H> {
    host: H,
    timer: OwnedFd,
    /// Held while an access is made and its timer and interrupt are applied: two vCPUs must not swap those.
    locked: Mutex<Locked>,
}

#[derive(Debug)]
struct Locked {
    device: I6300Esb,
    /// Where the device believes its timer to be. A ping may have moved its deadline on from there.
    armed_for: Option<VmInstant>,
}

impl<H: Host> WatchdogDevice<H> {
    /// A device at power-on.
    ///
    /// # Errors
    ///
    /// If the kernel gives no timerfd.
    pub fn new(config: Config, host: H) -> io::Result<Self> {
        Self::with_device(I6300Esb::new(config), host)
    }

    /// A device that goes on where `state` left off; the timer and the interrupt are as they must be.
    ///
    /// # Errors
    ///
    /// If the kernel gives no timerfd, or as [`I6300Esb::restore`].
    pub fn restore(config: Config, state: &State, host: H) -> Result<Self, RestoreDeviceError> {
        let now = host.now();
        let (device, effects) =
            I6300Esb::restore(config, state, now).map_err(RestoreDeviceError::State)?;
        let restored = Self::with_device(device, host).map_err(RestoreDeviceError::Timer)?;
        restored.apply(restored.lock(), now, effects);
        Ok(restored)
    }

    fn with_device(device: I6300Esb, host: H) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            host,
            timer,
            locked: Mutex::new(Locked {
                device,
                armed_for: None,
            }),
        })
    }

    /// The machine around it.
    pub const fn host(&self) -> &H {
        &self.host
    }

    /// Reads the device's part of PCI config space: see [`I6300Esb::config_read`].
    pub fn config_read(&self, offset: u16, data: &mut [u8]) {
        let locked = self.lock();
        locked.device.config_read(self.host.now(), offset, data);
    }

    /// Writes the device's part of PCI config space: see [`I6300Esb::config_write`].
    pub fn config_write(&self, offset: u16, data: &[u8]) {
        self.with(|device, now| device.config_write(now, offset, data));
    }

    /// Resets the device: see [`I6300Esb::reset`].
    pub fn reset(&self, kind: ResetKind) {
        self.with(|device, now| device.reset(now, kind));
    }

    /// See [`I6300Esb::status`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.observe().1
    }

    /// [`Self::status`], and the instant that it is of: what it says is left counts from there.
    #[must_use]
    pub fn observe(&self) -> (VmInstant, Status) {
        let locked = self.lock();
        let now = self.host.now();
        (now, locked.device.status(now))
    }

    /// See [`I6300Esb::save`].
    #[must_use]
    pub fn save(&self) -> State {
        let locked = self.lock();
        locked.device.save(self.host.now())
    }

    /// Must follow every pause and resume of VM time: moves the timerfd to where the deadline is now.
    pub fn clock_changed(&self) {
        let locked = self.lock();
        self.set_timer(locked.armed_for);
    }

    /// Serves the timer. [`EventSubscriber::process`] calls this; so does a loop without event-manager when the file
    /// descriptor is readable.
    pub fn timer_fired(&self) {
        let mut locked = self.lock();
        // Under the lock: a deadline set meanwhile must not be taken for the expired one. Empty if the timer was moved since
        // it fired; the device does not mind.
        let _expiries = rustix::io::read(&self.timer, &mut [0_u8; 8]);
        locked.armed_for = None;
        let now = self.host.now();
        let effects = locked.device.timer_fired(now);
        self.apply(locked, now, effects);
    }

    fn with(&self, act: impl FnOnce(&mut I6300Esb, VmInstant) -> Effects) {
        let mut locked = self.lock();
        let now = self.host.now();
        let effects = act(&mut locked.device, now);
        self.apply(locked, now, effects);
    }

    /// Timer and interrupt under the lock, events after it.
    #[inline]
    fn apply(&self, mut locked: MutexGuard<'_, Locked>, now: VmInstant, effects: Effects) {
        let Effects {
            interrupt,
            timer,
            events,
        } = effects;
        // The interrupt goes first: the guest waits for it.
        if let Some(level) = interrupt {
            self.host.set_interrupt(level);
        }
        match timer {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => self.arm(&mut locked, None),
            TimerRequest::ArmAt(at) => self.arm(&mut locked, Some(at)),
        }
        drop(locked);
        if !events.is_empty() {
            self.deliver(now, events);
        }
    }

    #[cold]
    fn deliver(&self, now: VmInstant, events: Events) {
        for event in events {
            self.host.event(now, event);
        }
    }

    fn arm(&self, locked: &mut Locked, at: Option<VmInstant>) {
        locked.armed_for = at;
        self.set_timer(at);
    }

    fn set_timer(&self, at: Option<VmInstant>) {
        // A zero value would disarm, so the first instant is 1 ns; while paused the timer stays disarmed.
        let nanos = at
            .and_then(|at| self.host.monotonic_ns(at))
            .map_or(0, |nanos| nanos.max(1));
        let part = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
        let value = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: part(nanos / NANOS_PER_SECOND),
                tv_nsec: part(nanos % NANOS_PER_SECOND),
            },
        };
        let result = timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::ABSTIME, &value);
        debug_assert!(
            result.is_ok(),
            "timerfd_settime refuses only wrong arguments: {result:?}"
        );
    }

    /// A panic elsewhere must not take the watchdog with it.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The timerfd, for loops without event-manager: call [`WatchdogDevice::timer_fired`] when it is readable.
impl<H> AsRawFd for WatchdogDevice<H> {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

impl<H: Host> DeviceMmio for WatchdogDevice<H> {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let locked = self.lock();
        locked.device.mmio_read(self.host.now(), offset, data);
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let mut locked = self.lock();
        if locked.device.unlock_step(offset, data) {
            return;
        }
        let now = self.host.now();
        let effects = locked.device.mmio_write(now, offset, data);
        self.apply(locked, now, effects);
    }
}

impl<H: Host> EventSubscriber for WatchdogDevice<H> {
    fn process(&self, _events: ReadyEvents, _ops: &mut EventOps) {
        self.timer_fired();
    }

    fn init(&self, ops: &mut EventOps) {
        let result = ops.add(ReadyEvents::new(self, EventSet::IN));
        debug_assert!(
            result.is_ok(),
            "the timerfd is new to the event manager: {result:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, OnceLock, Weak};

    use super::{DeviceMmio, Host, MmioAddress, RestoreDeviceError, RestoreError, WatchdogDevice};
    use i6300esb::{AfterBite, Config, Event, ResetKind, VmInstant};

    const BASE: MmioAddress = MmioAddress(0xd000_0000);
    /// VM time starts here on `CLOCK_MONOTONIC`: in 1970, so every deadline has passed on the host.
    const ORIGIN_NS: u64 = 1;

    /// A machine whose clock the test moves by hand.
    #[derive(Debug, Default)]
    struct ByHand {
        now: AtomicU64,
        paused: AtomicBool,
        /// Where the timer was last armed, in VM time.
        armed_at: AtomicU64,
        level: AtomicBool,
        events: Mutex<Vec<Event>>,
    }

    impl Host for ByHand {
        fn now(&self) -> VmInstant {
            VmInstant::from_nanos(self.now.load(Ordering::SeqCst))
        }

        fn monotonic_ns(&self, at: VmInstant) -> Option<u64> {
            self.armed_at.store(at.as_nanos(), Ordering::SeqCst);
            (!self.paused.load(Ordering::SeqCst)).then(|| at.as_nanos().saturating_add(ORIGIN_NS))
        }

        fn set_interrupt(&self, level: bool) {
            self.level.store(level, Ordering::SeqCst);
        }

        fn event(&self, _now: VmInstant, event: Event) {
            self.events.lock().expect("no panic before").push(event);
        }
    }

    fn ready(device: &WatchdogDevice<ByHand>) -> bool {
        let mut fds = [PollFd::new(&device.timer, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .expect("poll")
            == 1
    }

    fn started() -> WatchdogDevice<ByHand> {
        started_with(Config::default())
    }

    fn started_with(config: Config) -> WatchdogDevice<ByHand> {
        let device = WatchdogDevice::new(config, ByHand::default()).expect("a timerfd");
        for (offset, value) in [(0, 5_u32), (4, 7)] {
            unlocked(&device, offset, &value.to_le_bytes());
        }
        device.config_write(0x68, &[2]);
        device
    }

    fn unlocked(device: &WatchdogDevice<ByHand>, offset: u64, data: &[u8]) {
        device.mmio_write(BASE, 0x0c, &[0x80, 0]);
        device.mmio_write(BASE, 0x0c, &[0x86, 0]);
        device.mmio_write(BASE, offset, data);
    }

    fn pass(device: &WatchdogDevice<ByHand>, ticks: u64) {
        device.host.now.fetch_add(ticks * 983_040, Ordering::SeqCst);
    }

    #[test]
    fn it_is_bitten_through_the_timerfd() {
        let device = started();
        assert!(ready(&device), "armed for an instant of 1970");
        pass(&device, 5);
        device.timer_fired();
        assert!(
            device.host.level.load(Ordering::SeqCst),
            "stage 1 interrupts"
        );
        assert!(ready(&device));
        pass(&device, 7);
        device.timer_fired();
        let events = device.host.events.lock().expect("no panic before");
        assert!(
            matches!(
                events[..],
                [Event::Armed, Event::FirstStage(_), Event::Bite(_)]
            ),
            "{events:?}"
        );
        let mut read = [0; 2];
        device.mmio_read(BASE, 0x0c, &mut read);
        assert_eq!(read, [0, 2]);
    }

    #[test]
    fn one_that_stays_quiet_after_a_bite_leaves_no_timer_armed() {
        let device = started_with(Config {
            after_bite: AfterBite::Disarm,
            ..Config::default()
        });
        pass(&device, 12);
        device.timer_fired();
        assert!(!ready(&device), "expired, and not armed again");
        assert_eq!(device.status().bites, 1);
    }

    #[test]
    fn a_pause_disarms_and_a_resume_arms_again() {
        let device = started();
        device.host.paused.store(true, Ordering::SeqCst);
        device.clock_changed();
        assert!(!ready(&device));
        device.host.paused.store(false, Ordering::SeqCst);
        device.clock_changed();
        assert!(ready(&device));
        device.reset(ResetKind::Platform);
        assert!(!ready(&device), "disarmed by the reset");
    }

    /// Later than that, a ping that brings the deadline forward would not find it early enough.
    #[test]
    fn a_resume_arms_the_timer_where_the_device_believes_it_to_be() {
        let device = started();
        pass(&device, 4);
        unlocked(&device, 0x0c, &[0, 1]);
        device.clock_changed();
        assert_eq!(device.host.armed_at.load(Ordering::SeqCst), 5 * 983_040);
    }

    /// A host that looks whether the device's lock is held while it is called.
    #[derive(Debug, Default)]
    struct Looks {
        device: OnceLock<Weak<WatchdogDevice<Looks>>>,
        now: AtomicU64,
        held: Mutex<Vec<(&'static str, bool)>>,
    }

    impl Looks {
        fn look(&self, what: &'static str) {
            let device = self.device.get().and_then(Weak::upgrade);
            let held = device.expect("it lives").locked.try_lock().is_err();
            self.held
                .lock()
                .expect("no panic before")
                .push((what, held));
        }
    }

    impl Host for Looks {
        fn now(&self) -> VmInstant {
            VmInstant::from_nanos(self.now.load(Ordering::SeqCst))
        }

        fn monotonic_ns(&self, _at: VmInstant) -> Option<u64> {
            self.look("timer");
            None
        }

        fn set_interrupt(&self, _level: bool) {
            self.look("interrupt");
        }

        fn event(&self, _now: VmInstant, _event: Event) {
            self.look("event");
        }
    }

    /// So two vCPUs cannot swap their timers or interrupts, and an event may call the device.
    #[test]
    fn timer_and_interrupt_are_applied_under_the_lock_and_events_after_it() {
        let device = WatchdogDevice::new(Config::default(), Looks::default());
        let device = Arc::new(device.expect("a timerfd"));
        let told = device.host.device.set(Arc::downgrade(&device));
        told.expect("told once");
        device.config_write(0x68, &[2]);
        device.host.now.store(1 << 40, Ordering::SeqCst);
        device.timer_fired();
        let held = device.host.held.lock().expect("no panic before").clone();
        let expected = [
            ("timer", true),
            ("event", false),
            ("interrupt", true),
            ("timer", true),
        ];
        assert_eq!(held[..4], expected);
        assert!(
            held[4..].iter().all(|seen| *seen == ("event", false)),
            "{held:?}"
        );
    }

    #[test]
    fn a_restored_device_arms_its_own_timer_and_interrupt() {
        let device = started();
        pass(&device, 6);
        let state = device.save();
        let restored = WatchdogDevice::restore(Config::default(), &state, ByHand::default())
            .expect("its own state");
        assert!(ready(&restored) && restored.host.level.load(Ordering::SeqCst));
        assert_eq!(restored.status().time_left_ns, Some(6 * 983_040));
        let mut damaged = state;
        damaged.version = 9;
        let error = WatchdogDevice::restore(Config::default(), &damaged, ByHand::default())
            .expect_err("unknown version");
        assert!(matches!(
            error,
            RestoreDeviceError::State(RestoreError::Version { found: 9 })
        ));
    }
}
