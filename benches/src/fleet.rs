// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many watchdogs in one process on one timer, as an embedder runs them; and the two ways to do
//! the kernel's part alone: one timer with a heap, and a timer for each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use i6300esb::{Config, DeadlineQueue, I6300Esb, TimerRequest, VmInstant};
use rustix::event::epoll;

use crate::Trouble;
use crate::clock::{arm, monotonic_ns, timer};
use crate::workload::preload;

/// Prescaler 2^5, no interrupt at the end of stage 1.
const FINE: [u8; 2] = [0x07, 0x00];
/// ns of one tick of it.
pub(crate) const FINE_TICK_NS: u64 = 960;

/// An epoll.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

/// Events that one wait takes at most.
const EVENTS: usize = 256;

impl Epoll {
    pub(crate) fn new() -> Result<Self, Trouble> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Trouble::new(format!("epoll_create1: {error}")))?;
        Ok(Self(epoll))
    }

    pub(crate) fn add(&self, fd: impl AsFd, key: u64) -> Result<(), Trouble> {
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.0, fd, data, epoll::EventFlags::IN)
            .map_err(|error| Trouble::new(format!("epoll_ctl: {error}")))
    }

    /// The keys that are ready, as soon as there are some.
    pub(crate) fn wait(&self) -> Result<Vec<u64>, Trouble> {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        match epoll::wait(&self.0, &mut events[..], None) {
            Ok((events, _)) => Ok(events.iter().map(|event| event.data.u64()).collect()),
            Err(rustix::io::Errno::INTR) => Ok(vec![]),
            Err(error) => Err(Trouble::new(format!("epoll_wait: {error}"))),
        }
    }
}

/// Takes the expiry of a timerfd that is readable.
pub(crate) fn read(timer: impl AsFd) {
    // Empty if the timer was moved meanwhile.
    let _expiries = rustix::io::read(timer, &mut [0_u8; 8]);
}

/// ns from `due` to `now`.
pub(crate) fn lateness(now: u64, due: u64) -> i64 {
    let signed = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
    signed(now) - signed(due)
}

/// How late each was seen, by a clock that is read once after every so many: reading it takes as long
/// as serving one. A reading counts for all since the last one, so none is told less late than it was.
#[derive(Debug)]
struct Stamps {
    each: usize,
    /// Deadlines seen since the clock was last read.
    fresh: Vec<u64>,
    lateness: Vec<i64>,
}

/// Deadlines that one reading of the clock counts for at most, where many come at once.
pub(crate) const EACH: usize = 16;

impl Stamps {
    /// Room for `count`, and a reading for `each` so many.
    fn new(count: usize, each: usize) -> Self {
        Self {
            each,
            fresh: Vec::with_capacity(each),
            lateness: Vec::with_capacity(count),
        }
    }

    /// The deadline `due` was seen.
    fn seen(&mut self, due: u64) {
        self.fresh.push(due);
        if self.fresh.len() >= self.each {
            self.read_clock();
        }
    }

    /// Must follow the last one of several that came together.
    fn read_clock(&mut self) {
        let now = monotonic_ns();
        self.lateness
            .extend(self.fresh.drain(..).map(|due| lateness(now, due)));
    }

    const fn len(&self) -> usize {
        self.lateness.len()
    }
}

/// Watchdogs, their queue and its one timer.
#[derive(Debug)]
pub(crate) struct Fleet {
    devices: Vec<I6300Esb>,
    queue: DeadlineQueue<u32>,
    timer: OwnedFd,
    epoll: Epoll,
}

impl Fleet {
    /// So many, not armed.
    pub(crate) fn new(count: u32) -> Result<Self, Trouble> {
        let (timer, epoll) = (timer()?, Epoll::new()?);
        epoll.add(&timer, 0)?;
        Ok(Self {
            devices: (0..count)
                .map(|_| I6300Esb::new(Config::default()))
                .collect(),
            queue: DeadlineQueue::new(),
            timer,
            epoll,
        })
    }

    /// Arms the watchdog `key` as of `now`, to bite after so many ticks of each stage.
    pub(crate) fn arm(&mut self, key: u32, now: u64, ticks: [u32; 2]) {
        let now = VmInstant::from_nanos(now);
        let Some(device) = usize::try_from(key)
            .ok()
            .and_then(|key| self.devices.get_mut(key))
        else {
            return;
        };
        let _ = device.config_write(now, 0x60, &FINE);
        preload(device, now, ticks);
        let effects = device.config_write(now, 0x68, &[0x02]);
        let request = self.queue.request(key, effects.timer);
        self.obey(request);
    }

    fn obey(&self, request: TimerRequest) {
        match request {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => arm(&self.timer, 0),
            TimerRequest::ArmAt(at) => arm(&self.timer, at.as_nanos().max(1)),
        }
    }

