// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Progress on standard error: bars and spinners on a terminal, plain lines elsewhere.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::Screen;
use crate::guest::Step;
use crate::host::BoxStep;

/// One line on standard error, whatever has become of it.
pub(super) fn say(line: &str) {
    let _shown = Screen.write_all(format!("{line}\n").as_bytes());
}

/// Result lines on standard output.
///
/// A reader that went away (`kennel … | head`) is not an error.
pub(super) fn print(text: &str) {
    let _read = io::stdout().write_all(text.as_bytes());
}

/// Whether standard error is a terminal that wants colour.
pub(super) fn coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What is being done now.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last: RefCell<String>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = if coloured() {
                "{spinner:.cyan} {wide_msg}"
            } else {
                "{spinner} {wide_msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            bar,
            last: RefCell::default(),
        }
    }

    /// Something goes on.
    pub(super) fn step(&self, what: &impl Display) {
        let text = what.to_string();
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => self.line(text),
        }
    }

    /// A download: its percentage moves a terminal's line, and elsewhere only its start and its
    /// end are told.
    pub(super) fn guest(&self, step: &Step) {
        match step {
            Step::Downloading { percent, .. }
                if self.bar.is_none() && !matches!(percent, 0 | 100) => {}
            step => self.step(step),
        }
    }

    /// A step of the box's.
    pub(super) fn in_box(&self, step: &BoxStep) {
        match step {
            BoxStep::Image(step) => self.guest(step),
            // From here on the terminal is the command's.
            BoxStep::Running { .. } => {
                self.step(step);
                self.finish();
            }
            step => self.step(step),
        }
    }

    /// No more steps; the terminal's line is free again.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: String) {
        if *self.last.borrow() != text {
            say(&format!("kennel: {text}"));
            *self.last.borrow_mut() = text;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
