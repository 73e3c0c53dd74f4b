// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Damaged and invented saved states: see `i6300esb_fuzz::run_restore`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| i6300esb_fuzz::run_restore(data));
