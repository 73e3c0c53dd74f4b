// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! V2: from a process' start to the first process of a Linux guest.

use std::cell::RefCell;
use std::io::{Seek, SeekFrom, Write};

use kennel_tests::boot_mark::{self, MARK};
use tempfile::NamedTempFile;

use super::Metric;
use crate::Trouble;
use crate::contender::kvm_counts::{self, Exits};
use crate::contender::marked::{KennelMarked, Marked};
use crate::contender::{self, Guest, qemu_version};
use crate::contest::{Contest, Outcome};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::{LinuxGuest, Session};
use crate::statistics::median;

pub(super) const METRIC: Metric = Metric {
    id: "V2",
    title: "Boot of Linux to its first process",
    unit: "ms",
    definition: "From before the VM process is started to the first instructions of the guest's first \
                 process, a mark on COM1; 256 MiB, one vCPU, the same CPU model, kernel, initrd and \
                 command line, with no console and with the kernel's log on COM1. It needs --kernel \
                 and --initrd of `kennel guest build`, and a KVM that runs Linux. Exits are KVM's \
                 own count, from debugfs.",
    floor: "the same KVM objects and boot, no device",
    peer: "QEMU's microvm without RTC and option ROMs, by qboot and the kernel's PVH note; its pc, in full runs",
    target: "ours / microvm: time ≤ 0.9, exits ≤ 1.0, CPU of threads beside the vCPU's ≤ 0.5",
    seconds: [900, 150],
    measure,
};

const KENNEL: &str = "Kennel";
const FLOOR: &str = "floor";
const MICROVM: &str = "QEMU microvm";
const PC: &str = "QEMU pc";
const MIB: u32 = 256;

/// What the guest prints, and on which command line.
const MODES: [(&str, &str); 2] = [
    ("no console", "quiet"),
    ("console", "console=ttyS0 earlyprintk=ttyS0"),
];

/// What was counted of one boot.
#[derive(Clone, Copy, Debug)]
struct Counted {
    who: &'static str,
    /// From the kernel's first words, if it prints any, in ns.
    kernel: Option<u64>,
    exits: Option<Exits>,
    /// Of threads that run no vCPU, in ns.
    cpu: Option<u64>,
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let Some(linux) = &session.linux else {
        measured
            .notes
            .push("left out: it needs --kernel and --initrd".into());
        return Ok(());
    };
    if qemu_version().is_none() {
        measured.notes.push(format!(
            "QEMU: absent, {} is not installed",
            contender::QEMU
        ));
    }
    let initrd = marking(linux)?;
    for ((mode, console), part) in MODES.into_iter().zip([0.0, 0.5]) {
        session.part(part, part + 0.5);
        let guest = Guest {
            kernel: linux.kernel.clone(),
            initrd: Some(initrd.path().to_owned()),
            cmdline: format!("{console} {} panic=-1 cryptomgr.notests", boot_mark::RDINIT),
            memory_mib: MIB,
        };
        let (outcome, counted, trouble) = boots(session, &guest, console != "quiet")?;
        measured.notes.extend(trouble);
        judge(measured, mode, &outcome, &counted);
        measured.blocks.extend(outcome.noise);
    }
    Ok(())
}

/// The initrd with the program that marks behind it.
fn marking(linux: &LinuxGuest) -> Result<NamedTempFile, Trouble> {
    let said = |error| Trouble::new(format!("{}: {error}", linux.initrd.display()));
    let mut file = NamedTempFile::new().map_err(Trouble::new)?;
    let mut initrd = std::fs::File::open(&linux.initrd).map_err(said)?;
    let size = std::io::copy(&mut initrd, &mut file).map_err(said)?;
    file.seek(SeekFrom::Start(size.next_multiple_of(512)))
        .and_then(|_| file.write_all(&boot_mark::archive()))
        .map_err(said)?;
    Ok(file)
}

fn microvm(guest: &Guest) -> Result<Marked, Trouble> {
    let machine = "microvm,acpi=on,rtc=off,x-option-roms=off";
    qemu(machine, guest, &["-bios", "qboot.rom"])
}

fn pc(guest: &Guest) -> Result<Marked, Trouble> {
    qemu("pc", guest, &[])
}

fn qemu(machine: &str, guest: &Guest, firmware: &[&str]) -> Result<Marked, Trouble> {
    let kernel = guest.kernel.to_string_lossy();
    let initrd = guest.initrd.as_deref().unwrap_or(&guest.kernel);
    let arguments = [
        "-name",
        "debug-threads=on",
        "-cpu",
        "host",
        "-no-reboot",
        "-kernel",
        &kernel,
        "-initrd",
        &initrd.to_string_lossy(),
        "-append",
        &guest.cmdline,
    ];
    let arguments = [&arguments[..], firmware].concat();
    Marked::qemu(machine, guest.memory_mib, &arguments)
}

