// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a run went: KubeVirt's phase, and the exit status that stands for it.

use kennel_vmm::protocol::Ending;

/// KubeVirt's phases of a VMI that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guest powered itself off.
    Succeeded,
    /// Somebody or something else ended it.
    Failed,
}

impl Phase {
    /// The word in documents and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// Why the supervisor ended the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal, by number.
    Signal(i32),
    /// `--timeout` ran out.
    Timeout,
    /// Whoever watched had seen enough.
    Done,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The machine ended by itself.
    Ended(Ending),
    /// The supervisor ended it.
    Stopped(Cause),
    /// The machine could not be built, or not go on.
    Broken(String),
}

/// Exit status when Kennel could not do it.
pub const EXIT_FAILURE: u8 = 1;
/// Exit status for bad usage and bad documents.
pub const EXIT_USAGE: u8 = 2;
/// Exit status of a VMI that Failed.
pub const EXIT_VMI_FAILED: u8 = 3;
/// Exit status of `--timeout`, as timeout(1) has it.
pub const EXIT_TIMEOUT: u8 = 124;

impl Verdict {
    /// The phase that KubeVirt would show.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Ended(Ending::GuestPowerOff) | Self::Stopped(_) => Phase::Succeeded,
            Self::Ended(_) | Self::Broken(_) => Phase::Failed,
        }
    }

    /// The exit status of `kennel run`.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Ended(Ending::GuestPowerOff) | Self::Stopped(Cause::Done) => 0,
            Self::Ended(_) => EXIT_VMI_FAILED,
            Self::Broken(_) => EXIT_FAILURE,
            Self::Stopped(Cause::Timeout) => EXIT_TIMEOUT,
            // As shells report a program that a signal ended.
            Self::Stopped(Cause::Signal(number)) => {
                u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses() {
        for (verdict, phase, status) in [
            (Verdict::Ended(Ending::GuestPowerOff), Phase::Succeeded, 0),
            (Verdict::Ended(Ending::WatchdogPowerOff), Phase::Failed, 3),
            (Verdict::Ended(Ending::GraceExpired), Phase::Failed, 3),
            (Verdict::Broken("x".into()), Phase::Failed, 1),
            (Verdict::Stopped(Cause::Timeout), Phase::Succeeded, 124),
            (Verdict::Stopped(Cause::Signal(2)), Phase::Succeeded, 130),
            (Verdict::Stopped(Cause::Signal(15)), Phase::Succeeded, 143),
        ] {
            assert_eq!(
                (verdict.phase(), verdict.exit_status()),
                (phase, status),
                "{verdict:?}"
            );
        }
    }
}
