// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where guests' consoles go: one guest's to the terminal, several guests' apart.

mod files;

use std::io;
use std::process::Stdio;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use kennel_vmm::outlet::OutletWriter;

use super::Arrival;
use super::terminal;
use super::vm_process::ConsoleEnds;

pub use files::{ConsoleFile, ConsoleFiles, Relays};

/// Where guests' consoles go.
#[derive(Debug)]
pub enum Console {
    /// Standard input and this output, for one guest at a time.
    Own(Output),
    /// No input; line by line to the watcher, and as it is to a screen.
    Tapped(OutletWriter),
    /// No input; each guest's lines with its name in front.
    Named(OutletWriter),
    /// No input; each guest's output to a file of its own, this name and the guest's behind it.
    Files(ConsoleFiles),
}

/// Where one guest's output goes.
#[derive(Debug)]
pub enum Output {
    /// Standard output.
    Standard,
    /// Standard error.
    Error,
    /// A file.
    File(ConsoleFile),
}

impl Console {
    /// The file of the guest `name` alone, if each has one. It lasts as long as the instance, also when that
    /// gets another VM process.
    pub(super) fn own_file(&self, name: &str) -> io::Result<Option<ConsoleFile>> {
        match self {
            Self::Files(files) => files.of_guest(name).map(Some),
            _ => Ok(None),
        }
    }

    /// The ends for the guest `name`, which has this file of its own, and who taps them.
    pub(super) fn ends(
        &self,
        name: &str,
        file: Option<&ConsoleFile>,
        sender: &Sender<Arrival>,
    ) -> io::Result<(ConsoleEnds, Option<JoinHandle<()>>)> {
        let tapped = |(ends, tap)| (ends, Some(tap));
        match self {
            Self::Own(output) => {
                let output = match output {
                    Output::Standard => Stdio::inherit(),
                    Output::Error => Stdio::from(io::stderr()),
                    Output::File(file) => file.end()?,
                };
                let input = Stdio::inherit();
                Ok((ConsoleEnds { input, output }, None))
            }
            Self::Tapped(screen) => {
                let sender = sender.clone();
                let mut screen = screen.clone();
                terminal::tap(move |line| {
                    terminal::show(&mut screen, line);
                    let line = String::from_utf8_lossy(line).trim_end().to_owned();
                    sender.send(Arrival::ConsoleLine(line)).is_ok()
                })
                .map(tapped)
            }
            Self::Named(screen) => {
                let mut screen = screen.clone();
                let name = format!("[{name}] ");
                terminal::tap(move |line| {
                    let mut whole = name.clone().into_bytes();
                    whole.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                    whole.push(b'\n');
                    terminal::show(&mut screen, &whole);
                    true
                })
                .map(tapped)
            }
            Self::Files(files) => {
                let output = match file {
                    Some(file) => file.end()?,
                    None => files.of_guest(name)?.end()?,
                };
                let input = Stdio::null();
                Ok((ConsoleEnds { input, output }, None))
            }
        }
    }
}