fn boots(
    session: &Session,
    guest: &Guest,
    prints: bool,
) -> Result<(Outcome, Vec<Counted>, Option<String>), Trouble> {
    let all = RefCell::new(vec![]);
    let trouble = RefCell::new(None);
    let count = |who, begun: u64, first: Option<u64>, mark: u64, pid| {
        all.borrow_mut().push(Counted {
            who,
            kernel: first.map(|first| mark.saturating_sub(first)),
            exits: kvm_counts::exits(pid),
            cpu: kvm_counts::cpu_beside_vcpus(pid),
        });
        vec![mark.saturating_sub(begun)]
    };
    let boot = |who, marked: Marked| {
        let first = prints.then(|| marked.wait_for_any()).transpose()?;
        let mark = marked.wait_for(MARK);
        let mark = mark.map_err(|error| Trouble::new(format!("{who}: {error}")))?;
        Ok(count(who, marked.begun, first, mark, marked.pid()))
    };
    let kennel = || {
        let marked = KennelMarked::start_with(guest, None)?;
        let first = prints.then(|| marked.wait_for_any()).transpose()?;
        let mark = marked.wait_for(MARK);
        let mark = mark.map_err(|error| Trouble::new(format!("{KENNEL}: {error}")))?;
        Ok(count(KENNEL, marked.begun, first, mark, marked.pid()))
    };
    let pc = || {
        // Where it does not boot, the others are measured all the same.
        let booted = pc(guest).and_then(|marked| boot(PC, marked));
        Ok(booted.unwrap_or_else(|error| {
            *trouble.borrow_mut() = Some(error.to_string());
            vec![]
        }))
    };
    let with_qemu = qemu_version().is_some();
    let outcome = Contest::default()
        .with(FLOOR, Role::Floor, || {
            boot(FLOOR, Marked::floor_with(guest)?)
        })
        .with(KENNEL, Role::Kennel, kennel)
        .with_some(
            MICROVM,
            Role::Qemu,
            with_qemu.then_some(|| boot(MICROVM, microvm(guest)?)),
        )
        .with_some(PC, Role::Qemu, (with_qemu && !session.quick).then_some(pc))
        .run(session, session.times(5, 1))?;
    Ok((outcome, all.into_inner(), trouble.into_inner()))
}

/// Median of one contender's figure, of the boots that have it.
fn typical(counted: &[Counted], who: &str, of: impl Fn(&Counted) -> Option<u64>) -> Option<f64> {
    let mine = counted.iter().filter(|one| one.who == who);
    let figures: Vec<f64> = mine.filter_map(of).map(|figure| figure as f64).collect();
    (!figures.is_empty()).then(|| median(figures))
}

fn judge(measured: &mut Measured, mode: &str, outcome: &Outcome, counted: &[Counted]) {
    for one in &outcome.contenders {
        let samples = one.all();
        let series = Series::of(one.name, one.role, &samples, 1e-6);
        let drawn = |series: Series| series.with_histogram(&samples, 1e-6).in_mode(mode);
        measured.series.extend(series.map(drawn));
    }
    measured.verdicts.push(Verdict::ratio(
        format!("{mode}: Kennel / microvm, p50"),
        outcome.ratio(KENNEL, MICROVM, 0.5),
        Target::AtMost(0.9),
    ));
    let ratio = |of: fn(&Counted) -> Option<u64>| {
        let (ours, theirs) = (
            typical(counted, KENNEL, of)?,
            typical(counted, MICROVM, of)?,
        );
        Some(ours / theirs.max(1.0))
    };
    if counted.iter().any(|one| one.kernel.is_some()) {
        measured.verdicts.push(Verdict::figure(
            format!("{mode}: Kennel / microvm from the kernel's first words"),
            ratio(|one| one.kernel),
            Target::AtMost(0.9),
        ));
    }
    measured.verdicts.push(Verdict::figure(
        format!("{mode}: exits, Kennel / microvm"),
        ratio(|one| Some(one.exits?.all)),
        Target::AtMost(1.0),
    ));
    measured.verdicts.push(Verdict::figure(
        format!("{mode}: CPU of threads beside the vCPU's, Kennel / microvm"),
        ratio(|one| one.cpu),
        Target::AtMost(0.5),
    ));
    for one in &outcome.contenders {
        measured.notes.push(told(mode, one.name, counted));
    }
}

/// What was counted of one contender, in words.
fn told(mode: &str, who: &str, counted: &[Counted]) -> String {
    let exits = |of: fn(Exits) -> u64| {
        let count = typical(counted, who, |one| one.exits.map(of));
        count.map_or("absent".to_owned(), |count| format!("{count:.0}"))
    };
    let cpu = typical(counted, who, |one| one.cpu);
    format!(
        "{mode}, {who}: {} exits, of them {} for ports, {} for memory of devices, {} to halt; CPU of \
         threads beside the vCPU's: {}",
        exits(|one| one.all),
        exits(|one| one.ports),
        exits(|one| one.memory),
        exits(|one| one.halts),
        cpu.map_or("absent".to_owned(), |cpu| format!("{:.1} ms", cpu * 1e-6)),
    )
}
