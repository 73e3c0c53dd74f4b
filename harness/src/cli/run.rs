// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel run`: a document, from admission to verdict.

use std::ffi::OsString;

use kennel_vmm::config::MachineConfig;
use kennel_vmm::hypervisor::Hypervisor;

use super::args::{ImageArgs, RunArgs};
use super::network;
use super::progress::say;
use super::teller::Teller;
use super::venue::{self, Venue};
use super::{Answer, Failure, guest as guest_image, screen, teller};
use crate::guest;
use crate::runtime_dir::RuntimeDir;
use crate::spec::{self, Document, HostLimits, KernelSource, Kind, Vmi};
use crate::supervisor::asking::Asking;
use crate::supervisor::controller::{Controller, Options};
use crate::supervisor::verdict::{EXIT_FAILURE, Verdict};
use crate::supervisor::{Run, supervise};

const EXIT_SUCCESS: u8 = 0;

pub(super) fn run(args: &RunArgs) -> Answer {
    let document =
        spec::load_file(&args.file).map_err(|error| Failure::Usage(error.to_string()))?;
    document
        .check_files()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    network::check(&args.publish, &document.vmi)?;
    if args.console_limit.is_some() && args.console.as_deref().is_some_and(teller::is_standard) {
        let why =
            "--console-limit: standard output has no limit; give --console a file, or leave it out";
        return Err(Failure::Usage(why.to_owned()));
    }
    // Wherever it runs, its memory is this machine's.
    check_host(&document, u32::MAX)?;
    match venue::choose(args.venue)? {
        Venue::Here => here(args, &document),
        Venue::Box if !args.publish.is_empty() => Err(Failure::CouldNot(
            "ports cannot be published from the box: what listens in there is reached from in there \
             alone; leave out --publish, or run it on a machine whose own KVM runs Linux guests"
                .into(),
        )),
        Venue::Box => {
            let image = image_args(&document.vmi, &args.image)?;
            let replicas = match document.kind {
                Kind::VirtualMachineInstanceReplicaSet { replicas } => u64::from(replicas),
                _ => 1,
            };
            let memory = document.vmi.memory_bytes.saturating_mul(replicas);
            venue::again_in_box(image, memory)
        }
    }
}

fn here(args: &RunArgs, document: &Document) -> Answer {
    let most = Hypervisor::open().map_err(Failure::could_not)?.max_vcpus();
    check_host(document, u32::try_from(most).unwrap_or(u32::MAX))?;
    screen::start()?;
    for note in &document.notes {
        say(&format!("kennel: note: {note}"));
    }
    let ports = network::hold(&args.publish)?;
    let mut teller = Teller::new(args.events.as_deref())?;
    let options = Options {
        compat: args.compat,
    };
    let run = Run {
        controller: Controller::new(document, options),
        namespace: document.vmi.namespace.clone(),
        config: config(&document.vmi, &args.image)?,
        console: teller.console(document.kind, args.console.as_deref(), args.console_limit)?,
        asking: Asking::of(document, options),
        runtime_dir: Some(RuntimeDir::of_this_user()),
        uplink: network::uplink(&document.vmi),
        ports,
        timeout: args.timeout,
    };
    let verdict = supervise(run, &mut teller);
    let told = teller.close();
    match verdict.map_err(Failure::could_not)? {
        // People have read it in the last event.
        Verdict::Broken(message) if teller.json => Err(Failure::CouldNot(message)),
        verdict => Ok(match verdict.exit_status() {
            EXIT_SUCCESS if !told => EXIT_FAILURE,
            status => status,
        }),
    }
}

/// The document's machine, with the files that it boots.
pub(super) fn config(vmi: &Vmi, image: &ImageArgs) -> Result<MachineConfig, Failure> {
    let (kernel, initrd) = match &vmi.kernel_boot.source {
        KernelSource::Directory { kernel, initrd, .. } => (kernel.clone(), initrd.clone()),
        _ => {
            let image = guest_image::obtain(image)?;
            (image.fastest_kernel().to_owned(), Some(image.initrd))
        }
    };
    let script = vmi.guest_script.as_deref();
    let initrd_overlay = script
        .map(guest::overlay)
        .transpose()
        .map_err(Failure::could_not)?;
    Ok(MachineConfig {
        memory_bytes: vmi.memory_bytes,
        vcpus: vmi.vcpus,
        kernel,
        initrd,
        initrd_overlay: initrd_overlay.unwrap_or_default(),
        cmdline: spec::command_line(vmi.kernel_boot.args.as_deref()),
        watchdog: vmi.watchdog_config(),
        agent_socket: None,
        network: None,
        resets: 0,
    })
}

/// What tells the same command in a box where the guest image is, if it needs one.
fn image_args(vmi: &Vmi, image: &ImageArgs) -> Result<Vec<OsString>, Failure> {
    if vmi.kernel_boot.source != KernelSource::Built || image.kernel.is_some() {
        return Ok(vec![]);
    }
    built_image_args(image)
}

/// The built image as arguments: the box has no network to build it.
pub(super) fn built_image_args(image: &ImageArgs) -> Result<Vec<OsString>, Failure> {
    let image = guest_image::obtain(image)?;
    let kernel = image.fastest_kernel().into();
    Ok(vec![
        "--kernel".into(),
        kernel,
        "--initrd".into(),
        image.initrd.into(),
    ])
}

fn check_host(document: &Document, max_vcpus: u32) -> Result<(), Failure> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available_bytes = available_bytes(&meminfo).unwrap_or(u64::MAX);
    document
        .check_host(&HostLimits {
            available_bytes,
            max_vcpus,
        })
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// `MemAvailable` in the text of `/proc/meminfo`, in bytes.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let meminfo = "MemTotal: 9 kB\nMemAvailable:   24 kB\n";
        assert_eq!(available_bytes(meminfo), Some(24_576));
        assert_eq!(available_bytes("MemTotal: 9 kB\n"), None);
    }
}
