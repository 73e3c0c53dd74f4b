// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How late a deadline is acted on: the floor's, the watchdog's in its event loop, and QEMU's, each
//! a few times at once, a while apart so that none wakes the CPU for another.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, EventSet, EventSubscriber, Events, SubscriberOps};
use i6300esb::{AfterBite, Config, Event, VmInstant};
use i6300esb_rust_vmm::{Host, WatchdogDevice};
use rustix::event::{EventfdFlags, eventfd};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use crate::Trouble;
use crate::clock::{arm, monotonic_ns, realtime_to_monotonic, timer};
use crate::contender::qemu_watchdog::QemuWatchdog;
use crate::fleet::{Epoll, read};
use crate::session::Session;

/// ns of a tick of 2^15 clocks.
const TICK_NS: u64 = (1 << 15) * 30;
/// QEMU tells of a bite once a second at most, and so does the device.
const SHORTEST_ROUND: Duration = Duration::from_millis(1_200);
/// Two clocks that run alike differ by no more, in ns.
const MOST_APART: u64 = 20_000;
/// An action that has not come by then does not come.
const OVERDUE: Duration = Duration::from_secs(5);

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Floor,
    Kennel,
    Qemu,
}

impl Who {
    pub(crate) const ALL: [Self; 3] = [Self::Floor, Self::Kennel, Self::Qemu];
}

/// A deadline was acted on, at this instant of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
struct Acted {
    who: Who,
    index: usize,
    at: u64,
}

/// Lateness in ns of each contender in one round, in the order of [`Who::ALL`].
pub(crate) type Round = [Vec<u64>; 3];

/// Some of each contender, ready to be armed.
pub(crate) struct Lab {
    floor: Floor,
    kennel: Kennel,
    qemu: Vec<QemuWatchdog>,
    acted: Receiver<Acted>,
    /// How many of each contender take part, in the order of [`Who::ALL`].
    each: [usize; 3],
    /// From the clock of QEMU's time stamps to ours.
    offset: i64,
}

impl Lab {
    /// So many floors, so many of ours, and so many QEMUs.
    pub(crate) fn new(each: usize, qemus: usize) -> Result<Self, Trouble> {
        let (sender, acted) = channel();
        let offset = realtime_to_monotonic();
        let start = |index| {
            let sender = sender.clone();
            QemuWatchdog::start("none", move |told| {
                let at = told.realtime_ns.saturating_add_signed(offset);
                let acted = Acted {
                    who: Who::Qemu,
                    index,
                    at,
                };
                told.event != "WATCHDOG" || sender.send(acted).is_ok()
            })
        };
        Ok(Self {
            qemu: (0..qemus).map(start).collect::<Result<_, _>>()?,
            floor: Floor::start(each, sender.clone())?,
            kennel: Kennel::start(each, sender)?,
            acted,
            each: [each, each, qemus],
            offset,
        })
    }

    /// Has only so many floors and as many of ours take part, and so many QEMUs.
    pub(crate) fn use_only(&mut self, each: usize, qemus: usize) {
        self.each = [each, each, qemus.min(self.qemu.len())];
    }

    /// Gives every contender's threads a real-time policy.
    pub(crate) fn make_real_time(&self) -> Result<(), Trouble> {
        let change = |arguments: &[&str], id: String| {
            let mut chrt = Command::new("chrt");
            let done = chrt.args(arguments).arg("50").arg(&id).output();
            match done {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(Trouble::new(String::from_utf8_lossy(&output.stderr))),
                Err(error) => Err(Trouble::new(format!("chrt: {error}"))),
            }
        };
        for thread in [self.floor.thread_id, self.kennel.thread_id] {
            change(&["-f", "-p"], thread.to_string())?;
        }
        let pids = self.qemu.iter().map(QemuWatchdog::pid);
        pids.into_iter()
            .try_for_each(|pid| change(&["-a", "-f", "-p"], pid.to_string()))
    }

