// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What else the machine did while a block was measured. Noisy blocks are flagged, never dropped.

use std::fs;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// More than this share of CPU time taken by the host below is noise.
const MOST_STEAL: f64 = 0.02;

/// The noise of one block.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Noise {
    /// Share of CPU time that the host below took.
    pub(crate) steal: f64,
    /// Share of the time in which a runnable thread waited for a CPU.
    pub(crate) pressure: f64,
    /// Average of runnable threads over the last minute.
    pub(crate) load: f64,
    /// Times that a thread of this program lost its CPU.
    pub(crate) preemptions: u64,
}

impl Noise {
    pub(crate) fn is_noisy(&self) -> bool {
        self.steal > MOST_STEAL
    }
}

/// The kernel's counters at a block's beginning.
#[derive(Debug)]
pub(crate) struct Watch {
    since: Instant,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    cpu: u64,
    steal: u64,
    stalled_us: u64,
    preemptions: u64,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self {
            since: Instant::now(),
            counters: Counters::read(),
        }
    }

    pub(crate) fn stop(&self) -> Noise {
        let (before, after) = (self.counters, Counters::read());
        let share = |part: u64, whole: f64| part as f64 / whole.max(1.0);
        let cpu = after.cpu.saturating_sub(before.cpu) as f64;
        let wall_us = self.since.elapsed().as_secs_f64() * 1e6;
        Noise {
            steal: share(after.steal.saturating_sub(before.steal), cpu),
            pressure: share(after.stalled_us.saturating_sub(before.stalled_us), wall_us),
            load: load(&fs::read_to_string("/proc/loadavg").unwrap_or_default()),
            preemptions: after.preemptions.saturating_sub(before.preemptions),
        }
    }
}

impl Counters {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let (cpu, steal) = cpu_time(&text("/proc/stat"));
        Self {
            cpu,
            steal,
            stalled_us: stalled(&text("/proc/pressure/cpu")),
            preemptions: field(&text("/proc/self/status"), "nonvoluntary_ctxt_switches:"),
        }
    }
}

/// Ticks of all CPUs, and those of them that were stolen: the eighth column.
fn cpu_time(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .take(8)
        .collect();
    (ticks.iter().sum(), ticks.get(7).copied().unwrap_or(0))
}

/// µs in which somebody waited for a CPU, since boot.
fn stalled(pressure: &str) -> u64 {
    let some = pressure.lines().find(|line| line.starts_with("some"));
    some.and_then(|line| line.rsplit_once("total="))
        .and_then(|(_, total)| total.trim().parse().ok())
        .unwrap_or(0)
}

fn load(loadavg: &str) -> f64 {
    let first = loadavg.split_ascii_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// The number behind `name` in a file of `name number` lines; zero if there is none.
pub(crate) fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "cpu  10 20 30 400 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(cpu_time(stat), (486, 8));
        let pressure =
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 total=9\n";
        assert_eq!(stalled(pressure), 123);
        assert!((load("1.50 0.90 0.50 1/123 456\n") - 1.5).abs() < 1e-9);
        assert_eq!(field("Slab:   77 kB\nOther: 1\n", "Slab:"), 77);
        assert_eq!((cpu_time(""), stalled(""), field("", "x")), ((0, 0), 0, 0));
    }
}
