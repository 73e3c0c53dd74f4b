// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kennel: runs KubeVirt documents on a minimal KVM machine and acts on their watchdog.
#![forbid(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod demo;
pub mod dial;
pub mod guest;
pub mod host;
pub mod moment;
mod output_file;
pub mod probe;
pub mod runtime_dir;
pub mod simulate;
mod socket;
pub mod spec;
pub mod supervisor;
mod words;
