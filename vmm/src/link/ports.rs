// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The probe host's TCP ports.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::dials::DialId;

const EPHEMERAL: RangeInclusive<u16> = 1024..=65535;

/// Which dial has which port. Ports are given in turn, so that one is used again as late as possible.
#[derive(Debug)]
pub(super) struct Ports {
    next: u16,
    used: HashMap<u16, DialId>,
}

impl Ports {
    pub(super) fn new(seed: u64) -> Self {
        let [a, b, ..] = seed.to_le_bytes();
        Self {
            next: u16::from_le_bytes([a, b]).max(*EPHEMERAL.start()),
            used: HashMap::new(),
        }
    }

    /// A port that no other dial has.
    pub(super) fn take(&mut self, dial: DialId) -> Option<u16> {
        for _ in EPHEMERAL {
            let port = self.next;
            self.next = port.checked_add(1).unwrap_or(*EPHEMERAL.start());
            if let std::collections::hash_map::Entry::Vacant(vacant) = self.used.entry(port) {
                vacant.insert(dial);
                return Some(port);
            }
        }
        None
    }

    pub(super) fn release(&mut self, port: u16) {
        self.used.remove(&port);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    pub(super) fn dial(&self, port: u16) -> Option<DialId> {
        self.used.get(&port).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_each_is_given_in_turn() {
        let mut ports = Ports::new(65534);
        let taken: Vec<_> = (0..4).filter_map(|id| ports.take(DialId(id))).collect();
        assert_eq!(taken, [65534, 65535, 1024, 1025]);
        ports.release(1024);
        assert_eq!(
            ports.take(DialId(4)),
            Some(1026),
            "not the one just released"
        );
        assert_eq!(ports.dial(1025), Some(DialId(3)));
        assert_eq!(ports.dial(1024), None);
    }

    #[test]
    fn when_all_are_used_there_is_none() {
        let mut ports = Ports::new(0);
        let all = (0..64512).all(|id| ports.take(DialId(id)).is_some());
        assert!(all);
        assert_eq!(ports.take(DialId(64512)), None);
        ports.release(2000);
        assert_eq!(ports.take(DialId(64512)), Some(2000));
    }
}
