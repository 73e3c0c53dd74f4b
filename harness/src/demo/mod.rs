// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Demonstrations: what the [`watchdog`]'s actions and a machine's [`probes`] promise, and whether it
//! was kept.
//!
//! A demonstration is a script for the guest and somebody who watches it: a [`Director`] hears
//! events, notices and the console, gives the machine its cues, and in the end holds what it saw
//! against the promises. It reads no clock: every instant it compares comes out of an event or a
//! notice.

pub mod probes;
mod review;
pub mod watchdog;

use std::time::Duration;

use kennel_vmm::protocol::Notice;

use crate::supervisor::Order;
use crate::supervisor::events::Event;
use crate::supervisor::verdict::Verdict;

pub use review::{Promise, Review};

/// No demonstration takes this long, in wall-clock time, even in a box on a busy machine.
pub const LONGEST: Duration = Duration::from_secs(300);

/// Watches a demonstration, and has a say in it.
pub trait Director {
    /// An event of the machine's.
    fn event(&mut self, _event: &Event) -> Vec<Order> {
        vec![]
    }

    /// The machine has something to tell.
    fn news(&mut self, notice: &Notice) -> Vec<Order>;

    /// The guest printed a line.
    fn console_line(&mut self, line: &str) -> Vec<Order>;

    /// What was seen, held against what was promised.
    fn review(&self, verdict: &Verdict) -> Review;
}

/// The guest's init says this once a script is over; more than 0 is a scene gone wrong.
const SCRIPT_ENDED: &str = "kennel: script ended with status ";

/// The guest's script has ended, and not well.
fn script_failed(line: &str) -> bool {
    line.split_once(SCRIPT_ENDED)
        .is_some_and(|(_, rest)| leading_number(rest) != Some(0))
}

/// The number that `text` begins with; the kernel's own messages may follow on the same line.
fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_messages_on_the_same_line_do_not_end_the_scene() {
        for line in [
            "kennel: script ended with status 0",
            "kennel: script ended with status 0[   11.4] watchdog: watchdog0: did not stop!",
        ] {
            assert!(!script_failed(line), "{line}");
        }
        for line in [
            "kennel: script ended with status 1",
            "kennel: script ended with status 127[  1.0] x",
        ] {
            assert!(script_failed(line), "{line}");
        }
    }
}
