// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The operations that are both timed and counted.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use i6300esb::{Config, DeadlineQueue, I6300Esb, TimerRequest, VmInstant};
use kennel::moment::Moment;
use kennel::probe::worker::{Timing, Worker};
use kennel::probe::{Outcome, ProbeKind};
use kennel_vmm::bus::{Bus, View};
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset, MmioRange};
use vm_device::device_manager::{IoManager, MmioManager};

use crate::clock::monotonic_ns;

/// One ping of an armed watchdog: three guest writes.
pub(crate) const PING: &str = "ping";
/// A write to one of 16 ranges after the other, as a vCPU thread dispatches it.
pub(crate) const DISPATCH: &str = "dispatch";
/// The same through vm-device's `IoManager` alone.
pub(crate) const DISPATCH_PLAIN: &str = "dispatch-plain";
/// One expiry of one of a thousand watchdogs on one queue: taken, served, recorded.
pub(crate) const EXPIRY: &str = "expiry";
/// One attempt of a probe, from due to finished, through the kubelet's worker.
pub(crate) const PROBE_STEP: &str = "probe-step";

/// How to perform so many of the operation `name`.
pub(crate) fn named(name: &str) -> Option<fn(u64)> {
    match name {
        PING => Some(|count| {
            let mut watchdog = armed(VmInstant::ZERO, 30_000);
            for index in 0..count {
                ping(
                    &mut watchdog,
                    VmInstant::from_nanos(black_box(index) * 1_000),
                );
            }
        }),
        DISPATCH => Some(|count| {
            let mut bus = Ranges::new(16).on_bus();
            for turn in 0..count {
                bus.mmio_write(black_box(Ranges::in_turn(turn, 16)), &black_box([1, 0]));
            }
        }),
        DISPATCH_PLAIN => Some(|count| {
            let io = Ranges::new(16).on_io_manager();
            for turn in 0..count {
                let address = MmioAddress(black_box(Ranges::in_turn(turn, 16)));
                black_box(io.mmio_write(address, &black_box([1, 0])).is_ok());
            }
        }),
        EXPIRY => Some(expiries),
        PROBE_STEP => Some(probe_steps),
        _ => None,
    }
}

/// A watchdog as Linux starts it, with so many ticks in each stage.
pub(crate) fn armed(now: VmInstant, ticks: u32) -> I6300Esb {
    let mut watchdog = I6300Esb::new(Config::default());
    preload(&mut watchdog, now, [ticks, ticks]);
    let _ = watchdog.config_write(now, 0x68, &[0x02]);
    watchdog
}

/// Programs both stages.
pub(crate) fn preload(watchdog: &mut I6300Esb, now: VmInstant, ticks: [u32; 2]) {
    for (offset, ticks) in [(0x00, ticks[0]), (0x04, ticks[1])] {
        let _ = watchdog.mmio_write(now, 0x0c, &[0x80, 0x00]);
        let _ = watchdog.mmio_write(now, 0x0c, &[0x86, 0x00]);
        let _ = watchdog.mmio_write(now, offset, &ticks.to_le_bytes());
    }
}

/// The three writes, at one instant; whether the timer has to be moved.
pub(crate) fn ping(watchdog: &mut I6300Esb, now: VmInstant) -> bool {
    let first = watchdog.mmio_write(now, 0x0c, &black_box([0x80, 0x00]));
    let second = watchdog.mmio_write(now, 0x0c, &black_box([0x86, 0x00]));
    let third = watchdog.mmio_write(now, 0x0c, &black_box([0x00, 0x01]));
    [first, second, third]
        .iter()
        .any(|effects| effects.timer != TimerRequest::Keep)
}

/// The same with the clock read for each write, as a machine does it.
pub(crate) fn ping_by_the_clock(watchdog: &mut I6300Esb) -> bool {
    let mut moved = false;
    for data in [[0x80, 0x00], [0x86, 0x00], [0x00, 0x01]] {
        let now = VmInstant::from_nanos(monotonic_ns());
        moved |= watchdog.mmio_write(now, 0x0c, &black_box(data)).timer != TimerRequest::Keep;
    }
    moved
}

/// A device that keeps what is written to it, and that is all.
#[derive(Debug, Default)]
pub(crate) struct Register(AtomicU32);

