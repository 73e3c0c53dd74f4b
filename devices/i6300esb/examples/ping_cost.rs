// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What one ping (three guest writes) costs: `cargo run --release --example ping_cost`.
//!
//! Allocations and timer requests are counted here; instructions and system calls by valgrind's callgrind, which runs
//! this program twice with different numbers of pings, so that everything else cancels out. Exit status 1 above 200
//! instructions, or above 0 of anything else.

use std::hint::black_box;
use std::process::{Command, ExitCode};

use i6300esb::{ClockRate, Config, I6300Esb, TimerRequest, VmInstant};

const MAX_INSTRUCTIONS: u64 = 200;
const PINGS: u64 = 20_000;
const MICROSECOND: u64 = 1_000;

/// A watchdog as Linux starts it, with 30 s in each stage.
fn started(clock: ClockRate) -> I6300Esb {
    let mut watchdog = I6300Esb::new(Config {
        clock,
        ..Config::default()
    });
    for (offset, data) in [(0x00, 30_u32 << 10), (0x04, 30 << 10)] {
        unlock(&mut watchdog, VmInstant::ZERO);
        let _ = watchdog.mmio_write(VmInstant::ZERO, offset, &data.to_le_bytes());
    }
    let _ = watchdog.config_write(VmInstant::ZERO, 0x68, &[0x02]);
    watchdog
}

fn unlock(watchdog: &mut I6300Esb, now: VmInstant) -> bool {
    let first = watchdog.mmio_write(now, 0x0c, &black_box([0x80, 0x00]));
    let second = watchdog.mmio_write(now, 0x0c, &black_box([0x86, 0x00]));
    first.timer != TimerRequest::Keep || second.timer != TimerRequest::Keep
}

/// Pings once a microsecond; gives how many pings moved the timer.
fn ping(watchdog: &mut I6300Esb, pings: u64) -> u64 {
    let mut moves = 0;
    for index in 0..pings {
        let now = VmInstant::from_nanos(black_box(index) * MICROSECOND);
        let moved = unlock(watchdog, now);
        let effects = watchdog.mmio_write(now, 0x0c, &black_box([0x00, 0x01]));
        moves += u64::from(moved || effects.timer != TimerRequest::Keep);
    }
    moves
}

/// Instructions and system calls of this program with so many pings.
fn callgrind(clock: &str, pings: u64) -> Result<[u64; 2], String> {
    let program =
        std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-systime=usec",
        ])
        .arg(program)
        .args([clock, &pings.to_string()])
        .output()
        .map_err(|error| {
            format!("cannot run valgrind: {error}; install the package \"valgrind\"")
        })?;
    let report = String::from_utf8_lossy(&output.stderr);
    let mut counts = report
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .map(|(_, counts)| {
            counts
                .split_whitespace()
                .map_while(|count| count.parse().ok())
        })
        .ok_or_else(|| format!("valgrind counted nothing; it said:\n{report}"))?;
    match (counts.next(), counts.next()) {
        (Some(instructions), Some(calls)) => Ok([instructions, calls]),
        _ => Err(format!(
            "valgrind did not count system calls; it said:\n{report}"
        )),
    }
}

fn report(name: &str, clock: ClockRate) -> Result<bool, String> {
    let mut watchdog = started(clock);
    let mut moves = 0;
    let heap = allocation_counter::measure(|| moves = ping(&mut watchdog, PINGS));
    assert_eq!(
        watchdog
            .status(VmInstant::from_nanos(PINGS * MICROSECOND))
            .pings,
        PINGS,
        "every ping counted"
    );
    let [few, few_calls] = callgrind(name, PINGS)?;
    let [many, many_calls] = callgrind(name, 2 * PINGS)?;
    let instructions = many.saturating_sub(few) / PINGS;
    let calls = many_calls.saturating_sub(few_calls);
    println!(
        "{name}: one ping: {instructions} instructions; {PINGS} pings: {} allocations, {calls} system calls, {moves} timer requests",
        heap.count_total
    );
    Ok(instructions <= MAX_INSTRUCTIONS && heap.count_total == 0 && calls == 0 && moves == 0)
}

fn main() -> ExitCode {
    let clocks = [("30-ns", ClockRate::NS_30), ("33-MHz", ClockRate::MHZ_33)];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, pings] = &arguments[..] {
        // Under callgrind: ping, and nothing else.
        let clock = clocks
            .iter()
            .find(|(each, _)| each == name)
            .map_or(ClockRate::NS_30, |(_, clock)| *clock);
        black_box(ping(&mut started(clock), pings.parse().unwrap_or(0)));
        return ExitCode::SUCCESS;
    }
    let mut cheap = true;
    for (name, clock) in clocks {
        match report(name, clock) {
            Ok(within) => cheap &= within,
            Err(message) => {
                eprintln!("error: {message}");
                return ExitCode::FAILURE;
            }
        }
    }
    if cheap {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
