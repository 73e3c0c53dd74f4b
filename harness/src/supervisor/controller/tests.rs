// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The controller against an edge that is played by hand: what simulations do not get to.

mod stuck;

use std::time::Duration;

use kennel_vmm::dial::{GUEST_IPV4, GUEST_IPV6};
use kennel_vmm::protocol::{Command, Ending};
use serde_json::Value;

use super::*;
use crate::probe::{Outcome, ProbeKind};
use crate::spec::parse;

mod lost_guests;

/// A controller, its time, and what it wanted last.
struct Hand {
    controller: Controller,
    now: Moment,
    acts: Vec<Act>,
    /// What VM processes have been asked and have not answered.
    asked: Questions,
}

const MACHINE: &str = "domain: {resources: {requests: {memory: 256Mi}}}";
const PING: &str = "livenessProbe: {guestAgentPing: {}, periodSeconds: 1, failureThreshold: 1},";

fn hand(kind: &str, own: &str, probes: &str) -> Hand {
    let instance = format!("{{{probes} {MACHINE}}}");
    let spec = match kind {
        "VirtualMachineInstance" => format!("{{{own} {probes} {MACHINE}}}"),
        _ => format!("{{{own} template: {{metadata: {{labels: {{app: x}}}}, spec: {instance}}}}}"),
    };
    let text = format!(
        "{{apiVersion: kubevirt.io/v1, kind: {kind}, metadata: {{name: lab}}, spec: {spec}}}"
    );
    let document = parse(&text, "lab.yaml").unwrap_or_else(|problems| panic!("{problems}"));
    let mut hand = Hand {
        controller: Controller::new(&document, Options::default()),
        now: Moment::ZERO,
        acts: vec![],
        asked: Questions::default(),
    };
    hand.happens(Happening::TimePassed);
    hand
}

impl Hand {
    fn happens(&mut self, happening: Happening) -> &[Act] {
        self.acts = self.controller.happened(self.now, happening);
        &self.acts
    }

    fn news(&mut self, number: u64, news: News) -> &[Act] {
        let instance = InstanceId(number);
        self.happens(Happening::News { instance, news })
    }

    fn created(&mut self, number: u64) {
        let instance = InstanceId(number);
        self.happens(Happening::Created {
            instance,
            pid: None,
        });
    }

    fn runs(&mut self, number: u64) {
        self.created(number);
        self.news(number, News::Started);
    }

    fn gone(&mut self, number: u64) -> &[Act] {
        let instance = InstanceId(number);
        let how = "it is gone".to_owned();
        self.happens(Happening::Gone { instance, how })
    }

    /// The attempt's outcome, and the VM process' answer when it is asked about it.
    fn probed(&mut self, number: u64, outcome: Outcome) -> &[Act] {
        if let Some(token) = self.fails(0, ProbeKind::Liveness, number, outcome) {
            self.news(0, News::Synced { token });
        }
        &self.acts
    }

    /// The attempt's outcome alone; the token with which the VM process is asked about it.
    fn fails(
        &mut self,
        instance: u64,
        probe: ProbeKind,
        number: u64,
        outcome: Outcome,
    ) -> Option<u64> {
        let instance = InstanceId(instance);
        let acts = self.happens(Happening::Probed {
            instance,
            probe,
            number,
            outcome,
        });
        acts.iter().find_map(|act| match act {
            Act::Tell {
                command: Command::Sync { token },
                ..
            } => Some(*token),
            _ => None,
        })
    }

    fn later(&mut self, wait: Duration) -> &[Act] {
        self.now = self.now.after(wait);
        self.happens(Happening::TimePassed)
    }

    /// The commands and questions among the last acts, in a word each.
    fn wants(&self) -> Vec<String> {
        let acts = self.acts.iter();
        acts.filter_map(|act| match act {
            Act::Create { name, .. } => Some(format!("create {name}")),
            Act::Tell { command, .. } => Some(format!("tell {command:?}")),
            Act::Kill { .. } => Some("kill".to_owned()),
            Act::Attempt { number, .. } => Some(format!("attempt {number}")),
            Act::AskShutdown { .. } => Some("ask".to_owned()),
            Act::Finish(verdict) => Some(format!("finish {verdict:?}")),
            Act::Recreate { start, .. } => Some(format!("recreate {start:?}")),
            Act::Event { .. } | Act::ShowTable | Act::Look { .. } | Act::AskForLife { .. } => None,
        })
        .collect()
    }

    /// The events among the last acts.
    fn told(&self) -> Vec<Value> {
        let acts = self.acts.iter();
        acts.filter_map(|act| match act {
            Act::Event { said, .. } => serde_json::to_value(said.clone().at("x", 0, 0)).ok(),
            _ => None,
        })
        .collect()
    }

