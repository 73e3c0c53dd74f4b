// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents and scripts, and the instants that must come of them.

use std::time::Duration;

use serde_json::Value;

use super::{Outcome, simulate};
use crate::spec::{Document, Script, parse};

/// A document of this kind and its own keys, whose instance has these probes.
fn document(kind: &str, own: &str, probes: &str) -> Document {
    let instance = format!(
        "networks: [{{name: default, pod: {{}}}}], {probes} domain: {{resources: {{requests: \
         {{memory: 256Mi}}}}, devices: {{interfaces: [{{name: default, masquerade: {{}}}}]}}}}"
    );
    let spec = match kind {
        "VirtualMachineInstance" => format!("{{{own} {instance}}}"),
        _ => {
            let template = format!("{{metadata: {{labels: {{app: lab}}}}, spec: {{{instance}}}}}");
            format!("{{{own} template: {template}}}")
        }
    };
    let text = format!(
        "{{apiVersion: kubevirt.io/v1, kind: {kind}, metadata: {{name: lab}}, spec: {spec}}}"
    );
    parse(&text, "lab.yaml").unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

struct Played {
    outcome: Outcome,
    text: String,
    events: Vec<Value>,
}

fn play(document: &Document, script: &str, compat: bool) -> Played {
    let script = Script::parse(script, "script.yaml").expect("a good script");
    let mut out = vec![];
    let outcome = simulate(document, &script, compat, &mut out).expect("memory takes everything");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(outcome.events, u64::try_from(events.len()).expect("few"));
    Played {
        outcome,
        text,
        events,
    }
}

impl Played {
    /// When events of this reason came, in seconds from the first instance's start.
    fn seconds(&self, reason: &str) -> Vec<f64> {
        let events = self.events.iter().filter(|event| event["reason"] == reason);
        events
            .map(|event| {
                let time = event["time"].as_str().expect("a time");
                let time = humantime::parse_rfc3339(time).expect("RFC 3339");
                let since = time.duration_since(std::time::UNIX_EPOCH);
                since.expect("later").as_secs_f64()
            })
            .collect()
    }

    fn reasons(&self) -> Vec<&str> {
        let events = self.events.iter();
        events
            .filter_map(|event| event["reason"].as_str())
            .collect()
    }

    fn messages(&self, reason: &str) -> Vec<&str> {
        let events = self.events.iter().filter(|event| event["reason"] == reason);
        events
            .filter_map(|event| event["message"].as_str())
            .collect()
    }
}

const LIVENESS_120_20: &str = "livenessProbe: {httpGet: {port: 1500}, initialDelaySeconds: 120, \
     periodSeconds: 20, timeoutSeconds: 10},";

fn readiness(period: u32, timeout: u32, thresholds: u32) -> String {
    format!(
        "readinessProbe: {{httpGet: {{port: 1500}}, initialDelaySeconds: 120, periodSeconds: \
         {period}, timeoutSeconds: {timeout}, failureThreshold: {thresholds}, successThreshold: \
         {thresholds}}},"
    )
}

const FAILS: &str = "until: 400s\nevents: [{at: 0, probe: liveness, outcome: failure}]";
const HANGS: &str = "until: 400s\nevents: [{at: 0, probe: liveness, outcome: timeout}]";

#[test]
fn liveness_of_delay_120_period_20_stops_between_170_and_200_seconds() {
    let lab = document("VirtualMachineInstance", "", LIVENESS_120_20);
    for (script, compat, unhealthy, killing, stopped) in [
        (FAILS, true, [130.0, 150.0, 170.0], 170.0, 170.0),
        (HANGS, true, [140.0, 160.0, 180.0], 180.0, 210.0),
        (FAILS, false, [120.0, 140.0, 160.0], 160.0, 160.0),
        (HANGS, false, [130.0, 150.0, 170.0], 170.0, 200.0),
    ] {
        let played = play(&lab, script, compat);
        assert_eq!(played.seconds("Unhealthy"), unhealthy, "{}", played.text);
        assert_eq!(played.seconds("Killing"), [killing]);
        assert_eq!(played.seconds("Stopped"), [stopped]);
        let closing = "NAME   PHASE    READY   RESTARTS\nlab    Failed   False   0\n";
        assert_eq!(played.outcome.table.closing(), closing);
        let verdict = played.outcome.verdict.expect("it is over");
        assert_eq!(verdict.exit_status(), 3);
    }
}

#[test]
fn readiness_becomes_ready_when_both_labs_say() {
    // Period, timeout, thresholds; then the first Ready with KubeVirt's numbers.
    for (period, timeout, thresholds, ready) in
        [(20, 10, 3, 170.0), (10, 5, 5, 170.0), (20, 10, 5, 210.0)]
    {
        let probe = readiness(period, timeout, thresholds);
        let lab = document("VirtualMachineInstance", "", &probe);
        let compat = play(&lab, "until: 600s", true);
        assert_eq!(compat.seconds("Ready"), [ready]);
        assert_eq!(
            play(&lab, "until: 600s", false).seconds("Ready"),
            [ready - 10.0]
        );
        let closing = "NAME   PHASE     READY   RESTARTS\nlab    Running   True    0\n";
        assert_eq!(compat.outcome.table.closing(), closing);
        // Not a nanosecond before.
        let early = format!("until: {}", ready - 0.000_000_001);
        assert_eq!(play(&lab, &early, true).seconds("Ready"), [0.0; 0]);
    }
}

#[test]
fn readiness_flips_after_three_in_a_row_and_the_machine_runs_on() {
    let lab = document("VirtualMachineInstance", "", &readiness(20, 10, 3));
    let script = "\
until: 600s
events:
- {at: 200s, probe: readiness, outcome: failure}
- {at: 215s, probe: readiness, outcome: success}
- {at: 235s, probe: readiness, outcome: failure, latency: 1s}
- {at: 300s, probe: readiness, outcome: success}
";
    let played = play(&lab, script, true);
    assert_eq!(played.seconds("Ready"), [170.0, 350.0]);
    assert_eq!(played.seconds("NotReady"), [291.0]);
    assert_eq!(played.seconds("Unhealthy"), [210.0, 251.0, 271.0, 291.0]);
    assert_eq!(played.seconds("Killing"), [0.0; 0]);
}

#[test]
fn an_error_is_tried_three_times_and_does_not_count() {
    let lab = document("VirtualMachineInstance", "", LIVENESS_120_20);
    let script = "\
until: 400s
events:
- {at: 0, probe: liveness, outcome: failure}
- {at: 155s, probe: liveness, outcome: error, latency: 1s, message: no agent}
- {at: 175s, probe: liveness, outcome: failure}
";
    let played = play(&lab, script, false);
    assert_eq!(played.seconds("Unhealthy"), [120.0, 140.0, 163.0, 180.0]);
    let errored = "Liveness probe errored and resulted in unknown state: no agent";
    assert_eq!(played.messages("Unhealthy")[2], errored);
    assert_eq!(played.seconds("Killing"), [180.0]);
}

#[test]
fn the_delay_counts_again_after_a_guest_reset() {
    let lab = document("VirtualMachineInstance", "", LIVENESS_120_20);
    let script = "\
until: 400s
events:
- {at: 0, probe: liveness, outcome: failure}
- {at: 150s, guest: reset}
";
    let played = play(&lab, script, false);
    assert_eq!(played.seconds("Reset"), [150.0]);
    assert_eq!(
        played.seconds("Unhealthy"),
        [120.0, 140.0, 270.0, 290.0, 310.0]
    );
    assert_eq!(played.seconds("Killing"), [310.0]);
}

#[test]
fn neither_a_paused_nor_a_frozen_guest_is_blamed() {
    let probes = format!("{LIVENESS_120_20} {}", readiness(10, 5, 1));
    let lab = document("VirtualMachineInstance", "", &probes);
    let script = "\
until: 400s
events:
- {at: 130s, guest: pause}
- {at: 130s, probe: liveness, outcome: timeout}
- {at: 230s, guest: resume}
- {at: 230s, probe: liveness, outcome: success}
- {at: 250s, guest: freeze}
- {at: 250s, probe: liveness, outcome: timeout}
- {at: 300s, guest: thaw}
- {at: 300s, probe: liveness, outcome: success}
";
    let played = play(&lab, script, false);
    assert_eq!(played.seconds("Unhealthy"), [0.0; 0], "{}", played.text);
    assert_eq!(played.seconds("Ready"), [120.0, 230.0]);
    assert_eq!(played.seconds("NotReady"), [130.0]);
    let paused = played
        .events
        .iter()
        .find(|event| event["reason"] == "Resumed");
    assert_eq!(
        paused.map(|event| &event["uptime_ns"]),
        Some(&130_000_000_000_u64.into())
    );
}

#[test]
fn a_freeze_without_end_hides_a_hung_guest_for_a_minute() {
    let lab = document("VirtualMachineInstance", "", LIVENESS_120_20);
    let script = "\
until: 900s
events: [{at: 130s, guest: freeze}, {at: 130s, probe: liveness, outcome: failure}]
";
    // Asked again at the first tick from 190 s on.
    let played = play(&lab, script, false);
    assert_eq!(played.seconds("Unhealthy"), [200.0, 220.0, 240.0]);
}

#[test]
fn a_freeze_ends_with_its_boot() {
    let probe = "livenessProbe: {httpGet: {port: 1}, initialDelaySeconds: 5},";
    let lab = document("VirtualMachineInstance", "", probe);
    let script = "\
until: 30s
events:
- {at: 12s, guest: freeze}
- {at: 12s, probe: liveness, outcome: failure}
- {at: 14s, guest: reset}
";
    assert_eq!(play(&lab, script, false).seconds("Unhealthy"), [19.0, 29.0]);
}

#[test]
fn annotated_pings_succeed_unasked() {
    let text = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: lab, \
        annotations: {kubevirt.io/pause-guest-agent-probes: \"true\"}}, spec: {livenessProbe: \
        {guestAgentPing: {}}, readinessProbe: {exec: {command: [a]}}, domain: {resources: \
        {requests: {memory: 256Mi}}}}}";
    let script = "until: 100s\nevents: [{at: 0, probe: liveness, outcome: failure}, \
        {at: 0, probe: readiness, outcome: failure}]";
    let annotated = play(&parse(text, "lab.yaml").expect("a document"), script, false);
    assert_eq!(annotated.seconds("Killing"), [0.0; 0]);
    assert!(!annotated.messages("Unhealthy").is_empty(), "exec is asked");
    let plain = text.replace("\"true\"", "\"yes\"");
    let plain = play(
        &parse(&plain, "lab.yaml").expect("a document"),
        script,
        false,
    );
    assert_eq!(plain.seconds("Killing"), [20.0]);
}

#[test]
fn a_machine_that_starts_paused_is_not_asked() {
    let own = "startStrategy: Paused,";
    let lab = document("VirtualMachineInstance", own, &readiness(10, 5, 1));
    let played = play(
        &lab,
        "until: 300s\nevents: [{at: 100s, guest: resume}]",
        false,
    );
    assert_eq!(played.seconds("Paused"), [0.0]);
    assert_eq!(played.seconds("Ready"), [220.0]);
}

#[test]
fn each_policy_answers_each_end() {
    let crash = "until: 100s\nevents: [{at: 50s, guest: crash}]";
    let poweroff = "until: 100s\nevents: [{at: 50s, guest: poweroff}]";
    let line = |phase, restarts, status| {
        let ready = if phase == "Running" { "True" } else { "False" };
        (phase, ready, restarts, status)
    };
    for (own, script, expected, over) in [
        (
            "runStrategy: Always,",
            poweroff,
            line("Running", "1", "Running"),
            None,
        ),
        (
            "runStrategy: Always,",
            crash,
            line("Running", "1", "Running"),
            None,
        ),
        (
            "running: false,",
            crash,
            line("Running", "1", "Running"),
            None,
        ),
        (
            "runStrategy: RerunOnFailure,",
            crash,
            line("Running", "1", "Running"),
            None,
        ),
        (
            "runStrategy: RerunOnFailure,",
            poweroff,
            line("Succeeded", "0", "Stopped"),
            Some(0),
        ),
        (
            "runStrategy: Once,",
            crash,
            line("Failed", "0", "Stopped"),
            Some(1),
        ),
        (
            "runStrategy: Manual,",
            poweroff,
            line("Succeeded", "0", "Stopped"),
            Some(0),
        ),
    ] {
        let played = play(&document("VirtualMachine", own, ""), script, false);
        let closing = played.outcome.table.closing();
        let words: Vec<_> = closing
            .lines()
            .nth(1)
            .expect("a row")
            .split_whitespace()
            .collect();
        let (phase, ready, restarts, status) = expected;
        assert_eq!(
            words,
            ["lab", phase, ready, restarts, status],
            "{own} {script}"
        );
        let status = played.outcome.verdict.map(|verdict| verdict.exit_status());
        assert_eq!(status, over, "{own} {script}");
    }
}

#[test]
fn a_liveness_kill_counts_as_failure_however_the_guest_goes() {
    let lab = document(
        "VirtualMachine",
        "runStrategy: RerunOnFailure,",
        LIVENESS_120_20,
    );
    let played = play(&lab, FAILS, false);
    let stopped = &played.messages("Stopped")[0];
    assert!(stopped.contains("The guest powered off"), "{stopped}");
    // It is back at once the first time.
    assert_eq!(played.seconds("Created"), [0.0, 160.0, 330.0]);
    let killing = "Instance lab failed liveness probe, will be restarted";
    assert_eq!(played.messages("Killing")[0], killing);
}

#[test]
fn a_loop_of_liveness_kills_backs_off() {
    let probe = "livenessProbe: {httpGet: {port: 1}, periodSeconds: 1, failureThreshold: 1},";
    let lab = document("VirtualMachine", "runStrategy: Always,", probe);
    let script = "until: 2h\nevents:\n- {at: 0, probe: liveness, outcome: failure}\n\
        - {at: 1h, probe: liveness, outcome: success}\n- {at: 5000s, guest: crash}";
    let played = play(&lab, script, false);
    let created = played.seconds("Created");
    let waits: Vec<_> = created.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(
        waits[..8],
        [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    );
    // It ran for more than ten minutes, so the crash is the first of its kind again.
    assert_eq!(created.last(), Some(&5000.0));
    let loops = "until: 100s\nevents: [{at: 0, probe: liveness, outcome: failure}]";
    let closing = play(&lab, loops, false).outcome.table.closing();
    assert!(
        closing.ends_with("Failed   False   4          CrashLoopBackOff\n"),
        "{closing}"
    );
}

#[test]
fn each_instance_of_a_replica_set_is_replaced_by_itself() {
    let set = document("VirtualMachineInstanceReplicaSet", REPLICAS, "");
    let played = play(
        &set,
        "until: 100s\nevents: [{at: 50s, guest: poweroff}]",
        false,
    );
    let names = |from: usize| -> Vec<_> {
        let events = played.events.iter().skip(from);
        let created = events.filter(|event| event["reason"] == "Created");
        created
            .filter_map(|event| event["object"].as_str())
            .collect()
    };
    let mut all = names(0);
    assert_eq!(all.len(), 6);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6, "no name comes twice: {all:?}");
    assert!(
        all.iter()
            .all(|name| name.starts_with("default/lab") && name.len() == 16)
    );
    let table = played.outcome.table;
    assert_eq!(table.rows.len(), 3);
    assert!(table.rows.iter().all(|row| row.ready && row.restarts == 1));
}

const REPLICAS: &str = "replicas: 3, selector: {matchLabels: {app: lab}},";

#[test]
fn a_hung_guest_without_grace_is_stopped_at_once() {
    let own = "terminationGracePeriodSeconds: 0,";
    let lab = document("VirtualMachineInstance", own, LIVENESS_120_20);
    let played = play(&lab, HANGS, false);
    assert_eq!(played.seconds("Killing"), [170.0]);
    assert_eq!(played.seconds("Stopped"), [170.0]);
}

#[test]
fn the_same_script_gives_the_same_bytes() {
    let set = document(
        "VirtualMachineInstanceReplicaSet",
        REPLICAS,
        LIVENESS_120_20,
    );
    let script = "until: 3000s\nevents: [{at: 0, probe: liveness, outcome: timeout}, \
        {at: 50s, guest: reset}, {at: 60s, guest: pause}, {at: 61s, guest: resume}]";
    let first = play(&set, script, true);
    assert!(first.events.len() > 50);
    assert_eq!(first.text, play(&set, script, true).text);
}

#[test]
fn a_day_costs_what_happens_in_it() {
    let probes = "livenessProbe: {httpGet: {port: 1}, periodSeconds: 10}, \
        readinessProbe: {httpGet: {port: 1}, periodSeconds: 5},";
    let lab = document("VirtualMachine", "runStrategy: Always,", probes);
    let day = Duration::from_secs(86_400);
    let script =
        "until: 24h\nevents: [{at: 12h, probe: readiness, outcome: failure, latency: 1ms}]";
    let played = play(&lab, script, false);
    // A step for each instant at which probes are asked, one for each outcome, and one for the VM
    // process' answer to each failure.
    let asked = day.as_secs() / 5 + day.as_secs() / 10 + day.as_secs() / 5;
    let least = asked + day.as_secs() / 2 / 5;
    let steps = played.outcome.steps;
    assert!((least..least + 20).contains(&steps), "{steps}");
    assert_eq!(played.outcome.events, 3 + 2 + day.as_secs() / 2 / 5);
    assert_eq!(
        played.reasons()[..4],
        ["Created", "Started", "AgentConnected", "Ready"]
    );
}
