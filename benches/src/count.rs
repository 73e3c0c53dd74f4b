// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an operation costs in countable things, which no busy machine changes: instructions and
//! system calls by valgrind's callgrind, allocations by the allocator.
//!
//! Callgrind runs this very program twice with different numbers of operations, so that everything
//! else cancels out.

use std::process::{Command, Stdio};

use crate::Trouble;
use crate::workload;

/// The hidden subcommand: perform so many of an operation, and nothing else.
pub(crate) const SUBCOMMAND: &str = "count";
const OPERATIONS: u64 = 20_000;

/// Of one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    pub(crate) system_calls: f64,
    pub(crate) allocations: f64,
}

/// Counts what one `operation` costs; `None` without valgrind.
pub(crate) fn cost(operation: &str) -> Result<Option<Cost>, Trouble> {
    if !valgrind_is_there() {
        return Ok(None);
    }
    let perform = workload::named(operation)
        .ok_or_else(|| Trouble::new(format!("no operation {operation} to count")))?;
    let heap = |count| allocation_counter::measure(|| perform(count)).count_total;
    let (few, many) = (heap(OPERATIONS), heap(2 * OPERATIONS));
    let [few_instructions, few_calls] = callgrind(operation, OPERATIONS)?;
    let [many_instructions, many_calls] = callgrind(operation, 2 * OPERATIONS)?;
    let each = |few: u64, many: u64| many.saturating_sub(few) as f64 / OPERATIONS as f64;
    Ok(Some(Cost {
        instructions: each(few_instructions, many_instructions),
        system_calls: each(few_calls, many_calls),
        allocations: each(few, many),
    }))
}

fn valgrind_is_there() -> bool {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null());
    valgrind.status().is_ok_and(|status| status.success())
}

/// Instructions and system calls of this program with so many operations.
fn callgrind(operation: &str, count: u64) -> Result<[u64; 2], Trouble> {
    let program = std::env::current_exe()
        .map_err(|error| Trouble::new(format!("cannot find this program: {error}")))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--collect-systime=usec")
        .arg(program)
        .args([SUBCOMMAND, operation, &count.to_string()])
        .output()
        .map_err(|error| Trouble::new(format!("cannot run valgrind: {error}")))?;
    let report = String::from_utf8_lossy(&output.stderr);
    collected(&report)
        .filter(|_| output.status.success())
        .ok_or_else(|| Trouble::new(format!("valgrind counted nothing; it said:\n{report}")))
}

fn collected(report: &str) -> Option<[u64; 2]> {
    let line = report
        .lines()
        .find_map(|line| line.split_once("Collected : "))?
        .1;
    let mut counts = line
        .split_whitespace()
        .map_while(|count| count.parse().ok());
    Some([counts.next()?, counts.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_last_words_are_understood() {
        let report = "==7== Events    : Ir sysCount sysTime\n==7== Collected : 1234 56 78\n==7==\n";
        assert_eq!(collected(report), Some([1234, 56]));
        assert_eq!(collected("==7== Collected : 1234\n"), None);
        assert_eq!(collected("valgrind: no\n"), None);
    }
}
