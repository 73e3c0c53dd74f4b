// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whoever else wants the CPUs.

use std::hint::spin_loop;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::Trouble;
use crate::contender::Killed;

/// The hidden subcommand of a process that computes.
pub(crate) const SUBCOMMAND: &str = "hog";

/// Computes until its standard input is closed: by the end of whoever started it.
pub(crate) fn main() -> ExitCode {
    let _hogs = Hogs::start(1);
    let _closed = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

/// Processes that compute until this is dropped.
pub(crate) fn processes(count: usize) -> Result<Vec<Killed>, Trouble> {
    let start = |_| {
        let mut program = Command::new("/proc/self/exe");
        let hog = program.arg(SUBCOMMAND).stdin(Stdio::piped()).spawn();
        hog.map(Killed).map_err(Trouble::new)
    };
    (0..count).map(start).collect()
}

/// Threads that compute until this is dropped.
pub(crate) struct Hogs(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Hogs {
    pub(crate) fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let hog = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
            })
        };
        let hogs = (0..count).map(hog).collect();
        Self(stop, hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for hog in self.1.drain(..) {
            let _ended = hog.join();
        }
    }
}
