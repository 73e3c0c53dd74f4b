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
mod screen;
mod simulate;
mod teller;
mod validate;
mod venue;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use clap::Parser;

use crate::supervisor::verdict::{EXIT_FAILURE, EXIT_USAGE};
use crate::supervisor::vm_process;
use crate::words::without_error_numbers;
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
        return vm_process("warn");
    }
    let cli = Cli::parse();
    let level = if cli.verbose { "debug" } else { "warn" };
    if !matches!(cli.command, Command::VmProcess) {
        let target = env_logger::Target::Pipe(Box::new(screen::Screen));
        log_format(level).target(target).init();
    }
    match cli.command {
        // Other programs by nature: they answer to kennel, not to a person.
        Command::VmProcess => vm_process(level),
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

/// A log from `level` on, unless the environment names another one.
fn log_format(level: &str) -> env_logger::Builder {
    let environment = env_logger::Env::new().filter_or("KENNEL_LOG", level);
    let mut format = env_logger::Builder::from_env(environment);
    format.format(|out, record| {
        let text = without_error_numbers(&record.args().to_string());
        writeln!(out, "[{:<5}] {text}", record.level())
    });
    format
}

fn answer(answer: Answer) -> ExitCode {
    let (status, message) = match answer {
        Ok(status) => (status, String::new()),
        Err(Failure::Usage(message)) => (EXIT_USAGE, message),
        Err(Failure::CouldNot(message)) => (EXIT_FAILURE, message),
        Err(Failure::Status(status, message)) => (status, message),
    };
    for line in without_error_numbers(&message).lines() {
        progress::say(&format!("kennel: {line}"));
    }
    screen::close();
    status.into()
}

fn vm_process(log_level: &str) -> ExitCode {
    match kennel_vmm::process::inherited(vm_process::CONTROL_FD, vm_process::PULSE_FD) {
        Ok((control, pulse)) => run_vm_process(control, pulse, log_level),
        Err(_) => {
            let name = vm_process::SUBCOMMAND;
            progress::say(&format!(
                "kennel: {name} is what `kennel run FILE` starts by itself"
            ));
            EXIT_USAGE.into()
        }
    }
}

fn run_vm_process(control: UnixStream, pulse: OwnedFd, log_level: &str) -> ExitCode {
    // A supervisor that is gone reads no message.
    if kennel_vmm::process::die_with_supervisor(&control).is_err() {
        return EXIT_FAILURE.into();
    }
    match start_vm_log(log_level) {
        Ok(()) => kennel_vmm::process::run(control, pulse),
        Err(error) => {
            progress::say(&format!(
                "kennel: the host gave no thread for the log of a VM process: {error}; free some \
                 processes"
            ));
            EXIT_FAILURE.into()
        }
    }
}

fn start_vm_log(level: &str) -> std::io::Result<()> {
    kennel_vmm::process::bounded_log::start(|output| {
        let target = env_logger::Target::Pipe(output);
        let format = log_format(level).target(target).build();
        let level = format.filter();
        (format, level)
    })
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
}