    /// Arms everybody once with about `timeout`, and gives how late each acted. `forwards` is
    /// the order in which they are armed.
    pub(crate) fn round(
        &mut self,
        session: &Session,
        timeout: Duration,
        forwards: bool,
    ) -> Result<Round, Trouble> {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let stage = u32::try_from(nanos / TICK_NS / 2)
            .unwrap_or(u32::MAX)
            .max(1);
        let whole = 2 * u64::from(stage) * TICK_NS;
        // Further apart than QEMU's poll may be late.
        let apart = (timeout / 250).clamp(Duration::from_millis(9), Duration::from_millis(250));
        let begin = Instant::now();
        let mut due: [Vec<u64>; 3] = Default::default();
        let mut slot = 0;
        for index in 0..self.each.into_iter().max().unwrap_or(0) {
            let mut order = Who::ALL;
            if !forwards {
                order.reverse();
            }
            let each = self.each;
            let takes_part = |who: &Who| index < each[*who as usize];
            for who in order.into_iter().filter(takes_part) {
                std::thread::sleep((apart * slot).saturating_sub(begin.elapsed()));
                slot += 1;
                if let Some(at) = self.arm(who, index, stage, whole)? {
                    due[who as usize].push(at);
                }
            }
        }
        let lateness = self.collect(session, &due, timeout + apart * slot)?;
        if realtime_to_monotonic().abs_diff(self.offset) > MOST_APART {
            return Err(Trouble::new("the host's clock was set meanwhile"));
        }
        session.wait(SHORTEST_ROUND.saturating_sub(begin.elapsed()))?;
        Ok(lateness)
    }

    /// The instant at which it should act: the earliest possible for us, the latest for QEMU.
    fn arm(
        &mut self,
        who: Who,
        index: usize,
        stage: u32,
        whole: u64,
    ) -> Result<Option<u64>, Trouble> {
        let armed = match who {
            Who::Floor => Some(self.floor.arm(index, whole)),
            Who::Kennel => self.kennel.arm(index, stage),
            Who::Qemu => match self.qemu.get_mut(index) {
                Some(qemu) => Some(qemu.arm([stage, stage])?[1]),
                None => None,
            },
        };
        Ok(armed.map(|armed| armed + whole))
    }

    fn collect(
        &mut self,
        session: &Session,
        due: &[Vec<u64>; 3],
        long: Duration,
    ) -> Result<Round, Trouble> {
        let mut left: usize = due.iter().map(Vec::len).sum();
        let mut lateness = due.clone().map(|due| vec![0; due.len()]);
        let end = Instant::now() + long + OVERDUE;
        while left > 0 {
            let acted = match self.acted.recv_timeout(crate::session::GLANCE) {
                Ok(acted) => acted,
                Err(RecvTimeoutError::Timeout) if session.stopped() => {
                    return Err(Trouble::new("interrupted"));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => continue,
                Err(_) => return Err(Trouble::new("a deadline was never acted on")),
            };
            let place = acted.who as usize;
            let due = due.get(place).and_then(|due| due.get(acted.index));
            let seen = lateness
                .get_mut(place)
                .and_then(|all| all.get_mut(acted.index));
            if let (Some(due), Some(seen)) = (due, seen) {
                *seen = acted.at.saturating_sub(*due);
                left -= 1;
            }
        }
        Ok(lateness)
    }
}

/// Timerfds and a thread that waits for them.
struct Floor {
    timers: Arc<Vec<OwnedFd>>,
    quit: Quit,
    thread_id: i32,
}

impl Floor {
    fn start(count: usize, acted: Sender<Acted>) -> Result<Self, Trouble> {
        let timers: Vec<OwnedFd> = (0..count).map(|_| timer()).collect::<Result<_, _>>()?;
        let timers = Arc::new(timers);
        let epoll = Epoll::new()?;
        for (key, timer) in (0..).zip(timers.iter()) {
            epoll.add(timer, key)?;
        }
        let mut quit = Quit::new()?;
        epoll.add(&quit.event, u64::MAX)?;
        let (ours, stop) = (Arc::clone(&timers), Arc::clone(&quit.stop));
        let thread_id = quit.spawn("floor", move || {
            while !stop.load(Ordering::Acquire) {
                for key in epoll.wait().unwrap_or_default() {
                    let index = usize::try_from(key).unwrap_or(usize::MAX);
                    if let Some(timer) = ours.get(index) {
                        read(timer);
                        let at = monotonic_ns();
                        let who = Who::Floor;
                        let _told = acted.send(Acted { who, index, at });
                    }
                }
            }
        })?;
        Ok(Self {
            timers,
            quit,
            thread_id,
        })
    }

    fn arm(&self, index: usize, whole: u64) -> u64 {
        let now = monotonic_ns();
        if let Some(timer) = self.timers.get(index) {
            arm(timer, now + whole);
        }
        now
    }
}

impl std::fmt::Debug for Floor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Floor")
            .field("quit", &self.quit)
            .finish_non_exhaustive()
    }
}

/// A machine without a guest: VM time is the host's, and a bite is passed on.
#[derive(Debug)]
struct Around {
    index: usize,
    acted: Sender<Acted>,
}

