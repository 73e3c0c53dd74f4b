// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a client of a VM process reaches the guest's ports: one line each way on a UNIX stream
//! socket, then the connection's own bytes.
//!
//! ```text
//! client: CONNECT ipv4 8080 950            VM process: OK 10.0.2.2 8080
//! client: CONNECT fd10:0:2::2 443 10000    VM process: FAIL refused the guest refused the connection
//! ```
//!
//! `OK` means that the guest itself accepted. Then bytes go both ways; a client that shuts down its
//! writing half ends the guest's input, and one that closes is gone for the guest, too.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest line of either side in bytes, its line feed included.
pub const LINE_BYTES: usize = 512;

/// Where to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The guest's IPv4 address.
    GuestIpv4,
    /// The guest's IPv6 address, as far as the guest has shown one.
    GuestIpv6,
    /// This address on the guest's link.
    Address(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestIpv4 => f.write_str("ipv4"),
            Self::GuestIpv6 => f.write_str("ipv6"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ipv4" => Ok(Self::GuestIpv4),
            "ipv6" => Ok(Self::GuestIpv6),
            address => Ok(Self::Address(address.parse()?)),
        }
    }
}

/// What a client asks for, in its one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub target: Target,
    /// TCP port.
    pub port: u16,
    /// How long the guest has to accept, in whole milliseconds.
    pub timeout: Duration,
}

/// A line that is none of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a line of the form {1}")]
pub struct LineError(String, &'static str);

const REQUEST_FORM: &str = "CONNECT ADDRESS PORT MILLISECONDS";
const ANSWER_FORM: &str = "OK ADDRESS PORT, or FAIL REASON TEXT";

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timeout = self.timeout.as_millis();
        writeln!(f, "CONNECT {} {} {timeout}", self.target, self.port)
    }
}

impl FromStr for Request {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words: Vec<_> = line.trim_end().split(' ').collect();
        let read = || {
            let ["CONNECT", target, port, timeout] = words.as_slice() else {
                return None;
            };
            Some(Self {
                target: target.parse().ok()?,
                port: port.parse().ok().filter(|port| *port != 0)?,
                timeout: Duration::from_millis(timeout.parse().ok()?),
            })
        };
        read().ok_or_else(|| LineError(line.to_owned(), REQUEST_FORM))
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The guest answered with a reset: nobody listens there.
    Refused,
    /// The guest is on its network and did not answer the connection's packets in time.
    Timeout,
    /// Nobody on the link has the address: the guest did not answer ARP or neighbour discovery.
    Unreachable,
    /// The guest drives no network device.
    NoDriver,
    /// The machine's vCPUs stand still.
    Paused,
    /// There are too many connections already.
    Busy,
    /// The client's line could not be read.
    BadRequest,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoDriver,
        Self::Paused,
        Self::Busy,
        Self::BadRequest,
    ];

    /// The word in a line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoDriver => "no-driver",
            Self::Paused => "paused",
            Self::Busy => "busy",
            Self::BadRequest => "bad-request",
        }
    }
}

/// What the VM process answers, in its one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The guest accepted.
    Connected {
        /// The address that accepted.
        address: IpAddr,
        /// TCP port.
        port: u16,
    },
    /// It did not.
    Failed {
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        text: String,
    },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { address, port } => writeln!(f, "OK {address} {port}"),
            Self::Failed { reason, text } => writeln!(f, "FAIL {} {text}", reason.name()),
        }
    }
}

impl FromStr for Answer {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words = line.trim_end_matches('\n').splitn(3, ' ');
        let words: Vec<_> = words.collect();
        let read = || match words.as_slice() {
            ["OK", address, port] => Some(Self::Connected {
                address: address.parse().ok()?,
                port: port.parse().ok()?,
            }),
            ["FAIL", reason, text] => {
                let mut all = Reason::ALL.into_iter();
                Some(Self::Failed {
                    reason: all.find(|known| known.name() == *reason)?,
                    text: (*text).to_owned(),
                })
            }
            _ => None,
        };
        read().ok_or_else(|| LineError(line.to_owned(), ANSWER_FORM))
    }
}

/// The gateway's address on the guest's link, and the probe host's: KubeVirt's plan for masquerade.
pub const HOST_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// The guest's address on its link, which the DHCP server gives it.
pub const GUEST_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Length of the link's IPv4 prefix.
pub const IPV4_PREFIX: u8 = 24;
/// The probe host's IPv6 address.
pub const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 1);
/// The guest's IPv6 address, which the DHCPv6 server gives it; a guest may choose another by SLAAC.
pub const GUEST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 2);
/// Length of the link's IPv6 prefix.
pub const IPV6_PREFIX: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_they_were_written() {
        for target in [
            Target::GuestIpv4,
            Target::GuestIpv6,
            Target::Address(GUEST_IPV4.into()),
            Target::Address(GUEST_IPV6.into()),
        ] {
            let request = Request {
                target,
                port: 8080,
                timeout: Duration::from_millis(950),
            };
            let line = request.to_string();
            assert!(line.ends_with('\n') && line.len() < LINE_BYTES, "{line}");
            assert_eq!(line.parse(), Ok(request));
        }
        for line in [
            "",
            "CONNECT",
            "CONNECT ipv4 80",
            "CONNECT ipv4 0 1",
            "CONNECT ipv5 80 1",
            "CONNECT 10.0.2 80 1",
            "CONNECT ipv4 65536 1",
            "CONNECT ipv4 80 -1",
            "CONNECT ipv4 80 1 2",
            "connect ipv4 80 1",
        ] {
            assert!(line.parse::<Request>().is_err(), "{line:?}");
        }
    }

    #[test]
    fn answers_read_as_they_were_written() {
        let connected = Answer::Connected {
            address: GUEST_IPV6.into(),
            port: 443,
        };
        assert_eq!(connected.to_string().parse(), Ok(connected));
        for reason in Reason::ALL {
            let failed = Answer::Failed {
                reason,
                text: "nobody listens on port 443".to_owned(),
            };
            assert_eq!(failed.to_string().parse(), Ok(failed));
        }
        for line in ["", "OK", "OK 10.0.2.2", "FAIL", "FAIL x y", "FAIL refused"] {
            assert!(line.parse::<Answer>().is_err(), "{line:?}");
        }
    }
}
