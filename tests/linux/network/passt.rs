// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! passt for tests that need one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use kennel::host;
use kennel_tests::tier::Obstacle;
use kennel_tests::workers::{Case, Need, Program};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::children;
use crate::{Image, LinuxCase};

/// The body of a test that needs passt, which is there.
pub(super) type Body = fn(&Image, PathBuf);

/// What such a test runs, by the packages that have it.
const PROGRAMS: [Program; 2] = [("passt", "passt"), ("ip", "iproute2")];

pub(super) fn test(name: &str, body: Body) -> LinuxCase {
    let case = Case::new(format!("network::{name}"), Need::SMALL, move |image| {
        route()?;
        let passt = host::find_program("passt");
        body(image, passt.expect("it was seen to before"));
        Ok(())
    });
    case.with_programs(&PROGRAMS)
}

/// passt wants an interface with a route to everywhere. The box has no other than its loopback,
/// where such a route leads nowhere and harms nobody.
fn route() -> Result<(), Obstacle> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let has_default = routes
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    if has_default {
        return Ok(());
    }
    if !host::inside_box() {
        return Err(Obstacle("this machine has no default route".into()));
    }
    // Another test may do the same at the same time: one that is there is replaced.
    let set = Command::new("ip")
        .args(["route", "replace", "default", "dev", "lo"])
        .output();
    match set {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Obstacle(format!("no route for passt: {said}")))
        }
        Err(error) => Err(Obstacle(format!("no route for passt: ip: {error}"))),
    }
}

/// Kills the passt of a VM process.
pub(super) fn kill(vm: Pid) {
    let is_passt = |pid: &Pid| {
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
        name.is_ok_and(|name| name.starts_with("passt"))
    };
    let mut passt = children(vm);
    passt.retain(is_passt);
    let [passt] = passt.as_slice() else {
        panic!("one passt, and not {passt:?}");
    };
    kill_process(*passt, Signal::KILL).expect("alive");
}
