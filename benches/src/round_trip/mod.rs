// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A1: from a guest-ping at the agent's socket to its answer.
//!
//! The same client asks the same guest in Kennel's machine and in QEMU's, and a thread instead of a
//! guest, the floor. In each block they take turns: floor, Kennel, QEMU, QEMU, Kennel, floor.

use std::path::Path;

use kennel_tests::mini_agent;
use serde::Serialize;
use tempfile::TempPath;

use crate::Trouble;
use crate::client::Client;
use crate::contender::{self, Guest, Running};
use crate::statistics::{Percentiles, Ratio};

/// Pings before a turn's first that counts.
const WARM_UP: usize = 20;

/// What is measured, and how often.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    id: &'static str,
    guest: Guest,
    /// A guest that polls takes a CPU even when nobody asks it, so it lives for one turn only.
    polls: bool,
    blocks: usize,
    pings: usize,
    _payload: Option<TempPath>,
}

/// Everything that came of it; times in ns.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    id: &'static str,
    peer: Option<String>,
    blocks: usize,
    floor: Percentiles,
    kennel: Percentiles,
    qemu: Option<Percentiles>,
    p50_to_qemu: Option<Ratio>,
    p99_to_qemu: Option<Ratio>,
}

/// One contender: how it is started, and what it showed.
struct Contender<'a> {
    start: &'a dyn Fn() -> Result<Running, Trouble>,
    standing: Option<(Client, Running)>,
    all: Vec<u64>,
}

impl<'a> Contender<'a> {
    fn new(start: &'a dyn Fn() -> Result<Running, Trouble>) -> Self {
        Self {
            start,
            standing: None,
            all: vec![],
        }
    }

    /// One turn's samples in ns.
    fn turn(&mut self, pings: usize, stays: bool) -> Result<Vec<u64>, Trouble> {
        let (mut client, running) = match self.standing.take() {
            Some(standing) => standing,
            None => {
                let mut running = (self.start)()?;
                let socket = running.socket();
                (Client::connect(&socket, || running.check())?, running)
            }
        };
        for _ in 0..WARM_UP {
            client.ping()?;
        }
        let samples: Vec<u64> = (0..pings)
            .map(|_| client.ping())
            .collect::<Result<_, _>>()?;
        self.all.extend(&samples);
        self.standing = stays.then_some((client, running));
        Ok(samples)
    }
}

impl RoundTrips {
    /// With a guest of a few hundred instructions.
    pub(crate) fn bare_metal(quick: bool) -> Self {
        let payload = mini_agent::write();
        Self {
            id: "A1",
            guest: Guest {
                kernel: payload.to_path_buf(),
                initrd: None,
                cmdline: "agent".into(),
                memory_mib: 32,
            },
            polls: true,
            blocks: if quick { 3 } else { 20 },
            pings: 300,
            _payload: Some(payload),
        }
    }

    /// With Linux and a real qemu-ga.
    pub(crate) fn linux(kernel: &Path, initrd: &Path, quick: bool) -> Self {
        Self {
            id: "A1-linux",
            guest: Guest {
                kernel: kernel.to_owned(),
                initrd: Some(initrd.to_owned()),
                cmdline: "console=ttyS0 quiet panic=-1 cryptomgr.notests".into(),
                memory_mib: 256,
            },
            polls: false,
            blocks: if quick { 3 } else { 10 },
            pings: 100,
            _payload: None,
        }
    }

    /// Measures, prints, and gives the figures.
    pub(crate) fn measure(&self) -> Result<Measured, Trouble> {
        let peer = contender::qemu_version();
        let floor_start = || Running::floor();
        let kennel_start = || Running::kennel(&self.guest);
        let qemu_start = || Running::qemu(&self.guest);
        let mut floor = Contender::new(&floor_start);
        let mut kennel = Contender::new(&kennel_start);
        let mut qemu = peer.as_ref().map(|_| Contender::new(&qemu_start));
        let (mut medians, mut tails) = (vec![], vec![]);
        for block in 1..=self.blocks {
            eprintln!("{}: block {block} of {}", self.id, self.blocks);
            let (mut ours, mut theirs) = (vec![], vec![]);
            floor.turn(self.pings, true)?;
            ours.extend(kennel.turn(self.pings, !self.polls)?);
            if let Some(qemu) = &mut qemu {
                theirs.extend(qemu.turn(self.pings, !self.polls)?);
                theirs.extend(qemu.turn(self.pings, !self.polls)?);
            }
            ours.extend(kennel.turn(self.pings, !self.polls)?);
            floor.turn(self.pings, true)?;
            if !theirs.is_empty() {
                let (ours, theirs) = (Percentiles::of(&ours), Percentiles::of(&theirs));
                medians.push(quotient(ours.p50, theirs.p50));
                tails.push(quotient(ours.p99, theirs.p99));
            }
        }
        let measured = Measured {
            id: self.id,
            peer,
            blocks: self.blocks,
            floor: Percentiles::of(&floor.all),
            kennel: Percentiles::of(&kennel.all),
            qemu: qemu.map(|qemu| Percentiles::of(&qemu.all)),
            p50_to_qemu: Ratio::of(&medians),
            p99_to_qemu: Ratio::of(&tails),
        };
        measured.print();
        Ok(measured)
    }
}

fn quotient(ours: u64, theirs: u64) -> f64 {
    ours as f64 / theirs.max(1) as f64
}

impl Measured {
    fn print(&self) {
        println!("{}: guest-ping round trip in µs", self.id);
        println!(
            "{:<8} {:>9} {:>9} {:>9} {:>9}",
            "", "p50", "p90", "p99", "max"
        );
        let row = |name: &str, figures: &Percentiles| {
            let micros = |nanos: u64| nanos as f64 / 1e3;
            println!(
                "{name:<8} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                micros(figures.p50),
                micros(figures.p90),
                micros(figures.p99),
                micros(figures.max)
            );
        };
        row("floor", &self.floor);
        row("Kennel", &self.kennel);
        match &self.qemu {
            Some(figures) => row("QEMU", figures),
            None => println!("QEMU: absent ({} is not installed)", contender::QEMU),
        }
        for (name, ratio) in [("p50", self.p50_to_qemu), ("p99", self.p99_to_qemu)] {
            if let Some(Ratio { median, low, high }) = ratio {
                println!(
                    "Kennel / QEMU, {name}: {median:.3} (95 % interval {low:.3} to {high:.3}, {} blocks)",
                    self.blocks
                );
            }
        }
    }
}
