// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! S2: what one more armed watchdog takes, in the process and in the kernel.

use std::fs;

use super::Metric;
use crate::Trouble;
use crate::clock::monotonic_ns;
use crate::fleet::{Fleet, Timers};
use crate::noise::field;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;

pub(super) const METRIC: Metric = Metric {
    id: "S2",
    title: "Memory of an armed watchdog",
    unit: "B",
    definition: "Bytes that 10,000 armed watchdogs with their queue have allocated, and the kernel \
                 memory (Slab of /proc/meminfo) and file descriptors that they take, for each.",
    floor: "a watchdog's saved state",
    peer: "a timerfd for each watchdog",
    target: "≤ 256 B, no file descriptor; no kernel memory beyond that of one",
    seconds: [3, 1],
    measure,
};

const COUNT: u32 = 10_000;
/// Slab moves by itself; this much for each of them is nothing.
const SLAB_NOISE: f64 = 16.0;

/// What so many armed watchdogs take of the heap, in bytes.
pub(crate) fn heap_bytes(count: u32) -> Result<i64, Trouble> {
    let mut fleet = None;
    let heap = allocation_counter::measure(|| fleet = Some(armed(count)));
    drop(fleet.transpose()?);
    Ok(heap.bytes_current)
}

fn armed(count: u32) -> Result<Fleet, Trouble> {
    let mut fleet = Fleet::new(count)?;
    let now = monotonic_ns();
    for key in 0..count {
        fleet.arm(key, now + u64::from(key), [0xf_ffff, 0xf_ffff]);
    }
    Ok(fleet)
}

/// Kernel memory and descriptors in use.
fn kernel() -> [i64; 2] {
    let slab = field(
        &fs::read_to_string("/proc/meminfo").unwrap_or_default(),
        "Slab:",
    );
    let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    [
        i64::try_from(slab * 1024).unwrap_or(0),
        i64::try_from(files).unwrap_or(0),
    ]
}

/// Median of what `hold` adds to the kernel's part, for each of [`COUNT`].
fn in_kernel<T>(times: usize, hold: impl Fn() -> Result<T, Trouble>) -> Result<[f64; 2], Trouble> {
    let mut differences = [vec![], vec![]];
    for _ in 0..times {
        let before = kernel();
        let held = hold()?;
        let after = kernel();
        drop(held);
        for (differences, (before, after)) in
            differences.iter_mut().zip(before.into_iter().zip(after))
        {
            differences.push((after - before) as f64 / f64::from(COUNT));
        }
    }
    Ok(differences.map(crate::statistics::median))
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    super::s1_burst::raise_file_limit();
    let user = heap_bytes(COUNT)? as f64 / f64::from(COUNT);
    let times = session.times(9, 3);
    let [slab, files] = in_kernel(times, || armed(COUNT))?;
    let theirs = in_kernel(times, || Timers::new(usize::try_from(COUNT).unwrap_or(0)));
    measured.series = vec![
        Series::figure("Kennel, process", Role::Kennel, user),
        Series::figure("Kennel, kernel", Role::Kennel, slab),
        Series::figure("saved state", Role::Floor, i6300esb::STATE_BYTES as f64),
    ];
    match theirs {
        Ok([slab, _]) => {
            measured
                .series
                .push(Series::figure("timerfd each, kernel", Role::Other, slab));
        }
        Err(trouble) => measured.notes.push(format!("timerfd each: {trouble}")),
    }
    measured.verdicts = vec![
        Verdict::figure(
            "bytes of the process for each",
            Some(user),
            Target::AtMost(256.0),
        ),
        Verdict::figure(
            "bytes of the kernel for each",
            Some(slab),
            Target::AtMost(SLAB_NOISE),
        ),
        Verdict::figure(
            "file descriptors beyond the timer and its epoll",
            Some(files * f64::from(COUNT) - 2.0),
            Target::Exactly(0.0),
        ),
    ];
    Ok(())
}
