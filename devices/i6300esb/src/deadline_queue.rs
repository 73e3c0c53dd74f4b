// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One host timer for any number of watchdogs.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::time::{TimerRequest, VmInstant};

/// Merges the timer requests of many devices into those of one timer, as lazily as a device does: a deadline that moves
/// later moves no timer.
///
/// `K` names a device. All devices share one time line. Moving a deadline takes logarithmic time.
///
/// ```
/// use i6300esb::{Config, DeadlineQueue, I6300Esb, TimerRequest, VmInstant};
///
/// let mut devices = [I6300Esb::new(Config::default()), I6300Esb::new(Config::default())];
/// let mut queue = DeadlineQueue::new();
/// let now = VmInstant::from_nanos(5);
/// let effects = devices[1].config_write(now, 0x68, &[2]);
/// let TimerRequest::ArmAt(at) = queue.request(1, effects.timer) else { unreachable!() };
///
/// // The one timer fires at `at`.
/// while let Some(key) = queue.pop_due(at) {
///     let effects = devices[key].timer_fired(at);
///     let _ = queue.record(key, effects.timer);
/// }
/// assert!(matches!(queue.rearm(), TimerRequest::ArmAt(next) if next > at));
/// ```
#[derive(Clone, Debug)]
pub struct DeadlineQueue<K> {
    by_instant: BTreeSet<(VmInstant, K)>,
    by_key: BTreeMap<K, VmInstant>,
    armed_for: Option<VmInstant>,
}

impl<K: Copy + Ord> DeadlineQueue<K> {
    /// An empty queue; its timer is not armed.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            by_instant: BTreeSet::new(),
            by_key: BTreeMap::new(),
            armed_for: None,
        }
    }

    /// Records what the device `key` asks for, and gives what to do with the one timer.
    pub fn request(&mut self, key: K, request: TimerRequest) -> TimerRequest {
        self.record(key, request);
        self.move_timer()
    }

    /// Records what the device `key` asks for, without touching the timer: [`Self::rearm`] must follow.
    pub fn record(&mut self, key: K, request: TimerRequest) {
        match request {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => self.remove(key),
            TimerRequest::ArmAt(at) => {
                self.remove(key);
                self.by_key.insert(key, at);
                self.by_instant.insert((at, key));
            }
        }
    }

    /// Forgets the device `key`.
    pub fn remove(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_instant.remove(&(at, key));
        }
    }

    /// The earliest deadline, and whose it is.
    ///
    /// A device that was pinged since is due later than this says. After everything due was served, an owner of many
    /// devices can call `timer_fired` of each such first one, early, and record what it asks for; then the one timer
    /// wakes the host for true deadlines only, however many devices there are.
    #[must_use]
    pub fn first(&self) -> Option<(VmInstant, K)> {
        self.by_instant.first().copied()
    }

    /// Takes one device whose deadline has come: call its `timer_fired` and record what it asks for.
    ///
    /// A device that asks for an instant that has passed is due again at once, so a loop over this ends only because no
    /// device does that for ever.
    pub fn pop_due(&mut self, now: VmInstant) -> Option<K> {
        let (at, key) = *self.by_instant.first()?;
        if at > now {
            return None;
        }
        self.remove(key);
        Some(key)
    }

    /// What to do with the one timer after it fired and everything due was served.
    pub fn rearm(&mut self) -> TimerRequest {
        self.armed_for = None;
        self.move_timer()
    }

    /// Devices that wait for a deadline.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no device waits for a deadline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn move_timer(&mut self) -> TimerRequest {
        match (self.by_instant.first(), self.armed_for) {
            (Some((first, _)), Some(armed_for)) if armed_for <= *first => TimerRequest::Keep,
            (Some((first, _)), _) => {
                self.armed_for = Some(*first);
                TimerRequest::ArmAt(*first)
            }
            (None, Some(_)) => {
                self.armed_for = None;
                TimerRequest::Disarm
            }
            (None, None) => TimerRequest::Keep,
        }
    }
}

