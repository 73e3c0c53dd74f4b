// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! V3: memory that a machine takes beyond its guest's.

use std::path::Path;
use std::time::Duration;

use kennel_tests::bench_guest;
use kennel_vmm::hypervisor::Hypervisor;

use super::Metric;
use super::v1_start::{MIB, microvm, pc};
use crate::Trouble;
use crate::contender::marked::{KennelMarked, Marked};
use crate::contender::{self, qemu_version};
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::statistics::median;

pub(super) const METRIC: Metric = Metric {
    id: "V3",
    title: "Memory beyond the guest's",
    unit: "MiB",
    definition: "Proportional set size of the VM process without the mapping of guest memory, with \
                 a bare-metal guest of 128 MiB that halts; pages of its own program, which other \
                 processes of it may share, count whole.",
    floor: "a program that builds the same KVM objects and no device",
    peer: "QEMU's microvm, and its pc",
    target: "≤ 4 MiB, ≤ 0.13 of QEMU's",
    seconds: [12, 4],
    measure,
};

/// After the first instruction, until nothing moves any more.
const SETTLE: Duration = Duration::from_millis(300);

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let (guest, rom) = (bench_guest::write(), bench_guest::write_rom());
    let times = session.times(5, 1);
    let settled = |pid: u32| {
        std::thread::sleep(SETTLE);
        beyond(pid)
    };
    let of = |start: &dyn Fn() -> Result<Marked, Trouble>| {
        several(times, || {
            let marked = start()?;
            marked.wait_for(b'S')?;
            settled(marked.pid())
        })
    };
    let kennel = several(times, || {
        let marked = KennelMarked::start(&guest, MIB, "s", Some(Default::default()))?;
        marked.wait_for(b'S')?;
        settled(marked.pid())
    })?;
    let mut add = |name: &str, role, mib| measured.series.push(Series::figure(name, role, mib));
    add(
        "floor",
        Role::Floor,
        of(&|| Marked::floor(&guest, MIB, "s"))?,
    );
    add("Kennel", Role::Kennel, kennel);
    let mut theirs = None;
    if qemu_version().is_some() {
        let mib = of(&|| microvm(&rom))?;
        theirs = Some(mib);
        add("QEMU microvm", Role::Qemu, mib);
        add("QEMU pc", Role::Qemu, of(&|| pc(&rom))?);
    } else {
        measured.notes.push(format!(
            "QEMU: absent, {} is not installed",
            contender::QEMU
        ));
    }
    measured.verdicts = vec![
        Verdict::figure("MiB", Some(kennel), Target::AtMost(4.0)),
        Verdict::figure(
            "Kennel / QEMU microvm",
            theirs.map(|theirs| kennel / theirs),
            Target::AtMost(0.13),
        ),
    ];
    Ok(())
}

/// MiB of one machine; `None` without KVM.
pub(crate) fn memory_beyond_guest() -> Result<Option<f64>, Trouble> {
    if Hypervisor::open().is_err() {
        return Ok(None);
    }
    let guest = bench_guest::write();
    let marked = KennelMarked::start(&guest, MIB, "s", Some(Default::default()))?;
    marked.wait_for(b'S')?;
    std::thread::sleep(SETTLE);
    beyond(marked.pid()).map(Some)
}

fn several(times: usize, one: impl Fn() -> Result<f64, Trouble>) -> Result<f64, Trouble> {
    let all: Result<Vec<f64>, Trouble> = (0..times).map(|_| one()).collect();
    all.map(median)
}

fn beyond(pid: u32) -> Result<f64, Trouble> {
    let path = format!("/proc/{pid}/smaps");
    let smaps = std::fs::read_to_string(&path)
        .map_err(|error| Trouble::new(format!("cannot read {path}: {error}")))?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let kib = beyond_guest(&smaps, &program, u64::from(MIB) * 1024);
    kib.map(|kib| kib as f64 / 1024.0)
        .ok_or_else(|| Trouble::new(format!("no mapping in {path} has the guest's size")))
}

/// KiB of everything but one mapping of the guest's size; what `program` holds counts whole.
fn beyond_guest(smaps: &str, program: &Path, guest_kib: u64) -> Option<u64> {
    let program = program.to_string_lossy();
    let (mut sum, mut guest_seen) = (0, false);
    let (mut whole, mut is_guest) = (false, false);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        if !name.ends_with(':') {
            whole = line.ends_with(&*program);
            continue;
        }
        let kib: u64 = words
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        match name {
            "Size:" => {
                is_guest = !guest_seen && kib == guest_kib;
                guest_seen |= is_guest;
            }
            "Rss:" if whole => sum += kib,
            "Pss:" if !whole && !is_guest => sum += kib,
            _ => {}
        }
    }
    guest_seen.then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_left_out_and_the_program_counts_whole() {
        let smaps = "\
55d0-55d1 r-xp 00000000 fe:00 12 /bin/kennel-benches\nSize: 900 kB\nRss: 800 kB\nPss: 400 kB\n\
7f00-7f10 rw-p 00000000 00:00 0\nSize: 131072 kB\nRss: 8 kB\nPss: 8 kB\n\
7f20-7f21 r--p 00000000 fe:00 13 /lib/libc.so.6\nSize: 200 kB\nRss: 100 kB\nPss: 10 kB\n";
        let program = Path::new("/bin/kennel-benches");
        assert_eq!(beyond_guest(smaps, program, 131_072), Some(810));
        assert_eq!(beyond_guest(smaps, program, 65_536), None);
    }
}
