// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The linux tier: stock Debian guests with their own i6300esb driver, driven through the command
//! line as a user does it; on this machine's KVM if that runs Linux, else in boxes.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod agent;
mod boots;
mod demos;
mod documents;
mod exec;
mod guest;
mod image;
mod network;
mod operated;
mod probes;
mod process;

use std::process::ExitCode;

use kennel::host;
use kennel_tests::tier;
use kennel_tests::workers::{self, Case, Need, Place, Plan, Workers, rooms};
use libtest_mimic::Arguments;

pub(crate) use image::Image;

const NAME: &str = "linux";

/// A test of this tier.
pub(crate) type LinuxCase = Case<Image>;

/// The body of a test.
pub(crate) type Body = Box<dyn FnOnce(&Image) + Send>;

/// Tests named `group::name`, each with one small guest at a time.
pub(crate) fn group<I>(group: &str, cases: I) -> Vec<LinuxCase>
where
    I: IntoIterator<Item = (&'static str, Body)>,
{
    let case = |(name, body): (&str, Body)| {
        Case::new(format!("{group}::{name}"), Need::SMALL, |image| {
            body(image);
            Ok(())
        })
    };
    cases.into_iter().map(case).collect()
}

fn main() -> ExitCode {
    let asked = tier::as_kennel()
        .or_else(|| workers::run_asked(tests, image::given))
        .or_else(|| workers::serve_asked(image::at_hand));
    if let Some(status) = asked {
        return status;
    }
    let args = Arguments::from_args();
    match plan(&args) {
        Ok(plan) => tier::run_on(NAME, &Workers::new(plan), args, tests()),
        Err(status) => status,
    }
}

/// The longest first: then the last ones to end leave no worker idle for long.
fn tests() -> Vec<LinuxCase> {
    let groups = [
        agent::tests(),
        exec::tests(),
        probes::tests(),
        network::tests(),
        documents::tests(),
        demos::tests(),
        process::tests(),
        boots::tests(),
    ];
    groups.into_iter().flatten().collect()
}

/// The workers, with the image that was built out here, where the network is.
fn plan(args: &Arguments) -> Result<Plan, ExitCode> {
    let mut plan = Plan {
        tier: NAME,
        place: Place::Here,
        rooms: vec![],
        env: vec![],
    };
    if args.list {
        return Ok(plan);
    }
    let report = host::check();
    (plan.place, plan.rooms) = if report.native_linux() {
        (Place::Here, rooms::here())
    } else if report.can_box() {
        (Place::Boxes(rooms::BOX_OWN_MIB), rooms::boxes())
    } else {
        return Err(tier::skipped(NAME, &report.to_string()));
    };
    match image::build() {
        Ok(image) => plan.env = image.env(),
        Err(why) => return Err(tier::failed(NAME, &why)),
    }
    Ok(plan)
}
