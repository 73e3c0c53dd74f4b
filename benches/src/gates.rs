// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be counted, held against bounds: the same on every machine, however busy, so it may
//! fail a change.

use crate::Trouble;
use crate::cli::print;
use crate::count;
use crate::metrics;
use crate::workload;

/// Of one operation: instructions at most, system calls and allocations exactly.
struct Bound {
    operation: &'static str,
    what: &'static str,
    instructions: f64,
    allocations: f64,
}

/// Some percent above what it takes today: a compiler may do with more, a change may not.
const BOUNDS: [Bound; 4] = [
    Bound {
        operation: workload::PING,
        what: "one ping of a watchdog",
        instructions: 200.0,
        allocations: 0.0,
    },
    Bound {
        operation: workload::EXPIRY,
        what: "one expiry of one of 1000 watchdogs",
        instructions: 780.0,
        allocations: 0.0,
    },
    Bound {
        operation: workload::PROBE_STEP,
        what: "one attempt of a probe",
        instructions: 320.0,
        allocations: 0.0,
    },
    Bound {
        operation: workload::DISPATCH,
        what: "dispatch of an exit, 16 ranges",
        instructions: 90.0,
        allocations: 0.0,
    },
];
const WATCHDOGS: u32 = 10_000;
const BYTES: f64 = 256.0;
const WAKEUPS: f64 = 120.0;
/// Of a VM process beyond its guest's, the program's own pages counted whole.
const MIB: f64 = 4.5;

/// Counts and prints; false if something is above its bound.
pub(crate) fn run() -> Result<bool, Trouble> {
    let mut good = true;
    let mut gate = |what: &str, value: f64, bound: f64| {
        let within = value <= bound;
        good &= within;
        let word = if within { "ok" } else { "FAILED" };
        let _said = print(&format!("{word:<7} {what}: {value:.1} (at most {bound})\n"));
    };
    for bound in BOUNDS {
        let cost = count::cost(bound.operation)?.ok_or_else(|| {
            Trouble::new("valgrind is needed to count instructions: install the package valgrind")
        })?;
        let of = |unit: &str| format!("{}, {unit}", bound.what);
        gate(&of("instructions"), cost.instructions, bound.instructions);
        gate(&of("system calls"), cost.system_calls, 0.0);
        gate(&of("allocations"), cost.allocations, bound.allocations);
    }
    let bytes = metrics::heap_bytes(WATCHDOGS)? as f64 / f64::from(WATCHDOGS);
    gate("bytes of an armed watchdog", bytes, BYTES);
    let wakeups = metrics::wakeups(1_000) as f64;
    gate(
        "wakeups in 10 min by 1000 watchdogs that are well",
        wakeups,
        WAKEUPS,
    );
    match metrics::exits_per_ping()? {
        Some(exits) => gate("KVM exits of one ping", exits, 3.0),
        None => print("SKIPPED KVM exits of one ping: this machine has no usable /dev/kvm\n")?,
    }
    match metrics::memory_beyond_guest()? {
        Some(mib) => gate("MiB of a VM process beyond its guest's", mib, MIB),
        None => print("SKIPPED memory of a VM process: this machine has no usable /dev/kvm\n")?,
    }
    Ok(good)
}
