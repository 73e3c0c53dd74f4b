// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The tutorials' documents, cut only by their disks, on a stock guest that serves as theirs do:
//! with the same verdicts, after shorter delays.

use std::fmt::Write as _;
use std::path::Path;

use kennel_tests::workers::Need;
use serde_json::Value;

use crate::Image;
use crate::guest::Prepared;
use crate::operated::{OBEY, Operated};

/// Three guests at a time, which touch a third of their memory.
pub(super) const NEED: Need = Need {
    memory_mib: 1536,
    lanes: 2,
};

/// As long as the tutorials' guests have, in seconds, and as long as the slowest one needs here.
const DELAY: (&str, &str) = ("initialDelaySeconds: 120", "initialDelaySeconds: 90");
const DELAY_NS: u64 = 90_000_000_000;
const PERIOD: (&str, &str) = ("periodSeconds: 20", "periodSeconds: 2");

/// A document on its way to its verdict.
struct Tutorial {
    run: Operated,
    port: u16,
}

impl Tutorial {
    /// Starts a document, and the server in its guest.
    fn start(image: &Image, name: &str, port: u16, answer: &str) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let text = std::fs::read_to_string(fixtures.join(name)).expect("a fixture");
        let prepared = Prepared::new(&fitted(&text), &image.vmlinux, &image.initrd);
        let mut tutorial = Self {
            run: Operated::of(prepared),
            port,
        };
        tutorial.run.ready();
        tutorial.serve(answer);
        tutorial
    }

    /// Has its guest answer so.
    fn serve(&mut self, answer: &str) {
        let port = self.port;
        let server = format!("nc -ll -p {port} -e echo -e '{answer}' >/dev/null 2>&1 &");
        self.run.shell(&server);
    }

    /// Waits until `count` probes have been accepted, then ends the server.
    fn stop_after(&mut self, count: u32) {
        let accepted = "$(awk '/^Tcp: [0-9]/ { print $7 }' /proc/net/snmp)";
        let wait = format!("until [ {accepted} -ge {count} ]; do sleep 0.1; done; kill $!");
        self.run.shell(&wait);
    }

    /// The next events about `probe` are `count` failures in a row, for this reason.
    fn fails(&mut self, probe: &str, count: u64, why: &str) {
        for streak in 1..=count {
            let event = self.run.event(why, |event| {
                event["reason"] == "Unhealthy" && event["data"]["probe"] == probe
            });
            let message = event["message"].as_str().expect("a message");
            assert!(message.contains(why), "{event}");
            assert_eq!(event["data"]["streak"], streak, "{event}");
        }
    }

    fn refuses(&mut self, probe: &str, count: u64) {
        let why = format!("refused: nobody listens on port {}", self.port);
        self.fails(probe, count, &why);
    }

    /// It is ready, and not before its delay was over.
    fn becomes_ready(&mut self) {
        let uptime = uptime(&self.run.reason("Ready"));
        assert!(uptime >= DELAY_NS, "{uptime} ns: {}", self.run);
    }

    /// It has failed its liveness probe, and ends for it.
    fn ends(&mut self) {
        assert_eq!(
            self.run.reason("Killing")["data"]["cause"],
            "LivenessFailed"
        );
        let stopped = self.run.reason("Stopped");
        assert_eq!(stopped["data"]["cause"], "LivenessFailed", "{stopped}");
        assert_eq!(stopped["data"]["phase"], "Failed", "{stopped}");
    }

    /// Another instance takes its place.
    fn comes_back(&mut self) {
        self.run.reason("Created");
        self.run.reason("Started");
    }

    fn never(&self, reason: &str) {
        let told = self.run.reasons().iter().any(|told| told == reason);
        assert!(!told, "{reason}: {}", self.run);
    }
}

fn uptime(event: &Value) -> u64 {
    event["uptime_ns"].as_u64().expect("a figure")
}

/// The document without its disks, with shorter delays, and with a script for its guest.
fn fitted(text: &str) -> String {
    let mut fitted = String::new();
    let mut cut: Option<usize> = None;
    let mut cuts = 0;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim();
        // The items of a list may stand where its key does.
        let inside = |at: usize| indent > at || (indent == at && word.starts_with("- "));
        if cut.is_some_and(inside) {
            continue;
        }
        cut = None;
        if word == "disks:" || word == "volumes:" {
            cut = Some(indent);
            cuts += 1;
            continue;
        }
        writeln!(fitted, "{line}").expect("a string takes it");
        if line == "metadata:" {
            fitted.push_str("  annotations:\n    kennel/guest-script: |\n");
            for line in OBEY.lines() {
                writeln!(fitted, "      {line}").expect("a string takes it");
            }
        }
    }
    assert_eq!(cuts, 2, "disks and volumes: {fitted}");
    for (long, short) in [DELAY, PERIOD] {
        assert!(fitted.contains(long), "{long}: {fitted}");
        fitted = fitted.replace(long, short);
    }
    fitted
}

const HELLO: &str = r"HTTP/1.1 200 OK\nContent-Length: 12\n\nHello World!";
const HELLO_WITHOUT_LENGTH: &str = r"HTTP/1.1 200 OK\n\nHello World!";
const FAILURE: &str = r"HTTP/1.1 500 No\nContent-Length: 0\n";

/// Of instances. One boots after the other, while those before it wait for their probes.
pub(super) fn instances(image: &Image) {
    let start = |name, answer| Tutorial::start(image, name, 1500, answer);
    let http = start("fedora-http-liveness.yaml", HELLO);
    let tcp = start("fedora-tcp-liveness.yaml", HELLO);
    let ready = start("fedora-http-readiness.yaml", HELLO_WITHOUT_LENGTH);
    for mut alive in [http, tcp] {
        alive.stop_after(4);
        alive.refuses("liveness", 3);
        alive.ends();
        assert_eq!(alive.run.ended(), Some(3), "the instance has Failed");
    }
    flips(ready);
}

/// Of machines, which get another instance.
pub(super) fn machines(image: &Image) {
    let start = |name| Tutorial::start(image, name, 8081, HELLO);
    let http = start("lab-http-liveness.yaml");
    let both = start("lab-http-both.yaml");
    let tcp = start("lab-tcp-liveness.yaml");
    cycles(http);
    is_ready_until_it_ends(both);
    lives_while_it_is_not_ready(tcp);
}

/// Three answers in a row make it ready, three failures in a row end that, and nothing else does.
fn flips(mut ready: Tutorial) {
    ready.becomes_ready();
    ready.stop_after(3);
    ready.refuses("readiness", 3);
    ready.run.reason("NotReady");
    ready.serve(HELLO_WITHOUT_LENGTH);
    ready.run.reason("Ready");
    ready.never("Killing");
    ready.run.power_off();
}

fn cycles(mut machine: Tutorial) {
    machine.stop_after(4);
    machine.refuses("liveness", 3);
    machine.ends();
    machine.comes_back();
}

/// Liveness gives up after three failures, before readiness does after five.
fn is_ready_until_it_ends(mut machine: Tutorial) {
    machine.becomes_ready();
    // Both probes ask.
    machine.stop_after(8);
    machine.refuses("liveness", 3);
    machine.ends();
    machine.comes_back();
}

fn lives_while_it_is_not_ready(mut machine: Tutorial) {
    machine.becomes_ready();
    machine.stop_after(8);
    machine.serve(FAILURE);
    let failed = machine.run.reason("NotReady");
    assert_eq!(failed["data"]["reason"], "ContainersNotReady", "{failed}");
    machine.run.shell("kill $!");
    machine.serve(HELLO);
    machine.run.reason("Ready");
    machine.never("Killing");
}
