// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's addresses, as they are told: a guest may change them at any rate, and the supervisor
//! hears of it a few times a second at most, the last state always.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::protocol::News;

/// From one telling to the next, at least, in ns.
const INTERVAL_NS: u64 = 250_000_000;

type Pair = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// The addresses, and what of them was told.
#[derive(Debug, Default)]
pub(super) struct AddressNews {
    current: Pair,
    told: Pair,
    told_at: Option<u64>,
}

impl AddressNews {
    /// These are the addresses now; what is to be told about it.
    pub(super) fn now_are(
        &mut self,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
        now: u64,
    ) -> Option<News> {
        self.current = (ipv4, ipv6);
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        self.told = self.current;
        self.told_at = Some(now);
        Some(News::GuestAddresses { ipv4, ipv6 })
    }

    /// When there is something to tell.
    pub(super) fn next_due(&self) -> Option<u64> {
        let due = self.told_at.map_or(0, |at| at.saturating_add(INTERVAL_NS));
        (self.current != self.told).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::{GUEST_IPV4, GUEST_IPV6};

    #[test]
    fn the_first_change_is_told_at_once_and_a_flood_by_its_end() {
        let mut addresses = AddressNews::default();
        assert_eq!(addresses.now_are(None, None, 5), None, "nothing is no news");
        let first = News::GuestAddresses {
            ipv4: Some(GUEST_IPV4),
            ipv6: None,
        };
        assert_eq!(addresses.now_are(Some(GUEST_IPV4), None, 7), Some(first));
        for at in 8..1000 {
            assert_eq!(addresses.now_are(None, None, at), None);
            assert_eq!(addresses.now_are(None, Some(GUEST_IPV6), at), None);
        }
        let due = 7 + INTERVAL_NS;
        assert_eq!(addresses.next_due(), Some(due));
        let last = News::GuestAddresses {
            ipv4: None,
            ipv6: Some(GUEST_IPV6),
        };
        assert_eq!(addresses.now_are(None, Some(GUEST_IPV6), due), Some(last));
        assert_eq!(addresses.next_due(), None);
    }

    #[test]
    fn what_changed_back_before_it_was_told_is_no_news() {
        let mut addresses = AddressNews::default();
        assert!(addresses.now_are(Some(GUEST_IPV4), None, 0).is_some());
        assert!(addresses.now_are(None, None, 1).is_none());
        assert!(addresses.now_are(Some(GUEST_IPV4), None, 2).is_none());
        assert_eq!(addresses.next_due(), None);
    }
}
