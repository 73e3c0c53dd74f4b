// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `httpGet` and `tcpSocket`: probes over the guest's network, with the kubelet's rules.
//!
//! One deadline covers all of an attempt. A connection is one that the guest itself accepted. With
//! a `host` that is not on the guest's link, this host connects to it, as the kubelet's node would.
//!
//! *Differs from the kubelet*: what was answered before the request was read counts, as do lines
//! that end in a line feed alone; once the answer's headers are there, a connection that breaks
//! changes nothing.

mod door;
mod http;
mod resolve;
mod runner;
mod tcp;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;

use std::time::{Duration, Instant};

pub use runner::NetworkRunner;

use super::Outcome;
use crate::agent::text::cut;

/// How long an attempt may take, and what it calls that.
#[derive(Clone, Copy, Debug)]
struct Limit {
    deadline: Instant,
    timeout: Duration,
}

impl Limit {
    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn seconds(self) -> String {
        format!("{} s", self.timeout.as_secs_f64())
    }
}

/// Why an attempt came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// The guest is not well.
    Failed(String),
    /// That cannot be told.
    Untold(String),
}

impl Trouble {
    /// The same, with a word before it about what was attempted.
    fn at(self, what: &str) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{what}: {why}")),
            Self::Untold(why) => Self::Untold(format!("{what}: {why}")),
        }
    }
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            // A guest writes parts of it: where it redirects to, for instance.
            Trouble::Failed(why) => Self::Failure(cut(why)),
            Trouble::Untold(why) => Self::Error(cut(why)),
        }
    }
}
