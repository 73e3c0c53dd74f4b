// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an instance or a run went: KubeVirt's phase, and the exit status that stands for it.

use kennel_vmm::protocol::Ending;

pub use super::phase::Phase;

/// Why the supervisor ended the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal, by number.
    Signal(i32),
    /// `--timeout` ran out.
    Timeout,
    /// Whoever watched had seen enough.
    Done,
    /// Its liveness probe failed.
    LivenessFailed,
}

impl Cause {
    /// One word, for events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signal(_) => "Signal",
            Self::Timeout => "Timeout",
            Self::Done => "Done",
            Self::LivenessFailed => "LivenessFailed",
        }
    }

    /// Why, behind a colon.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Signal(_) => "interrupted",
            Self::Timeout => "its time is over",
            Self::Done => "enough seen",
            Self::LivenessFailed => "its liveness probe failed",
        }
    }
}

/// How an instance or a run went.
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
            Self::Ended(Ending::GuestPowerOff) => Phase::Succeeded,
            // However the guest went: a policy must not take it for a success.
            Self::Stopped(Cause::LivenessFailed) | Self::Ended(_) | Self::Broken(_) => {
                Phase::Failed
            }
            Self::Stopped(_) => Phase::Succeeded,
        }
    }

    /// The exit status of `kennel run`.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Ended(Ending::GuestPowerOff) | Self::Stopped(Cause::Done) => 0,
            Self::Ended(_) | Self::Stopped(Cause::LivenessFailed) => EXIT_VMI_FAILED,
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
            (Verdict::Stopped(Cause::LivenessFailed), Phase::Failed, 3),
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
