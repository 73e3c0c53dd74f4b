// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Surroundings in which things fail: no `/dev/kvm`, one that may not be opened, no rights to read.
//!
//! Made by util-linux's `unshare` and `setpriv`, as a prefix of the command. Where they cannot make
//! them the test cannot run, and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use kennel_tests::tier::Obstacle;

/// A prefix of a command.
pub(crate) type Wrapper = Vec<&'static str>;

/// Root without its capabilities: what a file's mode says is what counts.
const POWERLESS: [&str; 4] = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"];
const KVM: &str = "/dev/kvm";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A shell script in a mount namespace of its own; it ends by running its arguments.
fn namespace(script: &'static str) -> Wrapper {
    let mut wrapper = vec!["unshare", "--mount"];
    if !is_root() {
        wrapper.push("--map-root-user");
    }
    wrapper.extend(["sh", "-c", script, "sh"]);
    wrapper
}

/// Gives the wrapper when `check` (a program and its arguments) succeeds behind it.
fn proven(wrapper: Wrapper, check: &[&str]) -> Result<Wrapper, Obstacle> {
    let words: Vec<_> = wrapper.iter().chain(check).copied().collect();
    let shown = words.join(" ");
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .map_err(|error| Obstacle(format!("{} cannot be run: {error}", words[0])))?;
    if output.status.success() {
        return Ok(wrapper);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.trim();
    Err(Obstacle(format!("`{shown}`: {}: {why}", output.status)))
}

/// Without `/dev/kvm`.
pub(crate) fn without_kvm() -> Result<Wrapper, Obstacle> {
    if !Path::new(KVM).exists() {
        return Ok(vec![]);
    }
    let wrapper = namespace(r#"mount -t tmpfs none /dev && exec "$@""#);
    proven(wrapper, &["test", "!", "-e", KVM])
}

/// Without `/dev/kvm`, and without a program in the search path.
pub(crate) fn without_kvm_and_programs() -> Result<Wrapper, Obstacle> {
    let script = r#"mount -t tmpfs none /dev && PATH=/nonexistent && exec "$@""#;
    proven(namespace(script), &["/usr/bin/test", "!", "-e", KVM])
}

/// With a `/dev/kvm` that this user may not open.
pub(crate) fn denied_kvm() -> Result<Wrapper, Obstacle> {
    let script = r#"mount -t tmpfs none /dev && : > /dev/kvm && chmod 0 /dev/kvm &&
        exec setpriv --bounding-set=-all --inh-caps=-all -- "$@""#;
    let check = "test -e /dev/kvm && ! test -r /dev/kvm && ! test -w /dev/kvm";
    proven(namespace(script), &["sh", "-c", check])
}

/// With a `/dev/kvm` that is none.
pub(crate) fn fake_kvm() -> Result<Wrapper, Obstacle> {
    let script = r#"mount -t tmpfs none /dev && : > /dev/kvm && exec "$@""#;
    proven(namespace(script), &["test", "-f", KVM])
}

/// Takes the rights to `file` away; what runs behind the wrapper cannot read it.
pub(crate) fn unreadable(file: &Path) -> Result<Wrapper, Obstacle> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o000)).expect("a file of one's own");
    let wrapper = if is_root() {
        POWERLESS.to_vec()
    } else {
        vec![]
    };
    let name = file.to_str().expect("a temporary file's name is text");
    proven(
        if wrapper.is_empty() {
            vec!["env"]
        } else {
            wrapper
        },
        &["test", "!", "-r", name],
    )
}
