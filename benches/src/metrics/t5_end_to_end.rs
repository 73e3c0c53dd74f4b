// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! T5: one ping, from the guest's writes to the guest again.

use std::cell::Cell;
use std::path::Path;

use kennel_tests::bench_guest;
use kennel_vmm::config::{WatchdogAction, WatchdogConfig};
use kennel_vmm::hypervisor::Hypervisor;
use kennel_vmm::protocol::{Command, News};

use super::Metric;
use crate::Trouble;
use crate::contender::marked::{KennelMarked, Marked};
use crate::contender::placed::{cpus, on_cpu};
use crate::contender::{self, qemu_version};
use crate::contest::{Contest, Outcome};
use crate::result::{Measured, Role, Target, Verdict};
use crate::session::Session;
use crate::statistics::{Ratio, pooled_quantile};

pub(super) const METRIC: Metric = Metric {
    id: "T5",
    title: "One ping, end to end",
    unit: "µs",
    definition: "Time of a ping in a loop of 18,000 (4,000 in a quick run) in a bare-metal guest, \
                 which marks the loop's begin and end on COM1; each turn starts the machine anew. The floor and ours take \
                 turns alone as well, each turn of both on the same CPU.",
    floor: "the same guest on the same KVM in a program that answers no access",
    peer: "QEMU's pc with its i6300esb, the same guest on the same KVM",
    target: "ours / floor ≤ 1.03; what we add ≤ 0.10 of what QEMU adds; 3 exits a ping",
    seconds: [330, 28],
    measure,
};

const KENNEL: &str = "Kennel";
const FLOOR: &str = "floor";
const QEMU: &str = "QEMU";
const MIB: u32 = 32;
/// The share of the time that floor and Kennel have for themselves.
const NEAR_PART: f64 = 0.3;

fn watchdog() -> WatchdogConfig {
    WatchdogConfig {
        action: WatchdogAction::None,
        ..WatchdogConfig::default()
    }
}

/// Floor and Kennel alone, each turn of both on the same CPU: a few percent are more than what two
/// CPUs of a shared machine have in common.
fn near(session: &Session, kernel: &Path, digit: usize) -> Result<Outcome, Trouble> {
    let cpus = cpus()?;
    let next = |turns: &Cell<usize>| {
        let turn = turns.replace(turns.get() + 1);
        cpus.get(turn % cpus.len()).copied().unwrap_or_default()
    };
    let [floors, kennels] = [const { Cell::new(0) }; 2];
    let (pings, cmdline) = loops(digit);
    Contest::default()
        .with(FLOOR, Role::Floor, || {
            let floor = on_cpu(next(&floors), || Marked::floor(kernel, MIB, &cmdline))?;
            one(pings, |letter| floor.wait_for(letter))
        })
        .with(KENNEL, Role::Kennel, || {
            let start = || KennelMarked::start(kernel, MIB, &cmdline, Some(watchdog()));
            let kennel = on_cpu(next(&kennels), start)?;
            one(pings, |letter| kennel.wait_for(letter))
        })
        .run(session, session.times(60, 5))
}

/// Pings that a guest told so makes in its loop, and how it is told.
fn loops(digit: usize) -> (u64, String) {
    let loops = u64::try_from(digit).unwrap_or(1);
    (loops * bench_guest::PINGS, digit.to_string())
}

