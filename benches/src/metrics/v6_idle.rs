// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! V6: what a machine costs whose guest waits.

use std::time::Duration;

use kennel_tests::bench_guest;

use super::Metric;
use super::v1_start::MIB;
use crate::Trouble;
use crate::clock::monotonic_ns;
use crate::contender::marked::{KennelMarked, Marked};
use crate::contender::{self, qemu_version};
use crate::load::accounts;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "V6",
    title: "CPU of an idle machine",
    unit: "ms of CPU a minute",
    definition: "CPU time of all threads of the VM process while its bare-metal guest of 128 MiB \
                 halts and its watchdog is not armed; all machines at once.",
    floor: "a program that builds the same KVM objects and no device",
    peer: "QEMU's pc with its i6300esb, the same guest",
    target: "≤ 10 ms a minute",
    seconds: [75, 15],
    measure,
};

/// After the last machine's first instruction, until none does anything that belongs to its start.
const SETTLE: Duration = Duration::from_secs(2);

const BLOCK: Duration = Duration::from_secs(10);
/// What the kernel's accounts can tell from nothing: one tick.
const TICK_MS: f64 = 10.0;
const KENNEL: &str = "Kennel";

/// Every thread's name begins so.
const ALL_THREADS: &[&str] = &[""];

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let guest = bench_guest::write();
    let floor = Marked::floor(&guest, MIB, "s")?;
    let kennel = KennelMarked::start(&guest, MIB, "s", Some(Default::default()))?;
    let qemu = match qemu_version() {
        Some(_) => Some(pc(&guest.to_string_lossy())?),
        None => {
            let what = format!("QEMU: absent, {} is not installed", contender::QEMU);
            measured.notes.push(what);
            None
        }
    };
    for marked in [Some(&floor), qemu.as_ref()].into_iter().flatten() {
        marked.wait_for(b'S')?;
    }
    kennel.wait_for(b'S')?;
    session.wait(SETTLE)?;

    let machines = [
        Some(("floor", Role::Floor, floor.pid())),
        Some((KENNEL, Role::Kennel, kennel.pid())),
        qemu.as_ref()
            .map(|qemu| ("QEMU pc", Role::Qemu, qemu.pid())),
    ];
    let machines: Vec<_> = machines.into_iter().flatten().collect();
    let used = |pid: u32| accounts::cpu_ns(pid, ALL_THREADS);
    let before: Vec<u64> = machines.iter().map(|(.., pid)| used(*pid)).collect();
    let begin = monotonic_ns();
    measured.blocks = session.blocks(session.times(6, 1), |_| session.wait(BLOCK))?;
    let minutes = monotonic_ns().saturating_sub(begin) as f64 / 60e9;
    let mut ours = None;
    for ((name, role, pid), before) in machines.into_iter().zip(before) {
        let ms = used(pid).saturating_sub(before) as f64 / 1e6 / minutes;
        measured.series.push(Series::figure(name, role, ms));
        if name == KENNEL {
            ours = Some(ms);
        }
    }
    let what = "ms of CPU a minute";
    measured
        .verdicts
        .push(Verdict::figure(what, ours, Target::AtMost(TICK_MS)));
    Ok(())
}

/// The guest in QEMU, which enters it by its PVH note after its own firmware.
fn pc(guest: &str) -> Result<Marked, Trouble> {
    let boot = ["-kernel", guest, "-append", "s"];
    let device = ["-device", "i6300esb,addr=4", "-action", "watchdog=none"];
    Marked::qemu("pc", MIB, &[boot, device].concat())
}
