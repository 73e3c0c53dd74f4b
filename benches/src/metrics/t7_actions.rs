// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T7: from a bite to what it does.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kennel_tests::bench_guest;
use kennel_vmm::config::{WatchdogAction, WatchdogConfig};
use kennel_vmm::protocol::{Command, News};

use super::Metric;
use crate::Trouble;
use crate::clock::realtime_to_monotonic;
use crate::contender::floor_vcpu::FloorVcpu;
use crate::contender::marked::{KennelMarked, Marked};
use crate::contender::qemu_watchdog::{QemuWatchdog, Told, connect, listen};
use crate::contender::{self, qemu_version};
use crate::contest::{Contest, Outcome};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "T7",
    title: "From a bite to its action",
    unit: "µs",
    definition: "From the bite as it is told (ours: the Watchdog notice, QEMU: its WATCHDOG event) \
                 to the action's end: reset, the first instruction after it, of a firmware with \
                 QEMU, and of the kernel; pause, the machine told to stand still; inject-nmi, the \
                 guest's handler.",
    floor: "a vCPU built anew, kicked out of the guest, or given an NMI, in one process",
    peer: "QEMU's pc; reset also with a firmware whose first instruction is the mark",
    target: "ours / QEMU: p50 ≤ 0.5, p99 ≤ 0.7",
    seconds: [800, 45],
    measure,
};

const KENNEL: &str = "Kennel";
const FLOOR: &str = "floor";
const QEMU: &str = "QEMU";
pub(super) const MIB: u32 = 16;
/// The floor needs not wait for bites.
const FLOOR_SAMPLES: usize = 5;
const BOUND: Duration = Duration::from_secs(20);
/// Ticks of each stage: QEMU tells of a bite once a second at most.
pub(super) const TICKS: u32 = 610;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Reset,
    ResetToKernel,
    Pause,
    Nmi,
}

impl Action {
    const ALL: [Self; 4] = [Self::Reset, Self::ResetToKernel, Self::Pause, Self::Nmi];

    const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ResetToKernel => "reset to the kernel",
            Self::Pause => "pause",
            Self::Nmi => "inject-nmi",
        }
    }

    /// The guest's program.
    const fn program(self) -> &'static str {
        match self {
            Self::Reset | Self::ResetToKernel | Self::Pause => "b",
            Self::Nmi => "n",
        }
    }

    const fn action(self) -> WatchdogAction {
        match self {
            Self::Reset | Self::ResetToKernel => WatchdogAction::Reset,
            Self::Pause => WatchdogAction::Pause,
            Self::Nmi => WatchdogAction::InjectNmi,
        }
    }
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let (guest, rom) = (bench_guest::write(), bench_guest::write_rom());
    let with_qemu = qemu_version().is_some();
    if !with_qemu {
        measured.notes.push(format!(
            "QEMU: absent, {} is not installed",
            contender::QEMU
        ));
    }
    measured.notes.push(
        "a reset takes another KVM VM, built before the bite, and loads the kernel into it; QEMU \
         keeps its own and enters its firmware, which then takes its time to the kernel"
            .into(),
    );
    let bites = session.times(3, 1);
    for (action, part) in Action::ALL.into_iter().zip([0.0, 1.0, 2.0, 3.0]) {
        session.part(part / 4.0, (part + 1.0) / 4.0);
        let mut floor = FloorVcpu::new(&guest, action.program())?;
        let blocks = match action {
            Action::Reset | Action::Pause => session.times(10, 1),
            // QEMU takes seconds for each.
            Action::ResetToKernel | Action::Nmi => session.times(5, 1),
        };
        let qemu = || several(action, bites, |bites| qemu(action, &guest, &rom, bites));
        let outcome = Contest::default()
            .with(FLOOR, Role::Floor, || floor_turn(&mut floor, action))
            .with(KENNEL, Role::Kennel, || {
                several(action, bites, |bites| kennel(action, &guest, bites))
            })
            .with_some(QEMU, Role::Qemu, with_qemu.then_some(qemu))
            .run(session, blocks)?;
        judge(measured, action, &outcome);
        measured.blocks.extend(outcome.noise);
    }
    Ok(())
}

/// The guest takes one NMI a boot.
fn several(
    action: Action,
    bites: usize,
    turn: impl Fn(usize) -> Result<Vec<u64>, Trouble>,
) -> Result<Vec<u64>, Trouble> {
    if action != Action::Nmi {
        return turn(bites);
    }
    let all: Result<Vec<Vec<u64>>, Trouble> = (0..bites).map(|_| turn(1)).collect();
    Ok(all?.concat())
}

