// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The sign of life of a VM process: what its supervisor asks, and what two threads answer.
//!
//! The event loop is asked by [`crate::protocol::Command::Pulse`], so that it answers between two of its
//! handlers. A second thread, which does nothing else, is asked by eight bytes on a socket of its own
//! and answers whatever the event loop does. Both answers go out at that socket, which keeps the bounds
//! of messages: no answer is a JSON line, because making one takes memory and with it a lock.

use crate::config::WatchdogAction;
use crate::mailbox::ResetCause;

/// Bytes of a question: its number, little endian.
pub const QUESTION_BYTES: usize = 8;
/// Bytes of an answer.
pub const PULSE_BYTES: usize = 24;

/// Which thread answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The thread that acts on bites.
    EventLoop,
    /// The thread that only answers.
    SecondThread,
}

/// What the event loop is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Builds the machine.
    #[default]
    Start,
    /// Waits for work, or does it between two waits.
    Idle,
    /// Waits for vCPUs to leave the guest.
    WaitForVcpus,
    /// Resets the devices.
    ResetDevices,
    /// Gives guest memory back to the host.
    Wipe,
    /// Waits for kernel and initrd to be read and unpacked.
    LoadKernel,
    /// Builds the KVM VM and its vCPUs.
    BuildVm,
    /// Waits for the link's thread.
    WaitForLink,
    /// Ends the machine.
    End,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Start,
        Self::Idle,
        Self::WaitForVcpus,
        Self::ResetDevices,
        Self::Wipe,
        Self::LoadKernel,
        Self::BuildVm,
        Self::WaitForLink,
        Self::End,
    ];

    /// The name in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Idle => "idle",
            Self::WaitForVcpus => "wait-for-vcpus",
            Self::ResetDevices => "reset-devices",
            Self::Wipe => "wipe",
            Self::LoadKernel => "load-kernel",
            Self::BuildVm => "build-vm",
            Self::WaitForLink => "wait-for-link",
            Self::End => "end",
        }
    }

    pub(crate) fn index(self) -> u8 {
        index_of(&Self::ALL, self)
    }

    pub(crate) fn at(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

impl ResetCause {
    const ALL: [Self; 5] = [
        Self::ResetControl,
        Self::KeyboardController,
        Self::TripleFault,
        Self::Watchdog,
        Self::Host,
    ];

    pub(crate) fn index(self) -> u8 {
        index_of(&Self::ALL, self)
    }

    pub(crate) fn at(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

fn index_of<T: PartialEq>(all: &[T], one: T) -> u8 {
    let index = all.iter().position(|other| *other == one);
    index
        .and_then(|index| u8::try_from(index).ok())
        .unwrap_or(0)
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The question's number.
    pub number: u64,
    /// Which thread answers.
    pub sender: Sender,
    /// Grows with each step that the event loop makes, also within a phase.
    pub progress: u64,
    /// What the event loop is at.
    pub phase: Phase,
    /// The guest's watchdog is armed.
    pub armed: bool,
    /// It has bitten, and its action is not carried out yet.
    pub bitten: bool,
    /// What a bite does, if the machine has a watchdog.
    pub action: Option<WatchdogAction>,
    /// The reset that is under way.
    pub reset: Option<ResetCause>,
    /// A thread that has not done yet what the event loop told it, and how much of that it has done so
    /// far. Only the event loop knows.
    pub behind: Option<(Phase, u16)>,
}

const ARMED: u8 = 1;
const BITTEN: u8 = 2;

impl Pulse {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PULSE_BYTES] {
        let mut flags = 0;
        if self.armed {
            flags |= ARMED;
        }
        if self.bitten {
            flags |= BITTEN;
        }
        let action = self
            .action
            .map(|action| index_of(&WatchdogAction::ALL, action));
        let optional = |index: Option<u8>| index.map_or(0, |index| index.saturating_add(1));
        let [n0, n1, n2, n3, n4, n5, n6, n7] = self.number.to_le_bytes();
        let [p0, p1, p2, p3, p4, p5, p6, p7] = self.progress.to_le_bytes();
        let sender = u8::from(self.sender == Sender::SecondThread);
        let (phase, action) = (self.phase.index(), optional(action));
        let reset = optional(self.reset.map(ResetCause::index));
        let behind = optional(self.behind.map(|(phase, _)| phase.index()));
        let [d0, d1] = self.behind.map_or(0, |(_, done)| done).to_le_bytes();
        [
            n0, n1, n2, n3, n4, n5, n6, n7, p0, p1, p2, p3, p4, p5, p6, p7, sender, phase, flags,
            action, reset, behind, d0, d1,
        ]
    }

    /// What bytes mean; none if they are no answer.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PULSE_BYTES] = bytes.try_into().ok()?;
        let (number, rest) = bytes.split_first_chunk()?;
        let (progress, rest) = rest.split_first_chunk()?;
        let &[sender, phase, flags, action, reset, behind, d0, d1] = rest else {
            return None;
        };
        let optional = |index: u8| index.checked_sub(1);
        let action = match optional(action) {
            Some(index) => Some(*WatchdogAction::ALL.get(usize::from(index))?),
            None => None,
        };
        let reset = match optional(reset) {
            Some(index) => Some(ResetCause::at(index)?),
            None => None,
        };
        let behind = match optional(behind) {
            Some(index) => Some((Phase::at(index)?, u16::from_le_bytes([d0, d1]))),
            None => None,
        };
        Some(Self {
            number: u64::from_le_bytes(*number),
            sender: match sender {
                0 => Sender::EventLoop,
                1 => Sender::SecondThread,
                _ => return None,
            },
            progress: u64::from_le_bytes(*progress),
            phase: Phase::at(phase)?,
            armed: flags & ARMED != 0,
            bitten: flags & BITTEN != 0,
            action,
            reset,
            behind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_was_said() {
        let actions = WatchdogAction::ALL.into_iter().map(Some).chain([None]);
        let resets = ResetCause::ALL.into_iter().map(Some).chain([None]);
        let resets: Vec<_> = resets.collect();
        let mut number = u64::MAX - 3;
        for action in actions {
            for reset in &resets {
                for phase in Phase::ALL {
                    number = number.wrapping_add(0x0102_0304_0506_0708);
                    let pulse = Pulse {
                        number,
                        sender: match number % 2 {
                            0 => Sender::EventLoop,
                            _ => Sender::SecondThread,
                        },
                        progress: !number,
                        phase,
                        armed: number % 3 == 0,
                        bitten: number % 5 == 0,
                        action,
                        reset: *reset,
                        behind: (number % 7 == 0).then_some((phase, 0x1234)),
                    };
                    assert_eq!(Pulse::from_bytes(&pulse.to_bytes()), Some(pulse));
                }
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(Pulse::from_bytes(&[0; PULSE_BYTES - 1]), None);
        assert_eq!(Pulse::from_bytes(&[0; PULSE_BYTES + 1]), None);
        for (place, value) in [(16, 2), (17, 200), (19, 7), (20, 6), (21, 11)] {
            let mut bytes = [0; PULSE_BYTES];
            assert!(Pulse::from_bytes(&bytes).is_some());
            bytes[place] = value;
            assert_eq!(Pulse::from_bytes(&bytes), None, "{place}");
        }
    }
}
