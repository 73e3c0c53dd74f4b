// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Standard error, where people look. Once a command has machines, nothing that it writes there waits
//! for the reader: a terminal that is stopped by Ctrl-S must not hold up whoever acts on a bite.

use std::io::{self, Write};
use std::sync::OnceLock;

use kennel_vmm::outlet::{Outlet, OutletWriter};

use super::Failure;

static SCREEN: OnceLock<Outlet> = OnceLock::new();

/// From here on, what is written to the screen, log lines included, waits in a bounded backlog.
pub(super) fn start() -> Result<OutletWriter, Failure> {
    if let Some(screen) = SCREEN.get() {
        return Ok(screen.writer());
    }
    let screen = Outlet::start("screen", Box::new(io::stderr())).map_err(Failure::could_not)?;
    Ok(SCREEN.get_or_init(|| screen).writer())
}

/// Gives the reader a second to take what is left. Nothing is written afterwards.
pub(super) fn close() {
    if let Some(screen) = SCREEN.get() {
        screen.close();
    }
}

/// Writes to the screen; blocks as long as it has not been started.
#[derive(Debug)]
pub(super) struct Screen;

impl Write for Screen {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match SCREEN.get() {
            Some(screen) => screen.writer().write(data),
            None => io::stderr().write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
