// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One `kennel run` of a document made for a test, and what came of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::Image;

/// A document to be.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) memory: &'static str,
    pub(crate) cores: u32,
    pub(crate) action: Option<&'static str>,
    pub(crate) annotations: Vec<(&'static str, &'static str)>,
    pub(crate) script: &'static str,
    pub(crate) bzimage: bool,
    /// Lines of the instance's spec, such as its probes.
    pub(crate) fields: Vec<&'static str>,
    pub(crate) kernel_args: Option<&'static str>,
    /// Makes it a VirtualMachine.
    pub(crate) run_strategy: Option<&'static str>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            memory: "256Mi",
            cores: 1,
            action: Some("poweroff"),
            annotations: vec![],
            script: "",
            bzimage: false,
            fields: vec![],
            kernel_args: None,
            run_strategy: None,
        }
    }
}

impl Spec {
    fn document(&self) -> String {
        let kind = match self.run_strategy {
            Some(_) => "VirtualMachine",
            None => "VirtualMachineInstance",
        };
        let mut text = format!(
            "apiVersion: kubevirt.io/v1\nkind: {kind}\nmetadata:\n  name: test\n  annotations:\n"
        );
        for (key, value) in &self.annotations {
            line(&mut text, 4, &format!("{key}: \"{value}\""));
        }
        line(&mut text, 4, "kennel/guest-script: |\n  true");
        line(&mut text, 6, self.script);
        line(&mut text, 0, "spec:");
        let indent = match self.run_strategy {
            Some(strategy) => {
                line(&mut text, 2, &format!("runStrategy: {strategy}"));
                line(&mut text, 2, "template:\n  metadata: {}\n  spec:");
                6
            }
            None => 2,
        };
        line(&mut text, indent, &self.instance());
        text
    }

    /// The lines of an instance's spec.
    fn instance(&self) -> String {
        let (cores, memory) = (self.cores, self.memory);
        let mut text = String::new();
        for field in &self.fields {
            line(&mut text, 0, field);
        }
        let domain =
            format!("domain:\n  cpu: {{ cores: {cores} }}\n  memory: {{ guest: {memory} }}");
        line(&mut text, 0, &domain);
        if let Some(args) = self.kernel_args {
            let boot = "firmware: { kernelBoot: { container: { image: kennel/guest }, kernelArgs:";
            line(&mut text, 2, &format!("{boot} {args} }} }}"));
        }
        let device = match self.action {
            Some(action) => format!("watchdog: {{ name: dog, i6300esb: {{ action: {action} }} }}"),
            None => "disks: []".to_owned(),
        };
        line(&mut text, 2, &format!("devices:\n  {device}"));
        text
    }
}

/// Appends `lines`, each so far to the right.
fn line(text: &mut String, indent: usize, lines: &str) {
    for line in lines.lines() {
        writeln!(text, "{:indent$}{line}", "").expect("a string takes it");
    }
}

/// A run's folder and the command for it.
#[derive(Debug)]
pub(crate) struct Prepared {
    folder: TempDir,
    pub(crate) command: Command,
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) console: String,
    pub(crate) events: Vec<Value>,
    stderr: String,
}

impl Spec {
    /// Writes the document, and the command line that runs it.
    pub(crate) fn prepare(&self, image: &Image) -> Prepared {
        let kernel = if self.bzimage {
            &image.bzimage
        } else {
            &image.vmlinux
        };
        Prepared::new(&self.document(), kernel, &image.initrd)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, image: &Image) -> Ran {
        let mut prepared = self.prepare(image);
        let output = prepared.command.output().expect("this program runs");
        prepared.ran(&output)
    }
}

/// This program as `kennel`.
pub(crate) fn kennel() -> Command {
    Command::new(std::env::current_exe().expect("this program has a file"))
}

impl Prepared {
    /// Writes `document`, and the command line that runs it.
    pub(crate) fn new(document: &str, kernel: &Path, initrd: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        fs::write(file("vmi.yaml"), document).expect("room for a document");
        let mut command = kennel();
        command
            .args(["run", "--no-box", "--timeout", "240s"])
            .arg(file("vmi.yaml"))
            .arg("--kernel")
            .arg(kernel)
            .arg("--initrd")
            .arg(initrd)
            .arg("--events")
            .arg(file("events"))
            .arg("--console")
            .arg(file("console"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { folder, command }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn spawn(&mut self) -> Child {
        self.command.spawn().expect("this program runs")
    }

    /// What is left of the run; every event must be a JSON object.
    pub(crate) fn ran(&self, output: &Output) -> Ran {
        let read =
            |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let lines = read(&self.path("events"));
        let events = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"));
        Ran {
            status: output.status.code(),
            console: read(&self.path("console")),
            events: events.collect(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// The reasons of the events, in their order.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| event.get("reason")?.as_str())
            .collect()
    }

    /// The figures of the first event with this reason.
    pub(crate) fn data(&self, reason: &str) -> &Value {
        let event = self.events.iter().find(|event| event["reason"] == reason);
        &event.unwrap_or_else(|| panic!("no {reason}: {self}"))["data"]
    }

    /// Fails unless the run ended with `status` and the guest printed `line`.
    pub(crate) fn expect(&self, status: i32, line: &str) {
        assert_eq!(self.status, Some(status), "{self}");
        assert!(
            self.console
                .lines()
                .any(|printed| printed.trim_end() == line),
            "no {line:?}: {self}"
        );
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            status,
            console,
            events,
            stderr,
        } = self;
        writeln!(
            f,
            "status {status:?}\n--- console\n{console}\n--- stderr\n{stderr}\n--- events"
        )?;
        events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}
