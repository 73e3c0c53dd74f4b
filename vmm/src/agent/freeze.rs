// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the guest's file systems are frozen, as told by the requests and answers that pass by.
//!
//! A freeze counts from its request on: flushing takes its time, and the agent answers nobody
//! meanwhile.

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

/// The state as of the last request or answer.
#[derive(Debug, Default)]
pub(super) struct FreezeWatch {
    frozen: bool,
    /// What it was when a freeze was asked for.
    before: bool,
}

impl FreezeWatch {
    /// A request goes to the agent. The new state, if it is one.
    pub(super) fn asked(&mut self, execute: &str) -> Option<bool> {
        if concern(execute)? != Concern::Freeze {
            return None;
        }
        self.before = self.frozen;
        self.become_frozen(true)
    }

    /// A request was answered. The new state, if it is one.
    pub(super) fn answered(&mut self, execute: &str, reply: &Reply) -> Option<bool> {
        let concern = concern(execute)?;
        let Ok(value) = &reply.result else {
            // A freeze that was refused changed nothing, nor did anything else.
            let before = self.before;
            return (concern == Concern::Freeze)
                .then(|| self.become_frozen(before))
                .flatten();
        };
        let frozen = match concern {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_counts_from_its_request_on() {
        let mut watch = FreezeWatch::default();
        let refused = Reply::error("no");
        assert_eq!(watch.asked("guest-ping"), None);
        assert_eq!(watch.asked("guest-fsfreeze-freeze"), Some(true));
        assert_eq!(
            watch.answered("guest-fsfreeze-freeze", &refused),
            Some(false)
        );
        assert_eq!(watch.asked("guest-fsfreeze-freeze-list"), Some(true));
        // A second one while frozen is refused, and changes nothing.
        assert_eq!(watch.asked("guest-fsfreeze-freeze"), None);
        assert_eq!(watch.answered("guest-fsfreeze-freeze", &refused), None);
        assert_eq!(watch.answered("guest-fsfreeze-thaw", &refused), None);
        assert_eq!(watch.agent_gone(), Some(false));
    }
}
