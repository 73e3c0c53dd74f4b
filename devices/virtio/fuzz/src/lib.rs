// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the fuzz targets do with their bytes.
//!
//! A guest does anything to registers and memory; the owner applies effects and runs rounds. The device does not fail,
//! gives out no more than it promises, keeps line and events consistent, and works for a driver that starts over.

mod bytes;
mod console;
mod guest;
mod net;
mod owner;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kennel_virtio::{Console, Net};
use owner::Owner;

/// Operations tried so far in this process; told on stderr every so often.
static TRIED: AtomicU64 = AtomicU64::new(0);
const TELL_EVERY: u64 = 5_000_000;

/// A driver that has set the device up, and then does anything: mostly to rings and messages.
pub fn run_console(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut owner = Owner::<Console>::new();
    owner.start_over(bytes.byte() & 1 == 0);
    let mut tried = 0;
    while !bytes.is_empty() {
        console::step(&mut owner, &mut bytes);
        tried += 1;
    }
    owner.check_it_still_works();
    tell(tried);
}

/// The same with a network card, and frames for its guest.
pub fn run_net(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut owner = Owner::<Net>::new();
    owner.start_over(bytes.byte() & 1 == 0);
    let mut tried = 0;
    while !bytes.is_empty() {
        net::step(&mut owner, &mut bytes);
        tried += 1;
    }
    owner.check_it_still_works();
    tell(tried);
}

/// Any access to any register, and rounds in between.
pub fn run_transport(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut owner = Owner::<Console>::new();
    let mut tried = 0;
    while !bytes.is_empty() {
        guest::register_step(&mut owner, &mut bytes);
        tried += 1;
        owner.check_registers(tried as u8);
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
    use super::{run_console, run_net, run_transport};

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
            run_console(&data);
            run_net(&data);
            run_transport(&data);
        }
    }
}
