// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many workers this machine carries, and what each has room for.

use std::thread::available_parallelism;

use super::case::Need;

/// What a box needs beside its guests, in MiB.
pub const BOX_OWN_MIB: u32 = 2 << 10;
/// The first box holds the largest guest, which has 5 GiB, and small ones beside it.
const FIRST_MIB: u32 = 7 << 10;
/// Every other box.
const OTHER_MIB: u32 = 2 << 10;
/// What is left to the rest of this machine.
const SPARE_MIB: u32 = 2 << 10;
/// Tests at a time in a box, which has one CPU: most of a test is waiting.
const LANES_OF_BOX: u32 = 3;
/// Tests at a time for each of this machine's CPUs.
const LANES_OF_CPU: u32 = 2;

/// How many workers there are at the most, and how many tests each runs at a time, for whoever wants other numbers.
const WORKERS: &str = "KENNEL_TEST_WORKERS";
const LANES: &str = "KENNEL_TEST_LANES";

/// This machine as the only worker.
///
/// # Panics
///
/// The environment asks for no number, or Linux does not tell what memory is free.
#[must_use]
pub fn here() -> Vec<Need> {
    let room = Need {
        memory_mib: free_mib().saturating_sub(SPARE_MIB),
        lanes: wish(LANES).unwrap_or_else(|| LANES_OF_CPU.saturating_mul(cpus())),
    };
    vec![room]
}

/// A box for each CPU, if there is memory for it; one in any case.
///
/// # Panics
///
/// As [`here`].
#[must_use]
pub fn boxes() -> Vec<Need> {
    let most = wish(WORKERS).unwrap_or_else(cpus);
    plan(most, free_mib(), wish(LANES).unwrap_or(LANES_OF_BOX))
}

fn plan(most: u32, free_mib: u32, lanes: u32) -> Vec<Need> {
    let free = free_mib.saturating_sub(SPARE_MIB + BOX_OWN_MIB);
    let first = free.min(FIRST_MIB);
    let others = (free - first) / (OTHER_MIB + BOX_OWN_MIB);
    let room = |memory_mib| Need { memory_mib, lanes };
    let others = others.min(most.saturating_sub(1));
    let others = (0..others).map(|_| room(OTHER_MIB));
    std::iter::once(room(first)).chain(others).collect()
}

fn cpus() -> u32 {
    available_parallelism()
        .ok()
        .and_then(|cpus| u32::try_from(cpus.get()).ok())
        .unwrap_or(1)
}

/// A number from the environment.
fn wish(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    let number = text.parse().ok().filter(|number| *number > 0);
    assert!(
        number.is_some(),
        "{name}={text}: it must be a number from 1 up"
    );
    number
}

/// The memory that this machine has free, in MiB.
fn free_mib() -> u32 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("procfs");
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.expect("Linux tells it").parse().expect("a number");
    u32::try_from(kib / 1024).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(most: u32, free_gib: u32) -> Vec<u32> {
        let rooms = plan(most, free_gib << 10, 3);
        assert!(rooms.iter().all(|room| room.lanes == 3));
        rooms.iter().map(|room| room.memory_mib >> 10).collect()
    }

    #[test]
    fn boxes_are_as_many_as_cpus_and_memory_allow() {
        assert_eq!(sizes(2, 23), [7, 2]);
        assert_eq!(sizes(8, 23), [7, 2, 2, 2]);
        assert_eq!(sizes(1, 64), [7]);
        assert_eq!(
            sizes(2, 14),
            [7],
            "the second would take what is to stay free"
        );
        assert_eq!(sizes(2, 15), [7, 2]);
        assert_eq!(
            sizes(4, 8),
            [4],
            "the largest guest does not fit, and the rest runs"
        );
        assert_eq!(sizes(4, 1), [0]);
    }
}
