// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! See `kennel_virtio_fuzz::run_net`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kennel_virtio_fuzz::run_net(data));
