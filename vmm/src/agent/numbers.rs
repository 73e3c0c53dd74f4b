// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbers that tell one request from another.

/// A sequence that does not repeat itself within any run, and differs with its seed. (The finaliser
/// of SplitMix64, a published generator; nothing here is a secret.)
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    state: u64,
}

impl Numbers {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// For a sync: 31 bits, which every agent's integers hold.
    pub(super) const fn sync(&mut self) -> u64 {
        self.next() >> 33
    }

    /// For a request: 53 bits, which every JSON number holds.
    pub(super) const fn tag(&mut self) -> u64 {
        self.next() >> 11
    }
}