    fn reasons(&self) -> Vec<String> {
        let told = self.told().into_iter();
        told.filter_map(|event| event["reason"].as_str().map(str::to_owned))
            .collect()
    }
}

const ALWAYS: &str = "runStrategy: Always,";
const SET: &str = "replicas: 2, selector: {matchLabels: {app: x}},";

#[test]
fn what_never_could_start_ends_the_run_with_its_message() {
    let broken = News::Failed {
        message: "no such kernel".into(),
    };
    for (kind, own) in [("VirtualMachine", ALWAYS), ("VirtualMachineInstance", "")] {
        let mut hand = hand(kind, own, "");
        assert_eq!(hand.wants(), ["create lab"]);
        hand.created(0);
        hand.news(0, broken.clone());
        hand.gone(0);
        assert_eq!(
            hand.wants(),
            ["finish Broken(\"no such kernel\")"],
            "{kind}"
        );
    }
    // Of a set, once none is left that might still run.
    let mut set = hand("VirtualMachineInstanceReplicaSet", SET, "");
    set.created(0);
    set.happens(Happening::CreateFailed {
        instance: InstanceId(1),
        message: "no process".into(),
    });
    // Nothing is tried again at once before anything has run.
    let again = set.now.after(back_off::FIRST);
    assert_eq!(set.controller.next_due(), Some(again));
    set.news(0, broken);
    set.gone(0);
    assert_eq!(set.wants(), ["finish Broken(\"no such kernel\")"]);
}

#[test]
fn what_has_run_once_is_tried_again() {
    let mut hand = hand("VirtualMachine", ALWAYS, "");
    hand.runs(0);
    hand.gone(0);
    assert_eq!(hand.wants(), ["create lab"]);
    hand.happens(Happening::CreateFailed {
        instance: InstanceId(1),
        message: "too many processes".into(),
    });
    assert_eq!(hand.reasons(), ["Stopped", "BackOff"]);
    assert_eq!(
        hand.controller.next_due(),
        Some(hand.now.after(back_off::FIRST))
    );
    assert_eq!(hand.later(Duration::from_secs(9)), []);
    hand.later(Duration::from_secs(1));
    assert_eq!(hand.wants(), ["create lab"]);
}

#[test]
fn a_signal_ends_everything_at_once() {
    let mut set = hand("VirtualMachineInstanceReplicaSet", SET, PING);
    set.runs(0);
    set.created(1);
    set.happens(Happening::Stop(Cause::Signal(2)));
    assert_eq!(set.wants(), ["tell Stop", "tell Stop"]);
    assert_eq!(set.reasons(), ["Killing", "Killing"]);
    set.news(0, News::Ended(Ending::Stopped));
    set.gone(0);
    assert_eq!(set.wants(), [""; 0]);
    // The other is stuck.
    set.later(Duration::from_millis(1_499));
    assert_eq!(set.wants(), [""; 0]);
    set.later(Duration::from_millis(1));
    assert_eq!(set.wants(), ["kill"]);
    set.gone(1);
    assert_eq!(set.wants(), ["finish Stopped(Signal(2))"]);
    assert_eq!(set.controller.next_due(), None);
}

#[test]
fn a_signal_while_waiting_needs_nobody() {
    let mut hand = hand("VirtualMachine", ALWAYS, "");
    for number in 0..2 {
        hand.runs(number);
        hand.gone(number);
    }
    let table = hand.controller.table();
    assert_eq!(table.rows[0].status, PrintableStatus::CrashLoopBackOff);
    hand.happens(Happening::Stop(Cause::Signal(15)));
    assert_eq!(hand.wants(), ["finish Stopped(Signal(15))"]);
}

#[test]
fn an_end_that_was_under_way_keeps_its_verdict() {
    let mut alone = hand("VirtualMachineInstance", "", PING);
    alone.runs(0);
    alone.news(0, News::Ended(Ending::GuestPowerOff));
    alone.happens(Happening::Stop(Cause::Timeout));
    alone.gone(0);
    assert_eq!(alone.wants(), ["finish Ended(GuestPowerOff)"]);
    // Not so a liveness failure that somebody had no patience with.
    let mut hasty = hand("VirtualMachineInstance", "", PING);
    hasty.runs(0);
    assert_eq!(hasty.wants(), ["attempt 1"]);
    hasty.probed(1, Outcome::Failure("x".into()));
    hasty.happens(Happening::Stop(Cause::Signal(2)));
    assert_eq!(hasty.wants(), ["tell Stop"]);
    hasty.gone(0);
    assert_eq!(hasty.wants(), ["finish Stopped(Signal(2))"]);
    assert_eq!(hasty.told()[0]["data"]["cause"], "LivenessFailed");
}

