// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the guest's file systems are frozen, as told by the answers that pass by.

use super::message::Reply;

/// What a request has to do with freezing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concern {
    Freeze,
    Thaw,
    Status,
}

/// The commands of qemu-ga that freeze, thaw and tell.
fn concern(execute: &str) -> Option<Concern> {
    match execute {
        "guest-fsfreeze-freeze" | "guest-fsfreeze-freeze-list" => Some(Concern::Freeze),
        "guest-fsfreeze-thaw" => Some(Concern::Thaw),
        "guest-fsfreeze-status" => Some(Concern::Status),
        _ => None,
    }
}

/// The state as of the last answer.
#[derive(Debug, Default)]
pub(super) struct FreezeWatch {
    frozen: bool,
}

impl FreezeWatch {
    /// A request was answered. The new state, if it is one.
    pub(super) fn answered(&mut self, execute: &str, reply: &Reply) -> Option<bool> {
        let value = reply.result.as_ref().ok()?;
        let frozen = match concern(execute)? {
            // The count of file systems: an agent that froze none is not frozen.
            Concern::Freeze => reply.number()? > 0,
            Concern::Thaw => false,
            Concern::Status => match value.get() {
                "\"frozen\"" => true,
                "\"thawed\"" => false,
                _ => return None,
            },
        };
        self.become_frozen(frozen)
    }

    /// The agent or its guest is gone. The new state, if it is one.
    pub(super) fn agent_gone(&mut self) -> Option<bool> {
        self.become_frozen(false)
    }

    fn become_frozen(&mut self, frozen: bool) -> Option<bool> {
        let changed = self.frozen != frozen;
        self.frozen = frozen;
        changed.then_some(frozen)
    }
}
