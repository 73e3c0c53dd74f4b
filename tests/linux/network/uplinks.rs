// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Uplinks that are missing, break at once or are killed: told with what to do, and tried again; the
//! machine and its probes do without them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::passt;
use crate::Image;
use crate::guest::Spec;
use crate::operated::{OBEY, Operated};

/// Puts a program of these lines in the place of passt.
fn install(path: &Path, lines: &str) {
    let made = path.with_extension("new");
    fs::write(&made, format!("#!/bin/sh\n{lines}\n")).expect("room for a file");
    fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).expect("ours");
    fs::rename(&made, path).expect("the same folder");
}

/// Waits until the uplink has failed for this reason.
fn is_down(run: &mut Operated, why: &str) {
    let down = run.event(why, |event| event["reason"] == "UplinkDown");
    let message = down["message"].as_str().expect("a message");
    assert!(message.contains(why), "{down}");
    assert!(
        down["data"]["retry_ns"].as_u64() >= Some(1_000_000_000),
        "{down}"
    );
}

pub(super) fn failures(image: &Image, program: PathBuf) {
    let spec = Spec {
        script: OBEY,
        action: None,
        annotations: vec![("kennel/uplink", "passt")],
        fields: vec![
            "readinessProbe:\n  httpGet: { port: 8080 }\n  periodSeconds: 1\n  timeoutSeconds: 5",
        ],
        ..Spec::default()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("passt");
    let mut prepared = spec.prepare(image);
    prepared.command.env("PATH", folder.path());
    let mut run = Operated::of(prepared);
    is_down(&mut run, "apt-get install passt");
    install(&place, "echo out of luck >&2; exit 7");
    is_down(&mut run, "passt ended (exit status: 7): out of luck");
    run.ready();
    run.shell("mkdir -p /www; echo yes >/www/index.html; httpd -p 8080 -h /www");
    run.reason("Ready");
    install(&place, &format!("exec {} \"$@\"", program.display()));
    run.reason("UplinkUp");
    passt::kill(run.vm());
    is_down(&mut run, "passt ended (signal: 9");
    run.reason("UplinkUp");
    let stopped = run.reasons().iter().any(|reason| reason == "NotReady");
    assert!(!stopped, "probes need no uplink: {run}");
    run.power_off();
}