/// The guest's loop, as one sample in ns a ping.
fn one(pings: u64, wait_for: impl Fn(u8) -> Result<u64, Trouble>) -> Result<Vec<u64>, Trouble> {
    let begin = wait_for(b'B')?;
    let end = wait_for(b'E')?;
    Ok(vec![(end - begin) / pings])
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    Hypervisor::open().map_err(Trouble::new)?;
    let guest = bench_guest::write();
    let kernel: &Path = &guest;
    let digit = session.times(9, 2);
    let (pings, cmdline) = loops(digit);
    let path = kernel.to_string_lossy();
    let with_qemu = qemu_version().is_some();
    if !with_qemu {
        measured.notes.push(format!(
            "QEMU: absent, {} is not installed",
            contender::QEMU
        ));
    }
    let qemu = || {
        let arguments = ["-kernel", &path, "-append", &cmdline, "-no-reboot"];
        let watchdog = ["-device", "i6300esb,addr=4", "-action", "watchdog=none"];
        let qemu = Marked::qemu("pc", MIB, &[&arguments[..], &watchdog[..]].concat())?;
        one(pings, |letter| qemu.wait_for(letter))
    };
    session.part(0.0, NEAR_PART);
    let near = near(session, kernel, digit)?;
    session.part(NEAR_PART, 1.0);
    let outcome = Contest::default()
        .with(FLOOR, Role::Floor, || {
            let floor = Marked::floor(kernel, MIB, &cmdline)?;
            one(pings, |letter| floor.wait_for(letter))
        })
        .with(KENNEL, Role::Kennel, || {
            let kennel = KennelMarked::start(kernel, MIB, &cmdline, Some(watchdog()))?;
            one(pings, |letter| kennel.wait_for(letter))
        })
        .with_some(QEMU, Role::Qemu, with_qemu.then_some(qemu))
        .run(session, session.times(20, 2))?;
    measured.series = outcome.series_with_histograms(1e-3);
    let added = added(&near, &outcome);
    if with_qemu && added.is_none() {
        let note = "QEMU was not slower than the floor: this machine is too busy to tell";
        measured.notes.push(note.into());
    }
    measured.verdicts = vec![
        Verdict::ratio(
            "Kennel / floor",
            near.pooled(KENNEL, FLOOR, 0.5),
            Target::AtMost(1.03),
        ),
        Verdict::ratio(
            "what Kennel adds / what QEMU adds",
            added,
            Target::AtMost(0.10),
        ),
        Verdict::figure("exits of a ping", exits_per_ping()?, Target::Exactly(3.0)),
    ];
    measured.blocks = near.noise;
    measured.blocks.extend(outcome.noise);
    Ok(())
}

/// Over the floor, of the medians of all blocks: ours where we were alone with it, QEMU's where all
/// took turns.
fn added(near: &Outcome, all: &Outcome) -> Option<Ratio> {
    fn blocks<'a>(of: &'a Outcome, name: &str) -> Option<&'a [Vec<u64>]> {
        Some(&of.of(name)?.blocks)
    }
    let (near_floor, kennel) = (blocks(near, FLOOR)?, blocks(near, KENNEL)?);
    let (floor, qemu) = (blocks(all, FLOOR)?, blocks(all, QEMU)?);
    let count = floor.len().min(qemu.len());
    // So many of the others stand for one of these, and are drawn with it.
    let each = near_floor.len().min(kennel.len()) / count.max(1);
    let of_near = |drawn: &[usize]| -> Vec<usize> {
        let parts = drawn.iter().map(|index| index * each..(index + 1) * each);
        parts.flatten().collect()
    };
    let over = |ours, theirs, drawn: &[usize]| {
        pooled_quantile(ours, drawn, 0.5) as f64 - pooled_quantile(theirs, drawn, 0.5) as f64
    };
    let whole: Vec<usize> = (0..count).collect();
    // On a machine so busy that QEMU beats the floor it says nothing.
    let says = each > 0 && over(qemu, floor, &whole) > 0.0;
    Ratio::resampled(count, count * (2 + 2 * each), |drawn| {
        over(kennel, near_floor, &of_near(drawn)) / over(qemu, floor, drawn).max(1.0)
    })
    .filter(|_| says)
}

/// By our own count of exits, of twice as many pings less as many; `None` without KVM.
pub(crate) fn exits_per_ping() -> Result<Option<f64>, Trouble> {
    if Hypervisor::open().is_err() {
        return Ok(None);
    }
    let guest = bench_guest::write();
    let exits = |digit: &str| {
        let mut machine = KennelMarked::start(&guest, MIB, digit, Some(watchdog()))?;
        machine.wait_for(b'E')?;
        machine.tell(&Command::Status)?;
        machine.news(|notice| match &notice.news {
            News::Status(status) => Some(status.exits),
            _ => None,
        })
    };
    let (few, many) = (exits("1")?, exits("2")?);
    Ok(Some(
        many.saturating_sub(few) as f64 / bench_guest::PINGS as f64,
    ))
}