impl DeviceMmio for Register {
    fn mmio_read(&self, _base: MmioAddress, _offset: MmioAddressOffset, data: &mut [u8]) {
        data.fill(u8::try_from(self.0.load(Ordering::Relaxed) & 0xff).unwrap_or(0));
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let first = data.first().copied().unwrap_or(0);
        let offset = u32::try_from(offset).unwrap_or(0);
        self.0.store(u32::from(first) + offset, Ordering::Relaxed);
    }
}

/// So many devices of 16 bytes, a page apart.
pub(crate) struct Ranges(u32);

impl Ranges {
    const FIRST: u64 = 0xd000_0000;
    const SIZE: u64 = 16;
    const APART: u64 = 0x1000;

    pub(crate) const fn new(count: u32) -> Self {
        Self(count)
    }

    /// Where range `index` begins.
    pub(crate) fn address(index: u32) -> u64 {
        Self::FIRST + u64::from(index) * Self::APART
    }

    /// Goes from one of `count` ranges to another; each has its turn where `count` is a power of two.
    pub(crate) fn in_turn(turn: u64, count: u32) -> u64 {
        let index = turn.wrapping_mul(37) & u64::from(count.saturating_sub(1));
        Self::address(u32::try_from(index).unwrap_or(0))
    }

    pub(crate) fn on_io_manager(&self) -> IoManager {
        let mut io = IoManager::new();
        for index in 0..self.0 {
            let range = MmioRange::new(MmioAddress(Self::address(index)), Self::SIZE);
            let placed =
                range.and_then(|range| io.register_mmio(range, Arc::<Register>::default()));
            debug_assert!(placed.is_ok(), "{placed:?}");
        }
        io
    }

    /// On the machine's bus, as its PCI functions put their BARs there and a vCPU thread sees them.
    pub(crate) fn on_bus(&self) -> View {
        use kennel_pci::{AddressSpace, BarChange, BarRange};
        let bus = Arc::new(Bus::new());
        let moves = bus.bar_moves();
        for index in 0..self.0 {
            let new = BarRange::new(AddressSpace::Memory, Self::address(index), Self::SIZE);
            let change = BarChange {
                bar: 0,
                old: None,
                new,
            };
            moves.push(Arc::<Register>::default(), change);
        }
        bus.settle();
        View::new(bus)
    }
}

fn expiries(count: u64) {
    let at = VmInstant::from_nanos;
    let mut queue = DeadlineQueue::new();
    let mut devices: Vec<I6300Esb> = vec![];
    for key in 0..1_000_usize {
        // Each at an instant of its own.
        let device = armed(at(u64::try_from(key).unwrap_or(0) * 1_000), 1_000);
        if let Some(due) = device.deadline() {
            queue.record(key, TimerRequest::ArmAt(due));
        }
        devices.push(device);
    }
    for _ in 0..count {
        if let Some((now, _)) = queue.first()
            && let Some(key) = queue.pop_due(black_box(now))
            && let Some(device) = devices.get_mut(key)
        {
            queue.record(key, device.timer_fired(now).timer);
        }
    }
}

fn probe_steps(count: u64) {
    let second = Duration::from_secs(1);
    let timing = Timing {
        initial_delay: Duration::ZERO,
        timeout: second,
        period: second,
        success_threshold: 1,
        failure_threshold: 3,
    };
    let mut worker = Worker::new(ProbeKind::Readiness, timing);
    let mut now = Moment::ZERO;
    worker.started(now);
    for _ in 0..count {
        now = now.after(second);
        if let Some(attempt) = worker.due(black_box(now)) {
            let finished = worker.finished(now, attempt.number, Outcome::Success);
            black_box(&finished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_reaches_the_watchdog_and_moves_no_timer() {
        let mut watchdog = armed(VmInstant::ZERO, 30_000);
        let now = VmInstant::from_nanos(5);
        assert!(!ping(&mut watchdog, now));
        assert_eq!(watchdog.status(now).pings, 1);
    }

    #[test]
    fn every_range_answers_on_both_buses() {
        let (mut bus, io) = (Ranges::new(256).on_bus(), Ranges::new(256).on_io_manager());
        for index in 0..256 {
            let address = Ranges::address(index);
            bus.mmio_write(address + 3, &[4]);
            let mut data = [0];
            bus.mmio_read(address, &mut data);
            assert_eq!(data, [7], "range {index}");
            assert!(io.mmio_write(MmioAddress(address), &[0]).is_ok());
        }
    }
}
