// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ports of this host that lead to a port of the guests: what `kennel run --publish` asks for.
//!
//! A published port is held for the whole run and listens only while there is a guest behind it: any
//! that runs, or, with `ready`, one that is Ready. While there is none, connections are refused;
//! those that exist stay. Several guests get connections in turn.

mod ports;
mod relay;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

pub(super) use ports::Backend;
pub use ports::{Ports, PublishError};

/// One port to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to listen; port 0 is any that is free.
    pub at: SocketAddr,
    /// The guests' TCP port.
    pub guest_port: u16,
    /// Only guests that are Ready.
    pub ready: bool,
}

/// How it is written.
const FORM: &str =
    "write [ADDR:]PORT:GUESTPORT[,ready], as in 8080:80, 0.0.0.0:8080:80 or [::1]:8080:80,ready";

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: String| format!("{what}; {FORM}");
        let (ports, ready) = match text.split_once(',') {
            None => (text, false),
            Some((ports, "ready")) => (ports, true),
            Some((_, other)) => return Err(wrong(format!("{other:?} is not \"ready\""))),
        };
        let (host, guest) = ports
            .rsplit_once(':')
            .ok_or_else(|| wrong("it has no GUESTPORT".to_owned()))?;
        let (address, port) = match host.rsplit_once(':') {
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), host),
            Some((address, port)) => (address_of(address).map_err(wrong)?, port),
        };
        let number = |text: &str| {
            let port = text.parse::<u16>().ok();
            port.ok_or_else(|| wrong(format!("{text:?} is no port, 0 to 65535")))
        };
        let guest_port = number(guest)?;
        if guest_port == 0 {
            return Err(wrong("a guest has no port 0".to_owned()));
        }
        Ok(Self {
            at: SocketAddr::new(address, number(port)?),
            guest_port,
            ready,
        })
    }
}

fn address_of(text: &str) -> Result<IpAddr, String> {
    let bracketed = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    address.ok_or_else(|| {
        if text.parse::<Ipv6Addr>().is_ok() {
            format!("an IPv6 address stands in brackets: [{text}]")
        } else {
            format!("{text:?} is no IP address")
        }
    })
}

impl fmt::Display for Publish {
    /// As a sentence goes on after "published:".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let while_it = if self.ready { "is Ready" } else { "runs" };
        let Self { at, guest_port, .. } = self;
        write!(
            f,
            "{at} to port {guest_port} of the guest, while it {while_it}"
        )
    }
}
