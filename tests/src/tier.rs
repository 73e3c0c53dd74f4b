// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tier of tests: runs, or says loudly that it didn't.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use kennel::host;
use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

use crate::workers::{Case, Workers};

/// The tiers that must run, separated by commas; one of them that cannot run fails.
pub const REQUIRE: &str = "KENNEL_REQUIRE";
/// The tier that needs neither KVM nor a guest.
pub const PURE: &str = "pure";
/// With this variable set a test program acts as `kennel` whatever its arguments are.
pub const ACT_AS_KENNEL: &str = "KENNEL_TEST_ACT";
/// The subcommands that make a test program act as `kennel` itself.
const KENNEL: [&str; 7] = [
    "run",
    "demo",
    "validate",
    "guest",
    "host",
    "vm-process",
    "box-agent",
];

/// Acts as `kennel` when started as such: the machine under test is this very program, once more.
#[must_use]
pub fn as_kennel() -> Option<ExitCode> {
    let asked = || {
        let first = std::env::args_os().nth(1)?;
        KENNEL.iter().find(|name| first == **name)
    };
    let acts = std::env::var_os(ACT_AS_KENNEL).is_some() || asked().is_some();
    acts.then(kennel::cli::main)
}

/// What a test lacks on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle(pub String);

/// Tests that found that they cannot run, and why.
static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A test of the tier `tier` that fails by panicking, and may find that it cannot run here: the
/// tier's last lines then say so, and it fails where the tier is required.
#[must_use]
pub fn test_if_able(
    tier: &'static str,
    name: &str,
    body: impl FnOnce() -> Result<(), Obstacle> + Send + 'static,
) -> Trial {
    let shown = name.to_owned();
    Trial::ignorable_test(name, move || match body() {
        Ok(()) => Ok(Completion::Completed),
        Err(obstacle) => cannot_run(tier, &shown, obstacle),
    })
}

fn cannot_run(tier: &str, test: &str, Obstacle(why): Obstacle) -> Result<Completion, Failed> {
    if is_required(tier) {
        return Err(format!("cannot run, and {REQUIRE} asks for it: {why}").into());
    }
    let mut skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    skipped.push(format!("{test}: SKIPPED: {why}"));
    Ok(Completion::ignored_with(why))
}

/// Whether [`REQUIRE`] names this tier.
#[must_use]
pub fn is_required(name: &str) -> bool {
    let required = std::env::var(REQUIRE).unwrap_or_default();
    required.split(',').any(|tier| tier.trim() == name)
}

/// How many tests to run at a time where most of a test is waiting.
#[must_use]
pub fn tests_that_wait() -> usize {
    available_parallelism().map_or(1, NonZero::get) * 4
}

/// Runs `tests` as the tier `name`; `place` says on what.
#[must_use]
pub fn run(name: &str, place: &str, args: &Arguments, tests: Vec<Trial>) -> ExitCode {
    let conclusion = libtest_mimic::run(args, tests);
    if !args.list {
        close(name, place, &conclusion);
    }
    conclusion.exit_code()
}

/// Runs `cases` as the tier `name` on `workers`: all that they have room for at once, unless `args` say otherwise.
#[must_use]
pub fn run_on<C: 'static>(
    name: &'static str,
    workers: &Workers,
    mut args: Arguments,
    cases: Vec<Case<C>>,
) -> ExitCode {
    // Those for which there is no room yet wait in threads of their own.
    args.test_threads.get_or_insert(cases.len().max(1));
    let trial = |(rank, case): (usize, Case<C>)| {
        let workers = workers.clone();
        Trial::ignorable_test(case.name.clone(), move || {
            run_case(name, &workers, rank, &case)
        })
    };
    let trials = cases.into_iter().enumerate().map(trial);
    let conclusion = libtest_mimic::run(&args, trials.collect());
    if args.list {
        return conclusion.exit_code();
    }
    let (notes, faults) = workers.end();
    for (case, output) in notes {
        for line in output.lines() {
            println!("{case}: {line}");
        }
    }
    for fault in &faults {
        println!("tier {name}: FAILED: {fault}");
    }
    close(name, &workers.place(), &conclusion);
    match faults.as_slice() {
        [] => conclusion.exit_code(),
        _ => ExitCode::FAILURE,
    }
}

fn run_case<C>(
    tier: &str,
    workers: &Workers,
    rank: usize,
    case: &Case<C>,
) -> Result<Completion, Failed> {
    let installing = |packages: &str| eprintln!("tier {tier}: installing {packages}");
    if let Err(error) = host::provide(case.programs, &installing) {
        return cannot_run(tier, &case.name, Obstacle(error.to_string()));
    }
    match workers.run(&case.name, rank, case.need)? {
        None => Ok(Completion::Completed),
        Some(obstacle) => cannot_run(tier, &case.name, obstacle),
    }
}

/// Prints the tier's last lines.
fn close(name: &str, place: &str, conclusion: &Conclusion) {
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    for test in skipped.iter() {
        println!("tier {name}: {test}");
    }
    let skipped = u64::try_from(skipped.len()).unwrap_or(u64::MAX);
    println!("{}\n", closing_line(name, place, conclusion, skipped));
}

fn closing_line(name: &str, place: &str, conclusion: &Conclusion, skipped: u64) -> String {
    let ran = conclusion.num_passed.saturating_add(conclusion.num_failed);
    let failed = conclusion.num_failed;
    let left_out = conclusion
        .num_filtered_out
        .saturating_add(conclusion.num_ignored)
        .saturating_sub(skipped);
    let mut rest = String::new();
    if skipped > 0 {
        rest.push_str(&format!(", {skipped} SKIPPED"));
    }
    if left_out > 0 {
        rest.push_str(&format!(", {left_out} left out by request"));
    }
    format!("tier {name}: {ran} ran, {failed} failed{rest}; {place}")
}

/// The tier `name` could have run, and something went wrong.
#[must_use]
pub fn failed(name: &str, why: &str) -> ExitCode {
    println!("tier {name}: FAILED: {why}\n");
    ExitCode::FAILURE
}

/// The tier `name` cannot run, for the reason `why`: said loudly, and a failure where it is
/// required.
#[must_use]
pub fn skipped(name: &str, why: &str) -> ExitCode {
    println!("tier {name}: SKIPPED: {why}\n");
    if is_required(name) {
        println!("tier {name}: FAILED: {REQUIRE} asks for it\n");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_line_tells_what_was_left_out() {
        let conclusion = Conclusion {
            num_filtered_out: 2,
            num_passed: 3,
            num_failed: 1,
            num_ignored: 1,
            num_measured: 0,
        };
        assert_eq!(
            closing_line("linux", "in a box", &conclusion, 0),
            "tier linux: 4 ran, 1 failed, 3 left out by request; in a box"
        );
        assert_eq!(
            closing_line("linux", "in a box", &conclusion, 1),
            "tier linux: 4 ran, 1 failed, 1 SKIPPED, 2 left out by request; in a box"
        );
    }
}
