// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the fuzz target does with its bytes.
//!
//! A guest and an uplink send anything, mostly TCP segments that are nearly right; clients dial, send, read and leave; the
//! machine is paused and reset; time passes. The link does not fail, keeps its bounds, comes to rest, answers each dial
//! once and in time, and works for a guest that starts over.

mod bytes;
mod guest;
mod owner;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use owner::Owner;

/// Operations tried so far in this process; told on stderr every so often.
static TRIED: AtomicU64 = AtomicU64::new(0);
const TELL_EVERY: u64 = 1_000_000;

/// A link, and everything that is done to it.
pub fn run_link(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut owner = Owner::new(bytes.byte() & 1 == 0);
    let mut tried = 0;
    while !bytes.is_empty() {
        owner.step(&mut bytes);
        tried += 1;
    }
    owner.check_it_still_works();
    tell(tried);
}

fn tell(tried: u64) {
    let before = TRIED.fetch_add(tried, Ordering::Relaxed);
    if before / TELL_EVERY != (before + tried) / TELL_EVERY {
        eprintln!("{} million operations tried", (before + tried) / 1_000_000);
    }
}

#[cfg(test)]
mod tests {
    use super::run_link;

    #[test]
    fn any_bytes_are_taken() {
        let mut seed = 1_u32;
        for length in 0..600 {
            let data: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            run_link(&data);
        }
    }
}
