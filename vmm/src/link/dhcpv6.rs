// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The link's DHCPv6 server (RFC 8415): one address for one guest, for ever.
//!
//! *Not served:* temporary addresses and delegated prefixes; who asks for them is told that there
//! are none. Relays, reconfiguration and options beside addresses are ignored.

use std::net::{IpAddr, Ipv6Addr};

use super::frame;
use super::plan::{Plan, in_prefix, is_link_local};
use crate::dial::GUEST_IPV6;

const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
const FOR_EVER: [u8; 4] = [0xff; 4];

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION_REQUEST: u8 = 11;

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const IA_ADDRESS: u16 = 5;
const STATUS_CODE: u16 = 13;
const RAPID_COMMIT: u16 = 14;
const IA_PD: u16 = 25;

const SUCCESS: u16 = 0;
const NO_ADDRESSES: u16 = 2;
const NOT_ON_LINK: u16 = 4;
const NO_PREFIXES: u16 = 6;

/// RFC 8415, section 11.1.
const LONGEST_ID: usize = 130;
/// Identity associations answered in one message.
const ASSOCIATIONS: usize = 8;

/// What the guest's message changes, and what it is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) frame: Vec<u8>,
    pub(super) change: Option<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The address is the guest's.
    Given,
    /// The guest gave it back.
    Released,
}

/// One option, and those that follow.
fn split_option(data: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [a, b, c, d, rest @ ..] = data else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*c, *d]));
    let (content, rest) = rest.split_at_checked(length)?;
    Some((u16::from_be_bytes([*a, *b]), content, rest))
}

/// Options, up to the first that is cut off.
fn options(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, content, rest) = split_option(data)?;
        data = rest;
        Some((code, content))
    })
}

fn put(to: &mut Vec<u8>, code: u16, content: &[u8]) {
    // What is put is shorter than a frame.
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    to.extend(code.to_be_bytes());
    to.extend(length.to_be_bytes());
    to.extend(content);
}

fn put_status(to: &mut Vec<u8>, code: u16) {
    put(to, STATUS_CODE, &code.to_be_bytes());
}

/// A DUID by link-layer address.
fn server_id(plan: &Plan) -> Vec<u8> {
    let mut id = vec![0, 3, 0, 1];
    id.extend(plan.host.as_bytes());
    id
}

/// The guest's message, as far as it matters.
#[derive(Debug)]
struct Message<'a> {
    kind: u8,
    transaction: &'a [u8],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    rapid: bool,
    /// Code and content of identity associations.
    associations: Vec<(u16, &'a [u8])>,
}

impl<'a> Message<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let (header, rest) = data.split_at_checked(4)?;
        let (kind, transaction) = header.split_first()?;
        let mut message = Self {
            kind: *kind,
            transaction,
            client: None,
            server: None,
            rapid: false,
            associations: Vec::new(),
        };
        for (code, content) in options(rest) {
            match code {
                CLIENT_ID if content.len() <= LONGEST_ID => message.client = Some(content),
                SERVER_ID => message.server = Some(content),
                RAPID_COMMIT => message.rapid = true,
                IA_NA | IA_TA | IA_PD if message.associations.len() < ASSOCIATIONS => {
                    message.associations.push((code, content));
                }
                _ => {}
            }
        }
        Some(message)
    }

    /// Who must name whom: RFC 8415, section 16.
    fn is_valid(&self, plan: &Plan) -> bool {
        let own = self.server == Some(&server_id(plan));
        match self.kind {
            SOLICIT | CONFIRM | REBIND => self.client.is_some() && self.server.is_none(),
            REQUEST | RENEW | RELEASE | DECLINE => self.client.is_some() && own,
            INFORMATION_REQUEST => (self.server.is_none() || own) && self.associations.is_empty(),
            _ => false,
        }
    }

    /// Addresses in its associations.
    fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        let of_addresses = self.associations.iter().filter(|(code, _)| *code != IA_PD);
        of_addresses.flat_map(|(code, content)| addresses(*code, content))
    }
}

