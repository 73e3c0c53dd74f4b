// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents under `kennel run`, on a guest agent without a guest: probes over its socket, what a
//! liveness failure comes to, and who takes an instance's place.

use std::collections::BTreeSet;

use kennel_tests::documents::{FILE, Folder};
use kennel_tests::kennel::Ended;
use kennel_tests::mini_agent;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("liveness_failure_fails_the_instance", instance),
        test("machine_comes_back_and_backs_off", machine),
        test("each_of_a_set_is_replaced", set),
        test("readiness_alone_stops_nothing", readiness),
        test("published_ports_follow_their_guest", published),
        test("what_could_not_be_created_is_told", not_created),
    ]
}

/// A second apart, one failure decides.
const PING: &str = "guestAgentPing: {}, initialDelaySeconds: 1, periodSeconds: 1, \
     timeoutSeconds: 1, failureThreshold: 1";

/// What `kennel run` makes of a document whose guests' agents answer so many requests and then no
/// more, within so many seconds.
fn run(kind: &str, own: &str, probe: &str, answers: u8, seconds: &str) -> (Ended, Vec<Value>) {
    run_with(&[], &folder(kind, own, probe, answers), seconds)
}

/// The same with more words.
fn run_with(words: &[&str], folder: &Folder, seconds: &str) -> (Ended, Vec<Value>) {
    let mut args = vec![
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
    args.extend(words);
    let ended = folder.call(&args).run();
    let events = std::fs::read_to_string(folder.path("events"));
    assert!(events.is_ok(), "{events:?}: {ended}");
    let events = events.unwrap_or_default();
    let event = |line| serde_json::from_str(line).expect("JSON");
    (ended, events.lines().map(event).collect())
}

/// That document, and its guest.
fn folder(kind: &str, own: &str, probe: &str, answers: u8) -> Folder {
    let instance = format!(
        "terminationGracePeriodSeconds: 0, {probe}: {{{PING}}}, domain: {{resources: {{requests: \
         {{memory: 64Mi}}}}, firmware: {{kernelBoot: {{kernelArgs: \"{answers}\", container: \
         {{image: ./image, kernelPath: /agent}}}}}}}}"
    );
    let spec = match kind {
        "VirtualMachineInstance" => format!("{{{own} {instance}}}"),
        _ => format!(
            "{{{own} template: {{metadata: {{labels: {{app: x}}}}, spec: {{{instance}}}}}}}"
        ),
    };
    let folder = Folder::with(format!(
        "{{apiVersion: kubevirt.io/v1, kind: {kind}, metadata: {{name: lab, \
         annotations: {{kennel/uplink: none}}}}, spec: {spec}}}"
    ));
    folder.file("image/agent", &mini_agent::elf());
    folder
}

fn reasons(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["reason"].as_str())
        .collect()
}

fn instance() {
    let (ended, events) = run("VirtualMachineInstance", "", "livenessProbe", 2, "60");
    assert_eq!(ended.status, 3, "{ended}");
    let expected = [
        "Created",
        "Started",
        "AgentConnected",
        "Unhealthy",
        "Killing",
        "Stopped",
    ];
    assert_eq!(reasons(&events), expected, "{ended}");
    let conditions = &events[2]["data"]["conditions"];
    let expected = [("Ready", "True"), ("AgentConnected", "True")];
    let expected = expected.map(|(name, status)| json!({ "type": name, "status": status }));
    assert_eq!(conditions, &json!(expected));
    let message = events[3]["message"].as_str().expect("a message");
    assert!(message.starts_with("Liveness probe failed: "), "{message}");
    assert_eq!(events[5]["data"]["cause"], "LivenessFailed");
    assert_eq!(events[5]["data"]["phase"], "Failed");
    let rows: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| !line.starts_with("kennel"))
        .collect();
    let seen = [
        ("Running", "True"),
        ("Running", "False"),
        ("Failed", "False"),
    ];
    assert_eq!(rows.len(), 1 + seen.len(), "{ended}");
    assert!(rows[0].starts_with("NAME   AGE"), "{ended}");
    for (row, (phase, ready)) in rows[1..].iter().zip(seen) {
        assert!(row.contains(phase) && row.ends_with(ready), "{ended}");
    }
}

fn machine() {
    let own = "runStrategy: Always,";
    // It is gone for the second time after some 5 s, and is not back sooner than 10 s later.
    let (ended, events) = run("VirtualMachine", own, "livenessProbe", 1, "12");
    assert_eq!(ended.status, 124, "{ended}");
    let told = reasons(&events);
    let count = |reason: &str| told.iter().filter(|told| **told == reason).count();
    assert_eq!(count("Created"), 2, "{ended}\n{told:?}");
    assert_eq!(told.last(), Some(&"BackOff"), "{told:?}");
    let killing = events.iter().find(|event| event["reason"] == "Killing");
    let message = killing.map(|event| event["message"].clone());
    assert_eq!(
        message,
        Some("Instance lab failed liveness probe, will be restarted".into())
    );
    assert!(ended.stderr.contains("CrashLoopBackOff"), "{ended}");
}

