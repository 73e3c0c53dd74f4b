// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names of a replica set's instances: its own and five characters, as KubeVirt has them.
//!
//! Kubernetes draws the five at random. Here they follow from the set's name and the instance's
//! number, so a run can be repeated, and no name comes again before all 14,348,907 had their turn.

/// Kubernetes' alphabet for generated names: nothing that could spell a word, nor be misread.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LENGTH: u32 = 5;
/// What Kubernetes keeps of a name before it appends to it.
const LONGEST_BASE: usize = 58;
/// Shares no factor with 27: a step that visits all names.
const STEP: u64 = 6_180_340;

/// The name of instance `number` of the set `base`.
pub(super) fn generated(base: &str, number: u64) -> String {
    let count = (ALPHABET.len() as u64).pow(LENGTH);
    let turn = (number % count) * STEP;
    let mut left = (fingerprint(base) % count + turn) % count;
    // Names are ASCII: admission has seen to it.
    let mut name: String = base.chars().take(LONGEST_BASE).collect();
    for _ in 0..LENGTH {
        let index = usize::try_from(left % ALPHABET.len() as u64).unwrap_or_default();
        name.extend(ALPHABET.get(index).copied().map(char::from));
        left /= ALPHABET.len() as u64;
    }
    name
}

/// FNV-1a, 64 bits.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ_and_can_be_repeated() {
        let names: HashSet<_> = (0..10_000).map(|n| generated("web", n)).collect();
        assert_eq!(names.len(), 10_000);
        for name in &names {
            let suffix = name.strip_prefix("web").expect("the set's name first");
            assert!(suffix.len() == 5 && suffix.bytes().all(|byte| ALPHABET.contains(&byte)));
        }
        assert_eq!(generated("web", 7), generated("web", 7));
        assert_ne!(generated("web", 7), generated("wed", 7));
        assert_eq!(generated(&"x".repeat(63), 0).len(), 63);
    }

    #[test]
    fn the_step_visits_every_name() {
        assert_ne!(STEP % 3, 0);
    }
}
