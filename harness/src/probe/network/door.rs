// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whom a probe connects to.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use kennel_vmm::dial::{
    GUEST_IPV4, GUEST_IPV6, HOST_IPV4, HOST_IPV6, IPV4_PREFIX, IPV6_PREFIX, Reason, Target,
};

use super::wire::Wire;
use super::{Limit, Trouble};
use crate::dial::{self, DialError};
use crate::socket::cause;

/// What a probe's `host` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The guest, or an address on its link.
    Guest(Target),
    /// An address that this host connects to.
    Address(IpAddr),
    /// A name that this host looks up.
    Name(String),
}

impl Place {
    /// What is written as `host`, brackets around an IPv6 address or not.
    pub(super) fn of(host: &str) -> Self {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare.unwrap_or(host).parse() {
            Ok(address) if is_on_link(address) => Self::Guest(Target::Address(address)),
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(host.to_owned()),
        }
    }

    /// The host in URLs and messages.
    pub(super) fn name(&self) -> String {
        let address = match self {
            Self::Guest(Target::GuestIpv4) => GUEST_IPV4.into(),
            Self::Guest(Target::GuestIpv6) => GUEST_IPV6.into(),
            Self::Guest(Target::Address(address)) | Self::Address(address) => *address,
            Self::Name(name) => return name.clone(),
        };
        match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }
}

fn is_on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (address.to_bits() ^ HOST_IPV4.to_bits()) >> (32 - IPV4_PREFIX) == 0,
        IpAddr::V6(address) => {
            (address.to_bits() ^ HOST_IPV6.to_bits()) >> (128 - IPV6_PREFIX) == 0
        }
    }
}

/// Whom one attempt connects to, at any port.
#[derive(Clone, Debug)]
pub(super) enum Door<'a> {
    /// Through the VM process' dial socket.
    Guest { socket: &'a Path, target: Target },
    /// From this host, to the first of these that accepts; their ports do not count.
    Host(Vec<SocketAddr>),
}

impl Door<'_> {
    pub(super) fn connect(&self, port: u16, limit: Limit) -> Result<Wire, Trouble> {
        match self {
            Self::Guest { socket, target } => {
                let stream = dial::connect(socket, *target, port, limit.deadline);
                let stream = stream.map_err(|error| undialled(&error, limit))?;
                Wire::guest(stream).map_err(|error| Trouble::Untold(cause(&error)))
            }
            Self::Host(addresses) => from_here(addresses, port, limit),
        }
    }
}

fn undialled(error: &DialError, limit: Limit) -> Trouble {
    let why = error.to_string();
    match error {
        DialError::Failed {
            reason: Reason::Timeout,
            ..
        } => Trouble::Failed(format!("no connection within {}: {why}", limit.seconds())),
        // None of it is the guest's doing.
        DialError::Failed {
            reason: Reason::Paused | Reason::Busy | Reason::BadRequest,
            ..
        } => Trouble::Untold(why),
        _ => Trouble::Failed(why),
    }
}

/// Whether an address is one of many links, and of none in particular.
fn needs_interface(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(address)
        if address.ip().is_unicast_link_local() && address.scope_id() == 0)
}

/// Each address gets its share of the time that is left.
fn from_here(addresses: &[SocketAddr], port: u16, limit: Limit) -> Result<Wire, Trouble> {
    let mut trouble = Trouble::Untold("no address to connect to".to_owned());
    for (at, address) in addresses.iter().enumerate() {
        let ways = u32::try_from(addresses.len().saturating_sub(at)).unwrap_or(u32::MAX);
        let share = limit.left() / ways.max(1);
        if share.is_zero() {
            break;
        }
        let mut address = *address;
        address.set_port(port);
        let stream = TcpStream::connect_timeout(&address, share);
        match stream.and_then(Wire::host) {
            Ok(wire) => return Ok(wire),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let why = format!("no connection within {}", limit.seconds());
                trouble = Trouble::Failed(why);
            }
            Err(_) if needs_interface(address) => {
                let why = "it is a link-local address, and nothing says on which interface";
                trouble = Trouble::Failed(why.to_owned());
            }
            Err(error) => trouble = Trouble::Failed(cause(&error)),
        }
    }
    Err(trouble)
}
