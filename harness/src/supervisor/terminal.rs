// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The supervisor's terminal, and a tap on the guest's console.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::thread::{self, JoinHandle};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use kennel_vmm::outlet::OutletWriter;

use super::vm_process::ConsoleEnds;

/// A line longer than this is handed on in pieces, in bytes.
const MAX_LINE: u64 = 4 << 10;

/// Puts the terminal back as it was, also when the VM process was killed and could not.
#[derive(Debug)]
pub(super) struct TerminalGuard(Option<Termios>);

impl TerminalGuard {
    pub(super) fn new() -> Self {
        Self(
            in_foreground()
                .then(|| tcgetattr(io::stdin()).ok())
                .flatten(),
        )
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        if let Some(before) = self.0.as_ref().filter(|_| in_foreground()) {
            // A terminal that is gone needs no care.
            let _restored = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// A background job that changes its terminal is stopped by it.
fn in_foreground() -> bool {
    tcgetpgrp(io::stdin()).ok() == Some(rustix::process::getpgrp())
}

/// A console without input whose output is taken by lines, until `take` wants no more.
pub(super) fn tap(
    mut take: impl FnMut(&[u8]) -> bool + Send + 'static,
) -> io::Result<(ConsoleEnds, JoinHandle<()>)> {
    let (reader, writer) = io::pipe()?;
    let tap = thread::Builder::new()
        .name("console-tap".into())
        .spawn(move || {
            let mut reader = BufReader::new(reader);
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                if !take(&line) {
                    break;
                }
            }
        })?;
    Ok((
        ConsoleEnds {
            input: Stdio::null(),
            output: Stdio::from(writer),
        },
        tap,
    ))
}

/// Writes to a screen, which takes everything at once.
pub(super) fn show(screen: &mut OutletWriter, bytes: &[u8]) {
    let _taken = screen.write_all(bytes);
}
