// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One host timer for any number of watchdogs.

mod block;
mod blocks;
mod tournament;

use blocks::Blocks;

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
    blocks: Blocks<K>,
    /// Devices in the blocks.
    held: usize,
    /// The first one was taken, and waits no more. It keeps its place, as it is mostly put back at once.
    first_taken: bool,
    armed_for: Option<VmInstant>,
}

impl<K: Copy + Ord> DeadlineQueue<K> {
    /// An empty queue; its timer is not armed.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            blocks: Blocks::new(),
            held: 0,
            first_taken: false,
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
            TimerRequest::ArmAt(at) => self.insert(key, at),
        }
    }

    /// Forgets the device `key`.
    pub fn remove(&mut self, key: K) {
        self.give_up_taken();
        if self.blocks.remove(key) {
            self.held = self.held.saturating_sub(1);
        }
    }

    /// The earliest deadline, and whose it is.
    ///
    /// A device that was pinged since is due later than this says. After everything due was served, an owner of many
    /// devices can call `timer_fired` of each such first one, early, and record what it asks for; then the one timer
    /// wakes the host for true deadlines only, however many devices there are.
    #[must_use]
    pub fn first(&self) -> Option<(VmInstant, K)> {
        if self.first_taken {
            self.blocks.second()
        } else {
            self.blocks.first()
        }
    }

    /// Takes one device whose deadline has come: call its `timer_fired` and record what it asks for.
    ///
    /// A device that asks for an instant that has passed is due again at once, so a loop over this ends only because no
    /// device does that for ever.
    ///
    /// A device that is recorded before the next one is taken costs least: it never leaves its place.
    pub fn pop_due(&mut self, now: VmInstant) -> Option<K> {
        self.give_up_taken();
        let (at, key) = self.blocks.first()?;
        if at > now {
            return None;
        }
        self.first_taken = true;
        Some(key)
    }

    /// What to do with the one timer after it fired and everything due was served.
    pub fn rearm(&mut self) -> TimerRequest {
        self.give_up_taken();
        self.armed_for = None;
        self.move_timer()
    }

    /// Devices that wait for a deadline.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.saturating_sub(usize::from(self.first_taken))
    }

    /// Whether no device waits for a deadline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert(&mut self, key: K, at: VmInstant) {
        if self.first_taken && matches!(self.blocks.first(), Some((_, taken)) if taken == key) {
            self.first_taken = false;
            self.blocks.move_first(at);
            return;
        }
        self.give_up_taken();
        if self.blocks.insert(key, at) {
            self.held = self.held.saturating_add(1);
        }
    }

    /// Takes the device that was taken last out of its place, if it was not put back.
    fn give_up_taken(&mut self) {
        if self.first_taken {
            self.first_taken = false;
            self.held = self.held.saturating_sub(1);
            self.blocks.remove_first();
        }
    }

    fn move_timer(&mut self) -> TimerRequest {
        match (self.first(), self.armed_for) {
            (Some((first, _)), Some(armed_for)) if armed_for <= first => TimerRequest::Keep,
            (Some((first, _)), _) => {
                self.armed_for = Some(first);
                TimerRequest::ArmAt(first)
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
    use proptest::prelude::*;
    use std::collections::BTreeMap;
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

    #[test]
    fn a_device_that_was_taken_waits_no_more_until_it_is_recorded() {
        let mut queue = DeadlineQueue::new();
        for (key, due) in [(1, 10), (2, 10), (3, 30)] {
            queue.record(key, TimerRequest::ArmAt(at(due)));
        }
        let _ = queue.rearm();
        assert_eq!(queue.pop_due(at(9)), None);
        assert_eq!(queue.pop_due(at(10)), Some(1));
        assert_eq!((queue.len(), queue.first()), (2, Some((at(10), 2))));
        // Nothing that is asked of it brings it back.
        queue.record(1, TimerRequest::Keep);
        queue.record(1, TimerRequest::Disarm);
        queue.remove(1);
        assert_eq!((queue.len(), queue.first()), (2, Some((at(10), 2))));
        assert_eq!(queue.pop_due(at(10)), Some(2));
        // Another is changed in between, and it itself comes back afterwards.
        queue.record(3, TimerRequest::ArmAt(at(20)));
        assert_eq!((queue.len(), queue.first()), (1, Some((at(20), 3))));
        queue.record(2, TimerRequest::ArmAt(at(5)));
        assert_eq!((queue.len(), queue.first()), (2, Some((at(5), 2))));
        assert_eq!(queue.pop_due(at(5)), Some(2));
        assert_eq!(
            queue.request(2, TimerRequest::ArmAt(at(7))),
            TimerRequest::ArmAt(at(7))
        );
        assert_eq!(queue.pop_due(at(20)), Some(2));
        assert_eq!(queue.rearm(), TimerRequest::ArmAt(at(20)));
        assert_eq!(queue.pop_due(at(20)), Some(3));
        assert_eq!(
            (queue.len(), queue.is_empty(), queue.first()),
            (0, true, None)
        );
        assert_eq!(queue.pop_due(at(20)), None);
        assert_eq!(queue.request(4, TimerRequest::Keep), TimerRequest::Disarm);
    }

    #[test]
    fn one_of_many_alike_can_be_put_back_anywhere() {
        // Among five alike, the second of a run is put back: later, alike, earlier.
        for (back, then) in [(11, [3, 4, 5]), (10, [2, 3, 4]), (9, [2, 3, 4])] {
            let mut queue = DeadlineQueue::new();
            for key in 1..=5 {
                queue.record(key, TimerRequest::ArmAt(at(10)));
            }
            for (key, back) in [(1, 20), (2, back)] {
                assert_eq!(queue.pop_due(at(10)), Some(key));
                queue.record(key, TimerRequest::ArmAt(at(back)));
            }
            for key in then {
                assert_eq!(queue.pop_due(at(10)), Some(key), "put back at {back}");
                queue.record(key, TimerRequest::ArmAt(at(30)));
            }
        }
    }

    #[test]
    fn a_device_that_is_put_back_allocates_nothing() {
        let mut queue = DeadlineQueue::new();
        for key in 0..1_000_u64 {
            queue.record(key, TimerRequest::ArmAt(at(key)));
        }
        let heap = allocation_counter::measure(|| {
            for now in 0..1_000 {
                assert_eq!(queue.pop_due(at(now)), Some(now));
                queue.record(now, TimerRequest::ArmAt(at(now + 1_000)));
            }
        });
        assert_eq!((heap.count_total, queue.len()), (0, 1_000));
        assert_eq!(queue.first(), Some((at(1_000), 0)));
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Arm(u16, u64),
        Disarm(u16),
        Pop(u64),
        /// Up to so many that are due, each put back so much later.
        Serve(u64, u8, u64),
        /// Keys in order, up or down.
        ArmRow(u16, u16, bool),
        DisarmRow(u16, u16),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let key = || 0..2_000_u16;
        prop_oneof![
            8 => (key(), 0..100_u64).prop_map(|(key, at)| Operation::Arm(key, at)),
            4 => key().prop_map(Operation::Disarm),
            4 => (0..120_u64).prop_map(Operation::Pop),
            4 => (0..120_u64, 0..80_u8, 0..50_u64)
                .prop_map(|(now, count, later)| Operation::Serve(now, count, later)),
            1 => (key(), 0..300_u16, any::<bool>())
                .prop_map(|(first, count, up)| Operation::ArmRow(first, count, up)),
            1 => (key(), 0..300_u16).prop_map(|(first, count)| Operation::DisarmRow(first, count)),
        ]
    }

    /// What a queue holds, in the plainest way.
    #[derive(Default)]
    struct Model(BTreeMap<u16, u64>);

    impl Model {
        fn first(&self) -> Option<(VmInstant, u16)> {
            self.0.iter().map(|(key, due)| (at(*due), *key)).min()
        }
    }

    fn run(queue: &mut DeadlineQueue<u16>, model: &mut Model, operation: Operation) {
        let mut arm = |key: u16, due: u64| {
            queue.record(key, TimerRequest::ArmAt(at(due)));
            model.0.insert(key, due);
        };
        match operation {
            Operation::Arm(key, due) => arm(key, due),
            Operation::ArmRow(first, count, true) => {
                (first..first + count).for_each(|key| arm(key, u64::from(key % 90)));
            }
            Operation::ArmRow(first, count, false) => {
                (first..first + count)
                    .rev()
                    .for_each(|key| arm(key, u64::from(key % 90)));
            }
            Operation::Disarm(key) => {
                queue.record(key, TimerRequest::Disarm);
                model.0.remove(&key);
            }
            Operation::DisarmRow(first, count) => {
                for key in first..first + count {
                    queue.remove(key);
                    model.0.remove(&key);
                }
            }
            Operation::Serve(now, count, later) => {
                for _ in 0..count {
                    let due = model.first().filter(|(due, _)| *due <= at(now));
                    assert_eq!(queue.pop_due(at(now)), due.map(|(_, key)| key));
                    if let Some((due, key)) = due {
                        let later = due.as_nanos() + later;
                        queue.record(key, TimerRequest::ArmAt(at(later)));
                        model.0.insert(key, later);
                    }
                }
            }
            Operation::Pop(now) => {
                let due = model.first().filter(|(due, _)| *due <= at(now));
                assert_eq!(queue.pop_due(at(now)), due.map(|(_, key)| key));
                if let Some((_, key)) = due {
                    model.0.remove(&key);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn blocks_are_a_map_with_a_first_deadline(operations in prop::collection::vec(operation(), 0..100)) {
            let (mut queue, mut model) = (DeadlineQueue::new(), Model::default());
            for operation in operations {
                run(&mut queue, &mut model, operation);
                assert_eq!(queue.first(), model.first());
                assert_eq!((queue.len(), queue.is_empty()), (model.0.len(), model.0.is_empty()));
                assert!(queue.blocks.is_sound());
            }
        }
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn thousands_take_256_bytes_each_with_their_places_in_the_queue() {
        const COUNT: u32 = 10_000;
        let mut fleet = None;
        let heap = allocation_counter::measure(|| {
            let mut queue = DeadlineQueue::new();
            let mut devices: Vec<I6300Esb> = (0..COUNT)
                .map(|_| I6300Esb::new(Config::default()))
                .collect();
            for (key, device) in (0..COUNT).zip(&mut devices) {
                let effects = device.config_write(at(u64::from(key)), 0x68, &[2]);
                let _ = queue.request(key, effects.timer);
            }
            fleet = Some((devices, queue));
        });
        assert_eq!(fleet.expect("made").1.len(), 10_000);
        let each = heap.bytes_current as f64 / f64::from(COUNT);
        assert!(each <= 256.0, "{each}");
    }
}
