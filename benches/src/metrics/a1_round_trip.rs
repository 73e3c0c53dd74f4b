// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A1: from a guest-ping at the agent's socket to its answer; A3: the same on a busy machine.
//!
//! The same client asks the same guest in Kennel's machine and in QEMU's, and a thread instead of a
//! guest, the floor.

use std::cell::RefCell;

use kennel_tests::mini_agent;

use super::Metric;
use crate::Trouble;
use crate::contender::client::Client;
use crate::contender::{self, Guest, Running};
use crate::contest::Contest;
use crate::load::hogs::Hogs;
use crate::result::{Measured, Role, Target, Verdict};
use crate::session::Session;

pub(super) const BARE_METAL: Metric = Metric {
    id: "A1",
    title: "Guest-ping round trip",
    unit: "µs",
    definition: "From a guest-ping written to the agent's socket to its answer read; the guest is a \
                 driver of some hundred instructions and runs on any /dev/kvm.",
    floor: "a thread that answers at the socket",
    peer: "QEMU's pc on the same KVM, virtserialport on a socket",
    target: "ours / QEMU: p50 ≤ 0.9, p99 ≤ 1.0",
    seconds: [380, 30],
    measure: bare_metal,
};

pub(super) const LINUX: Metric = Metric {
    id: "A1-linux",
    title: "Guest-ping round trip, Linux",
    unit: "µs",
    definition: "The same with Linux and the distribution's agent; it needs --kernel and --initrd \
                 of `kennel guest build`, and a KVM that runs Linux.",
    seconds: [600, 120],
    measure: linux,
    ..BARE_METAL
};

pub(super) const STRESSED: Metric = Metric {
    id: "A3",
    title: "Guest-ping round trip under load",
    definition: "As A1, while two threads of the host compute without end. The guest's driver polls, \
                 so that its CPU has no rest either.",
    target: "ours / QEMU: p99 ≤ 1.0",
    seconds: [180, 30],
    measure: stressed,
    ..BARE_METAL
};

/// How much is asked, and what is expected of it.
struct Plan {
    /// In a turn.
    pings: usize,
    blocks: usize,
    /// Whether a guest serves all turns, or one.
    stays: bool,
    /// Quantiles of ours / QEMU's, and what they are at most.
    bounds: &'static [(&'static str, f64, f64)],
}

const MEDIAN_AND_TAIL: &[(&str, f64, f64)] = &[("p50", 0.5, 0.9), ("p99", 0.99, 1.0)];

/// Pings before a turn's first that counts.
const WARM_UP: usize = 20;
const FLOOR: &str = "floor";
const KENNEL: &str = "Kennel";
const QEMU: &str = "QEMU";

fn bare_metal(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    // This guest polls: it takes a CPU even when nobody asks it, so it lives for one turn only.
    let plan = Plan {
        pings: 300,
        blocks: session.times(36, 3),
        stays: false,
        bounds: MEDIAN_AND_TAIL,
    };
    of_driver(session, measured, &plan)
}

fn stressed(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let plan = Plan {
        pings: 60,
        blocks: session.times(12, 2),
        stays: false,
        bounds: &[("p99", 0.99, 1.0)],
    };
    let _hogs = Hogs::start(2);
    of_driver(session, measured, &plan)
}

/// With the driver of some hundred instructions as the guest.
fn of_driver(session: &Session, measured: &mut Measured, plan: &Plan) -> Result<(), Trouble> {
    let payload = mini_agent::write();
    let guest = Guest {
        kernel: payload.to_path_buf(),
        initrd: None,
        cmdline: "agent".into(),
        memory_mib: 32,
    };
    round_trips(session, measured, &guest, plan)
}

fn linux(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    let Some(linux) = &session.linux else {
        measured
            .notes
            .push("left out: it needs --kernel and --initrd".into());
        return Ok(());
    };
    let guest = Guest {
        kernel: linux.kernel.clone(),
        initrd: Some(linux.initrd.clone()),
        cmdline: "console=ttyS0 quiet panic=-1 cryptomgr.notests".into(),
        memory_mib: 256,
    };
    let plan = Plan {
        pings: 100,
        blocks: session.times(20, 3),
        stays: true,
        bounds: MEDIAN_AND_TAIL,
    };
    round_trips(session, measured, &guest, &plan)
}

/// A guest that runs, or is started for each turn.
struct Asked<'a> {
    start: &'a dyn Fn() -> Result<Running, Trouble>,
    standing: Option<(Client, Running)>,
}

impl<'a> Asked<'a> {
    fn new(start: &'a dyn Fn() -> Result<Running, Trouble>) -> RefCell<Self> {
        RefCell::new(Self {
            start,
            standing: None,
        })
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
        let samples = (0..pings).map(|_| client.ping()).collect();
        self.standing = stays.then_some((client, running));
        samples
    }
}

fn round_trips(
    session: &Session,
    measured: &mut Measured,
    guest: &Guest,
    plan: &Plan,
) -> Result<(), Trouble> {
    let &Plan {
        pings,
        blocks,
        stays,
        bounds,
    } = plan;
    let (start_floor, start_kennel) = (|| Running::floor(), || Running::kennel(guest));
    let start_qemu = || Running::qemu(guest);
    let (floor, kennel) = (Asked::new(&start_floor), Asked::new(&start_kennel));
    let qemu = Asked::new(&start_qemu);
    let with_qemu = contender::qemu_version().is_some();
    if !with_qemu {
        let what = format!("QEMU: absent, {} is not installed", contender::QEMU);
        measured.notes.push(what);
    }
    let outcome = Contest::default()
        .with(FLOOR, Role::Floor, || floor.borrow_mut().turn(pings, true))
        .with(KENNEL, Role::Kennel, || {
            kennel.borrow_mut().turn(pings, stays)
        })
        .with_some(
            QEMU,
            Role::Qemu,
            with_qemu.then_some(|| qemu.borrow_mut().turn(pings, stays)),
        )
        .run(session, blocks)?;
    measured.series = outcome.series_with_histograms(1e-3);
    for &(name, share, bound) in bounds {
        measured.verdicts.push(Verdict::ratio(
            format!("Kennel / QEMU, {name}"),
            outcome.ratio(KENNEL, QEMU, share),
            Target::AtMost(bound),
        ));
    }
    measured.blocks = outcome.noise;
    Ok(())
}
