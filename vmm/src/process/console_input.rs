// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The console's input: standard input, as a terminal without line editing if it is one.

use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, RawFd};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp,
    tcsetattr,
};

/// As many bytes as the 16550's FIFO takes.
const FIFO: usize = 64;

/// Standard input, put back as it was when this goes.
#[derive(Debug)]
pub(super) struct ConsoleInput {
    stdin: io::Stdin,
    before: Option<Termios>,
}

impl ConsoleInput {
    pub(super) fn standard_input() -> Self {
        let stdin = io::stdin();
        let before = without_line_editing(&stdin);
        Self { stdin, before }
    }

    /// Whether it may be read: a background job that reads its terminal is stopped by it.
    pub(super) fn is_ours(&self) -> bool {
        !self.stdin.is_terminal() || in_foreground(&self.stdin)
    }

    /// Reads what the guest has `room` for, and gives it to `guest`; false once there is no more input.
    pub(super) fn pass_on(&self, room: usize, guest: impl FnOnce(&[u8])) -> bool {
        let room = room.min(FIFO);
        let mut bytes = [0; FIFO];
        let Some(chunk) = bytes.get_mut(..room) else {
            return true;
        };
        if chunk.is_empty() {
            return true;
        }
        match rustix::io::read(&self.stdin, chunk) {
            Ok(0) => false,
            Ok(count) => {
                guest(bytes.get(..count).unwrap_or_default());
                true
            }
            Err(error) => matches!(error, rustix::io::Errno::INTR | rustix::io::Errno::AGAIN),
        }
    }
}

impl AsRawFd for ConsoleInput {
    fn as_raw_fd(&self) -> RawFd {
        self.stdin.as_raw_fd()
    }
}

impl Drop for ConsoleInput {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = tcsetattr(&self.stdin, OptionalActions::Now, before)
        {
            log::warn!("the terminal could not be restored: {error}; `stty sane` does it");
        }
    }
}

fn in_foreground(stdin: &io::Stdin) -> bool {
    tcgetpgrp(stdin).ok() == Some(rustix::process::getpgrp())
}

/// Every key goes to the guest at once, but Ctrl-C and Ctrl-\ still end Kennel.
fn without_line_editing(stdin: &io::Stdin) -> Option<Termios> {
    if !stdin.is_terminal() || !in_foreground(stdin) {
        return None;
    }
    let before = tcgetattr(stdin).ok()?;
    let mut raw = before.clone();
    raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
    raw.input_modes -= InputModes::ICRNL | InputModes::IXON;
    // Ctrl-Z is the guest's: a stopped VM process would miss its watchdog's deadlines.
    raw.special_codes[SpecialCodeIndex::VSUSP] = 0;
    tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
    Some(before)
}
