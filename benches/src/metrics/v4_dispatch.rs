// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! V4: from a decoded memory exit to the device and back.

use std::hint::black_box;
use std::sync::Arc;

use kennel_vmm::bus::MmioDevice;
use vm_device::bus::MmioAddress;
use vm_device::device_manager::MmioManager;

use super::Metric;
use super::t4_ping::batches;
use crate::Trouble;
use crate::contest::{Contest, Outcome};
use crate::count;
use crate::result::{Measured, Role, Series, Target, Verdict};
use crate::session::Session;
use crate::statistics::quantile;
use crate::workload::{self, Ranges, Register};

pub(super) const METRIC: Metric = Metric {
    id: "V4",
    title: "Dispatch of an exit to its device",
    unit: "ns",
    definition: "A decoded two-byte memory write through the bus to a device that stores it, with 1 \
                 to 256 ranges on the bus: the first range again and again, the last, one after the other, none.",
    floor: "calling the device",
    peer: "vm-device's IoManager without the machine's bus around it",
    target: "≤ 10 ns and ≤ 60 instructions with 16 ranges; ≤ 0.5 × vm-device; 256 ranges ≤ 1.5 × 1",
    seconds: [15, 6],
    measure,
};

const COUNTS: [u32; 5] = [1, 4, 16, 64, 256];
const KENNEL: &str = "Kennel's bus";
const PLAIN: &str = "vm-device";
const FLOOR: &str = "direct call";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    First,
    Last,
    Turn,
    Miss,
}

impl Hit {
    const ALL: [Self; 4] = [Self::First, Self::Last, Self::Turn, Self::Miss];

    const fn name(self) -> &'static str {
        match self {
            Self::First => "first range",
            Self::Last => "last range",
            Self::Turn => "one after the other",
            Self::Miss => "no range",
        }
    }

    #[inline]
    fn address(self, count: u32, turn: u64) -> u64 {
        match self {
            Self::First => Ranges::address(0),
            Self::Last => Ranges::address(count - 1),
            Self::Turn => Ranges::in_turn(turn, count),
            Self::Miss => Ranges::address(count),
        }
    }
}

/// The addresses of a hit, one call after the other.
fn addresses(hit: Hit, count: u32) -> impl FnMut() -> u64 {
    let mut turn = 0_u64;
    move || {
        turn = turn.wrapping_add(1);
        hit.address(count, turn)
    }
}

fn contest(session: &Session, count: u32, hit: Hit) -> Result<Outcome, Trouble> {
    let mut bus = Ranges::new(count).on_bus();
    let io = Ranges::new(count).on_io_manager();
    let device: MmioDevice = Arc::<Register>::default();
    Contest::default()
        .with(FLOOR, Role::Floor, || {
            let mut next = addresses(hit, count);
            Ok(batches(|| {
                device.mmio_write(MmioAddress(black_box(next())), 0, &black_box([1, 0]));
            }))
        })
        .with(KENNEL, Role::Kennel, || {
            let mut next = addresses(hit, count);
            Ok(batches(|| {
                bus.mmio_write(black_box(next()), &black_box([1, 0]))
            }))
        })
        .with(PLAIN, Role::Other, || {
            let mut next = addresses(hit, count);
            Ok(batches(|| {
                let address = MmioAddress(black_box(next()));
                black_box(io.mmio_write(address, &black_box([1, 0])).is_ok());
            }))
        })
        .run(session, session.times(20, 3))
}

fn measure(session: &Session, measured: &mut Measured) -> Result<(), Trouble> {
    measured.axis = Some("ranges".into());
    let mut turns = vec![];
    for (count, part) in COUNTS.into_iter().zip([0.0, 0.2, 0.4, 0.6, 0.8]) {
        for hit in Hit::ALL {
            session.part(part, part + 0.2);
            let outcome = contest(session, count, hit)?;
            for one in &outcome.contenders {
                let series = Series::of(one.name, one.role, &one.all(), 1e-3);
                let series = series.map(|series| series.in_mode(hit.name()).at(count.into()));
                measured.series.extend(series);
            }
            if count == 16 && hit == Hit::Turn {
                measured.verdicts.push(at_16(&outcome));
                measured.verdicts.push(Verdict::ratio(
                    "16 ranges: Kennel / vm-device, p50",
                    outcome.ratio(KENNEL, PLAIN, 0.5),
                    Target::AtMost(0.5),
                ));
            }
            if hit == Hit::Turn {
                turns.extend(median(&outcome));
            }
            measured.blocks.extend(outcome.noise);
        }
    }
    let flat = match (turns.first(), turns.last()) {
        (Some(one), Some(most)) if turns.len() == COUNTS.len() => Some(most / one),
        _ => None,
    };
    measured.verdicts.push(Verdict::figure(
        "256 ranges / 1, p50",
        flat,
        Target::AtMost(1.5),
    ));
    count_instructions(measured)
}

fn median(outcome: &Outcome) -> Option<f64> {
    let samples = outcome.of(KENNEL)?.all();
    Some(quantile(&samples, 0.5) as f64 / 1e3)
}

fn at_16(outcome: &Outcome) -> Verdict {
    Verdict::figure("16 ranges: p50, ns", median(outcome), Target::AtMost(10.0))
}

fn count_instructions(measured: &mut Measured) -> Result<(), Trouble> {
    let (ours, plain) = (
        count::cost(workload::DISPATCH)?,
        count::cost(workload::DISPATCH_PLAIN)?,
    );
    measured.notes.extend(plain.map(|cost| {
        format!(
            "vm-device alone takes {:.0} instructions with 16 ranges",
            cost.instructions
        )
    }));
    measured.verdicts.push(Verdict::figure(
        "16 ranges: instructions",
        ours.map(|cost| cost.instructions),
        Target::AtMost(60.0),
    ));
    Ok(())
}
