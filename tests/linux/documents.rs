// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents run to their end: events, exit status, and what a guest can and cannot do about its
//! watchdog.

use crate::guest::{Ran, Spec};
use crate::{Body, Image, LinuxCase, group};

pub(crate) fn tests() -> Vec<LinuxCase> {
    let cases: [(&'static str, Body); 7] = [
        (
            "bite_is_told_as_events_and_fails_the_vmi",
            Box::new(poweroff),
        ),
        ("magic_close_disarms", Box::new(magic_close)),
        ("nowayout_lock_cannot_be_disarmed", Box::new(nowayout)),
        (
            "every_reset_by_the_watchdog_reports_cardreset",
            Box::new(cardreset),
        ),
        ("pretimeout_nmi_comes_at_half_time", Box::new(pretimeout)),
        ("disarm_policy_leaves_the_guest_alone", Box::new(disarm)),
        ("driver_survives_a_reload_of_its_module", Box::new(reload)),
    ];
    group("documents", cases)
}

/// Two stages of `2 << 9` ticks: what the driver programs for two seconds.
const TWO_SECONDS_NS: u64 = 2 * (2 << 9) * 983_040;

/// The reasons of the events, without the agent's coming and going, which is no part of a watchdog's
/// life and may be sooner or later than it, and without arming: Linux arms with a default first, which a busy machine
/// may have time to tell.
fn beside_the_agent(ran: &Ran) -> Vec<&str> {
    let mut reasons = ran.reasons();
    reasons.retain(|reason| !reason.starts_with("Agent") && *reason != "WatchdogArmed");
    reasons
}

fn poweroff(image: &Image) {
    let script = "busybox watchdog -F -t 500ms -T 2000ms /dev/watchdog &\nsleep 2\nkill -9 $!";
    let ran = Spec {
        script,
        ..Spec::default()
    }
    .run(image);
    assert_eq!(ran.status, Some(3), "{ran}");
    assert_eq!(
        beside_the_agent(&ran),
        ["Created", "Started", "Watchdog", "Stopped"],
        "{ran}"
    );
    let data = ran.data("Watchdog");
    let figure = |name: &str| {
        data[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {ran}"))
    };
    assert_eq!(data["action"], "poweroff");
    let mut armed = ran.events.iter().rev();
    let armed = armed.find(|event| event["reason"] == "WatchdogArmed");
    let armed = armed.expect("told before the bite");
    assert_eq!(armed["data"]["timeout_ns"], TWO_SECONDS_NS);
    assert_eq!(figure("timeout_ns"), TWO_SECONDS_NS);
    assert_eq!(
        figure("since_ping_ns") - figure("lateness_ns"),
        TWO_SECONDS_NS
    );
    assert_eq!(figure("bites"), 1);
    assert_eq!(ran.data("Stopped")["phase"], "Failed");
    for event in &ran.events {
        assert_eq!(event["object"], "default/test");
        assert!(
            event["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z')),
            "{event}"
        );
        assert!(
            event["uptime_ns"].is_u64() && event["message"].is_string(),
            "{event}"
        );
    }
}

fn magic_close(image: &Image) {
    // SIGTERM makes the feeder write 'V' before it closes.
    let script = "busybox watchdog -F -t 500ms -T 2000ms /dev/watchdog &\n\
        sleep 2\nkill $!\nwait $!\nsleep 7\necho survived three timeouts\npoweroff -f";
    let ran = Spec {
        script,
        ..Spec::default()
    }
    .run(image);
    ran.expect(0, "survived three timeouts");
    assert!(!ran.reasons().contains(&"Watchdog"), "{ran}");
}

fn nowayout(image: &Image) {
    let script = "rmmod i6300esb\n\
        insmod $(grep i6300esb /kennel/modules) nowayout=1 heartbeat=2\n\
        busybox watchdog -F -t 500ms -T 2000ms /dev/watchdog &\n\
        sleep 2\nkill $!\nwait $!\necho closed with V";
    let ran = Spec {
        script,
        ..Spec::default()
    }
    .run(image);
    ran.expect(3, "closed with V");
    assert!(ran.reasons().contains(&"Watchdog"), "{ran}");
}

/// How many bites in one VM process.
const BITES: u32 = 5;

fn cardreset(image: &Image) {
    let script = "read -r status </sys/class/watchdog/watchdog0/bootstatus\n\
        echo \"bootstatus $status\"\n\
        busybox watchdog -F -t 500ms -T 2000ms /dev/watchdog &\n\
        sleep 1\nkill -9 $!";
    let bites = std::env::var("KENNEL_TEST_BITES")
        .ok()
        .map(|text| text.parse().expect("a number"));
    let bites: u32 = bites.unwrap_or(BITES);
    let seen = crate::process::bites(
        image,
        &Spec {
            script,
            action: Some("reset"),
            ..Spec::default()
        },
        bites,
    );
    assert_eq!(seen.first().map(String::as_str), Some("bootstatus 0"));
    assert_eq!(u32::try_from(seen.len()), Ok(bites + 1));
    assert!(
        seen.iter().skip(1).all(|line| line == "bootstatus 32"),
        "{seen:?}"
    );
}

fn pretimeout(image: &Image) {
    let script = "busybox watchdog -F -t 500ms -T 2000ms /dev/watchdog &\nsleep 1\nkill -9 $!";
    let annotations = vec![("kennel/pretimeout", "inject-nmi")];
    let ran = Spec {
        script,
        annotations,
        ..Spec::default()
    }
    .run(image);
    assert_eq!(ran.status, Some(3), "{ran}");
    assert_eq!(
        beside_the_agent(&ran),
        [
            "Created",
            "Started",
            "WatchdogPretimeout",
            "Watchdog",
            "Stopped"
        ],
        "{ran}"
    );
    let due = |reason: &str| {
        let event = ran.events.iter().find(|event| event["reason"] == reason);
        let figure = |value: &serde_json::Value| value.as_u64().expect("a figure");
        let event = event.expect("seen above");
        figure(&event["uptime_ns"]) - figure(&event["data"]["lateness_ns"])
    };
    assert_eq!(
        due("Watchdog") - due("WatchdogPretimeout"),
        TWO_SECONDS_NS / 4,
        "{ran}"
    );
    assert!(ran.console.contains("NMI received"), "{ran}");
}

fn disarm(image: &Image) {
    let script = "busybox watchdog -F -t 500ms -T 2000ms /dev/watchdog &\n\
        sleep 1\nkill -9 $!\nsleep 9\necho still here\npoweroff -f";
    let annotations = vec![("kennel/after-bite", "disarm")];
    let ran = Spec {
        script,
        annotations,
        action: Some("none"),
        ..Spec::default()
    }
    .run(image);
    ran.expect(0, "still here");
    assert_eq!(
        ran.reasons()
            .iter()
            .filter(|reason| **reason == "Watchdog")
            .count(),
        1,
        "{ran}"
    );
}

fn reload(image: &Image) {
    let script = "module=$(grep i6300esb /kennel/modules)\n\
        for round in 1 2 3; do rmmod i6300esb; insmod $module heartbeat=3; done\n\
        cat /sys/class/watchdog/watchdog0/timeout | sed 's/^/timeout /'\npoweroff -f";
    let ran = Spec {
        script,
        ..Spec::default()
    }
    .run(image);
    ran.expect(0, "timeout 3");
}
