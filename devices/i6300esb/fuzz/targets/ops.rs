// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Weighted operations on registers, config space and time: see `i6300esb_fuzz::run_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| i6300esb_fuzz::run_ops(data));
