// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! S3: how often watchdogs that are well wake the host.

use i6300esb::{DeadlineQueue, I6300Esb, TimerRequest, VmInstant};

use super::Metric;
use crate::Trouble;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::workload;

pub(super) const METRIC: Metric = Metric {
    id: "S3",
    title: "Wakeups by watchdogs that are well",
    unit: "wakeups a minute",
    definition: "Expiries of the one timer of 1 to 10,000 watchdogs with a timeout of 30 s, each \
                 pinged every 10 s at a phase of its own, over ten minutes of virtual time. When \
                 the timer fires, first deadlines that pings made stale are moved on.",
    floor: "a timer that nobody needs: 0",
    peer: "timerfd_settime at each ping: system calls a minute",
    target: "at most one in the time from a ping to the earliest deadline that a last ping left, 5 s, \
             however many watchdogs there are",
    seconds: [8, 1],
    measure,
};

const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTES: u64 = 10;
const PING_EVERY: u64 = 10 * SECOND;
/// Both stages together are 30 s of 2^15 clocks of 30 ns.
const STAGE_TICKS: u32 = 15_259;
/// A watchdog that is about to be pinged has this left of its stage of 15 s.
const LEFT: f64 = 5.0;

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    measured.axis = Some("watchdogs".into());
    let counts: &[u32] = if session.quick {
        &[1, 10, 100]
    } else {
        &[1, 10, 100, 1_000, 10_000]
    };
    let mut all = vec![];
    measured.blocks = session.blocks(counts.len(), |index| {
        let count = counts.get(index).copied().unwrap_or(1);
        let per_minute = wakeups(count) as f64 / MINUTES as f64;
        all.push(per_minute);
        let x = f64::from(count);
        measured.series.extend([
            Series::figure("Kennel", Role::Kennel, per_minute).at(x),
            Series::figure("timerfd_settime at each ping", Role::Other, x * 6.0).at(x),
        ]);
        Ok(())
    })?;
    let most = all.iter().copied().reduce(f64::max);
    measured.verdicts = vec![Verdict::figure(
        "most wakeups a minute, of all counts",
        most,
        Target::AtMost(60.0 / LEFT),
    )];
    Ok(())
}

/// Times that the timer fires in [`MINUTES`].
pub(crate) fn wakeups(count: u32) -> u64 {
    let at = VmInstant::from_nanos;
    let phase = |key: u32| u64::from(key) * PING_EVERY / u64::from(count);
    let mut devices: Vec<I6300Esb> = vec![];
    let mut queue = DeadlineQueue::new();
    let mut timer = u64::MAX;
    for key in 0..count {
        let device = workload::armed(at(phase(key)), STAGE_TICKS);
        let due = device
            .deadline()
            .map_or(TimerRequest::Keep, TimerRequest::ArmAt);
        follow(queue.request(key, due), &mut timer);
        devices.push(device);
    }
    let mut wakeups = 0;
    let end = MINUTES * 60 * SECOND;
    let mut round = PING_EVERY;
    while round < end {
        for (key, device) in (0..).zip(0..devices.len()) {
            let now = round + phase(key);
            while timer <= now {
                wakeups += 1;
                let fired = at(timer);
                timer = u64::MAX;
                follow(serve(&mut devices, &mut queue, fired), &mut timer);
            }
            if let Some(device) = devices.get_mut(device) {
                debug_assert!(device.status(at(now)).bites == 0, "well");
                let _moved = workload::ping(device, at(now));
            }
        }
        round += PING_EVERY;
    }
    wakeups
}

fn follow(request: TimerRequest, timer: &mut u64) {
    match request {
        TimerRequest::Keep => {}
        TimerRequest::Disarm => *timer = u64::MAX,
        TimerRequest::ArmAt(at) => *timer = at.as_nanos(),
    }
}

/// What is due, then what a ping made stale.
fn serve(devices: &mut [I6300Esb], queue: &mut DeadlineQueue<u32>, now: VmInstant) -> TimerRequest {
    fn device(devices: &mut [I6300Esb], key: u32) -> Option<&mut I6300Esb> {
        devices.get_mut(usize::try_from(key).ok()?)
    }
    while let Some(key) = queue.pop_due(now) {
        if let Some(device) = device(devices, key) {
            queue.record(key, device.timer_fired(now).timer);
        }
    }
    while let Some((at, key)) = queue.first()
        && let Some(device) = device(devices, key)
        && device.deadline() != Some(at)
    {
        queue.record(key, device.timer_fired(now).timer);
    }
    queue.rearm()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_wake_the_host_as_often_as_ten() {
        let (one, ten, hundred) = (wakeups(1), wakeups(10), wakeups(100));
        assert!((40..=60).contains(&one), "{one}: once in ten seconds");
        assert!(
            ten <= 120 && hundred <= 120,
            "{ten}, {hundred}: once in five"
        );
    }
}
