// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that power themselves off, or reset, while an attempt waits for their answer: nobody calls
//! that a failure.

use kennel_tests::documents::{FILE, Folder};
use kennel_tests::kennel::Ended;
use kennel_tests::web_guest::{self, Leaving};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("attempt_over_a_power_off_counts_for_nothing", power_off),
        test("attempt_over_a_reset_counts_for_nothing", reset),
    ]
}

/// Which of the two is heard first is chance: so often is it tried.
const TIMES: usize = 5;

/// Runs the server that leaves over its second request, with one probe, whose first failure decides.
fn run(probe: &str, how: Leaving, seconds: &str) -> (Ended, Vec<Value>) {
    let folder = Folder::with(format!(
        "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: lab, \
         annotations: {{kennel/uplink: none}}}}, spec: {{terminationGracePeriodSeconds: 0, \
         {probe}: {{httpGet: {{port: 80}}, periodSeconds: 1, timeoutSeconds: 8, failureThreshold: 1}}, \
         networks: [{{name: default, pod: {{}}}}], domain: {{memory: {{guest: 64Mi}}, \
         devices: {{interfaces: [{{name: default, masquerade: {{}}}}]}}, firmware: {{kernelBoot: \
         {{container: {{image: ./image, kernelPath: /web}}}}}}}}}}}}"
    ));
    folder.file("image/web", &web_guest::image_that_leaves(2, how));
    let words = [
        "run",
        FILE,
        "--no-box",
        "--events",
        "events",
        "--console",
        "console",
        "--timeout",
        seconds,
    ];
    let ended = folder.call(&words).run();
    let events = std::fs::read_to_string(folder.path("events")).expect("events");
    let event = |line| serde_json::from_str(line).expect("JSON");
    let events = events.lines().map(event).collect();
    (ended, events)
}

fn count(events: &[Value], reason: &str) -> usize {
    events.iter().filter(|it| it["reason"] == reason).count()
}

fn power_off() {
    for probe in ["livenessProbe", "readinessProbe"] {
        for _ in 0..TIMES {
            let (ended, events) = run(probe, Leaving::PowerOff, "60");
            assert_eq!(ended.status, 0, "{ended}\n{events:#?}");
            for reason in ["Unhealthy", "Killing"] {
                assert_eq!(count(&events, reason), 0, "{probe}: {events:#?}");
            }
        }
    }
}

fn reset() {
    for probe in ["livenessProbe", "readinessProbe"] {
        let (ended, events) = run(probe, Leaving::Reset, "8");
        assert_eq!(ended.status, 124, "{ended}\n{events:#?}");
        assert!(count(&events, "Reset") >= 2, "{probe}: {events:#?}");
        assert_eq!(count(&events, "Unhealthy"), 0, "{probe}: {events:#?}");
    }
}
