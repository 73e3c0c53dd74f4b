// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who and what is on the link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::EthernetAddress;

use crate::dial::{GUEST_IPV4, GUEST_IPV6, HOST_IPV4, HOST_IPV6, IPV4_PREFIX, IPV6_PREFIX};

/// The name server that an uplink answers for.
pub const DNS_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Largest IP packet.
pub(super) const MTU: usize = 1500;
/// The prefix of IPv6 addresses that are valid on one link.
const LINK_LOCAL_PREFIX: u8 = 64;

/// The two ends of the link, and whether something lies beyond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) guest: EthernetAddress,
    pub(super) host: EthernetAddress,
    pub(super) link_local: Ipv6Addr,
    pub(super) uplink: bool,
}

impl Plan {
    pub(super) fn new(guest: [u8; 6], host: [u8; 6], uplink: bool) -> Self {
        let [a, b, c, d, e, f] = host;
        let word = |high, low| u16::from_be_bytes([high, low]);
        // The modified EUI-64 of RFC 4291.
        let link_local = Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            word(a ^ 2, b),
            word(c, 0xff),
            word(0xfe, d),
            word(e, f),
        );
        Self {
            guest: EthernetAddress(guest),
            host: EthernetAddress(host),
            link_local,
            uplink,
        }
    }

    /// The probe host's own.
    pub(super) fn is_host(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == HOST_IPV4,
            IpAddr::V6(address) => address == HOST_IPV6 || address == self.link_local,
        }
    }

    /// A guest may have it.
    pub(super) fn may_be_guests(&self, address: IpAddr) -> bool {
        if self.is_host(address) {
            return false;
        }
        match address {
            IpAddr::V4(address) => {
                let within = u32::from(address) & !ipv4_mask();
                in_prefix(address.into()) && within != 0 && within != !ipv4_mask()
            }
            IpAddr::V6(address) => in_prefix(address.into()) || is_link_local(address),
        }
    }

    /// Where connections to `target` come from.
    pub(super) fn source_for(&self, target: IpAddr) -> IpAddr {
        match target {
            IpAddr::V4(_) => HOST_IPV4.into(),
            IpAddr::V6(target) if is_link_local(target) => self.link_local.into(),
            IpAddr::V6(_) => HOST_IPV6.into(),
        }
    }
}

/// The address that the link's services give the guest.
pub(super) fn is_planned(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == GUEST_IPV4,
        IpAddr::V6(address) => address == GUEST_IPV6,
    }
}

/// One of the link's two prefixes covers it.
pub(super) fn in_prefix(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (u32::from(address) ^ u32::from(HOST_IPV4)) & ipv4_mask() == 0,
        IpAddr::V6(address) => same_ipv6_prefix(address, HOST_IPV6, IPV6_PREFIX),
    }
}

pub(super) fn is_link_local(address: Ipv6Addr) -> bool {
    same_ipv6_prefix(
        address,
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        LINK_LOCAL_PREFIX,
    )
}

pub(super) fn ipv4_mask() -> u32 {
    !u32::MAX.checked_shr(IPV4_PREFIX.into()).unwrap_or(0)
}

fn same_ipv6_prefix(a: Ipv6Addr, b: Ipv6Addr, length: u8) -> bool {
    let mask = !u128::MAX.checked_shr(length.into()).unwrap_or(0);
    (u128::from(a) ^ u128::from(b)) & mask == 0
}