fn judge(measured: &mut Measured, action: Action, outcome: &Outcome) {
    let name = action.name();
    for one in &outcome.contenders {
        let samples = one.all();
        let series = Series::of(one.name, one.role, &samples, 1e-3);
        let drawn = |series: Series| series.with_histogram(&samples, 1e-3).in_mode(name);
        measured.series.extend(series.map(drawn));
    }
    for (quantile, share, bound) in [("p50", 0.5, 0.5), ("p99", 0.99, 0.7)] {
        measured.verdicts.push(Verdict::ratio(
            format!("{name}: Kennel / QEMU, {quantile}"),
            outcome.pooled(KENNEL, QEMU, share),
            Target::AtMost(bound),
        ));
    }
}

fn floor_turn(floor: &mut FloorVcpu, action: Action) -> Result<Vec<u64>, Trouble> {
    let built = floor.build()?;
    match action {
        Action::Reset | Action::ResetToKernel => {
            (0..FLOOR_SAMPLES).map(|_| floor.build()).collect()
        }
        Action::Pause => (0..FLOOR_SAMPLES).map(|_| floor.park()).collect(),
        Action::Nmi => (0..FLOOR_SAMPLES)
            .map(|_| {
                floor.build()?;
                // Until the handler stands and the guest halts.
                std::thread::sleep(Duration::from_nanos(built.max(20_000_000)));
                floor.inject_nmi()
            })
            .collect(),
    }
}

fn kennel(action: Action, guest: &Path, bites: usize) -> Result<Vec<u64>, Trouble> {
    let watchdog = WatchdogConfig {
        action: action.action(),
        ..WatchdogConfig::default()
    };
    let offset = realtime_to_monotonic();
    let mut machine = KennelMarked::start(guest, MIB, action.program(), Some(watchdog))?;
    machine.wait_for(b'S')?;
    let mut samples = vec![];
    for _ in 0..bites {
        let told = |wanted: fn(&News) -> bool| {
            let at = machine.news(|it| wanted(&it.news).then_some(it.realtime_ns))?;
            Ok::<u64, Trouble>(at.saturating_add_signed(offset))
        };
        let bite = told(|news| matches!(news, News::Watchdog(_)))?;
        let done = match action {
            Action::Reset | Action::ResetToKernel => machine.wait_for(b'S')?,
            Action::Nmi => machine.wait_for(b'N')?,
            Action::Pause => told(|news| matches!(news, News::Paused { .. }))?,
        };
        samples.push(done.saturating_sub(bite));
        if action == Action::Pause {
            machine.tell(&Command::Resume)?;
        }
    }
    Ok(samples)
}

/// Events of QEMU's, in order.
pub(super) struct Events(pub(super) Receiver<Told>, pub(super) i64);

impl Events {
    /// When the event `name` was told next.
    pub(super) fn wait_for(&self, name: &str) -> Result<u64, Trouble> {
        loop {
            let told = self.0.recv_timeout(BOUND);
            let told = told.map_err(|_| Trouble::new(format!("QEMU never told {name}")))?;
            if told.event == name {
                return Ok(told.realtime_ns.saturating_add_signed(self.1));
            }
        }
    }
}

fn qemu(action: Action, guest: &Path, rom: &Path, bites: usize) -> Result<Vec<u64>, Trouble> {
    let (sender, told) = channel();
    let events = Events(told, realtime_to_monotonic());
    let tell = move |told| sender.send(told).is_ok();
    if action == Action::Pause {
        let mut qemu = QemuWatchdog::start("pause", tell)?;
        let pause = |_| {
            qemu.arm([TICKS, TICKS])?;
            let bite = events.wait_for("WATCHDOG")?;
            let done = events.wait_for("STOP")?;
            qemu.tell("cont")?;
            events.wait_for("RESUME")?;
            Ok(done.saturating_sub(bite))
        };
        return (0..bites).map(pause).collect();
    }
    let directory = tempfile::tempdir().map_err(Trouble::new)?;
    let qmp = directory.path().join("qmp");
    let server = format!("unix:{},server=on,wait=off", qmp.display());
    let (guest, rom) = (guest.to_string_lossy(), rom.to_string_lossy());
    let name = if action == Action::Nmi {
        "inject-nmi"
    } else {
        "reset"
    };
    let watchdog = format!("watchdog={name}");
    let boots: &[&str] = match action {
        Action::Reset | Action::Pause => &["-bios", &rom],
        Action::ResetToKernel | Action::Nmi => &["-kernel", &guest, "-append", action.program()],
    };
    let device = [
        "-device",
        "i6300esb,addr=4",
        "-action",
        &watchdog,
        "-qmp",
        &server,
    ];
    let qemu = Marked::qemu("pc", MIB, &[boots, &device[..]].concat())?;
    listen(&connect(&qmp)?, tell)?;
    qemu.wait_for(b'S')?;
    let mark = if action == Action::Nmi { b'N' } else { b'S' };
    (0..bites)
        .map(|_| {
            let bite = events.wait_for("WATCHDOG")?;
            Ok(qemu.wait_for(mark)?.saturating_sub(bite))
        })
        .collect()
}
