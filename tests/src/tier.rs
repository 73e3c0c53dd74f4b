// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A tier of tests: runs, or says loudly that it didn't.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion, Trial};

/// The tiers that must run, separated by commas; one of them that cannot run fails.
pub const REQUIRE: &str = "KENNEL_REQUIRE";
/// The tier that needs neither KVM nor a guest.
pub const PURE: &str = "pure";
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
    let first = std::env::args().nth(1)?;
    KENNEL.contains(&first.as_str()).then(kennel::cli::main)
}

/// Runs `tests` as the tier `name`; `place` says on what.
#[must_use]
pub fn run(name: &str, place: &str, args: &Arguments, tests: Vec<Trial>) -> ExitCode {
    let conclusion = libtest_mimic::run(args, tests);
    if !args.list {
        println!("{}\n", closing_line(name, place, &conclusion));
    }
    conclusion.exit_code()
}

fn closing_line(name: &str, place: &str, conclusion: &Conclusion) -> String {
    let ran = conclusion.num_passed.saturating_add(conclusion.num_failed);
    let failed = conclusion.num_failed;
    let left_out = conclusion
        .num_filtered_out
        .saturating_add(conclusion.num_ignored);
    let rest = if left_out > 0 {
        format!(", {left_out} left out by request")
    } else {
        String::new()
    };
    format!("tier {name}: {ran} ran, {failed} failed{rest}; {place}")
}

/// The tier `name` cannot run, for the reason `why`: said loudly, and a failure where it is
/// required.
#[must_use]
pub fn skipped(name: &str, why: &str) -> ExitCode {
    println!("tier {name}: SKIPPED: {why}\n");
    let required = std::env::var(REQUIRE).unwrap_or_default();
    if required.split(',').any(|tier| tier.trim() == name) {
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
            num_ignored: 0,
            num_measured: 0,
        };
        assert_eq!(
            closing_line("linux", "in a box", &conclusion),
            "tier linux: 4 ran, 1 failed, 2 left out by request; in a box"
        );
    }
}