#[test]
fn a_liveness_failure_climbs_the_ladder() {
    let mut hand = hand("VirtualMachineInstance", "", PING);
    hand.runs(0);
    hand.news(0, News::AgentConnected);
    hand.probed(1, Outcome::Failure("hung".into()));
    assert_eq!(hand.wants(), ["ask"]);
    assert_eq!(hand.reasons(), ["Unhealthy", "Killing"]);
    let conditions = hand.controller.conditions(InstanceId(0));
    assert_eq!(conditions[0].reason, Some("PodTerminating"));
    hand.happens(Happening::ShutdownAnswered {
        instance: InstanceId(0),
        answer: Err("the guest agent refused".into()),
    });
    assert_eq!(hand.wants(), ["tell PressPowerButton"]);
    assert_eq!(hand.later(Duration::from_secs(29)), []);
    hand.later(Duration::from_secs(1));
    assert_eq!(hand.wants(), ["tell Stop"]);
    hand.news(0, News::Ended(Ending::Stopped));
    hand.gone(0);
    assert_eq!(hand.wants(), ["finish Stopped(LivenessFailed)"]);
    let stopped = &hand.told()[0];
    assert_eq!(stopped["type"], "Warning");
    assert_eq!(stopped["data"]["phase"], "Failed");
}

#[test]
fn a_process_that_outlives_its_machine_is_killed() {
    let mut hand = hand("VirtualMachineInstance", "", PING);
    hand.runs(0);
    hand.news(0, News::Ended(Ending::GuestPowerOff));
    hand.later(Duration::from_millis(1_499));
    assert_eq!(hand.wants(), [""; 0]);
    hand.later(Duration::from_millis(1));
    assert_eq!(hand.wants(), ["kill"]);
    hand.gone(0);
    assert_eq!(hand.wants(), ["finish Ended(GuestPowerOff)"]);
}

#[test]
fn what_an_instance_left_behind_does_not_reach_the_next() {
    let mut hand = hand("VirtualMachine", ALWAYS, PING);
    hand.runs(0);
    hand.gone(0);
    hand.runs(1);
    assert_eq!(hand.wants(), ["attempt 1"]);
    assert_eq!(hand.probed(1, Outcome::Failure("late".into())), []);
    assert_eq!(hand.news(0, News::Ended(Ending::WatchdogPowerOff)), []);
    assert_eq!(hand.gone(0), []);
}

#[test]
fn a_guest_at_full_speed_does_not_flood_events_and_its_last_state_is_told() {
    let mut hand = hand("VirtualMachineInstance", "", "");
    hand.runs(0);
    let mut told = 0;
    let reset = |count| News::Reset {
        cause: kennel_vmm::mailbox::ResetCause::TripleFault,
        count,
    };
    for count in 0..9_500 {
        for news in [News::AgentConnected, reset(count), News::AgentDisconnected] {
            hand.news(0, news);
            told += hand.told().len();
        }
        hand.later(Duration::from_millis(1));
        told += hand.told().len();
    }
    assert!((20..=30).contains(&told), "{told}");
    hand.news(0, News::AgentConnected);
    let mut last = vec![];
    while let Some(due) = hand.controller.next_due() {
        hand.now = due;
        hand.happens(Happening::TimePassed);
        last.extend(hand.told());
    }
    let of = |reason: &str| -> Vec<&Value> {
        let told = last.iter();
        told.filter(|event| event["reason"] == reason).collect()
    };
    assert_eq!(of("AgentConnected").len(), 1);
    let resets = of("Reset").into_iter();
    let counts: Vec<_> = resets.map(|event| &event["data"]["count"]).collect();
    assert_eq!(counts, [9_499]);
}

#[test]
fn what_it_remembers_does_not_grow() {
    let mut hand = hand("VirtualMachine", ALWAYS, PING);
    let mut size = 0;
    for number in 0..2_000 {
        hand.runs(number);
        hand.news(number, News::AgentConnected);
        hand.gone(number);
        hand.later(Duration::from_secs(300));
        // The first is replaced at once.
        assert_eq!(hand.wants().is_empty(), number == 0);
        if number == 1_000 {
            size = format!("{:?}", hand.controller).len();
        }
    }
    let grown = format!("{:?}", hand.controller).len().abs_diff(size);
    // Larger numbers have more digits.
    assert!(grown < 20, "{size} and {grown} more");
}

#[test]
fn a_set_of_none_has_what_it_wants() {
    let none = "replicas: 0, selector: {matchLabels: {app: x}},";
    let set = hand("VirtualMachineInstanceReplicaSet", none, "");
    assert_eq!(set.wants(), ["finish Stopped(Done)"]);
}

