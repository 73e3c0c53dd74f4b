// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tests that mostly wait, several at a time: on this machine, or in several boxes.
//!
//! A *case* is a test; a *worker* runs cases, each in a process of its own, and is either this machine or a box. The test
//! program started by the user shows every case to libtest-mimic and hands it to a worker when one has room for it. Inside
//! the worker the same program runs once more, reads the names of cases and answers with their outcomes.

mod answer;
mod case;
mod dispatch;
pub mod rooms;
mod serve;
mod start;

pub use case::{Case, ENVIRONMENT_OF_CASE, Need, Program, run_asked};
pub use serve::serve_asked;
pub use start::{Place, Plan, Workers};
