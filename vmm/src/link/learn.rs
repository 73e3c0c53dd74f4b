// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which addresses the guest has shown.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::{in_prefix, is_planned};
use crate::dial::{GUEST_IPV4, GUEST_IPV6};

/// Addresses remembered of each kind.
pub(super) const REMEMBERED: usize = 8;

/// What the guest has shown by DHCP, ARP and neighbour discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4, if it has one.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 of the link's prefix, if it has one.
    pub ipv6: Option<Ipv6Addr>,
}

/// How an address was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The guest is about to take it: it does not answer for it yet.
    Claimed,
    /// The guest took it and said so to all.
    Announced,
    /// The guest answers for it.
    Used,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: IpAddr,
    /// When the guest last answered for it.
    answered: Option<u64>,
}

/// The guest's addresses, the one shown last first.
#[derive(Debug, Default)]
pub(super) struct Learned {
    ipv4: VecDeque<Entry>,
    ipv6: VecDeque<Entry>,
}

impl Learned {
    /// The guest showed `address`, which it may have.
    pub(super) fn show(&mut self, address: IpAddr, shown: Shown, now: u64) {
        let entries = self.entries(address);
        let known = entries.iter().position(|entry| entry.address == address);
        let mut entry = known
            .and_then(|at| entries.get(at).copied())
            .unwrap_or(Entry {
                address,
                answered: None,
            });
        if shown != Shown::Claimed {
            entry.answered = Some(now);
        }
        match known {
            Some(at) if shown == Shown::Used => {
                if let Some(known) = entries.get_mut(at) {
                    *known = entry;
                }
                return;
            }
            Some(at) => {
                entries.remove(at);
            }
            None => {}
        }
        entries.push_front(entry);
        entries.truncate(REMEMBERED);
    }

    /// The guest gave it back.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.entries(address)
            .retain(|entry| entry.address != address);
    }

    /// When the guest last answered for `address`.
    pub(super) fn answered(&self, address: IpAddr) -> Option<u64> {
        let entries = match address {
            IpAddr::V4(_) => &self.ipv4,
            IpAddr::V6(_) => &self.ipv6,
        };
        entries
            .iter()
            .find(|entry| entry.address == address)?
            .answered
    }

    pub(super) fn addresses(&self) -> Addresses {
        let choose = |entries: &VecDeque<Entry>| {
            let within = || {
                entries
                    .iter()
                    .map(|entry| entry.address)
                    .filter(|a| in_prefix(*a))
            };
            within()
                .find(|a| is_planned(*a))
                .or_else(|| within().next())
        };
        Addresses {
            ipv4: choose(&self.ipv4).and_then(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            ipv6: choose(&self.ipv6).and_then(|address| match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(address) => Some(address),
            }),
        }
    }

    /// The guest's IPv4 address: as it has shown, or as planned.
    pub(super) fn ipv4(&self) -> IpAddr {
        self.addresses().ipv4.unwrap_or(GUEST_IPV4).into()
    }

    /// The guest's IPv6 address: as it has shown, or as planned.
    pub(super) fn ipv6(&self) -> IpAddr {
        self.addresses().ipv6.unwrap_or(GUEST_IPV6).into()
    }

    fn entries(&mut self, address: IpAddr) -> &mut VecDeque<Entry> {
        match address {
            IpAddr::V4(_) => &mut self.ipv4,
            IpAddr::V6(_) => &mut self.ipv6,
        }
    }
}
