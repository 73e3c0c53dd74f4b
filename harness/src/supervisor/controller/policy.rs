// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What follows from an instance's end, by the kind of document that wanted it.

use crate::spec::{Kind, RunStrategy};
use crate::supervisor::phase::Phase;

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// A new instance takes its place.
    Replace,
    /// It stays as it is.
    Leave,
}

/// What follows from an end in `phase`.
///
/// A Halted machine is started as `virtctl start` would, and that makes it Always. RerunOnFailure
/// goes by the phase, which is Failed for an instance that its liveness probe ended, however the
/// guest went.
pub(super) fn after(kind: Kind, phase: Phase) -> Then {
    let again = match kind {
        Kind::VirtualMachineInstance => false,
        Kind::VirtualMachineInstanceReplicaSet { .. } => true,
        Kind::VirtualMachine { run_strategy } => match run_strategy {
            RunStrategy::Always | RunStrategy::Halted => true,
            RunStrategy::RerunOnFailure => phase == Phase::Failed,
            RunStrategy::Manual | RunStrategy::Once => false,
        },
    };
    if again { Then::Replace } else { Then::Leave }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_strategy() {
        let machine = |run_strategy| Kind::VirtualMachine { run_strategy };
        let set = Kind::VirtualMachineInstanceReplicaSet { replicas: 2 };
        for (kind, after_success, after_failure) in [
            (Kind::VirtualMachineInstance, Then::Leave, Then::Leave),
            (set, Then::Replace, Then::Replace),
            (machine(RunStrategy::Always), Then::Replace, Then::Replace),
            (machine(RunStrategy::Halted), Then::Replace, Then::Replace),
            (
                machine(RunStrategy::RerunOnFailure),
                Then::Leave,
                Then::Replace,
            ),
            (machine(RunStrategy::Manual), Then::Leave, Then::Leave),
            (machine(RunStrategy::Once), Then::Leave, Then::Leave),
        ] {
            assert_eq!(after(kind, Phase::Succeeded), after_success, "{kind:?}");
            assert_eq!(after(kind, Phase::Failed), after_failure, "{kind:?}");
        }
    }
}
