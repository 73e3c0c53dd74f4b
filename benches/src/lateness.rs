// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How late a deadline is acted on: the floor's, that of a VM process' watchdog, and QEMU's, each a few
//! times at once, a while apart so that none wakes the CPU for another.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kennel_tests::bench_guest;
use rustix::event::{EventfdFlags, eventfd};
use tempfile::TempPath;

use crate::Trouble;
use crate::clock::{arm, monotonic_ns, realtime_to_monotonic, timer};
use crate::contender::kennel_watchdog::{KennelWatchdog, Told};
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

/// What became of a deadline.
#[derive(Clone, Copy, Debug)]
struct Acted {
    who: Who,
    index: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Acted on, at this instant of `CLOCK_MONOTONIC`.
    At(u64),
    /// Told by a VM process.
    Told(Told),
}

/// Lateness in ns of each contender in one round, in the order of [`Who::ALL`]: of each that was armed
/// one sample, and one before it if a stall was forgiven.
pub(crate) type Round = [Vec<Vec<u64>>; 3];

/// Some of each contender, ready to be armed.
pub(crate) struct Lab {
    floor: Floor,
    kennel: Vec<KennelWatchdog>,
    qemu: Vec<QemuWatchdog>,
    _guest: TempPath,
    acted: Receiver<Acted>,
    /// How many of each contender take part, in the order of [`Who::ALL`].
    each: [usize; 3],
    /// From the clock of QEMU's time stamps to ours.
    offset: i64,
}

impl Lab {
    /// So many of each contender, in the order of [`Who::ALL`].
    pub(crate) fn new(each: [usize; 3]) -> Result<Self, Trouble> {
        let (sender, acted) = channel();
        let offset = realtime_to_monotonic();
        let guest = bench_guest::write();
        let tell = |who, index| {
            let sender = sender.clone();
            move |what| sender.send(Acted { who, index, what }).is_ok()
        };
        let kennel = |index| {
            let tell = tell(Who::Kennel, index);
            KennelWatchdog::start(&guest, move |told| tell(What::Told(told)))
        };
        let qemu = |index| {
            let tell = tell(Who::Qemu, index);
            QemuWatchdog::start("none", move |told| {
                let at = told.realtime_ns.saturating_add_signed(offset);
                told.event != "WATCHDOG" || tell(What::At(at))
            })
        };
        let [floors, kennels, qemus] = each;
        Ok(Self {
            floor: Floor::start(floors, sender.clone())?,
            kennel: (0..kennels).map(kennel).collect::<Result<_, _>>()?,
            qemu: (0..qemus).map(qemu).collect::<Result<_, _>>()?,
            _guest: guest,
            acted,
            each,
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
        change(&["-f", "-p"], self.floor.thread_id.to_string())?;
        let kennels = self.kennel.iter().map(KennelWatchdog::pid);
        kennels
            .chain(self.qemu.iter().map(QemuWatchdog::pid))
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

    /// The instant at which it should act: the earliest possible for the floor, the latest for QEMU. A VM
    /// process knows its own better.
    fn arm(
        &mut self,
        who: Who,
        index: usize,
        stage: u32,
        whole: u64,
    ) -> Result<Option<u64>, Trouble> {
        let armed = match who {
            Who::Floor => Some(self.floor.arm(index, whole)),
            Who::Kennel => match self.kennel.get_mut(index) {
                Some(kennel) => {
                    kennel.arm(stage)?;
                    Some(monotonic_ns())
                }
                None => None,
            },
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
        let mut lateness = due.clone().map(|due| vec![vec![]; due.len()]);
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
            let (Some(due), Some(seen)) = (due, seen) else {
                continue;
            };
            seen.push(match acted.what {
                What::At(at) => at.saturating_sub(*due),
                What::Told(Told::Bite(late) | Told::Stall(late)) => late,
                What::Told(Told::Gone) => {
                    return Err(Trouble::new("a VM process has ended"));
                }
            });
            if !matches!(acted.what, What::Told(Told::Stall(_))) {
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
        epoll.add(&*quit.event, u64::MAX)?;
        let (ours, stop) = (Arc::clone(&timers), Arc::clone(&quit.stop));
        let thread_id = quit.spawn("floor", move || {
            while !stop.load(Ordering::Acquire) {
                for key in epoll.wait().unwrap_or_default() {
                    let index = usize::try_from(key).unwrap_or(usize::MAX);
                    if let Some(timer) = ours.get(index) {
                        read(timer);
                        let what = What::At(monotonic_ns());
                        let who = Who::Floor;
                        let _told = acted.send(Acted { who, index, what });
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

/// Ends a thread with its owner.
#[derive(Debug)]
struct Quit {
    event: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Quit {
    fn new() -> Result<Self, Trouble> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(Trouble::new)?;
        Ok(Self {
            event: Arc::new(event),
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
        let _rung = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No VM process: a program of unit tests cannot be one.
    fn floors(count: usize) -> Lab {
        Lab::new([count, 0, 0]).expect("timers")
    }

    #[test]
    fn the_floor_acts_and_never_early() {
        let session = Session::new(true, None, 1).expect("a session");
        let timeout = Duration::from_millis(50);
        let round = floors(3).round(&session, timeout, true).expect("a round");
        let [floor, kennel, qemu] = round;
        assert_eq!([floor.len(), kennel.len(), qemu.len()], [3, 0, 0]);
        // Before its deadline it would read as zero; nobody takes no time at all.
        let one = |samples: &Vec<u64>| samples.len() == 1 && samples[0] > 0;
        assert!(floor.iter().all(one), "{floor:?}");
    }

    #[test]
    fn a_forgiven_stall_is_a_sample_beside_its_late_bite() {
        let session = Session::new(true, None, 1).expect("a session");
        let mut lab = floors(0);
        let (sender, acted) = channel();
        lab.acted = acted;
        for (index, told) in [
            (0, Told::Stall(300)),
            (1, Told::Bite(7)),
            (0, Told::Bite(900)),
        ] {
            let (who, what) = (Who::Kennel, What::Told(told));
            sender.send(Acted { who, index, what }).expect("a lab");
        }
        let due = [vec![], vec![0, 0], vec![]];
        let seen = lab.collect(&session, &due, Duration::ZERO).expect("bites");
        assert_eq!(seen, [vec![], vec![vec![300, 900], vec![7]], vec![]]);
    }
}
