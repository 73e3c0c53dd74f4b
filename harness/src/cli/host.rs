// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel host`: this machine, or a box.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::args::Host;
use super::progress::print;
use super::venue::{self, Venue};
use super::{Answer, Failure};
use crate::host;
use crate::supervisor::verdict::EXIT_FAILURE;

pub(super) fn host(what: Host) -> Answer {
    match what {
        Host::Check => {
            let report = host::check();
            print(&format!("{report}\n"));
            Ok(if report.native_linux() || report.can_box() {
                0
            } else {
                EXIT_FAILURE
            })
        }
        Host::Run {
            venue,
            memory,
            command,
        } => {
            let Some((program, args)) = command.split_first() else {
                return Err(Failure::Usage("give a command to run".into()));
            };
            match venue::choose(venue)? {
                Venue::Here => here(program, args),
                Venue::Box => venue::in_box(program.clone(), args.to_vec(), memory),
            }
        }
    }
}

fn here(program: &std::ffi::OsStr, args: &[std::ffi::OsString]) -> Answer {
    let status = Command::new(program).args(args).status().map_err(|error| {
        let hint = "give its path, or put its directory into PATH";
        Failure::CouldNot(format!("cannot run {}: {error}; {hint}", program.display()))
    })?;
    let signalled = status.signal().map(|signal| signal.saturating_add(128));
    let code = status
        .code()
        .or(signalled)
        .unwrap_or(i32::from(EXIT_FAILURE));
    Ok(u8::try_from(code).unwrap_or(EXIT_FAILURE))
}
