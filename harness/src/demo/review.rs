// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A scene's closing summary.

use std::fmt;
use std::time::Duration;

use kennel_vmm::protocol::WatchdogReport;

use crate::supervisor::events;
use crate::supervisor::verdict::Verdict;

/// Something that a scene promised, and whether it was so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    what: &'static str,
    kept: bool,
}

impl Promise {
    pub(super) const fn new(what: &'static str, kept: bool) -> Self {
        Self { what, kept }
    }
}

/// What was seen, held against what was promised.
#[derive(Clone, Debug)]
pub struct Review {
    pub(super) title: &'static str,
    pub(super) bite: Option<WatchdogReport>,
    pub(super) verdict: Verdict,
    pub(super) promises: Vec<Promise>,
}

impl Review {
    /// Whether every promise was kept.
    #[must_use]
    pub fn all_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

impl fmt::Display for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nSummary: {}", self.title)?;
        if let Some(bite) = &self.bite {
            writeln!(f, "  timeout programmed  {:.3} s", seconds(bite.timeout_ns))?;
            let due = bite.since_ping_ns.saturating_sub(bite.lateness_ns);
            writeln!(
                f,
                "  last ping           {:.3} s before the bite",
                seconds(due)
            )?;
            writeln!(
                f,
                "  lateness            {:.3} ms",
                seconds(bite.lateness_ns) * 1e3
            )?;
            writeln!(f, "  action              {}", bite.action.name())?;
        } else {
            writeln!(f, "  the watchdog did not bite")?;
        }
        let outcome = match &self.verdict {
            Verdict::Ended(ending) => events::ending(*ending),
            Verdict::Stopped(_) => "Stopped by the demo",
            Verdict::Broken(message) => message,
        };
        writeln!(
            f,
            "  outcome             VMI {}: {outcome}",
            self.verdict.phase().name()
        )?;
        for promise in &self.promises {
            let mark = if promise.kept { "ok    " } else { "BROKEN" };
            writeln!(f, "  {mark} {}", promise.what)?;
        }
        Ok(())
    }
}
