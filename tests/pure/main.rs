// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The pure tier: what needs neither KVM nor a guest. The board by its buses, and the command line
//! by its messages.

mod board;
mod cli;
mod driver;
mod kubectl;
mod simulate;
mod surroundings;
mod validate;

use std::process::ExitCode;

use kennel_tests::tier;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(status) = tier::as_kennel() {
        return status;
    }
    let args = Arguments::from_args();
    let tests = [
        board::tests(),
        cli::tests(),
        kubectl::tests(),
        simulate::tests(),
        validate::tests(),
    ];
    let tests = tests.into_iter().flatten().collect();
    tier::run(tier::PURE, "on any machine", &args, tests)
}

/// A test that fails by panicking.
fn test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}