#[test]
fn sigcont_reaches_what_exists() {
    let mut hand = hand("VirtualMachineInstance", "", "");
    assert_eq!(hand.happens(Happening::Resume), []);
    hand.runs(0);
    hand.news(0, News::Paused { by_watchdog: true });
    assert_eq!(hand.controller.conditions(InstanceId(0))[1].name, "Paused");
    hand.happens(Happening::Resume);
    assert_eq!(hand.wants(), [format!("tell {:?}", Command::Resume)]);
}

#[test]
fn the_table_has_the_address_that_the_guest_shows() {
    let mut hand = hand("VirtualMachine", ALWAYS, "");
    let ip = |hand: &Hand| hand.controller.table().rows[0].ip.map(|ip| ip.to_string());
    hand.runs(0);
    assert_eq!(ip(&hand), None);
    for (ipv4, ipv6, shown) in [
        (None, Some(GUEST_IPV6), Some("fd10:0:2::2")),
        (Some(GUEST_IPV4), Some(GUEST_IPV6), Some("10.0.2.2")),
        (Some(GUEST_IPV4), None, Some("10.0.2.2")),
        (None, None, None),
        (Some(GUEST_IPV4), None, Some("10.0.2.2")),
    ] {
        hand.news(0, News::GuestAddresses { ipv4, ipv6 });
        assert_eq!(ip(&hand).as_deref(), shown);
        hand.later(Duration::from_secs(1));
    }
    hand.news(0, News::Ended(Ending::GuestPowerOff));
    assert_eq!(ip(&hand), None, "it has ended");
    hand.gone(0);
    hand.runs(1);
    assert_eq!(ip(&hand), None, "the next has shown none");
}

#[test]
fn guests_can_be_connected_to_while_they_run() {
    const READY: &str = "readinessProbe: {tcpSocket: {port: 1}},";
    let mut hand = hand("VirtualMachineInstance", "", READY);
    let endpoints = |hand: &Hand| -> Vec<_> {
        let all = hand.controller.endpoints().into_iter();
        all.map(|it| (it.ready, it.ip.is_some())).collect()
    };
    hand.created(0);
    assert_eq!(endpoints(&hand), []);
    hand.news(0, News::Started);
    assert_eq!(endpoints(&hand), [(false, false)]);
    let (ipv4, ipv6) = (Some(GUEST_IPV4), None);
    hand.news(0, News::GuestAddresses { ipv4, ipv6 });
    assert_eq!(endpoints(&hand), [(false, true)]);
    hand.happens(Happening::Probed {
        instance: InstanceId(0),
        probe: ProbeKind::Readiness,
        number: 1,
        outcome: Outcome::Success,
    });
    assert_eq!(endpoints(&hand), [(true, true)]);
    hand.news(0, News::Paused { by_watchdog: false });
    assert_eq!(endpoints(&hand), [(false, true)]);
    hand.news(0, News::Resumed);
    assert_eq!(endpoints(&hand), [(true, true)]);
    hand.news(0, News::Ended(Ending::GuestPowerOff));
    assert_eq!(endpoints(&hand), [], "before its process is gone");
    hand.gone(0);
    assert_eq!(endpoints(&hand), []);
}

#[test]
fn a_network_that_ended_is_told() {
    let mut hand = hand("VirtualMachineInstance", "", "");
    hand.runs(0);
    let message = "the guest's network has ended: why".to_owned();
    hand.news(0, News::NetworkDown { message });
    let told = &hand.told()[0];
    assert_eq!(
        (&told["reason"], &told["type"]),
        (&"NetworkDown".into(), &"Warning".into())
    );
    assert_eq!(told["message"], "the guest's network has ended: why");
}

#[test]
fn an_uplink_is_told_of_as_often_as_it_may_be() {
    let mut hand = hand("VirtualMachineInstance", "", "");
    hand.runs(0);
    let down = |retry_ns| News::UplinkDown {
        message: "passt has ended".into(),
        retry_ns,
    };
    hand.news(0, down(Some(1_500_000_000)));
    let told = &hand.told()[0];
    assert_eq!(
        (&told["reason"], &told["type"]),
        (&"UplinkDown".into(), &"Warning".into())
    );
    assert_eq!(told["message"], "passt has ended; tried again in 1s 500ms");
    assert_eq!(told["data"]["retry_ns"], 1_500_000_000);
    hand.news(0, News::UplinkUp);
    let told = &hand.told()[0];
    assert_eq!(
        (&told["reason"], &told["type"]),
        (&"UplinkUp".into(), &"Normal".into())
    );
    let mut told = 2;
    for _ in 0..1_000 {
        hand.news(0, News::UplinkUp);
        told += hand.told().len();
        hand.news(0, down(None));
        told += hand.told().len();
    }
    assert_eq!(told, 5);
    hand.later(Duration::from_secs(1));
    assert_eq!(hand.told()[0]["message"], "passt has ended");
}
