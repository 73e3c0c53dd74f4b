// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where guests run: on this machine if its KVM is up to it, else in a box.

use std::ffi::OsString;

use super::args::VenueArgs;
use super::progress::{Progress, say};
use super::{Answer, Failure};
use crate::host::{self, BoxCommand, BoxError};

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Venue {
    Here,
    Box,
}

/// What the box needs for itself beside its guests, in MiB.
const BOX_OVERHEAD_MIB: u64 = 2048;

/// Decides, and says so if nobody else did.
pub(super) fn choose(args: VenueArgs) -> Result<Venue, Failure> {
    if args.no_box {
        return Ok(Venue::Here);
    }
    let report = host::check();
    if args.in_box {
        // Told before an image is made for it.
        let ready = report.can_box().then_some(Venue::Box);
        return ready.ok_or_else(|| Failure::could_not(BoxError::NoQemu));
    }
    if report.native_linux() {
        say("kennel: this machine's own KVM runs the guest");
        Ok(Venue::Here)
    } else if report.can_box() {
        say("kennel: this machine's own KVM cannot run Linux guests, so a KVM host in a box does");
        Ok(Venue::Box)
    } else {
        let what = "no Linux guest can run here, neither on this machine's KVM nor in a box:";
        Err(Failure::CouldNot(format!("{what}\n{report}")))
    }
}

/// Runs a program in a box of its own.
pub(super) fn in_box(program: OsString, args: Vec<OsString>, memory_mib: Option<u32>) -> Answer {
    let mut command = BoxCommand::new(program).map_err(Failure::could_not)?;
    command.args = args;
    if let Some(memory) = memory_mib {
        command.memory_mib = command.memory_mib.max(memory);
    }
    let progress = Progress::new();
    let ended = host::run_in_box(&command, &|step| progress.in_box(step));
    progress.finish();
    Ok(ended.map_err(Failure::could_not)?.status())
}

/// Runs this very command line again, in a box, with `extra` behind it.
pub(super) fn again_in_box(extra: Vec<OsString>, guest_memory_bytes: u64) -> Answer {
    let program = std::env::current_exe()
        .map_err(|error| Failure::CouldNot(format!("this program's own file is gone: {error}")))?;
    // The image has been made here, from whichever source.
    let mut args: Vec<OsString> = std::env::args_os()
        .skip(1)
        .filter(|arg| arg != "--host-kernel")
        .collect();
    args.push("--no-box".into());
    args.extend(extra);
    let memory = (guest_memory_bytes >> 20).saturating_add(BOX_OVERHEAD_MIB);
    in_box(
        program.into(),
        args,
        Some(u32::try_from(memory).unwrap_or(u32::MAX)),
    )
}
