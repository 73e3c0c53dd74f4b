// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! See `kennel_vmm_fuzz::run_link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kennel_vmm_fuzz::run_link(data));
