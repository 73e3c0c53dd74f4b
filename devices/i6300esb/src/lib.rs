// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Intel 6300ESB watchdog timer (`i6300esb`, PCI 8086:25ab) as a device model that any virtual machine monitor can embed.
//!
//! # Emulated
//!
//! * BAR 0: both preloads, interrupt status, reload with its unlock sequence and timed-out flag; every width and alignment.
//! * PCI config space 0x60 to 0x6B: output disable, both prescalers, interrupt type, live down-counter, enable, lock, mode.
//! * Two-stage watchdog mode with the stage-1 interrupt, and free-running mode.
//! * The timed-out flag that survives a platform reset.
//!
//! # Not emulated
//!
//! * The generic PCI header: it belongs to the embedder's PCI layer; [`spec`] gives its values.
//! * SMI and the routing of the interrupt to the second I/O APIC: the interrupt is a level for the embedder to wire.
//!
//! # Differs from hardware
//!
//! * The clock is 30 ns unless [`ClockRate::MHZ_33`] is chosen.
//! * After a bite the watchdog starts over unless [`AfterBite`] says otherwise; hardware holds its output low until reset.
//! * The timed-out flag does not survive [`ResetKind::PowerOn`].
//! * A bite with the output disabled does not set the timed-out flag.
//! * Acknowledging the interrupt does not disturb an unlock sequence.
//!
//! # Time that nobody ran
//!
//! With [`Config::forgive_stalls`] a stage whose end is found more than [`STALL_NS`] late starts over, once for a ping: the
//! process was stopped, and the guest could not ping. Whoever comes first finds it, the timer or an access, and in an access it
//! is found before anything else is done.
//!
//! A stop is seen if the end of a stage falls into it. A guest that pings within each stage, less [`STALL_NS`], and between any two
//! stops, is never bitten; one that hangs always is, at most one round after a stop. A stop between two ends of stages is not
//! seen and counts as time in which the guest did not ping.
//!
//! # Embedding
//!
//! The device holds no clock, timer, lock or callback. Each call takes the VM time and returns [`Effects`]: the level of
//! the interrupt pin, what to do with one absolute timer, and what happened.
//!
//! ```
//! use i6300esb::{Config, Event, I6300Esb, TimerRequest, VmInstant};
//!
//! let mut watchdog = I6300Esb::new(Config::default());
//! let at = VmInstant::from_nanos;
//!
//! // A guest write to BAR 0 + 0x0C, then to config space 0x68: enable.
//! let effects = watchdog.mmio_write(at(0), 0x0c, &[0x80, 0x00]);
//! assert_eq!(effects.timer, TimerRequest::Keep);
//! let effects = watchdog.config_write(at(0), 0x68, &[0x02]);
//! let TimerRequest::ArmAt(deadline) = effects.timer else { unreachable!() };
//!
//! // The embedder's timer fires. Nobody pinged: the first stage is over.
//! let effects = watchdog.timer_fired(deadline);
//! assert_eq!(effects.interrupt, Some(true));
//! let TimerRequest::ArmAt(deadline) = effects.timer else { unreachable!() };
//!
//! // And the second one: it bites. Reset the machine, or do what the VM's configuration says.
//! let effects = watchdog.timer_fired(deadline);
//! for event in effects.events {
//!     if let Event::Bite(bite) = event {
//!         assert_eq!(bite.due, deadline);
//!     }
//! }
//! assert!(watchdog.status(deadline).timed_out);
//! ```
//!
//! # Features
//!
//! None is on by default, and without them the crate has no dependency.
//!
//! * `serde`: [`State`] can be serialized in any format.
//! * `alloc`: `DeadlineQueue`, one host timer for any number of watchdogs.
//!
//! Glue for vm-device and event-manager is a crate of its own, i6300esb-rust-vmm.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

/// The README's example is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod config;
mod countdown;
#[cfg(feature = "alloc")]
mod deadline_queue;
mod device;
mod effects;
mod packed;
mod pending;
mod registers;
mod reports;
pub mod spec;
mod state;
mod state_bytes;
mod time;
mod watchdog;

pub use config::{AfterBite, Config, STALL_NS};
pub use countdown::{ClockRate, Mode, Stage};
#[cfg(feature = "alloc")]
pub use deadline_queue::DeadlineQueue;
pub use device::{I6300Esb, ResetKind, Status};
pub use effects::{Bite, Effects, Event, Events, EventsIter, FirstStage, StallForgiven};
pub use registers::UnlockPhase;
pub use state::{
    RestoreError, RoundState, STATE_VERSION, State, UnreportedBites, UnreportedFirstStage,
};
pub use state_bytes::{DecodeError, STATE_BYTES};
pub use time::{TimerRequest, VmInstant};