    /// Serves the timer until so many have bitten, and gives how late each did; `due` is the deadline
    /// that each should have. The clock is read once for `each` so many bites.
    pub(crate) fn serve(
        &mut self,
        bites: usize,
        each: usize,
        due: impl Fn(u32) -> u64,
    ) -> Result<Vec<i64>, Trouble> {
        let mut bitten = Stamps::new(bites, each);
        while bitten.len() < bites {
            self.epoll.wait()?;
            read(&self.timer);
            let now = VmInstant::from_nanos(monotonic_ns());
            while let Some(key) = self.queue.pop_due(now) {
                let Some(device) = usize::try_from(key)
                    .ok()
                    .and_then(|key| self.devices.get_mut(key))
                else {
                    continue;
                };
                let effects = device.timer_fired(now);
                if effects.events.bite().is_some() {
                    bitten.seen(due(key));
                }
                self.queue.record(key, effects.timer);
            }
            bitten.read_clock();
            let request = self.queue.rearm();
            self.obey(request);
        }
        Ok(bitten.lateness)
    }
}

/// One timer and a heap of deadlines: gives how late each was seen.
pub(crate) fn heap(deadlines: &[u64]) -> Result<Vec<i64>, Trouble> {
    let (timer, epoll) = (timer()?, Epoll::new()?);
    epoll.add(&timer, 0)?;
    let mut heap: BinaryHeap<Reverse<(u64, u32)>> = (0..)
        .zip(deadlines)
        .map(|(key, at)| Reverse((*at, key)))
        .collect();
    let mut seen = Stamps::new(deadlines.len(), EACH);
    while let Some(Reverse((first, _))) = heap.peek() {
        arm(&timer, *first);
        epoll.wait()?;
        read(&timer);
        let now = monotonic_ns();
        while let Some(Reverse((due, _))) = heap.peek().filter(|Reverse((due, _))| *due <= now) {
            seen.seen(*due);
            let _ = heap.pop();
        }
        seen.read_clock();
    }
    Ok(seen.lateness)
}

/// A timer for each deadline.
#[derive(Debug)]
pub(crate) struct Timers {
    timers: Vec<OwnedFd>,
    epoll: Epoll,
}

impl Timers {
    pub(crate) fn new(count: usize) -> Result<Self, Trouble> {
        let timers: Vec<OwnedFd> = (0..count).map(|_| timer()).collect::<Result<_, _>>()?;
        let epoll = Epoll::new()?;
        for (key, timer) in (0..).zip(&timers) {
            epoll.add(timer, key)?;
        }
        Ok(Self { timers, epoll })
    }

    /// How late each deadline was seen.
    pub(crate) fn serve(&mut self, deadlines: &[u64]) -> Result<Vec<i64>, Trouble> {
        for (timer, at) in self.timers.iter().zip(deadlines) {
            arm(timer, *at);
        }
        let mut seen = Stamps::new(deadlines.len(), EACH);
        while seen.len() < deadlines.len() {
            for key in self.epoll.wait()? {
                let index = usize::try_from(key).unwrap_or(usize::MAX);
                if let (Some(timer), Some(due)) = (self.timers.get(index), deadlines.get(index)) {
                    read(timer);
                    seen.seen(*due);
                }
            }
            seen.read_clock();
        }
        Ok(seen.lateness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_told_less_late_than_it_was() {
        let begin = monotonic_ns();
        let mut stamps = Stamps::new(0, EACH);
        for count in 1..=2 * EACH + 3 {
            stamps.seen(begin);
            assert_eq!(stamps.len(), count / EACH * EACH);
        }
        let before = i64::try_from(monotonic_ns() - begin).expect("less than a century");
        stamps.read_clock();
        assert_eq!(stamps.len(), 2 * EACH + 3);
        assert!(stamps.lateness.iter().all(|late| *late >= 0));
        assert!(
            stamps.lateness[2 * EACH..]
                .iter()
                .all(|late| *late >= before)
        );
    }

    #[test]
    fn each_way_sees_every_deadline_and_none_early() {
        let begin = monotonic_ns();
        let ticks = [1_000, 2_000];
        let due = |key: u32| begin + u64::from(key) * 10_000 + 3_000 * FINE_TICK_NS;
        let mut fleet = Fleet::new(100).expect("a timer");
        for key in 0..100 {
            fleet.arm(key, begin + u64::from(key) * 10_000, ticks);
        }
        let bitten = fleet.serve(100, EACH, due).expect("bites");
        assert_eq!(bitten.len(), 100);
        assert!(bitten.iter().all(|lateness| *lateness >= 0), "{bitten:?}");

        let deadlines: Vec<u64> = (0..100).map(|key| monotonic_ns() + key * 10_000).collect();
        let by_heap = heap(&deadlines).expect("a timer");
        let by_timers = Timers::new(100).and_then(|mut timers| timers.serve(&deadlines));
        for seen in [by_heap, by_timers.expect("timers")] {
            assert_eq!(seen.len(), 100);
            assert!(seen.iter().all(|lateness| *lateness >= 0));
        }
    }
}
