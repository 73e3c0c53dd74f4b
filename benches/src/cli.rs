// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::Trouble;
use crate::gates;
use crate::host::Host;
use crate::metrics::{ALL, MISSING, Metric};
use crate::report::{compare, html, results, text};
use crate::result::{FORMAT, Report};
use crate::session::{LinuxGuest, Session};

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
    /// Name the metrics, what they are measured against, and what is missing.
    List,
    /// Say what changed from one run to another.
    Compare {
        /// The earlier run's JSON.
        before: PathBuf,
        /// The later run's.
        after: PathBuf,
    },
    /// Draw a run again from its JSON.
    Draw {
        /// What `run --json` wrote.
        run: PathBuf,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Count what no busy machine changes, and fail above the bounds: for CI.
    Gates,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Fewer repetitions, and fewer points.
    #[arg(long)]
    quick: bool,
    /// Only these metrics, by their IDs.
    #[arg(long, value_delimiter = ',', value_name = "ID,…")]
    only: Vec<String>,
    /// Write every figure to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
    /// For the metrics with a Linux guest: its kernel. Without it they are left out, and named.
    #[arg(long, value_name = "FILE", requires = "initrd")]
    kernel: Option<PathBuf>,
    /// And its initrd, with a guest agent, as `kennel guest build` makes it.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    #[command(flatten)]
    load: crate::load::Options,
}

#[derive(Debug, Args)]
struct Outputs {
    /// Write a report to look at: one file, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the charts as SVG and the figures as CSV into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    results: Option<PathBuf>,
}

pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::List => print(&list()).map(|()| true),
        What::Run(arguments) => run(&arguments),
        What::Compare { before, after } => read(&before).and_then(|before| {
            print(&compare::text(&before, &read(&after)?))?;
            Ok(true)
        }),
        What::Draw { run, outputs } => {
            read(&run).and_then(|report| outputs.write(&report).map(|()| true))
        }
        What::Gates => gates::run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("kennel-benches: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> String {
    let mut text = String::new();
    for metric in ALL {
        let Metric {
            id,
            title,
            unit,
            definition,
            floor,
            peer,
            target,
            seconds: [full, quick],
            ..
        } = metric;
        text += &format!(
            "{id}: {title} ({unit})\n  {definition}\n  floor: {floor}\n  beside it: {peer}\n  \
             target: {target}\n  takes about {full} s, quick {quick} s\n\n"
        );
    }
    text += "Missing:\n";
    for (id, title, why) in MISSING {
        text += &format!("  {id:<4} {title}: {why}\n");
    }
    text
}

/// Somebody who reads no further has what they wanted.
pub(crate) fn print(text: &str) -> Result<(), Trouble> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Trouble::new(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    std::fs::write(path, text)
        .map_err(|error| Trouble::new(format!("cannot write {}: {error}", path.display())))
}

fn read(path: &Path) -> Result<Report, Trouble> {
    let wrong = |what: String| Trouble::new(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("not what `run --json` writes: {error}")))?;
    if report.format == FORMAT {
        Ok(report)
    } else {
        Err(wrong(format!(
            "format {} is not known, only {FORMAT}; measure again",
            report.format
        )))
    }
}

impl Outputs {
    fn write(&self, report: &Report) -> Result<(), Trouble> {
        if let Some(path) = &self.html {
            write(path, &html::page(report))?;
        }
        if let Some(directory) = &self.results {
            std::fs::create_dir_all(directory).map_err(|error| {
                Trouble::new(format!("cannot make {}: {error}", directory.display()))
            })?;
            for (name, text) in results::files(report) {
                write(&directory.join(name), &text)?;
            }
        }
        Ok(())
    }
}

/// The metrics that were asked for.
fn wanted(arguments: &RunArguments) -> Result<Vec<&'static Metric>, Trouble> {
    let known = |id: &String| ALL.iter().any(|metric| metric.id == id);
    if let Some(unknown) = arguments.only.iter().find(|id| !known(id)) {
        let ids: Vec<&str> = ALL.iter().map(|metric| metric.id).collect();
        let missing = MISSING.iter().find(|(id, ..)| id == unknown);
        let why = missing.map_or_else(String::new, |(_, _, why)| format!(" ({why})"));
        return Err(Trouble::new(format!(
            "no metric {unknown}{why}: there are {}",
            ids.join(", ")
        )));
    }
    let able = |id: &str| !id.ends_with("-linux") || arguments.kernel.is_some();
    if arguments.only.is_empty() && arguments.kernel.is_none() {
        eprintln!("left out, for want of --kernel and --initrd: metrics with a Linux guest");
    }
    let asked = |id: &str| match &arguments.only[..] {
        [] => able(id),
        only => only.iter().any(|one| one == id),
    };
    Ok(ALL.iter().filter(|metric| asked(metric.id)).collect())
}

/// Measures; false if a metric could not be.
fn run(arguments: &RunArguments) -> Result<bool, Trouble> {
    let metrics = wanted(arguments)?;
    let linux = match (&arguments.kernel, &arguments.initrd) {
        (Some(kernel), Some(initrd)) => Some(LinuxGuest {
            kernel: kernel.clone(),
            initrd: initrd.clone(),
        }),
        _ => None,
    };
    let seconds = |metric: &&Metric| metric.seconds(arguments.quick);
    let whole = metrics.iter().map(seconds).sum();
    let mut session = Session::new(arguments.quick, linux, whole)?;
    session.load = arguments.load.clone();
    let mut report = Report {
        format: FORMAT,
        host: Host::here(),
        quick: arguments.quick,
        interrupted: false,
        metrics: vec![],
    };
    let mut all_measured = true;
    for metric in metrics {
        if session.stopped() {
            break;
        }
        session.begin(metric.id, metric.title, seconds(&metric));
        let (measured, failed) = metric.run(&session);
        session.say(&text::metric(&measured));
        all_measured &= !failed;
        report.metrics.push(measured);
        report.interrupted = session.stopped();
        // After each: what is measured is kept, whatever comes.
        if let Some(path) = &arguments.json {
            let json = serde_json::to_string_pretty(&report).map_err(Trouble::new)?;
            write(path, &(json + "\n"))?;
        }
    }
    session.finish();
    arguments.outputs.write(&report)?;
    Ok(all_measured)
}
