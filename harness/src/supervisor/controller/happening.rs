// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the controller is told, and what it wants done.

use std::net::IpAddr;

use kennel_vmm::protocol::{Command, News};

use super::process_watch::{Answers, Questions};
use crate::moment::Moment;
use crate::probe::{Outcome, ProbeKind};
use crate::supervisor::events::Said;
use crate::supervisor::verdict::{Cause, Verdict};

/// One instance, from its creation to its end. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub(in crate::supervisor) u64);

#[cfg(test)]
impl InstanceId {
    /// For tests of what is told of instances.
    pub(in crate::supervisor) const fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// An instance whose guest can be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which.
    pub instance: InstanceId,
    /// Its condition Ready.
    pub ready: bool,
    /// The address that its guest has shown: IPv4, else IPv6.
    pub ip: Option<IpAddr>,
}

/// How a machine goes on in a new VM process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The guest finds that its watchdog has reset it.
    pub timed_out: bool,
    /// Resets that the machine has had, with this one.
    pub resets: u64,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Happening {
    /// Nothing but time: what was due may be done. Also the first of all.
    TimePassed,
    /// The VM process that [`Act::Create`] asked for exists.
    Created {
        /// Whose.
        instance: InstanceId,
        /// Its process ID, if it is a process.
        pid: Option<u32>,
    },
    /// It cannot be started. The instance is over.
    CreateFailed {
        /// Whose.
        instance: InstanceId,
        /// What failed, and what to do.
        message: String,
    },
    /// The VM process tells something.
    News {
        /// Whose.
        instance: InstanceId,
        /// What.
        news: News,
    },
    /// The VM process is gone. The instance is over.
    Gone {
        /// Whose.
        instance: InstanceId,
        /// How it went, in words; told if its machine's end was not.
        how: String,
    },
    /// The attempt that [`Act::Attempt`] asked for is over.
    Probed {
        /// Whose.
        instance: InstanceId,
        /// Which probe.
        probe: ProbeKind,
        /// Which attempt.
        number: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// The agent's answer to [`Act::AskShutdown`]: that it obeys, or why not.
    ShutdownAnswered {
        /// Whose.
        instance: InstanceId,
        /// The answer.
        answer: Result<(), String>,
    },
    /// What the VM process has answered when [`Act::Look`] looked.
    Looked {
        /// Whose.
        instance: InstanceId,
        /// The answers.
        answers: Answers,
    },
    /// Somebody wants all of it to end, at once.
    Stop(Cause),
    /// Somebody wants paused instances to go on.
    Resume,
}

/// What is to be done, in the order given.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Act {
    /// Start a VM process.
    Create {
        /// For this instance.
        instance: InstanceId,
        /// Its name, without the namespace.
        name: String,
    },
    /// Tell its VM process something.
    Tell {
        /// Whose.
        instance: InstanceId,
        /// What.
        command: Command,
    },
    /// Kill its VM process, which will not go by itself.
    Kill {
        /// Whose.
        instance: InstanceId,
    },
    /// Look for signs of life of its VM process: [`Happening::Looked`] follows at once.
    Look {
        /// Whose.
        instance: InstanceId,
    },
    /// Ask its VM process for signs of life.
    AskForLife {
        /// Whose.
        instance: InstanceId,
        /// Whom.
        questions: Questions,
    },
    /// Start a VM process in the place of one that was killed because it was stuck: the same machine under
    /// the same names. [`Happening::Created`] or [`Happening::CreateFailed`] follows.
    Recreate {
        /// For this instance.
        instance: InstanceId,
        /// How the machine comes to it.
        start: Restart,
    },
    /// Attempt a probe.
    Attempt {
        /// Of this instance.
        instance: InstanceId,
        /// Which.
        probe: ProbeKind,
        /// The attempt's number, for [`Happening::Probed`].
        number: u64,
        /// The attempt is over by then, one way or the other.
        deadline: Moment,
        /// Frozen file systems are no excuse any more.
        freeze_counts: bool,
    },
    /// Ask its guest agent to shut the guest down.
    AskShutdown {
        /// Whose.
        instance: InstanceId,
        /// The answer counts until then.
        deadline: Moment,
    },
    /// Tell an event.
    Event {
        /// Of this instance.
        instance: InstanceId,
        /// What it says.
        said: Said,
    },
    /// The table is not what it was when it was last shown.
    ShowTable,
    /// All is over.
    Finish(Verdict),
}
