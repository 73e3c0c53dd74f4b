// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A scene's closing summary.

use std::fmt;

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
    /// What was measured, by name.
    pub(super) figures: Vec<(&'static str, String)>,
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

impl fmt::Display for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nSummary: {}", self.title)?;
        for (name, figure) in &self.figures {
            writeln!(f, "  {name:<18}  {figure}")?;
        }
        let outcome = match &self.verdict {
            Verdict::Ended(ending) => events::ending(*ending),
            Verdict::Stopped(_) => "Stopped by the demo",
            Verdict::Broken(message) => message,
        };
        writeln!(
            f,
            "  {:<18}  VMI {}: {outcome}",
            "outcome",
            self.verdict.phase().name()
        )?;
        for promise in &self.promises {
            let mark = if promise.kept { "ok    " } else { "BROKEN" };
            writeln!(f, "  {mark} {}", promise.what)?;
        }
        Ok(())
    }
}
