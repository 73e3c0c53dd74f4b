// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The log of a VM process. A log line never holds up the thread that writes it, and a guest cannot
//! make a flood of them.
//!
//! A thread of its own writes the lines to standard error; while nobody reads that, lines wait in a
//! bounded backlog, and beyond it they are dropped and counted. Each place in the code has a
//! token bucket, and all of them together have another. A line that finds no token is suppressed;
//! the next line of the same place says how many were, and the last line of the log how many are left.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

use crate::outlet::Outlet;
use crate::token_bucket::TokenBucket;

/// Places with a bucket of their own; further ones share one.
const PLACES: usize = 256;

const fn bucket_of_a_place() -> TokenBucket {
    TokenBucket::new(10, Duration::from_secs(1))
}

const fn bucket_of_all() -> TokenBucket {
    TokenBucket::new(32, Duration::from_millis(250))
}

/// File and line of a log call.
type Place = (&'static str, u32);

#[derive(Debug)]
struct Account {
    bucket: TokenBucket,
    suppressed: u64,
}

impl Account {
    const fn new() -> Self {
        Self {
            bucket: bucket_of_a_place(),
            suppressed: 0,
        }
    }
}

/// Decides which lines are written. Takes the time as an argument.
#[derive(Debug)]
struct Limiter {
    all: TokenBucket,
    places: BTreeMap<Place, Account>,
    other: Account,
}

impl Limiter {
    const fn new() -> Self {
        Self {
            all: bucket_of_all(),
            places: BTreeMap::new(),
            other: Account::new(),
        }
    }

    /// Whether a line of `place` is written, and how many were suppressed before it.
    fn admit(&mut self, place: Option<Place>, now: Duration) -> Option<u64> {
        let has_room = self.places.len() < PLACES;
        let own = place.filter(|place| has_room || self.places.contains_key(place));
        let account = match own {
            Some(place) => self.places.entry(place).or_insert_with(Account::new),
            None => &mut self.other,
        };
        if account.bucket.take(now) && self.all.take(now) {
            return Some(std::mem::take(&mut account.suppressed));
        }
        account.suppressed = account.suppressed.saturating_add(1);
        None
    }

    /// How many suppressed lines no line has told of.
    fn take_untold(&mut self) -> u64 {
        let accounts = self.places.values_mut().chain([&mut self.other]);
        accounts.fold(0, |sum, account| {
            sum.saturating_add(std::mem::take(&mut account.suppressed))
        })
    }
}

struct ProcessLog {
    format: Box<dyn Log>,
    limiter: Mutex<Limiter>,
    outlet: Outlet,
    began: Instant,
}

static LOG: OnceLock<ProcessLog> = OnceLock::new();

impl Log for ProcessLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.format.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let place = record.file_static().zip(record.line());
        let admitted = self.limiter.lock().admit(place, self.began.elapsed());
        match admitted {
            None => {}
            Some(0) => self.format.log(record),
            Some(suppressed) => {
                let args = record.args();
                let args = format_args!("{args} ({suppressed} more like it were suppressed)");
                let metadata = record.metadata().clone();
                self.format
                    .log(&Record::builder().metadata(metadata).args(args).build());
            }
        }
    }

    fn flush(&self) {}
}

/// Logs from now on as `format` does, which is given where to write to and says up to which level.
/// Panics are logged in the same way.
///
/// # Errors
///
/// The kernel's, when it gives no thread.
pub fn start<L: Log + 'static>(
    format: impl FnOnce(Box<dyn Write + Send>) -> (L, LevelFilter),
) -> io::Result<()> {
    let outlet = Outlet::start("log", Box::new(io::stderr()))?;
    let (format, level) = format(Box::new(outlet.writer()));
    let log = LOG.get_or_init(|| ProcessLog {
        format: Box::new(format),
        limiter: Mutex::new(Limiter::new()),
        outlet,
        began: Instant::now(),
    });
    if log::set_logger(log).is_ok() {
        log::set_max_level(level);
        // The default hook writes to standard error, and waits for whoever reads it.
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
    Ok(())
}

/// Says how many lines were suppressed, and lets the reader take what is left, until `deadline`.
pub(super) fn close_by(deadline: Instant) {
    let Some(log) = LOG.get() else { return };
    let untold = log.limiter.lock().take_untold();
    if untold > 0 {
        let args = format_args!("{untold} more log lines were suppressed");
        let level = log::Level::Warn;
        log.format
            .log(&Record::builder().level(level).args(args).build());
    }
    log.outlet.close_by(deadline);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Place = ("here.rs", 1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_flood_of_one_place_is_told_by_its_count() {
        let mut limiter = Limiter::new();
        let mut told = vec![];
        for millis in 0..4_000 {
            told.extend(limiter.admit(Some(HERE), at(millis)));
        }
        assert_eq!(told.len(), 10 + 3);
        assert_eq!(told.get(..11), Some(&[&[0; 10][..], &[990]].concat()[..]));
        let counted = 13 + told.iter().sum::<u64>() + limiter.take_untold();
        assert_eq!(counted, 4_000, "every line is written or counted");
        assert_eq!(limiter.take_untold(), 0);
    }

    #[test]
    fn a_flood_leaves_tokens_for_other_places() {
        let mut limiter = Limiter::new();
        for _ in 0..1_000 {
            let _ = limiter.admit(Some(HERE), at(0));
        }
        assert_eq!(limiter.admit(Some(("there.rs", 1)), at(0)), Some(0));
        assert_eq!(limiter.admit(None, at(0)), Some(0));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_and_counted(
            lines in prop::collection::vec((0_u32..2_000, 0_u64..50), 0..600),
        ) {
            let mut limiter = Limiter::new();
            let (mut now, mut written, mut told) = (0, 0_u64, 0);
            let all = u64::try_from(lines.len()).expect("few");
            for (line, wait) in lines {
                now += wait;
                if let Some(suppressed) = limiter.admit(Some(("file.rs", line)), at(now)) {
                    written += 1;
                    told += suppressed;
                }
            }
            prop_assert!(limiter.places.len() <= PLACES);
            prop_assert!(written <= 32 + now / 250);
            prop_assert_eq!(written + told + limiter.take_untold(), all);
        }
    }
}