impl Host for Around {
    fn now(&self) -> VmInstant {
        VmInstant::from_nanos(monotonic_ns())
    }

    fn monotonic_ns(&self, at: VmInstant) -> Option<u64> {
        Some(at.as_nanos())
    }

    fn set_interrupt(&self, _level: bool) {}

    fn event(&self, _now: VmInstant, event: Event) {
        if let Event::Bite(_) = event {
            let _told = self.acted.send(Acted {
                who: Who::Kennel,
                index: self.index,
                at: monotonic_ns(),
            });
        }
    }
}

/// Watchdogs in an event-manager loop.
struct Kennel {
    devices: Vec<Arc<WatchdogDevice<Around>>>,
    quit: Quit,
    thread_id: i32,
}

impl std::fmt::Debug for Kennel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Kennel")
            .field("quit", &self.quit)
            .finish_non_exhaustive()
    }
}

impl Kennel {
    fn start(count: usize, acted: Sender<Acted>) -> Result<Self, Trouble> {
        let config = Config {
            after_bite: AfterBite::Disarm,
            ..Config::default()
        };
        let device = |index| {
            let acted = acted.clone();
            let device = WatchdogDevice::new(config, Around { index, acted });
            device.map(Arc::new).map_err(Trouble::new)
        };
        let devices: Vec<_> = (0..count).map(device).collect::<Result<_, _>>()?;
        let mut manager = EventManager::<Arc<dyn EventSubscriber + Send + Sync>>::new()
            .map_err(|error| Trouble::new(format!("no event loop: {error}")))?;
        for device in &devices {
            manager.add_subscriber(Arc::clone(device) as _);
        }
        let mut quit = Quit::new()?;
        manager.add_subscriber(Arc::clone(&quit.event) as _);
        let stop = Arc::clone(&quit.stop);
        let thread_id = quit.spawn("watchdogs", move || {
            while !stop.load(Ordering::Acquire) && manager.run().is_ok() {}
        })?;
        Ok(Self {
            devices,
            quit,
            thread_id,
        })
    }

    /// The instant before it was enabled.
    fn arm(&self, index: usize, stage: u32) -> Option<u64> {
        let device = self.devices.get(index)?;
        let base = MmioAddress(0);
        device.config_write(0x60, &[0x03, 0]);
        for offset in [0, 4] {
            device.mmio_write(base, 0x0c, &[0x80, 0]);
            device.mmio_write(base, 0x0c, &[0x86, 0]);
            device.mmio_write(base, offset, &stage.to_le_bytes());
        }
        let now = monotonic_ns();
        device.config_write(0x68, &[0x02]);
        Some(now)
    }
}

/// An eventfd that ends a loop.
#[derive(Debug)]
struct Bell(OwnedFd);

impl std::os::fd::AsFd for Bell {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl EventSubscriber for Bell {
    fn process(&self, _events: Events, _ops: &mut EventOps<'_>) {
        read(&self.0);
    }

    fn init(&self, ops: &mut EventOps<'_>) {
        let _added = ops.add(Events::new(&self.0, EventSet::IN));
    }
}

/// Ends a thread with its owner.
#[derive(Debug)]
struct Quit {
    event: Arc<Bell>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Quit {
    fn new() -> Result<Self, Trouble> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(Trouble::new)?;
        Ok(Self {
            event: Arc::new(Bell(event)),
            stop: Arc::default(),
            thread: None,
        })
    }

    /// Gives the thread's ID.
    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<i32, Trouble> {
        let (sender, id) = channel();
        let thread = std::thread::Builder::new().name(name.into());
        let work = move || {
            let _told = sender.send(rustix::thread::gettid().as_raw_pid());
            work();
        };
        self.thread = Some(thread.spawn(work).map_err(Trouble::new)?);
        id.recv().map_err(Trouble::new)
    }
}

impl Drop for Quit {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _rung = rustix::io::write(&self.event.0, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_and_the_watchdog_act_and_never_early() {
        let session = Session::new(true, None, 1).expect("a session");
        let mut lab = Lab::new(3, 0).expect("timers");
        let timeout = Duration::from_millis(50);
        let round = lab.round(&session, timeout, true).expect("a round");
        let counts = round.each_ref().map(Vec::len);
        assert_eq!(counts, [3, 3, 0]);
        // Before its deadline it would read as zero; nobody takes no time at all.
        assert!(
            round.concat().iter().all(|lateness| *lateness > 0),
            "{round:?}"
        );
    }
}
