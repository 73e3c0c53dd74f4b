// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line: what is asked for, and the exit status that answers.

mod args;
mod demo;
mod guest;
mod host;
mod network;
mod probe;
mod progress;
mod run;
mod simulate;
mod teller;
mod validate;
mod venue;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::supervisor::verdict::{EXIT_FAILURE, EXIT_USAGE};
use crate::supervisor::vm_process;
use args::{Cli, Command};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// The command line or the document is at fault; every line of it.
    Usage(String),
    /// Kennel could not do it.
    CouldNot(String),
    /// A command with exit statuses of its own: one of them, and why.
    Status(u8, String),
}

impl Failure {
    fn could_not(error: impl std::fmt::Display) -> Self {
        Self::CouldNot(error.to_string())
    }
}

/// An exit status, or why there is none.
type Answer = Result<u8, Failure>;

/// The `kennel` program.
#[must_use]
pub fn main() -> ExitCode {
    // Reading a command line takes 0.8 MiB that a VM process would keep for good.
    if is_plain_vm_process(std::env::args_os()) {
        log_from("warn");
        return vm_process();
    }
    let cli = Cli::parse();
    log_from(if cli.verbose { "debug" } else { "warn" });
    match cli.command {
        // Other programs by nature: they answer to kennel, not to a person.
        Command::VmProcess => vm_process(),
        Command::BoxAgent => crate::host::agent::main(),
        Command::Run(args) => answer(run::run(&args)),
        Command::Demo { which } => answer(demo::demo(&which)),
        Command::Simulate(args) => answer(simulate::simulate(&args)),
        Command::Validate(args) => answer(validate::validate(&args)),
        Command::Probe(args) => answer(probe::probe(&args)),
        Command::Guest { what } => answer(guest::guest(&what)),
        Command::Host { what } => answer(host::host(what)),
    }
}

/// Whether these are the arguments that a supervisor gives.
fn is_plain_vm_process(arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.skip(1).eq([vm_process::SUBCOMMAND])
}

/// Logs from `level` on, unless the environment names another one.
fn log_from(level: &str) {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("KENNEL_LOG", level))
        .format_timestamp(None)
        .format_target(false)
        .init();
}

fn answer(answer: Answer) -> ExitCode {
    let (status, message) = match answer {
        Ok(status) => return status.into(),
        Err(Failure::Usage(message)) => (EXIT_USAGE, message),
        Err(Failure::CouldNot(message)) => (EXIT_FAILURE, message),
        Err(Failure::Status(status, message)) => (status, message),
    };
    for line in without_error_numbers(&message).lines() {
        progress::say(&format!("kennel: {line}"));
    }
    status.into()
}

/// Beside the system's own words for an error, its number tells nobody anything.
fn without_error_numbers(message: &str) -> String {
    const OPEN: &str = " (os error ";
    let mut parts = message.split(OPEN);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.push_str(rest);
            }
            _ => text.extend([OPEN, part]),
        }
    }
    text
}

fn vm_process() -> ExitCode {
    match kennel_vmm::process::inherited_control(vm_process::CONTROL_FD) {
        Ok(control) => kennel_vmm::process::run(control),
        Err(error) => {
            log::debug!("descriptor {}: {error}", vm_process::CONTROL_FD);
            let name = vm_process::SUBCOMMAND;
            progress::say(&format!(
                "kennel: {name} is what `kennel run FILE` starts by itself"
            ));
            EXIT_USAGE.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_process_is_told_from_a_person_who_asks() {
        let is = |arguments: &[&str]| is_plain_vm_process(arguments.iter().map(OsString::from));
        assert!(is(&["kennel", vm_process::SUBCOMMAND]));
        assert!(!is(&["kennel"]));
        assert!(!is(&["kennel", vm_process::SUBCOMMAND, "--help"]));
        assert!(!is(&[vm_process::SUBCOMMAND]));
    }

    #[test]
    fn only_error_numbers_are_left_out() {
        for (message, shown) in [
            (
                "x: No such file (os error 2); check",
                "x: No such file; check",
            ),
            ("a (os error 1), b (os error 13)", "a, b"),
            ("(os error 2)", "(os error 2)"),
            (
                "my (os error file).yaml: bad",
                "my (os error file).yaml: bad",
            ),
            ("cut (os error 2", "cut (os error 2"),
            ("", ""),
        ] {
            assert_eq!(without_error_numbers(message), shown);
        }
    }
}
