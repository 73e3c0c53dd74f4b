// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Probes of a stock guest with the distribution's own agent, and what comes of them.

use serde_json::Value;

use crate::guest::Spec;
use crate::operated::Operated;
use crate::{Body, Image, LinuxCase, group};

pub(crate) fn tests() -> Vec<LinuxCase> {
    let cases: [(&'static str, Body); 2] = [
        ("liveness_failure_brings_a_machine_back", Box::new(liveness)),
        ("readiness_failure_stops_nothing", Box::new(readiness)),
    ];
    group("agent", cases)
}

const STOP: &str = "agent-stop";
const START: &str = "agent-start";
const FREEZE: &str = "kill -STOP $(cat /run/qemu-ga.pid)";
const THAW: &str = "kill -CONT $(cat /run/qemu-ga.pid)";
const HEALTHY: &str = "echo yes >/tmp/healthy.txt";

/// An event about one of the probes: an attempt that counts.
fn failed(event: &Value, probe: &str) -> bool {
    event["reason"] == "Unhealthy"
        && event["data"]["probe"] == probe
        && event["data"]["streak"].is_u64()
}

fn message(event: &Value) -> &str {
    event["message"].as_str().expect("a message")
}

/// The agent answers for as long as it lives, a file tells that the guest is ready, and the
/// watchdog is fed beside them.
fn liveness(image: &Image) {
    let fields = vec![
        // No attempt before the slowest guest is up.
        "livenessProbe:\n  guestAgentPing: {}\n  initialDelaySeconds: 90\n  periodSeconds: 2\n  \
         timeoutSeconds: 5",
        "readinessProbe:\n  exec:\n    command: [cat, /tmp/healthy.txt]\n  periodSeconds: 2\n  \
         timeoutSeconds: 10",
    ];
    let spec = Spec {
        fields,
        run_strategy: Some("Always"),
        ..Spec::default()
    };
    let mut run = Operated::start(image, &spec);
    run.reason("AgentConnected");
    up(&mut run);
    run.shell(STOP);
    run.reason("AgentDisconnected");
    let stopped = killed(&mut run, "no guest agent is connected", 3);
    assert!(
        message(&stopped).starts_with("The guest powered off"),
        "{stopped}"
    );
    // At once the first time.
    run.reason("Created");
    run.reason("Started");
    up(&mut run);
    // Its port stays open: it cannot be asked to shut down either, and the power button is next.
    run.shell(FREEZE);
    let stopped = killed(&mut run, "did not answer a ping within 5 s", 3);
    assert!(
        message(&stopped).starts_with("The guest powered off"),
        "{stopped}"
    );
    run.reason("BackOff");
    run.table_row(&["CrashLoopBackOff"]);
    let bitten = run.reasons().iter().any(|reason| reason == "Watchdog");
    assert!(!bitten, "the watchdog bit a guest that fed it: {run}");
}

/// Waits until the guest obeys, and makes it feed its watchdog and be ready.
fn up(run: &mut Operated) {
    run.ready();
    run.shell("busybox watchdog -F -t 2000ms -T 20000ms /dev/watchdog &");
    run.shell(HEALTHY);
    run.reason("Ready");
}

/// Waits until liveness has failed so many times, for this reason, and the instance has ended for
/// it; with how it ended.
fn killed(run: &mut Operated, why: &str, threshold: u64) -> Value {
    for streak in 1..=threshold {
        let event = run.event("liveness", |event| failed(event, "liveness"));
        assert!(
            message(&event).starts_with("Liveness probe failed: "),
            "{event}"
        );
        assert!(message(&event).contains(why), "{event}");
        assert_eq!(event["data"]["streak"], streak, "{event}");
        assert_eq!(event["data"]["threshold"], threshold, "{event}");
    }
    let killing = run.reason("Killing");
    assert_eq!(
        message(&killing),
        "Instance test failed liveness probe, will be restarted"
    );
    assert_eq!(killing["data"]["cause"], "LivenessFailed");
    let stopped = run.reason("Stopped");
    assert_eq!(stopped["data"]["cause"], "LivenessFailed");
    assert_eq!(stopped["data"]["phase"], "Failed");
    stopped
}

/// Whatever its readiness does, the instance lives.
fn readiness(image: &Image) {
    let fields = vec![
        "readinessProbe:\n  exec:\n    command: [cat, /tmp/healthy.txt]\n  periodSeconds: 1\n  \
         timeoutSeconds: 5\n  failureThreshold: 2\n  successThreshold: 2",
    ];
    let spec = Spec {
        fields,
        action: None,
        ..Spec::default()
    };
    let mut run = Operated::start(image, &spec);
    run.reason("AgentConnected");
    run.ready();
    let because = [
        (
            "rm -f /tmp/healthy.txt",
            HEALTHY,
            "No such file or directory",
        ),
        (STOP, START, "no guest agent is connected"),
        (FREEZE, THAW, "it or the guest hangs"),
    ];
    run.shell(HEALTHY);
    run.reason("Ready");
    for (breaks, mends, why) in because {
        run.shell(breaks);
        let event = run.event(why, |event| {
            failed(event, "readiness") && message(event).contains(why)
        });
        assert!(
            message(&event).starts_with("Readiness probe failed: "),
            "{event}"
        );
        let event = run.reason("NotReady");
        assert_eq!(event["data"]["reason"], "ContainersNotReady", "{event}");
        run.shell(mends);
        run.reason("Ready");
    }
    let ended = run
        .reasons()
        .iter()
        .any(|reason| reason == "Killing" || reason == "Stopped");
    assert!(!ended, "{run}");
    run.power_off();
}
