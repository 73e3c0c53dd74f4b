// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bare-metal tier: the whole machine on this machine's `/dev/kvm`, with a payload small enough
//! for a KVM that emulates its guests' code.

mod actions;
mod agent;
mod bad_input;
mod interrupts;
mod lost_guests;
mod network;
mod outputs;
mod registers;
mod resets;
mod robustness;
mod silence;
mod stops;
mod stuck;
mod supervised;

use std::process::ExitCode;

use kennel::host;
use kennel_tests::tier;
use libtest_mimic::{Arguments, Trial};

const NAME: &str = "bare-metal";

fn main() -> ExitCode {
    if let Some(status) = tier::as_kennel() {
        return status;
    }
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert_with(tier::tests_that_wait);
    let report = host::check();
    if !report.native_bare_metal() {
        return tier::skipped(
            NAME,
            &format!("this machine has no usable /dev/kvm ({:?})", report.kvm),
        );
    }
    let place = if report.native_linux() {
        "on this machine's hardware KVM"
    } else {
        "on this machine's software KVM"
    };
    let tests = [
        registers::tests(),
        resets::tests(),
        actions::tests(),
        interrupts::tests(),
        network::tests(),
        robustness::tests(),
        stops::tests(),
        silence::tests(),
        agent::tests(),
        bad_input::tests(),
        supervised::tests(),
        stuck::tests(),
        lost_guests::tests(),
        outputs::tests(),
    ];
    let tests = tests.into_iter().flatten().collect();
    tier::run(NAME, place, &args, tests)
}

/// A test that fails by panicking.
fn test(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}
