// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `livenessProbe` and `readinessProbe`, typed, with KubeVirt's defaults filled in.

use std::time::Duration;

/// A probe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// What is asked.
    pub handler: Handler,
    /// `initialDelaySeconds`: no attempt before the guest has run this long.
    pub initial_delay: Duration,
    /// `timeoutSeconds`: how long one attempt may take.
    pub timeout: Duration,
    /// `periodSeconds`: from one attempt's start to the next one's.
    pub period: Duration,
    /// `successThreshold`: successes in a row that make it succeed.
    pub success_threshold: u32,
    /// `failureThreshold`: failures in a row that make it fail.
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handler {
    /// `exec`: a command in the guest, run by its agent without a shell.
    Exec {
        /// Program and arguments; not empty.
        command: Vec<String>,
    },
    /// `guestAgentPing`.
    GuestAgentPing,
    /// `httpGet`.
    HttpGet(HttpGet),
    /// `tcpSocket`.
    TcpSocket(TcpSocket),
}

/// `httpGet`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpGet {
    /// `port`, resolved if it was a name.
    pub port: u16,
    /// `path`, `/` if not given.
    pub path: String,
    /// `host`, if given.
    pub host: Option<String>,
    /// `scheme: HTTPS`.
    pub https: bool,
    /// `httpHeaders`, name and value, in their order.
    pub headers: Vec<(String, String)>,
}

/// `tcpSocket`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpSocket {
    /// `port`, resolved if it was a name.
    pub port: u16,
    /// `host`, if given.
    pub host: Option<String>,
}

impl Handler {
    /// KubeVirt's key of it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::GuestAgentPing => "guestAgentPing",
            Self::HttpGet(_) => "httpGet",
            Self::TcpSocket(_) => "tcpSocket",
        }
    }
}
