// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One run of many probes, and what it took and left on both sides.

use std::time::Duration;

use kennel::spec::Handler;

use super::EVERY_SECOND;
use super::accounts::{self, HostSockets};
use super::engine::{self, Orders, Phase, Record};
use super::guest::Guest;
use crate::Trouble;

/// How long the link may keep what its clients have left, and some.
const LINGERS: Duration = Duration::from_millis(1500);

/// What it took and left.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) record: Record,
    /// ns of CPU of the link's thread, and of the guest's.
    pub(crate) link: u64,
    pub(crate) guest: u64,
    /// Sockets of this host in TIME-WAIT, more than before.
    pub(crate) time_wait: u64,
    /// Of both processes, more than before.
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Bytes that it added to the VM process.
    pub(crate) resident: u64,
}

impl Run {
    /// ns of CPU of an attempt, all that is Kennel's.
    pub(crate) fn cpu_each(&self) -> f64 {
        (self.record.cpu + self.link) as f64 / self.record.attempts.max(1) as f64
    }
}

/// What both processes hold and have used.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    ours: u64,
    theirs: u64,
    link: u64,
    guest: u64,
    time_wait: u64,
}

impl Held {
    fn by(guest: &Guest) -> Self {
        let (ours, theirs) = (std::process::id(), guest.pid());
        Self {
            descriptors: accounts::descriptors(ours) + accounts::descriptors(theirs),
            threads: accounts::threads(ours) + accounts::threads(theirs),
            ours: accounts::resident(ours),
            theirs: accounts::resident(theirs),
            link: accounts::cpu_ns(theirs, &["link"]),
            guest: accounts::cpu_ns(theirs, &[guest.thread()]),
            time_wait: HostSockets::read().time_wait,
        }
    }
}

/// Probes `guest` with each of `handlers`, once a second.
pub(crate) fn run(
    guest: &Guest,
    handlers: Vec<Handler>,
    phase: Phase,
    lasts: Duration,
) -> Result<Run, Trouble> {
    let first = Orders {
        handlers: handlers.iter().take(2).cloned().collect(),
        timing: EVERY_SECOND,
        phase: Phase::Together,
        lasts: Duration::from_millis(10),
    };
    let orders = Orders {
        handlers,
        phase,
        lasts,
        ..first.clone()
    };
    // ARP, and what is allocated once.
    engine::run(&guest.socket(), &first)?;
    let before = Held::by(guest);
    let mut record = engine::run(&guest.socket(), &orders)?;
    let during = Held::by(guest);
    std::thread::sleep(LINGERS);
    let after = Held::by(guest);
    record.resident = record.resident.saturating_sub(before.ours);
    Ok(Run {
        record,
        link: during.link.saturating_sub(before.link),
        guest: during.guest.saturating_sub(before.guest),
        time_wait: after.time_wait.saturating_sub(before.time_wait),
        descriptors: after.descriptors.saturating_sub(before.descriptors),
        threads: after.threads.saturating_sub(before.threads),
        resident: during.theirs.saturating_sub(before.theirs),
    })
}
