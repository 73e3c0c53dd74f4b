// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Router advertisements: the link's IPv6 prefix, and that there is more to learn by DHCPv6. The
//! probe host says that it is a router only if something lies beyond.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::time::Duration;
use smoltcp::wire::{
    Icmpv6Repr, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};

use super::frame;
use super::plan::{MTU, Plan, is_link_local};
use crate::dial::{HOST_IPV6, IPV6_PREFIX};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTER_LIFETIME: Duration = Duration::from_secs(1800);
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
const HOPS: u8 = 64;
/// The first advertisements that nobody asked for, and what lies between them: a guest's interface
/// comes up some time after its driver.
const FIRST: u8 = 3;
const FIRST_EVERY: u64 = 4_000_000_000;
const EVERY: u64 = 300_000_000_000;

/// When to advertise without having been asked.
#[derive(Debug, Default)]
pub(super) struct Advertiser {
    due: Option<u64>,
    sent: u8,
}

impl Advertiser {
    /// The guest's driver is up.
    pub(super) fn start(&mut self, now: u64) {
        *self = Self {
            due: Some(now.saturating_add(FIRST_EVERY)),
            sent: 0,
        };
    }

    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.due
    }

    /// The advertisement that is due.
    pub(super) fn due(&mut self, plan: &Plan, now: u64) -> Option<Vec<u8>> {
        self.due.filter(|due| *due <= now)?;
        self.sent = self.sent.saturating_add(1);
        let wait = if self.sent < FIRST {
            FIRST_EVERY
        } else {
            EVERY
        };
        self.due = Some(now.saturating_add(wait));
        Some(advertisement(plan, ALL_NODES))
    }
}

/// The answer to a router solicitation from there.
pub(super) fn answer(plan: &Plan, from: IpAddr) -> Vec<u8> {
    match from {
        IpAddr::V6(from) if is_link_local(from) => advertisement(plan, from),
        _ => advertisement(plan, ALL_NODES),
    }
}

fn advertisement(plan: &Plan, to: Ipv6Addr) -> Vec<u8> {
    let lifetime = if plan.uplink {
        ROUTER_LIFETIME
    } else {
        Duration::ZERO
    };
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: HOPS,
        flags: NdiscRouterFlags::MANAGED | NdiscRouterFlags::OTHER,
        router_lifetime: lifetime,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(plan.host.into()),
        mtu: u32::try_from(MTU).ok(),
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: IPV6_PREFIX,
            flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
            valid_lifetime: FOR_EVER,
            preferred_lifetime: FOR_EVER,
            prefix: prefix(),
        }),
    });
    let mac = if to.is_multicast() {
        frame::multicast_mac(to)
    } else {
        plan.guest
    };
    frame::icmpv6(plan.host, mac, (plan.link_local, to), &repr)
}

fn prefix() -> Ipv6Addr {
    let [a, b, c, d, ..] = HOST_IPV6.segments();
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)
}
