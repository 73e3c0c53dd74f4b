// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What Kennel's cross-crate tests share.
//!
//! Three tiers, a test program each: *pure* needs nothing, *bare metal* any `/dev/kvm`, *linux* a
//! host that runs Linux guests, which is this machine or a box. Every tier closes with a line that
//! says what ran, or why nothing did.

pub mod bench_guest;
pub mod boot_mark;
pub mod documents;
pub mod elf;
pub mod hostile_guest;
pub mod kennel;
pub mod machine;
pub mod mini_agent;
pub mod payload;
pub mod silencer;
pub mod stage_1;
pub mod tier;
pub mod web_guest;
pub mod workers;
