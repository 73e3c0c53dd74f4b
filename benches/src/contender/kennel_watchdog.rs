// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The i6300esb of a VM process, armed by its guest when the console says so, with what the process
//! tells of its bites.

use std::io::{PipeWriter, Write, pipe};
use std::path::Path;
use std::process::Stdio;

use kennel::supervisor::vm_process::{ConsoleEnds, VmProcess, Word};
use kennel_vmm::config::{AfterBite, MachineConfig, WatchdogAction, WatchdogConfig};
use kennel_vmm::protocol::News;

use super::Guest;
use super::marked::{tap, wait_for};
use crate::Trouble;

const MIB: u32 = 32;
/// The guest's program, and what it writes once it listens.
const PROGRAM: &str = "a";
const LISTENS: u8 = b'R';

/// A VM process whose guest halts.
#[derive(Debug)]
pub(crate) struct KennelWatchdog {
    process: VmProcess,
    input: PipeWriter,
}

/// What the process told, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// How late a bite came, by its notice.
    Bite(u64),
    /// How late a deadline was found that was then moved: its bite is still to come.
    Stall(u64),
    Gone,
}

impl KennelWatchdog {
    /// Starts a VM process; what it tells goes to `told`, until that wants no more. A bite has no
    /// action and disarms, as QEMU's does.
    pub(crate) fn start(
        guest: &Path,
        mut told: impl FnMut(Told) -> bool + Send + 'static,
    ) -> Result<Self, Trouble> {
        let watchdog = WatchdogConfig {
            action: WatchdogAction::None,
            after_bite: AfterBite::Disarm,
            ..WatchdogConfig::default()
        };
        let config = MachineConfig {
            watchdog: Some(watchdog),
            ..Guest::bare(guest, MIB, PROGRAM).config()
        };
        let (theirs, input) = pipe().map_err(Trouble::new)?;
        let (output, writer) = pipe().map_err(Trouble::new)?;
        let ends = ConsoleEnds {
            input: Stdio::from(theirs),
            output: Stdio::from(writer),
        };
        let say = move |word| meaning(&word).is_none_or(&mut told);
        let process = VmProcess::start_telling(config, ends, say).map_err(Trouble::new)?;
        wait_for(&tap(output)?, LISTENS)?;
        Ok(Self { process, input })
    }

    /// Has the guest arm it with so many ticks of 2^15 clocks in each stage.
    pub(crate) fn arm(&mut self, ticks: u32) -> Result<(), Trouble> {
        let line = format!("{ticks}\n");
        self.input.write_all(line.as_bytes()).map_err(Trouble::new)
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn meaning(word: &Word) -> Option<Told> {
    let Word::Notice(notice) = word else {
        return Some(Told::Gone);
    };
    match notice.news {
        // A notice of several tells how late the worst of them was, or the last.
        News::Watchdog(report) if report.bites == 1 => Some(Told::Bite(report.lateness_ns)),
        News::StallForgiven { stalled_ns } => Some(Told::Stall(stalled_ns)),
        _ => None,
    }
}
