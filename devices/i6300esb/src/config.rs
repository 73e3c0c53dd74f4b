// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the embedder chooses once, when it builds the device.

use crate::countdown::ClockRate;
use crate::spec;

/// A deadline that is found later than this, in nanoseconds, was found by a process that did not run:
/// [`Config::forgive_stalls`].
pub const STALL_NS: u64 = 250_000_000;

/// Choices of the embedder. `Config::default()` suits a virtual machine with any guest driver.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The clock that the prescaler divides. Default 30 ns, as QEMU.
    pub clock: ClockRate,
    /// What the watchdog does once it has bitten. Default: it starts over.
    pub after_bite: AfterBite,
    /// Revision ID for the PCI header that the embedder shows. Default [`spec::DEFAULT_REVISION`].
    pub revision: u8,
    /// The timed-out flag as a new device has it: set for a machine that is built anew after a bite, instead of being reset,
    /// so that its guest finds the flag as after a reset. A power-on reset clears it; a restored state brings its own. Default false.
    pub timed_out: bool,
    /// Time in which nobody ran is not held against the guest. Default false.
    ///
    /// A stage whose end is found more than [`STALL_NS`] late starts over when it is found, once for a ping or enable, and
    /// [`Event::StallForgiven`](crate::Event::StallForgiven) tells; whoever finds it, timer or access. After a bite that is found
    /// so late no round is made up for. Reported instants, and so the lateness of a bite, stay those of a process that had run.
    pub forgive_stalls: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clock: ClockRate::NS_30,
            after_bite: AfterBite::Rearm,
            revision: spec::DEFAULT_REVISION,
            timed_out: false,
            forgive_stalls: false,
        }
    }
}

/// What the watchdog does after a bite that leaves the guest running.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AfterBite {
    /// It starts over from the first stage, with its preloads and its lock: the guest stays protected.
    #[default]
    Rearm,
    /// It resets itself: disarmed, unlocked, preloads at their reset values (QEMU behaviour). If the output was disabled
    /// it only stops, and a ping starts it again.
    Disarm,
    /// It stops and keeps its registers and its lock; a ping starts it again.
    Halt,
}