/// An association begins with its number; one for lasting addresses then has two times.
fn addresses(code: u16, association: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let header = if code == IA_NA { 12 } else { 4 };
    let inner = association.get(header..).unwrap_or_default();
    options(inner).filter_map(|(code, content)| {
        let octets: [u8; 16] = content.get(..16)?.try_into().ok()?;
        (code == IA_ADDRESS).then(|| Ipv6Addr::from(octets))
    })
}

/// The answer to a message to port 547. `None` if it is not for this server, or nonsense.
pub(super) fn answer(plan: &Plan, from: IpAddr, data: &[u8]) -> Option<Reply> {
    let IpAddr::V6(from) = from else {
        return None;
    };
    let message = Message::read(data)?;
    if !is_link_local(from) || !message.is_valid(plan) {
        return None;
    }
    let (kind, body, change) = body(&message)?;
    let mut data = vec![kind];
    data.extend(message.transaction);
    if let Some(client) = message.client {
        put(&mut data, CLIENT_ID, client);
    }
    put(&mut data, SERVER_ID, &server_id(plan));
    data.extend(body);
    let (source, to) = (IpAddr::V6(plan.link_local), IpAddr::V6(from));
    let (source, to) = ((source, SERVER_PORT), (to, CLIENT_PORT));
    Some(Reply {
        frame: frame::udp(plan.host, plan.guest, source, to, &data),
        change,
    })
}

/// Kind of the answer, its options, and what it changes.
fn body(message: &Message<'_>) -> Option<(u8, Vec<u8>, Option<Change>)> {
    let mut body = Vec::new();
    let answer = match message.kind {
        SOLICIT if message.rapid => {
            put(&mut body, RAPID_COMMIT, &[]);
            let given = put_associations(&mut body, message);
            (REPLY, given.then_some(Change::Given))
        }
        SOLICIT => {
            put_associations(&mut body, message);
            (ADVERTISE, None)
        }
        REQUEST | RENEW | REBIND => {
            let given = put_associations(&mut body, message);
            (REPLY, given.then_some(Change::Given))
        }
        CONFIRM => {
            let mut addresses = message.addresses().peekable();
            // Without addresses there is nothing to confirm, and no answer.
            addresses.peek()?;
            let fits = addresses.all(|address| in_prefix(address.into()));
            put_status(&mut body, if fits { SUCCESS } else { NOT_ON_LINK });
            (REPLY, None)
        }
        RELEASE | DECLINE => {
            put_status(&mut body, SUCCESS);
            let own = message.addresses().any(|address| address == GUEST_IPV6);
            (REPLY, own.then_some(Change::Released))
        }
        INFORMATION_REQUEST => (REPLY, None),
        _ => return None,
    };
    Some((answer.0, body, answer.1))
}

/// The first association for lasting addresses gets the address, the others get nothing. Whether
/// there was one.
fn put_associations(to: &mut Vec<u8>, message: &Message<'_>) -> bool {
    let mut given = false;
    for (code, content) in &message.associations {
        let Some(number) = content.get(..4) else {
            continue;
        };
        let mut association = number.to_vec();
        match *code {
            IA_NA if !given => {
                given = true;
                // When to renew is for the client to choose: never.
                association.extend(FOR_EVER);
                association.extend(FOR_EVER);
                put_address(&mut association, GUEST_IPV6, FOR_EVER);
                // What the client has beside it is of no use on this link.
                for other in addresses(*code, content)
                    .filter(|a| *a != GUEST_IPV6)
                    .take(8)
                {
                    put_address(&mut association, other, [0; 4]);
                }
            }
            IA_NA => {
                association.extend([0; 8]);
                put_status(&mut association, NO_ADDRESSES);
            }
            IA_PD => {
                association.extend([0; 8]);
                put_status(&mut association, NO_PREFIXES);
            }
            _ => put_status(&mut association, NO_ADDRESSES),
        }
        put(to, *code, &association);
    }
    given
}

fn put_address(to: &mut Vec<u8>, address: Ipv6Addr, lifetime: [u8; 4]) {
    let mut content = address.octets().to_vec();
    content.extend(lifetime);
    content.extend(lifetime);
    put(to, IA_ADDRESS, &content);
}
