// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The watchdog in a rust-vmm machine, on vm-device's bus and in event-manager's loop:
//! `cargo run -p i6300esb-rust-vmm --example embed_rust_vmm [-- ROUNDS]`.
//!
//! A guest is played in ROUNDS (default 200) with a timeout of its own each: it starts the watchdog, pings, and hangs
//! until it is bitten. No bite may be early; how late they were is printed.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use event_manager::{EventManager, EventSubscriber, SubscriberOps};
use i6300esb::{Bite, Config, Event, ResetKind, VmInstant, spec};
use i6300esb_rust_vmm::{Host, WatchdogDevice};
use rustix::time::{ClockId, clock_gettime};
use vm_device::bus::{MmioAddress, MmioRange};
use vm_device::device_manager::{IoManager, MmioManager};

const BAR: MmioAddress = MmioAddress(0xd000_0000);

// ---- the embedding begins ----
/// What the watchdog needs of this machine.
struct Machine {
    bites: Sender<(Bite, VmInstant)>,
}

impl Host for Machine {
    fn now(&self) -> VmInstant {
        VmInstant::from_nanos(monotonic_ns())
    }

    // This machine is never paused and counts VM time as the host does; others subtract.
    fn monotonic_ns(&self, at: VmInstant) -> Option<u64> {
        Some(at.as_nanos())
    }

    // An irqfd or KVM_IRQ_LINE.
    fn set_interrupt(&self, _level: bool) {}

    fn event(&self, now: VmInstant, event: Event) {
        if let Event::Bite(bite) = event {
            // Reset the machine, or what its configuration says. Here: tell the guest below.
            let _ = self.bites.send((bite, now));
        }
    }
}

fn attach(
    bites: Sender<(Bite, VmInstant)>,
    bus: &mut IoManager,
    events: &mut EventManager<Arc<dyn EventSubscriber>>,
) -> Result<Arc<WatchdogDevice<Machine>>, Box<dyn Error>> {
    let watchdog = Arc::new(WatchdogDevice::new(Config::default(), Machine { bites })?);
    bus.register_mmio(MmioRange::new(BAR, spec::BAR_SIZE)?, watchdog.clone())?;
    events.add_subscriber(watchdog.clone());
    Ok(watchdog)
}
// ---- the embedding ends ----

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// What a guest does: unlock, then one protected write.
fn unlocked(bus: &IoManager, offset: u64, data: &[u8]) -> Result<(), Box<dyn Error>> {
    bus.mmio_write(MmioAddress(BAR.0 + spec::RELOAD), &[0x80, 0x00])?;
    bus.mmio_write(MmioAddress(BAR.0 + spec::RELOAD), &[0x86, 0x00])?;
    bus.mmio_write(MmioAddress(BAR.0 + offset), data)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u32 = match std::env::args().nth(1) {
        Some(rounds) => rounds
            .parse()
            .map_err(|error| format!("ROUNDS is {rounds:?}: {error}; give a number"))?,
        None => 200,
    };
    let mut bus = IoManager::new();
    let mut events = EventManager::new()?;
    let (sender, bites) = channel();
    let watchdog = attach(sender, &mut bus, &mut events)?;
    let mut late = Vec::new();
    for round in 0..rounds {
        // 1 to 997 ticks of the fast scale, 0.96 us each: up to 2 ms for both stages.
        watchdog.config_write(spec::CONFIG_WDT, &[0x07, 0x00]);
        unlocked(
            &bus,
            spec::PRELOAD1,
            &(round * 7_919 % 997 + 1).to_le_bytes(),
        )?;
        unlocked(
            &bus,
            spec::PRELOAD2,
            &(round * 6_007 % 991 + 1).to_le_bytes(),
        )?;
        watchdog.config_write(spec::CONFIG_LOCK, &[spec::ENABLE]);
        unlocked(&bus, spec::RELOAD, &[0x00, 0x01])?;
        let (bite, told) = loop {
            if let Ok(told) = bites.try_recv() {
                break told;
            }
            events.run()?;
        };
        let now = monotonic_ns();
        if told < bite.due || now < bite.due.as_nanos() {
            return Err(format!("round {round}: {bite:?} was told at {told:?}, too early").into());
        }
        late.push(bite.lateness_ns(told));
        watchdog.reset(ResetKind::Platform);
        while bites.try_recv().is_ok() {}
    }
    late.sort_unstable();
    let at = |percent: usize| {
        late.get(late.len().saturating_sub(1) * percent / 100)
            .map_or(0, |nanos| nanos / 1_000)
    };
    println!(
        "{rounds} bites, none early; late by {} us at the median, {} us at 99 %, {} us at most",
        at(50),
        at(99),
        at(100)
    );
    Ok(())
}
