// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest agent (qemu-ga) from the host's side.
//!
//! [`session::Session`] is the protocol, pure; [`Connection`] puts a socket and a clock around it.

pub mod session;
pub(crate) mod text;

mod connection;
#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use session::Answer;

/// Why a request to the guest agent has no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The deadline passed.
    #[error("the guest agent did not answer in time")]
    TimedOut,
    /// Nobody in the guest has the agent's port open.
    #[error(
        "no guest agent is connected (is qemu-guest-agent installed and running in the guest?)"
    )]
    NotConnected,
    /// The agent or the guest was started anew while the request was under way.
    #[error("the guest agent was started anew while it was being asked")]
    Restarted,
    /// The agent refused.
    #[error("the guest agent refused: {desc} ({class})")]
    Refused {
        /// QEMU's class of error, as in `CommandNotFound`.
        class: String,
        /// What the agent says.
        desc: String,
    },
    /// The agent refused what every conversation with it begins with.
    #[error("the guest agent refused the sync that comes before every request: {desc} ({class})")]
    SyncRefused {
        /// QEMU's class of error, as in `CommandNotFound`.
        class: String,
        /// What the agent says.
        desc: String,
    },
    /// What came is no answer.
    #[error("the guest agent's answer cannot be understood: {0}")]
    Garbled(String),
    /// The host's end failed. Its path is the caller's to tell.
    #[error("the guest agent's socket failed: {0}; is the machine still running?")]
    Socket(String),
}
