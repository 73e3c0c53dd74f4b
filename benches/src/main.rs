// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kennel's measurements: each metric beside QEMU's and beside the smallest program that does only
//! the kernel's part, interleaved in one run, so that a busy machine slows all of them alike.
//!
//! Figures are medians and their ratios, each held against its target. Only what is counted can
//! fail something (`gates`): a slow machine fails nothing.
#![forbid(unsafe_code)]

mod cli;
mod clock;
mod contender;
mod contest;
mod count;
mod fleet;
mod gates;
mod host;
mod lateness;
mod load;
mod metrics;
mod noise;
mod report;
mod result;
mod session;
mod statistics;
mod workload;

use std::process::ExitCode;

use kennel::supervisor::vm_process;
use kennel_tests::tier::ACT_AS_KENNEL;

/// What went wrong, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Trouble(String);

impl Trouble {
    pub(crate) fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // The VM processes are this very program, once more.
        Some(vm_process::SUBCOMMAND) => kennel::cli::main(),
        // Their supervisors, too.
        _ if std::env::var_os(ACT_AS_KENNEL).is_some() => kennel::cli::main(),
        // And whoever else wants the CPUs.
        Some(load::hogs::SUBCOMMAND) => load::hogs::main(),
        // And so is what valgrind counts.
        Some(count::SUBCOMMAND) => perform(&arguments),
        Some(contender::floor_vm::SUBCOMMAND) => contender::floor_vm::main(&arguments),
        Some(load::model::SUBCOMMAND) => load::model::main(&arguments),
        _ => cli::main(),
    }
}

fn perform(arguments: &[String]) -> ExitCode {
    let [_, operation, count] = arguments else {
        return ExitCode::FAILURE;
    };
    match (workload::named(operation), count.parse()) {
        (Some(perform), Ok(count)) => {
            perform(count);
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}
