// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! V1: from a process' start to the guest's first instruction.

use std::path::Path;

use kennel_tests::bench_guest;

use super::Metric;
use crate::Trouble;
use crate::contender::marked::{KennelMarked, Marked};
use crate::contender::{self, qemu_version};
use crate::contest::Contest;
use crate::result::{Measured, Role, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "V1",
    title: "Start to the first guest instruction",
    unit: "ms",
    definition: "From before the VM process is started to the guest's first instruction, a mark on \
                 COM1, seen by who started it; 128 MiB, one vCPU, with the watchdog where there is \
                 a PCI bus.",
    floor: "a program that builds the same KVM objects and no device",
    peer: "QEMU's microvm, and its pc, with a firmware whose first instruction is the mark",
    target: "ours / floor ≤ 1.15; ours / microvm ≤ 0.65",
    seconds: [25, 5],
    measure,
};

const KENNEL: &str = "Kennel";
const FLOOR: &str = "floor";
const MICROVM: &str = "QEMU microvm";
const PC: &str = "QEMU pc";
pub(super) const MIB: u32 = 128;

pub(super) fn microvm(rom: &Path) -> Result<Marked, Trouble> {
    let machine = "microvm,x-option-roms=off,rtc=off";
    Marked::qemu(machine, MIB, &["-bios", &rom.to_string_lossy()])
}

pub(super) fn pc(rom: &Path) -> Result<Marked, Trouble> {
    let rom = rom.to_string_lossy();
    let device = ["-device", "i6300esb,addr=4", "-action", "watchdog=none"];
    Marked::qemu("pc", MIB, &[&["-bios", &*rom][..], &device[..]].concat())
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
    let first = |marked: Marked| Ok(vec![marked.wait_for(b'S')? - marked.begun]);
    let starts = session.times(3, 2);
    let several = |start: &dyn Fn() -> Result<Vec<u64>, Trouble>| {
        let all: Result<Vec<Vec<u64>>, Trouble> = (0..starts).map(|_| start()).collect();
        Ok(all?.concat())
    };
    let outcome = Contest::default()
        .with(FLOOR, Role::Floor, || {
            several(&|| first(Marked::floor(&guest, MIB, "s")?))
        })
        .with(KENNEL, Role::Kennel, || {
            several(&|| {
                let kennel = KennelMarked::start(&guest, MIB, "s", Some(Default::default()))?;
                Ok(vec![kennel.wait_for(b'S')? - kennel.begun])
            })
        })
        .with_some(
            MICROVM,
            Role::Qemu,
            with_qemu.then_some(|| several(&|| first(microvm(&rom)?))),
        )
        .with_some(
            PC,
            Role::Qemu,
            with_qemu.then_some(|| several(&|| first(pc(&rom)?))),
        )
        .run(session, session.times(20, 2))?;
    measured.series = outcome.series_with_histograms(1e-6);
    for (name, theirs, bound) in [("floor", FLOOR, 1.15), ("microvm", MICROVM, 0.65)] {
        measured.verdicts.push(Verdict::ratio(
            format!("Kennel / {name}, p50"),
            outcome.ratio(KENNEL, theirs, 0.5),
            Target::AtMost(bound),
        ));
    }
    measured.blocks = outcome.noise;
    Ok(())
}
