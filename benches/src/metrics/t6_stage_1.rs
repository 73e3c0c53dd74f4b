// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T6: from the end of stage 1 to the guest's handler.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use kennel_tests::payload;
use kennel_vmm::config::{MachineConfig, WatchdogAction, WatchdogConfig};
use kennel_vmm::layout;
use kennel_vmm::machine::{Machine, Outcome};
use kvm_bindings::kvm_msi;

use super::Metric;
use crate::Trouble;
use crate::clock::monotonic_ns;
use crate::contender::Guest;
use crate::contender::floor_vcpu::{FloorVcpu, Marks};
use crate::contest::Contest;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "T6",
    title: "End of stage 1 to the guest's handler",
    unit: "µs",
    definition: "From the event loop's waking by the watchdog's timer to the first instructions of \
                 the handler, a mark at a port, in a bare-metal guest that halts; by the pin and by \
                 a message. What comes before the waking is T1's.",
    floor: "KVM_IRQ_LINE and KVM_SIGNAL_MSI to the same guest without a device",
    peer: "nobody: QEMU's i6300esb has no stage-1 interrupt",
    target: "ours / floor: p50 ≤ 1.15",
    seconds: [60, 8],
    measure,
};

const KENNEL: &str = "Kennel";
const FLOOR: &str = "floor";
const MIB: u32 = 16;
const BOUND: Duration = Duration::from_secs(10);
/// The guest's stage 1, about.
const STAGE: Duration = Duration::from_millis(10);
/// Where the guest's local APIC takes messages, and the vector it asks for.
const MESSAGE: (u32, u32) = (layout::LAPIC, 0x40);

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let guest = payload::write();
    let times = session.times(40, 20);
    for (mode, program, part) in [("pin", "I", 0.0), ("message", "J", 0.5)] {
        session.part(part, part + 0.5);
        let msi = mode == "message";
        let mut floor = FloorVcpu::marking(&guest, program, payload::MARK_PORT, b'B')?;
        let outcome = Contest::default()
            .with(FLOOR, Role::Floor, || floor_turn(&mut floor, msi, times))
            .with(KENNEL, Role::Kennel, || {
                Kennel::start(&guest, program, msi)?.turn(times)
            })
            .run(session, session.times(20, 2))?;
        for one in &outcome.contenders {
            let samples = one.all();
            let series = Series::of(one.name, one.role, &samples, 1e-3);
            let drawn = |series: Series| series.with_histogram(&samples, 1e-3).in_mode(mode);
            measured.series.extend(series.map(drawn));
        }
        measured.verdicts.push(Verdict::ratio(
            format!("{mode}: Kennel / floor, p50"),
            outcome.ratio(KENNEL, FLOOR, 0.5),
            Target::AtMost(1.15),
        ));
        measured.blocks.extend(outcome.noise);
    }
    Ok(())
}

fn floor_turn(floor: &mut FloorVcpu, msi: bool, times: usize) -> Result<Vec<u64>, Trouble> {
    floor.build()?;
    let gsi = layout::pci_intx_gsi(layout::WATCHDOG_SLOT, 0);
    let (address_lo, data) = MESSAGE;
    let message = kvm_msi {
        address_lo,
        data,
        ..Default::default()
    };
    (0..times)
        .map(|_| {
            std::thread::sleep(STAGE);
            floor.interrupt(|vm| {
                if msi {
                    return vm.signal_msi(message).map(drop);
                }
                vm.set_irq_line(gsi, true)?;
                vm.set_irq_line(gsi, false)
            })
        })
        .collect()
}

/// The machine in this process, in an event loop as its own process has one.
struct Kennel {
    manager: EventManager<Driver>,
    marks: Receiver<(u8, u64)>,
    woken: Receiver<u64>,
}

/// Does what the event loop does about the watchdog, and notes when it was woken.
struct Driver {
    machine: Machine,
    woken: Sender<u64>,
}

impl Kennel {
    fn start(guest: &Path, program: &str, msi: bool) -> Result<Self, Trouble> {
        let config = MachineConfig {
            watchdog: Some(WatchdogConfig {
                action: WatchdogAction::None,
                msi,
                ..WatchdogConfig::default()
            }),
            ..Guest::bare(guest, MIB, program).config()
        };
        let mut machine = Machine::new(config, Box::new(std::io::sink())).map_err(Trouble::new)?;
        let marks = Marks::at(&machine.board().bus, payload::MARK_PORT)?;
        machine.power_on(&mut |_, _| {}).map_err(Trouble::new)?;
        let mut manager = EventManager::new().map_err(Trouble::new)?;
        let (sender, woken) = channel();
        manager.add_subscriber(Driver {
            machine,
            woken: sender,
        });
        Ok(Self {
            manager,
            marks,
            woken,
        })
    }

    fn turn(&mut self, times: usize) -> Result<Vec<u64>, Trouble> {
        (0..times).map(|_| self.sample()).collect()
    }

    /// The next mark, less the waking that it is of.
    fn sample(&mut self) -> Result<u64, Trouble> {
        let end = Instant::now() + BOUND;
        while Instant::now() < end {
            // A ping leaves the timer where it was: not every waking is the end of stage 1.
            self.manager.run_with_timeout(1).map_err(Trouble::new)?;
            for (_, at) in self.marks.try_iter().filter(|(letter, _)| *letter == b'I') {
                // Of no waking is a level that was still seen high once it had been answered.
                if let Some(woken) = self.woken.try_iter().filter(|woken| *woken < at).last() {
                    return Ok(at - woken);
                }
            }
        }
        Err(Trouble::new("the guest's handler was never entered"))
    }
}

impl MutEventSubscriber for Driver {
    fn process(&mut self, _: Events, _: &mut EventOps) {
        let now = monotonic_ns();
        self.machine.serve_watchdog();
        if let Outcome::Failed(message) = self.machine.serve_requests(&mut |_, _| {}) {
            eprintln!("T6: {message}");
        }
        // Nobody listens any more at the end.
        let _told = self.woken.send(now);
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Some(watchdog) = &self.machine.board().watchdog {
            let watched = ops.add(Events::new(&**watchdog, EventSet::IN));
            debug_assert!(watched.is_ok(), "{watched:?}");
        }
    }
}
