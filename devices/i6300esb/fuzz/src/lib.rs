// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the fuzz targets do with their bytes.
//!
//! A device whose timer is served on time and a twin whose timer is served late must look the same to the guest at every
//! access, and neither may bite early, forget a deadline, or save what it cannot restore.

mod ops;

use std::sync::atomic::{AtomicU64, Ordering};

use i6300esb::{Effects, Event, I6300Esb, STATE_BYTES, State, TimerRequest, VmInstant};

pub use ops::{Op, Ops};

/// Operations tried so far in this process; told on stderr every so often.
static TRIED: AtomicU64 = AtomicU64::new(0);
const TELL_EVERY: u64 = 10_000_000;

/// A device and the embedder's side of its contract.
struct Embedder {
    device: I6300Esb,
    now: VmInstant,
    timer: Option<VmInstant>,
    interrupt: bool,
    reported: u64,
    lost: u64,
}

impl Embedder {
    fn new(device: I6300Esb, now: VmInstant) -> Self {
        let (reported, lost) = (0, device.status(now).bites);
        Self {
            device,
            now,
            timer: None,
            interrupt: false,
            reported,
            lost,
        }
    }

    fn apply(&mut self, effects: Effects) {
        match effects.timer {
            TimerRequest::Keep => {}
            TimerRequest::Disarm => self.timer = None,
            TimerRequest::ArmAt(at) => self.timer = Some(at),
        }
        if let Some(level) = effects.interrupt {
            self.interrupt = level;
        }
        for event in effects.events {
            if let Event::Bite(bite) = event {
                assert!(
                    bite.due <= self.now && bite.due <= bite.last_due && bite.last_due <= self.now,
                    "early: {bite:?}"
                );
                assert!(bite.count > 0 && bite.timeout_ns > 0);
                self.reported += bite.count;
            }
        }
        let deadline = self.device.deadline();
        assert!(
            deadline.is_none_or(|deadline| self.timer.is_some_and(|timer| timer <= deadline)),
            "deadline {deadline:?} has timer {:?}",
            self.timer
        );
    }

    fn pass(&mut self, nanos: u64, serve: bool) {
        let end = self.now.saturating_add(nanos);
        // Long times would need one call a millisecond in the worst case; a late timer is as good.
        for _ in 0..64 {
            let Some(due) = self.timer.filter(|due| serve && *due <= end) else {
                break;
            };
            self.timer = None;
            self.now = self.now.max(due);
            let effects = self.device.timer_fired(self.now);
            self.apply(effects);
        }
        self.now = end;
    }

    fn run(&mut self, op: &Op, serve: bool) {
        let effects = match *op {
            Op::MmioWrite {
                offset,
                length,
                data,
            } => {
                // The one that is served late does without the clock what can be done so.
                if !serve && self.device.unlock_step(offset, &data[..length]) {
                    return;
                }
                self.device.mmio_write(self.now, offset, &data[..length])
            }
            Op::ConfigWrite {
                offset,
                length,
                data,
            } => self.device.config_write(self.now, offset, &data[..length]),
            Op::Pass { nanos } => return self.pass(nanos, serve),
            Op::PassToDeadline { beyond } => {
                let left = self.device.status(self.now).stage_left_ns.unwrap_or(0);
                return self.pass(left.saturating_add(beyond).saturating_sub(1), serve);
            }
            Op::SpuriousTimer => {
                self.timer = None;
                self.device.timer_fired(self.now)
            }
            Op::Reset { kind } => {
                let effects = self.device.reset(self.now, kind);
                let reported = effects.events.bite().map_or(0, |bite| bite.count);
                self.lost = self
                    .device
                    .status(self.now)
                    .bites
                    .saturating_sub(self.reported + reported);
                if kind == i6300esb::ResetKind::PowerOn {
                    (self.reported, self.lost) = (0, 0);
                    self.timer = None;
                    self.interrupt = false;
                    return;
                }
                effects
            }
            Op::SaveAndRestore { at } => return self.save_and_restore(VmInstant::from_nanos(at)),
        };
        self.apply(effects);
    }

    fn save_and_restore(&mut self, at: VmInstant) {
        let state = self.device.save(self.now);
        assert_eq!(State::from_bytes(&state.to_bytes()), Ok(state));
        let restored = I6300Esb::restore(*self.device.config(), &state, self.now);
        let (device, effects) = restored.expect("a device restores what it saved");
        assert_eq!(effects.interrupt, Some(device.status(self.now).interrupt));
        self.device = device;
        self.timer = None;
        self.apply(effects);
        // Elsewhere, under another clock, it is the same device.
        let elsewhere = I6300Esb::restore(*self.device.config(), &state, at);
        let (elsewhere, _) = elsewhere.expect("a device restores what it saved");
        let mut saved = elsewhere.save(at);
        (saved.unreported_bites, saved.unreported_first_stage) =
            (state.unreported_bites, state.unreported_first_stage);
        // Unless the end of time comes in between, where deadlines become never.
        let left = state.round.map_or(0, |round| round.remaining_ns);
        if at.max(self.now).saturating_add(left) < VmInstant::MAX {
            assert_eq!(saved, state);
        }
    }

