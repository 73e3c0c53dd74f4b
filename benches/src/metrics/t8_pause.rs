// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T8: what a pause does to a watchdog's time. It should neither take nor give any.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use kennel_tests::bench_guest;
use kennel_vmm::config::{WatchdogAction, WatchdogConfig};
use kennel_vmm::protocol::{Command, News, Notice};

use super::Metric;
use super::t7_actions::{Events, MIB, TICKS};
use crate::Trouble;
use crate::clock::{arm, monotonic_ns, realtime_ns, realtime_to_monotonic, timer};
use crate::contender::marked::KennelMarked;
use crate::contender::qemu_watchdog::QemuWatchdog;
use crate::contender::{self, qemu_version};
use crate::contest::Contest;
use crate::fleet::{Epoll, lateness, read};
use crate::result::{Measured, Role, Target, Verdict};
use crate::session::Session;
use crate::statistics::quantile;

pub(super) const METRIC: Metric = Metric {
    id: "T8",
    title: "Lateness of a bite over a pause",
    unit: "µs",
    definition: "A machine with a timeout of 1.2 s is paused for 0.3 s at a random moment: from the \
                 time that was left at the pause, counted from the resumption, to the bite.",
    floor: "a timerfd that is disarmed and armed again for what was left",
    peer: "QEMU's stop and cont",
    target: "ours ≤ the floor + 50 µs, p50; never early",
    seconds: [240, 12],
    measure,
};

const KENNEL: &str = "Kennel";
const FLOOR: &str = "floor";
const QEMU: &str = "QEMU";
const PAUSE: Duration = Duration::from_millis(300);
const TICK_NS: u64 = (1 << 15) * 30;
const TIMEOUT_NS: u64 = 2 * TICKS as u64 * TICK_NS;
const SEED: u64 = 0x7008;

/// A moment within the round, not too close to its ends.
fn moment(rng: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(rng.u64(100..900))
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let guest = bench_guest::write();
    let with_qemu = qemu_version().is_some();
    if !with_qemu {
        measured.notes.push(format!(
            "QEMU: absent, {} is not installed",
            contender::QEMU
        ));
    }
    let pauses = session.times(3, 1);
    let mut early = 0_u32;
    let [mut one, mut two, mut three] = [0, 1, 2].map(|n| fastrand::Rng::with_seed(SEED + n));
    let outcome = Contest::default()
        .with(FLOOR, Role::Floor, || samples(floor(&mut one, pauses)?))
        .with(KENNEL, Role::Kennel, || {
            let (errors, early_ones) = kennel(&guest, &mut two, pauses)?;
            early += early_ones;
            samples(errors)
        })
        .with_some(
            QEMU,
            Role::Qemu,
            with_qemu.then_some(|| samples(qemu(&mut three, pauses)?)),
        )
        .run(session, session.times(8, 1))?;
    measured.series = outcome.series_with_histograms(1e-3);
    let p50 = |name| {
        outcome
            .of(name)
            .map(|one| quantile(&one.all(), 0.5) as f64 / 1e3)
    };
    let beyond = p50(KENNEL)
        .zip(p50(FLOOR))
        .map(|(ours, floor)| ours - floor);
    measured.verdicts = vec![
        Verdict::figure("Kennel - floor, p50, µs", beyond, Target::AtMost(50.0)),
        Verdict::ratio(
            "Kennel / QEMU, p50",
            outcome.pooled(KENNEL, QEMU, 0.5),
            Target::AtMost(1.0),
        ),
        Verdict::figure("early bites", Some(early.into()), Target::Exactly(0.0)),
    ];
    measured.blocks = outcome.noise;
    Ok(())
}

/// Before the deadline, by what the notices say of the resumption, counts as zero.
fn samples(errors: Vec<i64>) -> Result<Vec<u64>, Trouble> {
    Ok(errors
        .into_iter()
        .map(|error| u64::try_from(error).unwrap_or(0))
        .collect())
}

fn floor(rng: &mut fastrand::Rng, pauses: usize) -> Result<Vec<i64>, Trouble> {
    let (timer, epoll) = (timer()?, Epoll::new()?);
    epoll.add(&timer, 0)?;
    let pause = |_| {
        let due = monotonic_ns() + TIMEOUT_NS;
        arm(&timer, due);
        std::thread::sleep(moment(rng));
        let left = due.saturating_sub(monotonic_ns());
        arm(&timer, 0);
        std::thread::sleep(PAUSE);
        let due = monotonic_ns() + left;
        arm(&timer, due);
        epoll.wait()?;
        let seen = monotonic_ns();
        read(&timer);
        Ok(lateness(seen, due))
    };
    (0..pauses).map(pause).collect()
}

/// Errors, and how many bites came before they could be due.
fn kennel(
    guest: &Path,
    rng: &mut fastrand::Rng,
    pauses: usize,
) -> Result<(Vec<i64>, u32), Trouble> {
    let watchdog = WatchdogConfig {
        action: WatchdogAction::None,
        ..WatchdogConfig::default()
    };
    let mut machine = KennelMarked::start(guest, MIB, "b", Some(watchdog))?;
    /// A bite: its real time, and the VM time at which it was due.
    fn bite(notice: &Notice) -> Option<(u64, u64)> {
        match &notice.news {
            News::Watchdog(report) => {
                let due = notice.uptime_ns.saturating_sub(report.lateness_ns);
                Some((notice.realtime_ns, due))
            }
            _ => None,
        }
    }
    let (_, mut due) = machine.news(bite)?;
    let (mut errors, mut early) = (vec![], 0);
    for _ in 0..pauses {
        std::thread::sleep(moment(rng));
        machine.tell(&Command::Pause)?;
        let paused = machine.news(|notice| {
            matches!(notice.news, News::Paused { .. }).then_some(notice.uptime_ns)
        })?;
        std::thread::sleep(PAUSE);
        let before = realtime_ns();
        machine.tell(&Command::Resume)?;
        let resumed = machine
            .news(|notice| matches!(notice.news, News::Resumed).then_some(notice.realtime_ns))?;
        let (bitten, next) = machine.news(bite)?;
        // It started over at the exact end of the round before.
        let left = (due + TIMEOUT_NS).saturating_sub(paused);
        errors.push(lateness(bitten, resumed + left));
        early += u32::from(bitten < before + left);
        due = next;
    }
    Ok((errors, early))
}

fn qemu(rng: &mut fastrand::Rng, pauses: usize) -> Result<Vec<i64>, Trouble> {
    let (sender, told) = channel();
    let events = Events(told, realtime_to_monotonic());
    let mut qemu = QemuWatchdog::start("none", move |told| sender.send(told).is_ok())?;
    let pause = |_| {
        let armed = qemu.arm([TICKS, TICKS])?[1];
        std::thread::sleep(moment(rng));
        qemu.tell("stop")?;
        let left = (armed + TIMEOUT_NS).saturating_sub(events.wait_for("STOP")?);
        std::thread::sleep(PAUSE);
        qemu.tell("cont")?;
        let resumed = events.wait_for("RESUME")?;
        Ok(lateness(events.wait_for("WATCHDOG")?, resumed + left))
    };
    (0..pauses).map(pause).collect()
}
