// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device through its public face, in virtual time.

mod conformance;
mod machine;
mod matrices;
mod oracle;
mod stalls;
mod state;
mod table_c;
mod time;
mod transcripts;

#[path = "../../examples/replay/parse.rs"]
mod parse;
#[path = "../../examples/replay/trace.rs"]
mod trace;
