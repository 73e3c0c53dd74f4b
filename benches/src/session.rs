// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A run in progress: how far it is, whether somebody wants it to end, and what is left out.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Trouble;
use crate::cli::print;
use crate::noise::{Noise, Watch};

/// How often a long wait looks whether it is to end.
pub(crate) const GLANCE: Duration = Duration::from_millis(500);

/// A Linux guest, for the metrics that boot one.
#[derive(Clone, Debug)]
pub(crate) struct LinuxGuest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

/// What metrics are given.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) quick: bool,
    pub(crate) linux: Option<LinuxGuest>,
    pub(crate) load: crate::load::Options,
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
    /// ms on the bar of what was measured before, and of what is measured now.
    before: u64,
    share: u64,
    /// The part of the metric that its next blocks are.
    part: Cell<(f64, f64)>,
}

impl Session {
    /// One that will take about `seconds`, and ends early on SIGINT and SIGTERM.
    pub(crate) fn new(
        quick: bool,
        linux: Option<LinuxGuest>,
        seconds: u64,
    ) -> Result<Self, Trouble> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Trouble::new(format!("signal {signal}: {error}")))?;
        }
        let bar = ProgressBar::with_draw_target(Some(seconds * 1000), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{msg:32!} {wide_bar} {percent:>3} %, {eta} left, Ctrl-C keeps what there is",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(Self {
            quick,
            linux,
            load: crate::load::Options::default(),
            stop,
            bar,
            before: 0,
            share: 0,
            part: Cell::new((0.0, 1.0)),
        })
    }

    /// Whether somebody wants the run to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The next metric begins, which will take about `seconds`.
    pub(crate) fn begin(&mut self, id: &str, title: &str, seconds: u64) {
        self.before += self.share;
        self.share = seconds * 1000;
        self.part.set((0.0, 1.0));
        self.bar.set_position(self.before);
        self.bar.set_message(format!("{id} {title}"));
        if self.bar.is_hidden() {
            eprintln!("{id} {title}, about {seconds} s");
        }
    }

    /// The blocks to come are this part of the metric, from 0 to 1.
    pub(crate) fn part(&self, from: f64, to: f64) {
        self.part.set((from, to));
    }

    /// So much of the part is done.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of ms is one"
    )]
    fn done(&self, blocks: usize, of: usize) {
        let (from, to) = self.part.get();
        let done = from + (to - from) * blocks as f64 / of.max(1) as f64;
        let position = self.share as f64 * done.clamp(0.0, 1.0);
        self.bar.set_position(self.before + position as u64);
    }

    /// Says something above the bar.
    pub(crate) fn say(&self, text: &str) {
        // What is measured counts, also where nobody reads this.
        let say = || print(&format!("{text}\n")).ok();
        let _said = if self.bar.is_hidden() {
            say()
        } else {
            self.bar.suspend(say)
        };
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Repetitions: many, or few in a quick run.
    pub(crate) const fn times(&self, many: usize, few: usize) -> usize {
        if self.quick { few } else { many }
    }

    /// Measures blocks until there are `count`, or somebody wants it to end. A block that fails
    /// then is left out.
    pub(crate) fn blocks(
        &self,
        count: usize,
        mut block: impl FnMut(usize) -> Result<(), Trouble>,
    ) -> Result<Vec<Noise>, Trouble> {
        let mut noise = vec![];
        for index in 0..count {
            if self.stopped() {
                break;
            }
            let watch = Watch::start();
            match block(index) {
                Err(_) if self.stopped() => break,
                result => result?,
            }
            noise.push(watch.stop());
            self.done(index + 1, count);
        }
        Ok(noise)
    }

    /// Waits; an error if somebody wants the run to end meanwhile.
    pub(crate) fn wait(&self, long: Duration) -> Result<(), Trouble> {
        let end = Instant::now() + long;
        loop {
            if self.stopped() {
                return Err(Trouble::new("interrupted"));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(GLANCE));
        }
    }
}