impl<K: Copy + Ord> Default for DeadlineQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::DeadlineQueue;
    use crate::{Config, I6300Esb, TimerRequest, VmInstant};
    use std::vec::Vec;

    fn at(nanos: u64) -> VmInstant {
        VmInstant::from_nanos(nanos)
    }

    #[test]
    fn the_timer_follows_the_first_deadline_and_moves_only_to_earlier() {
        let mut queue = DeadlineQueue::new();
        assert_eq!(
            queue.request(1, TimerRequest::ArmAt(at(100))),
            TimerRequest::ArmAt(at(100))
        );
        assert_eq!(
            queue.request(2, TimerRequest::ArmAt(at(200))),
            TimerRequest::Keep
        );
        assert_eq!(
            queue.request(2, TimerRequest::ArmAt(at(50))),
            TimerRequest::ArmAt(at(50))
        );
        assert_eq!(
            queue.request(2, TimerRequest::Disarm),
            TimerRequest::Keep,
            "it will fire early"
        );
        assert_eq!(queue.request(2, TimerRequest::Keep), TimerRequest::Keep);
        assert_eq!((queue.len(), queue.is_empty()), (1, false));
        assert_eq!(queue.pop_due(at(50)), None);
        assert_eq!(queue.rearm(), TimerRequest::ArmAt(at(100)));
        assert_eq!(queue.request(1, TimerRequest::Disarm), TimerRequest::Disarm);
        assert_eq!(queue.request(1, TimerRequest::Disarm), TimerRequest::Keep);
        assert!(queue.is_empty());
    }

    #[test]
    fn one_timer_serves_thousands_exactly() {
        let (mut queue, mut timer) = (DeadlineQueue::new(), None);
        let apply = |request, timer: &mut Option<VmInstant>| match request {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => *timer = None,
            TimerRequest::ArmAt(at) => *timer = Some(at),
        };
        let mut devices: Vec<I6300Esb> = (0..5_000)
            .map(|_| I6300Esb::new(Config::default()))
            .collect();
        for (key, device) in devices.iter_mut().enumerate() {
            // Each starts a microsecond after the one before, so none is due with another.
            let effects = device.config_write(at(key as u64 * 1_000), 0x68, &[2]);
            apply(queue.request(key, effects.timer), &mut timer);
        }
        let mut bitten = 0;
        while bitten < devices.len() {
            let now = timer.take().expect("somebody waits");
            while let Some(key) = queue.pop_due(now) {
                let effects = devices[key].timer_fired(now);
                queue.record(key, effects.timer);
                if let Some(bite) = effects.events.bite() {
                    assert_eq!(
                        (bite.due, bite.count),
                        (now, 1),
                        "served at its exact instant"
                    );
                    bitten += 1;
                }
            }
            apply(queue.rearm(), &mut timer);
        }
        assert!(devices.iter().all(|device| device.status(at(0)).bites == 1));
    }

    #[test]
    fn a_first_deadline_that_a_ping_made_stale_can_be_moved_on() {
        let mut queue = DeadlineQueue::new();
        let mut devices: Vec<I6300Esb> =
            (0..100).map(|_| I6300Esb::new(Config::default())).collect();
        for (key, device) in devices.iter_mut().enumerate() {
            let effects = device.config_write(at(key as u64), 0x68, &[2]);
            let _ = queue.request(key, effects.timer);
        }
        let (first, key) = queue.first().expect("somebody waits");
        assert_eq!((Some(first), key), (devices[0].deadline(), 0));
        // All are pinged shortly before the first deadline: only the devices know.
        let now = at(first.as_nanos() - 10);
        for device in &mut devices {
            for data in [[0x80, 0], [0x86, 0], [0x00, 1]] {
                assert_eq!(
                    device.mmio_write(now, 0x0c, &data).timer,
                    TimerRequest::Keep
                );
            }
        }
        assert_eq!(queue.first(), Some((first, 0)));
        while let Some((at, key)) = queue.first()
            && devices[key].deadline() != Some(at)
        {
            queue.record(key, devices[key].timer_fired(now).timer);
        }
        let next = devices.iter().filter_map(I6300Esb::deadline).min();
        assert_eq!(queue.first().map(|(at, _)| Some(at)), Some(next));
        assert_eq!(queue.len(), 100);
    }

    #[test]
    fn everything_due_comes_out_in_order_once() {
        let mut queue = DeadlineQueue::new();
        for key in 0..1_000_u64 {
            queue.record(key, TimerRequest::ArmAt(at(key * 7_919 % 1_000)));
        }
        let due: Vec<u64> = core::iter::from_fn(|| queue.pop_due(at(499))).collect();
        assert_eq!(due.len(), 500);
        assert!(
            due.windows(2)
                .all(|pair| pair[0] * 7_919 % 1_000 <= pair[1] * 7_919 % 1_000)
        );
        assert_eq!(queue.rearm(), TimerRequest::ArmAt(at(500)));
        queue.remove(due[0]);
        assert_eq!(queue.len(), 500);
    }
}
