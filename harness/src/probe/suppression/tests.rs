// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use super::*;

const HEALTHY: [PauseReason; 9] = [
    PauseReason::User,
    PauseReason::Migration,
    PauseReason::Save,
    PauseReason::Dump,
    PauseReason::FromSnapshot,
    PauseReason::ShuttingDown,
    PauseReason::Snapshot,
    PauseReason::StartingUp,
    PauseReason::Postcopy,
];
const SICK: [PauseReason; 5] = [
    PauseReason::IoError,
    PauseReason::Crashed,
    PauseReason::PostcopyFailed,
    PauseReason::Unknown,
    PauseReason::Watchdog,
];

fn exec() -> Handler {
    Handler::Exec {
        command: vec!["true".into()],
    }
}

fn network() -> [Handler; 2] {
    [
        Handler::TcpSocket(crate::spec::TcpSocket {
            port: 22,
            host: None,
        }),
        Handler::HttpGet(crate::spec::HttpGet {
            port: 80,
            path: "/".into(),
            host: None,
            https: false,
            headers: vec![],
        }),
    ]
}

#[test]
fn every_kind_is_suspended_while_paused_by_whomever() {
    let [tcp, http] = network();
    for handler in [exec(), Handler::GuestAgentPing, tcp, http] {
        for reason in HEALTHY.into_iter().chain(SICK) {
            let machine = Machine {
                paused: Some(reason),
                ..Machine::default()
            };
            let found = of(&handler, &machine);
            assert_eq!(found, Suppression::Suspended, "{handler:?} {reason:?}");
        }
        assert_eq!(of(&handler, &Machine::default()), Suppression::None);
    }
}

#[test]
fn a_freeze_excuses_for_a_minute() {
    let [tcp, http] = network();
    for handler in [exec(), Handler::GuestAgentPing, tcp, http] {
        for (millis, expected) in [
            (0, Suppression::Suspended),
            (59_999, Suppression::Suspended),
            (60_000, Suppression::None),
            (3_600_000, Suppression::None),
        ] {
            let machine = Machine {
                frozen_for: Some(Duration::from_millis(millis)),
                ..Machine::default()
            };
            assert_eq!(of(&handler, &machine), expected, "{handler:?} {millis} ms");
        }
    }
}

#[test]
fn the_annotation_concerns_pings_only_and_comes_first() {
    let machine = Machine {
        agent_probes_paused: true,
        ..Machine::default()
    };
    assert_eq!(
        of(&Handler::GuestAgentPing, &machine),
        Suppression::Succeeds
    );
    let [tcp, http] = network();
    for handler in [exec(), tcp, http] {
        assert_eq!(of(&handler, &machine), Suppression::None, "{handler:?}");
    }
    let machine = Machine {
        paused: Some(PauseReason::Watchdog),
        ..machine
    };
    assert_eq!(
        of(&Handler::GuestAgentPing, &machine),
        Suppression::Succeeds
    );
    assert_eq!(of(&exec(), &machine), Suppression::Suspended);
}

#[test]
fn the_annotation_is_read_as_go_reads_it() {
    for value in ["1", "t", "T", "TRUE", "true", "True"] {
        assert!(parse_bool(value), "{value}");
    }
    for value in [
        "0", "f", "F", "FALSE", "false", "False", "", "yes", "tRue", " true", "2",
    ] {
        assert!(!parse_bool(value), "{value}");
    }
}

/// KubeVirt's table; the rows of pings that succeed and of the annotation make no call of this.
#[test]
fn kubevirts_vectors() {
    use Domain::{LookupFailed, NotFound, Paused, Running, StateFailed};
    use PingError::{AgentUnresponsive, NoDomain, Other};
    let mut rows = vec![
        ("plain error", Other, false, Running, false),
        ("pre-copy", AgentUnresponsive, true, Running, true),
        ("pre-copy, no domain", NoDomain, true, Running, true),
        ("pre-copy, internal error", Other, true, Running, false),
        ("post-copy", AgentUnresponsive, true, Running, true),
        ("migration ended", AgentUnresponsive, false, Running, false),
        ("running", AgentUnresponsive, false, Running, false),
        ("not found", AgentUnresponsive, false, NotFound, true),
        (
            "lookup failed",
            AgentUnresponsive,
            false,
            LookupFailed,
            false,
        ),
        ("no state", AgentUnresponsive, false, StateFailed, true),
        (
            "paused, other error",
            Other,
            false,
            Paused(PauseReason::User),
            false,
        ),
    ];
    for reason in HEALTHY {
        rows.push(("healthy", AgentUnresponsive, false, Paused(reason), true));
    }
    for reason in SICK {
        rows.push(("sick", AgentUnresponsive, false, Paused(reason), false));
    }
    for (row, error, migrating, domain, expected) in rows {
        let found = compat_excuses(error, migrating, domain);
        assert_eq!(found, expected, "{row} {domain:?}");
    }
}
