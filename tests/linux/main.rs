// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The linux tier: stock Debian guests with their own i6300esb driver, driven through the command
//! line as a user does it; on this machine's KVM if that runs Linux, else in a box.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod agent;
mod boots;
mod demos;
mod documents;
mod exec;
mod guest;
mod network;
mod operated;
mod probes;
mod process;

use std::path::PathBuf;
use std::process::ExitCode;

use kennel::guest::image::{self, GuestImage, Source};
use kennel::guest::packages;
use kennel::host::{self, BoxCommand};
use kennel_tests::tier;
use libtest_mimic::{Arguments, Trial};

const NAME: &str = "linux";
/// The largest guest has 5 GiB, and another one runs beside it.
const BOX_MEMORY_MIB: u32 = 9 << 10;
/// How the tests in a box find the image that was built outside, where the network is.
const IMAGE: [&str; 3] = [
    "KENNEL_TEST_BZIMAGE",
    "KENNEL_TEST_VMLINUX",
    "KENNEL_TEST_INITRD",
];

/// The guest's files.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) bzimage: PathBuf,
    pub(crate) vmlinux: PathBuf,
    pub(crate) initrd: PathBuf,
}

/// The body of a test.
pub(crate) type Body = Box<dyn FnOnce(&Image) + Send>;

/// Tests named `group::name`.
pub(crate) fn group<I>(group: &str, image: &Image, cases: I) -> Vec<Trial>
where
    I: IntoIterator<Item = (&'static str, Body)>,
{
    let trial = |(name, body): (&str, Body)| {
        let image = image.clone();
        Trial::test(format!("{group}::{name}"), move || {
            body(&image);
            Ok(())
        })
    };
    cases.into_iter().map(trial).collect()
}

fn main() -> ExitCode {
    if let Some(status) = tier::as_kennel() {
        return status;
    }
    let args = Arguments::from_args();
    let report = host::check();
    if args.list || report.native_linux() {
        let place = if host::inside_box() {
            "in a box"
        } else {
            "on this machine's hardware KVM"
        };
        return match image() {
            Ok(image) => tier::run(NAME, place, &args, tests(&image)),
            Err(why) => tier::failed(NAME, &why),
        };
    }
    if !report.can_box() {
        return tier::skipped(NAME, &report.to_string());
    }
    match in_box() {
        Ok(status) => status,
        Err(why) => tier::failed(NAME, &why),
    }
}

fn tests(image: &Image) -> Vec<Trial> {
    let groups = [
        boots::tests(image),
        demos::tests(image),
        documents::tests(image),
        agent::tests(image),
        exec::tests(image),
        probes::tests(image),
        process::tests(image),
        network::tests(image),
    ];
    groups.into_iter().flatten().collect()
}

/// This program once more, in a box; the image is built out here.
fn in_box() -> Result<ExitCode, String> {
    let image = image()?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = BoxCommand::new(program).map_err(|error| error.to_string())?;
    command.args = std::env::args_os().skip(1).collect();
    command.memory_mib = BOX_MEMORY_MIB;
    let files = [image.bzimage, image.vmlinux, image.initrd];
    command.env.extend(
        IMAGE
            .into_iter()
            .map(Into::into)
            .zip(files.into_iter().map(Into::into)),
    );
    let told = |step: &host::BoxStep| eprintln!("tier {NAME}: {step}");
    let exit = host::run_in_box(&command, &told).map_err(|error| error.to_string())?;
    Ok(exit.into())
}

fn image() -> Result<Image, String> {
    if let [Some(bzimage), Some(vmlinux), Some(initrd)] = IMAGE.map(std::env::var_os) {
        let [bzimage, vmlinux, initrd] = [bzimage, vmlinux, initrd].map(PathBuf::from);
        return Ok(Image {
            bzimage,
            vmlinux,
            initrd,
        });
    }
    let cache = packages::default_cache().ok_or("set HOME or XDG_CACHE_HOME")?;
    let told = |step: &kennel::guest::Step| eprintln!("tier {NAME}: {step}");
    let built =
        image::build(&Source::Packages, &cache, &told).map_err(|error| error.to_string())?;
    let GuestImage {
        kernel,
        vmlinux,
        initrd,
        ..
    } = built;
    let vmlinux = vmlinux.ok_or("the guest image has no vmlinux")?;
    Ok(Image {
        bzimage: kernel,
        vmlinux,
        initrd,
    })
}
