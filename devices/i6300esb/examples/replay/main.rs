// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Replays recorded traces of another i6300esb on this one: `cargo run --release --example replay -- FILE...`.
//!
//! Prints each divergence, the speed, and as the last line `N passed, M failed`, counting traces. Exit status 0 if every
//! trace passed, 1 if one failed or a file cannot be used, 2 without a file.

mod parse;
mod trace;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use parse::parse_line;
use trace::{Trace, replay};

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    operations: u64,
    replaying: Duration,
}

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!(
            "usage: replay FILE...\nEach FILE holds recorded traces, one JSON object a line."
        );
        return ExitCode::from(2);
    }
    let started = Instant::now();
    let mut tally = Tally::default();
    for file in &files {
        if let Err(message) = replay_file(file, &mut tally) {
            eprintln!("error: {message}");
            return ExitCode::FAILURE;
        }
    }
    let rate = |elapsed: Duration| tally.operations as f64 / elapsed.as_secs_f64().max(1e-9) / 1e6;
    println!(
        "{} operations: {:.1} million a second replayed, {:.1} million a second with reading and parsing",
        tally.operations,
        rate(tally.replaying),
        rate(started.elapsed())
    );
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 && tally.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay_file(file: &str, tally: &mut Tally) -> Result<(), String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {file}: {error}; give a file of recorded traces"))?;
    for (number, line) in (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let Trace { trace, ops } =
            parse_line(line).map_err(|error| format!("{file}, line {number}, {error}"))?;
        let started = Instant::now();
        let result = replay(&ops);
        tally.replaying += started.elapsed();
        tally.operations += ops.len() as u64;
        match result {
            Ok(()) => tally.passed += 1,
            Err(at) => {
                tally.failed += 1;
                println!(
                    "{file}: trace {trace}, operation {}: {}: expected {}, got {}",
                    at.index, at.what, at.expected, at.got
                );
            }
        }
    }
    Ok(())
}