    /// Everything a guest can see.
    fn seen(&self) -> ([u8; 16], [u8; 12]) {
        let (mut mmio, mut config) = ([0; 16], [0; 12]);
        self.device.mmio_read(self.now, 0, &mut mmio);
        self.device.config_read(self.now, 0x60, &mut config);
        (mmio, config)
    }

    fn check_counts(&mut self) {
        let effects = self.device.timer_fired(self.now);
        self.timer = None;
        self.apply(effects);
        let bites = self.device.status(self.now).bites;
        assert!(
            self.reported + self.lost <= bites,
            "{} reported, {} lost, of {bites}",
            self.reported,
            self.lost
        );
    }
}

/// Runs the operations that `data` encodes on a device with a timely and on one with a late timer.
pub fn run_ops(data: &[u8]) {
    let mut ops = Ops::new(data);
    let Some(config) = ops.config() else { return };
    let start = VmInstant::from_nanos(1_000_000);
    let mut timely = Embedder::new(I6300Esb::new(config), start);
    let mut late = Embedder::new(I6300Esb::new(config), start);
    let mut tried = 0;
    for op in ops {
        timely.run(&op, true);
        late.run(&op, false);
        if timely.now == late.now {
            assert_eq!(timely.seen(), late.seen(), "after {op:?}");
            assert_eq!(
                timely.device.status(timely.now),
                late.device.status(late.now),
                "after {op:?}"
            );
        }
        tried += 1;
    }
    timely.check_counts();
    late.check_counts();
    tell(tried);
}

/// Restores a state from `data`, or from a saved one with bytes of `data` in it, and runs operations on it.
pub fn run_restore(data: &[u8]) {
    let mut ops = Ops::new(data);
    let Some(config) = ops.config() else { return };
    let now = VmInstant::from_nanos(ops.word().unwrap_or(0));
    let mut bytes = I6300Esb::new(config).save(now).to_bytes();
    // Patches leave magic, version and clock alone, or nothing would get past them.
    for _ in 0..ops.byte().unwrap_or(0) % 64 {
        let (Some(at), Some(byte)) = (ops.byte(), ops.byte()) else {
            break;
        };
        if let Some(place) = bytes.get_mut(18 + usize::from(at) % (STATE_BYTES - 18)) {
            *place = byte;
        }
    }
    let _ = State::from_bytes(data);
    let Ok(state) = State::from_bytes(&bytes) else {
        return tell(1);
    };
    let Ok((device, effects)) = I6300Esb::restore(config, &state, now) else {
        return tell(1);
    };
    assert!(effects.interrupt.is_some() && effects.timer != TimerRequest::Keep);
    let saved = device.save(now);
    let again = I6300Esb::restore(config, &saved, now)
        .expect("a device restores what it saved")
        .0;
    // What was still to be told has been told by the second restore.
    let mut expected = saved;
    (expected.unreported_bites, expected.unreported_first_stage) = (None, None);
    assert_eq!(again.save(now), expected);
    let mut embedder = Embedder::new(device, now);
    if let TimerRequest::ArmAt(at) = effects.timer {
        embedder.timer = Some(at);
    }
    let mut tried = 1;
    for op in ops {
        embedder.run(&op, tried % 2 == 0);
        let _ = embedder.seen();
        tried += 1;
    }
    tell(tried);
}

fn tell(tried: u64) {
    let before = TRIED.fetch_add(tried, Ordering::Relaxed);
    if before / TELL_EVERY != (before + tried) / TELL_EVERY {
        eprintln!("{} million operations tried", (before + tried) / 1_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::{Op, Ops, run_ops, run_restore};

    #[test]
    fn a_few_bytes_unlock_ping_and_bite() {
        // Default configuration; preloads; enable; ping; to the deadline twice.
        let data = [0, 0, 0x20, 3, 0x21, 4, 0x50, 2, 0x28, 0x70, 1, 0x70, 1];
        let mut ops = Ops::new(&data);
        ops.config().expect("two bytes");
        assert!(
            ops.clone()
                .any(|op| matches!(op, Op::PassToDeadline { .. }))
        );
        let mut device = i6300esb::I6300Esb::new(i6300esb::Config::default());
        let mut now = i6300esb::VmInstant::ZERO;
        for op in ops {
            match op {
                Op::MmioWrite {
                    offset,
                    length,
                    data,
                } => {
                    let _ = device.mmio_write(now, offset, &data[..length]);
                }
                Op::ConfigWrite {
                    offset,
                    length,
                    data,
                } => {
                    let _ = device.config_write(now, offset, &data[..length]);
                }
                Op::PassToDeadline { beyond } => {
                    let left = device.status(now).stage_left_ns.unwrap_or(0);
                    now = now.saturating_add(left + beyond);
                    {
                        let _ = device.timer_fired(now);
                    };
                }
                _ => {}
            }
        }
        assert_eq!((device.status(now).pings, device.status(now).bites), (1, 1));
        run_ops(&data);
    }

    #[test]
    fn any_bytes_are_taken() {
        let mut seed = 1_u32;
        for length in 0..300 {
            let data: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            run_ops(&data);
            run_restore(&data);
        }
    }
}