/// The second instances come at once, the third ones 10 s after those have failed.
fn set() {
    let own = "replicas: 5, selector: {matchLabels: {app: x}},";
    let (ended, events) = run(
        "VirtualMachineInstanceReplicaSet",
        own,
        "livenessProbe",
        1,
        "11",
    );
    assert_eq!(ended.status, 124, "{ended}");
    let created = events.iter().filter(|event| event["reason"] == "Created");
    let names: Vec<_> = created
        .filter_map(|event| event["object"].as_str())
        .collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    assert_eq!(
        (names.len(), distinct.len()),
        (10, 10),
        "{ended}\n{names:?}"
    );
    for name in &names {
        assert!(name.starts_with("default/lab"), "{names:?}");
    }
    for first in &names[..5] {
        let failed = |event: &&Value| event["data"]["cause"] == "LivenessFailed";
        let own = events.iter().filter(|event| event["object"] == *first);
        let told: Vec<_> = own.filter(failed).map(|event| &event["reason"]).collect();
        assert_eq!(told, ["Killing", "Stopped"], "{first}: {ended}");
    }
}

fn readiness() {
    let (ended, events) = run("VirtualMachineInstance", "", "readinessProbe", 2, "5");
    assert_eq!(ended.status, 124, "{ended}");
    let told = reasons(&events);
    let ready: Vec<_> = told.iter().filter(|told| told.ends_with("Ready")).collect();
    assert_eq!(ready, [&"Ready", &"NotReady"], "{told:?}");
    let killing = events.iter().find(|event| event["reason"] == "Killing");
    assert_eq!(
        killing.map(|event| event["message"].clone()),
        Some("Stopping the machine: its time is over".into())
    );
}

/// They are open before anybody is told that there is somebody behind them, and closed before that
/// is over.
fn published() {
    let folder = folder("VirtualMachineInstance", "", "readinessProbe", 2);
    let words = ["--publish", "0:80", "--publish", "[::1]:0:81,ready"];
    let (ended, events) = run_with(&words, &folder, "5");
    assert_eq!(ended.status, 124, "{ended}");
    let about = |event: &&Value| {
        let reason = event["reason"].as_str().unwrap_or_default();
        reason.starts_with("Port") || ["Started", "Ready", "NotReady"].contains(&reason)
    };
    let told = events.iter().filter(about);
    let told: Vec<_> = told
        .map(|event| {
            (
                event["reason"].as_str(),
                event["data"]["guest_port"].as_u64(),
            )
        })
        .collect();
    let expected = [
        ("PortOpened", Some(80)),
        ("Started", None),
        ("PortOpened", Some(81)),
        ("Ready", None),
        ("PortClosed", Some(81)),
        ("NotReady", None),
        ("PortClosed", Some(80)),
    ];
    assert_eq!(
        told,
        expected.map(|(reason, port)| (Some(reason), port)),
        "{ended}"
    );
    let addresses = events
        .iter()
        .filter_map(|event| event["data"]["address"].as_str());
    for address in addresses {
        let said = format!("kennel: published: {address} to port ");
        assert!(ended.stderr.contains(&said), "{said:?}: {ended}");
    }
    // Somebody who has the port keeps it.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("its address").to_string();
    let port = format!("{taken}:80");
    let ended = folder
        .call(&["run", FILE, "--no-box", "--publish", &port])
        .run();
    assert_eq!(ended.status, 1, "{ended}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    let why = format!("kennel: cannot publish {taken}: another program listens there; ");
    assert!(last.starts_with(&why), "{ended}");
}

/// An instance that has no VM process has its events nevertheless, for people and for programs.
fn not_created() {
    let folder = folder("VirtualMachineInstance", "", "livenessProbe", 1);
    let call = |args: &[&str]| {
        let nowhere = ["env", "XDG_RUNTIME_DIR=/proc"];
        let ended = folder.call(args).through(&nowhere).run();
        assert_eq!(ended.status, 1, "{ended}");
        ended
    };
    let ended = call(&["run", FILE, "--no-box"]);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("Stopped"), "{ended}");
    assert!(last.contains("/proc"), "{ended}");
    let ended = call(&["run", FILE, "--no-box", "--events", "-"]);
    let event: Value = serde_json::from_str(&ended.stdout).expect("one event");
    assert_eq!(event["reason"], "Stopped", "{ended}");
    assert_eq!(event["object"], "default/lab");
    assert_eq!(event["uptime_ns"], 0);
    assert_eq!(event["data"]["phase"], "Failed");
}
