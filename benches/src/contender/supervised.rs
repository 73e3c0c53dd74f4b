// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine as a user runs it: `kennel run` of a document, whose events are read.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use kennel_tests::tier::ACT_AS_KENNEL;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::Killed;
use crate::{Trouble, load};

/// `kennel run` ends its machine within this time, on any machine.
const STOPS: Duration = Duration::from_secs(10);

/// The document; names in capitals are replaced.
const DOCUMENT: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: measured}
spec:
  terminationGracePeriodSeconds: 0
  domain:
    resources: {requests: {memory: 32Mi}}
    firmware: {kernelBoot: {kernelArgs: PROGRAM, container: {image: ., kernelPath: /vmlinux}}}
    devices: {autoattachPodInterface: false, watchdog: {name: w, i6300esb: {action: ACTION}}}
";

/// An event, when it was read, and of which machine.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) machine: usize,
    pub(crate) at: Instant,
    pub(crate) event: UserEvent,
}

#[derive(Debug, Deserialize)]
pub(crate) struct UserEvent {
    pub(crate) reason: String,
    #[serde(default)]
    data: Value,
}

impl UserEvent {
    /// Whether its data say so.
    pub(crate) fn says(&self, name: &str, what: &str) -> bool {
        self.data.get(name).and_then(Value::as_str) == Some(what)
    }

    /// A figure of its data, or zero.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        self.data.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) kernel: &'a Path,
    /// The last letter of its command line.
    pub(crate) program: char,
    /// What the watchdog's bite does.
    pub(crate) action: &'a str,
    /// Where the guest's output goes; [`CONSOLE`] is counted.
    pub(crate) console: &'a str,
}

/// A file in the machine's own directory.
pub(crate) const CONSOLE: &str = "console";

/// The machine's supervisor; both end when it is dropped.
#[derive(Debug)]
pub(crate) struct Supervised {
    supervisor: Killed,
    directory: TempDir,
}

impl Supervised {
    /// Its events go to `told` under the number `machine`.
    pub(crate) fn start(
        setup: &Setup<'_>,
        machine: usize,
        told: Sender<Told>,
    ) -> Result<Self, Trouble> {
        let directory = load::directory()?;
        let place = directory.path();
        let document = DOCUMENT
            .replace("PROGRAM", &setup.program.to_string())
            .replace("ACTION", setup.action);
        std::fs::write(place.join("vm.yaml"), document).map_err(Trouble::new)?;
        std::os::unix::fs::symlink(setup.kernel, place.join("vmlinux")).map_err(Trouble::new)?;
        let mut supervisor = Command::new("/proc/self/exe")
            .args(["run", "--no-box", "--events", "-", "vm.yaml"])
            .args(["--console", setup.console])
            .current_dir(place)
            .env(ACT_AS_KENNEL, "1")
            .env("XDG_RUNTIME_DIR", place)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for us alone: what is measured comes to its end.
            .process_group(0)
            .spawn()
            .map_err(Trouble::new)?;
        let events = supervisor.stdout.take();
        let supervised = Self {
            supervisor: Killed(supervisor),
            directory,
        };
        let events = BufReader::new(events.ok_or_else(|| Trouble::new("no pipe"))?);
        let tell = move || {
            let lines = events.lines().map_while(Result::ok);
            for event in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                let at = Instant::now();
                if told.send(Told { machine, at, event }).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("events".into());
        thread.spawn(tell).map_err(Trouble::new)?;
        Ok(supervised)
    }

    /// Whether `kennel run` has come to its end by itself.
    pub(crate) fn ended(&mut self) -> bool {
        self.supervisor.0.try_wait().is_ok_and(|end| end.is_some())
    }

    /// How many characters its guest has written.
    pub(crate) fn written(&self) -> u64 {
        let console = std::fs::metadata(self.directory.path().join(CONSOLE));
        console.map_or(0, |file| file.len())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.supervisor.0.id().try_into().ok()?)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let Some(pid) = self.pid().filter(|_| !self.ended()) else {
            return;
        };
        // As Ctrl-C would; the VM process goes with it.
        let _told = kill_process(pid, Signal::INT);
        let end = Instant::now() + STOPS;
        while !self.ended() {
            if Instant::now() > end {
                // A hostile guest's may not.
                let _killed = kill_process_group(pid, Signal::KILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
