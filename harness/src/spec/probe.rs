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

/// At which of a guest's addresses `httpGet` and `tcpSocket` ask, where they name no `host`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// At its IPv4 address.
    #[default]
    Ipv4,
    /// At its IPv6 address.
    Ipv6,
    /// At both, and both must be well.
    Both,
}

/// What KubeVirt adds to every initial delay, for its own start.
const LIBVIRT_STARTUP: Duration = Duration::from_secs(10);
/// What KubeVirt adds to the timeout of a probe that goes through its agent client.
const AGENT_CLIENT: Duration = Duration::from_secs(1);
/// KubeVirt's agent client; a command that begins with it is left as it is.
pub(super) const VIRT_PROBE: &str = "virt-probe";

impl Probe {
    /// The probe with the numbers that KubeVirt would run it with: 10 s more of initial delay, and
    /// 1 s more of timeout for `exec` and `guestAgentPing`.
    #[must_use]
    pub fn compat(mut self) -> Self {
        self.initial_delay = self.initial_delay.saturating_add(LIBVIRT_STARTUP);
        if self.is_wrapped() {
            self.timeout = self.timeout.saturating_add(AGENT_CLIENT);
        }
        self
    }

    /// The command that KubeVirt would run for it, beside the machine, for the instance `name` of
    /// `namespace`; none for `httpGet` and `tcpSocket`. Of this probe as written, not of
    /// [`Self::compat`].
    #[must_use]
    pub fn rendered_command(&self, namespace: &str, name: &str) -> Option<Vec<String>> {
        let how = match &self.handler {
            Handler::Exec { command } if !self.is_wrapped() => return Some(command.clone()),
            Handler::Exec { command } => {
                let (program, args) = command.split_first()?;
                let mut how = vec!["--command".to_owned(), program.clone(), "--".to_owned()];
                how.extend_from_slice(args);
                how
            }
            Handler::GuestAgentPing => vec!["--guestAgentPing".to_owned()],
            Handler::HttpGet(_) | Handler::TcpSocket(_) => return None,
        };
        let mut argv = vec![
            VIRT_PROBE.to_owned(),
            "--domainName".to_owned(),
            format!("{namespace}_{name}"),
            "--timeoutSeconds".to_owned(),
            self.timeout.as_secs().to_string(),
        ];
        argv.extend(how);
        Some(argv)
    }

    /// Its five numbers by KubeVirt's names.
    pub(super) fn numbers(&self) -> String {
        format!(
            "initialDelaySeconds {}, timeoutSeconds {}, periodSeconds {}, successThreshold {}, \
             failureThreshold {}",
            self.initial_delay.as_secs(),
            self.timeout.as_secs(),
            self.period.as_secs(),
            self.success_threshold,
            self.failure_threshold
        )
    }

    /// Whether KubeVirt would have its agent client run it.
    fn is_wrapped(&self) -> bool {
        match &self.handler {
            Handler::Exec { command } => command.first().is_some_and(|name| name != VIRT_PROBE),
            Handler::GuestAgentPing => true,
            Handler::HttpGet(_) | Handler::TcpSocket(_) => false,
        }
    }
}

impl Handler {
    /// Whether it reaches the guest through its network; else through its agent.
    #[must_use]
    pub const fn needs_network(&self) -> bool {
        matches!(self, Self::HttpGet(_) | Self::TcpSocket(_))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(handler: Handler, timeout: u64) -> Probe {
        Probe {
            handler,
            initial_delay: Duration::from_secs(2),
            timeout: Duration::from_secs(timeout),
            period: Duration::from_secs(4),
            success_threshold: 100,
            failure_threshold: 200,
        }
    }

    fn exec(command: &[&str]) -> Handler {
        Handler::Exec {
            command: command.iter().map(|&word| word.to_owned()).collect(),
        }
    }

    #[test]
    fn numbers_as_kubevirt_renders_them() {
        let http = Handler::HttpGet(HttpGet {
            port: 80,
            path: "/".to_owned(),
            host: None,
            https: false,
            headers: Vec::new(),
        });
        let tcp = Handler::TcpSocket(TcpSocket {
            port: 80,
            host: None,
        });
        for (handler, timeout) in [
            (http, 3),
            (tcp, 3),
            (exec(&["dummy-cli"]), 4),
            (exec(&["virt-probe", "--", "dummy-cli"]), 3),
            (Handler::GuestAgentPing, 4),
        ] {
            let written = probe(handler, 3);
            let expected = Probe {
                initial_delay: Duration::from_secs(12),
                timeout: Duration::from_secs(timeout),
                ..written.clone()
            };
            assert_eq!(written.compat(), expected);
        }
    }

    #[test]
    fn commands_as_kubevirt_renders_them() {
        let client = "virt-probe --domainName lab_vm --timeoutSeconds 5";
        let table = [
            (
                exec(&["dummy-cli"]),
                Some(format!("{client} --command dummy-cli --")),
            ),
            (
                exec(&["cat", "-A", "/tmp/x"]),
                Some(format!("{client} --command cat -- -A /tmp/x")),
            ),
            (
                exec(&["virt-probe", "--", "dummy-cli"]),
                Some("virt-probe -- dummy-cli".to_owned()),
            ),
            (
                Handler::GuestAgentPing,
                Some(format!("{client} --guestAgentPing")),
            ),
            (
                Handler::TcpSocket(TcpSocket {
                    port: 1,
                    host: None,
                }),
                None,
            ),
        ];
        for (handler, expected) in table {
            let argv = probe(handler, 5).rendered_command("lab", "vm");
            assert_eq!(argv.map(|argv| argv.join(" ")), expected);
        }
    }
}
