// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device through its public face, in virtual time.

mod conformance;
mod machine;
#[path = "../../examples/replay/trace.rs"]
mod trace;
mod transcripts;
