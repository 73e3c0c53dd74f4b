// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an unusable answer of the agent means for a probe.

use crate::agent::AgentError;
use crate::probe::Outcome;

/// What came of asking for `command`, when it was not what was asked for. A deadline that passed is
/// the caller's to explain.
///
/// The refusals' texts are those observed with qemu-ga 7.2.
pub(super) fn outcome(command: &str, error: &AgentError, freeze_counts: bool) -> Outcome {
    match error {
        AgentError::Refused { desc, .. } if is_frozen(error) => {
            let why = format!("the guest's file systems are frozen, and its agent waits: {desc}");
            if freeze_counts {
                Outcome::Failure(why)
            } else {
                Outcome::Error(why)
            }
        }
        AgentError::Refused { desc, .. } if is_forbidden(error) => Outcome::Failure(format!(
            "the guest agent does not allow {command}: {desc}; allow it in the guest \
             (block-rpcs and allow-rpcs in /etc/qemu/qemu-ga.conf, or the agent's options in \
             /etc/sysconfig/qemu-ga) and start the agent anew"
        )),
        // What a guest can bring about at will counts, as it does with KubeVirt: else one that is
        // not well could keep its probes from ever saying so.
        AgentError::Refused { .. }
        | AgentError::SyncRefused { .. }
        | AgentError::NotConnected
        | AgentError::TimedOut
        | AgentError::Garbled(_)
        | AgentError::Socket(_) => Outcome::Failure(error.to_string()),
        AgentError::Restarted => Outcome::Error(error.to_string()),
    }
}

/// The agent knows the command no more, or never did: blocked by its configuration, or frozen.
pub(super) fn is_forbidden(error: &AgentError) -> bool {
    matches!(error, AgentError::Refused { class, .. }
        if class == "CommandNotFound" || class == "CommandDisabled")
}

fn is_frozen(error: &AgentError) -> bool {
    matches!(error, AgentError::Refused { desc, .. } if is_forbidden(error) && desc.contains("frozen"))
}
