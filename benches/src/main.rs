// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kennel's measurements: each metric beside QEMU's and beside the smallest program that does only
//! the kernel's part, interleaved in one run, so that a busy machine slows all of them alike.
//!
//! Figures are medians and their ratios. Nothing here is a test: a slow machine fails nothing.
#![forbid(unsafe_code)]

mod client;
mod contender;
mod round_trip;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use kennel::supervisor::vm_process::SUBCOMMAND;
use round_trip::RoundTrips;

/// What went wrong, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Trouble(String);

impl Trouble {
    pub(crate) fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "kennel-benches",
    about = "Measures Kennel beside QEMU and the bare kernel"
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure.
    Run(RunArguments),
    /// Name the metrics.
    List,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Fewer repetitions.
    #[arg(long)]
    quick: bool,
    /// Only these metrics, by their IDs.
    #[arg(long, value_delimiter = ',', value_name = "ID,…")]
    only: Vec<String>,
    /// Write every figure to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For the metrics with a Linux guest: its kernel. Without it they are left out, and named.
    #[arg(long, value_name = "FILE", requires = "initrd")]
    kernel: Option<PathBuf>,
    /// And its initrd, with a guest agent, as `kennel guest build` makes it.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
}

const METRICS: [(&str, &str); 2] = [
    ("A1", "guest-ping round trip, bare-metal guest (µs)"),
    ("A1-linux", "guest-ping round trip, Linux and qemu-ga (µs)"),
];

fn main() -> ExitCode {
    // The VM processes are this very program, once more.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == SUBCOMMAND)
    {
        return kennel::cli::main();
    }
    match Arguments::parse().what {
        What::List => {
            for (id, what) in METRICS {
                println!("{id:<10} {what}");
            }
            ExitCode::SUCCESS
        }
        What::Run(arguments) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(trouble) => {
                eprintln!("kennel-benches: {trouble}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(arguments: &RunArguments) -> Result<(), Trouble> {
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|id| METRICS.iter().all(|(known, _)| known != id))
    {
        let known = METRICS.map(|(id, _)| id).join(", ");
        return Err(Trouble::new(format!(
            "no metric {unknown}: there are {known}"
        )));
    }
    let wanted = |id: &str| arguments.only.is_empty() || arguments.only.iter().any(|one| one == id);
    let mut results = vec![];
    if wanted("A1") {
        results.push(RoundTrips::bare_metal(arguments.quick).measure()?);
    }
    if wanted("A1-linux") {
        match (&arguments.kernel, &arguments.initrd) {
            (Some(kernel), Some(initrd)) => {
                results.push(RoundTrips::linux(kernel, initrd, arguments.quick).measure()?);
            }
            _ => {
                println!("A1-linux: left out: it needs --kernel and --initrd (kennel guest build)")
            }
        }
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&results).map_err(Trouble::new)?;
        std::fs::write(path, text)
            .map_err(|error| Trouble::new(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}
