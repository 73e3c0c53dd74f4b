// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Connections: whom they go to, and how people are told that there is none.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use kennel_vmm::dial::{Reason, Target};

use super::door::Place;
use super::testing::{Guest, http, on_loopback, page, tcp};
use super::{NetworkRunner, Outcome};
use crate::spec::{Handler, HttpGet, IpFamily};

const HOUR: Duration = Duration::from_secs(3600);
/// Long enough for a busy host to come as far as the guest.
const WHILE: Duration = Duration::from_secs(2);

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure(why) => why,
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn a_port_is_open_if_the_guest_accepts_and_whatever_it_does_then() {
    let table: [fn(&mut super::testing::Peer); 3] = [
        |peer| peer.stay(),
        |_| {},
        // An HTTP server, as the one that is probed with httpGet elsewhere.
        |peer| peer.say("HTTP/1.1 200 OK\nContent-Length: 12\n\nHello World!\n"),
    ];
    for play in table {
        let guest = Guest::new(play);
        assert_eq!(guest.probe(tcp(None, 1500)), Outcome::Success);
        let [request] = guest.requests()[..] else {
            panic!("one connection was expected");
        };
        assert_eq!((request.target, request.port), (Target::GuestIpv4, 1500));
    }
}

#[test]
fn nothing_is_said_to_a_tcp_port() {
    let (heard, hears) = std::sync::mpsc::channel();
    let guest = Guest::new(move |peer| heard.send(peer.hear()).unwrap());
    assert_eq!(guest.probe(tcp(None, 22)), Outcome::Success);
    assert_eq!(hears.recv().unwrap(), "");
}

#[test]
fn why_there_is_no_connection_is_the_vm_process_word() {
    for (reason, text, tcp_says, http_says) in [
        (
            Reason::Refused,
            "the guest refused the connection",
            "dial tcp 10.0.2.2:8080: the guest refused the connection",
            "Get \"http://10.0.2.2:8080/\": the guest refused the connection",
        ),
        (
            Reason::Unreachable,
            "the guest did not answer ARP for 10.0.2.2",
            "dial tcp 10.0.2.2:8080: the guest did not answer ARP for 10.0.2.2",
            "Get \"http://10.0.2.2:8080/\": the guest did not answer ARP for 10.0.2.2",
        ),
        (
            Reason::Timeout,
            "the guest did not answer",
            "dial tcp 10.0.2.2:8080: no connection within 1 s: the guest did not answer",
            "Get \"http://10.0.2.2:8080/\": no connection within 1 s: the guest did not answer",
        ),
    ] {
        let guest = Guest::dialled(move |peer| peer.fail(reason, text));
        assert_eq!(failure(guest.probe(tcp(None, 8080))), tcp_says);
        assert_eq!(failure(guest.probe(http("/"))), http_says);
    }
}

#[test]
fn what_is_not_the_guests_doing_fails_nothing() {
    for reason in [Reason::Paused, Reason::Busy, Reason::BadRequest] {
        let guest = Guest::dialled(move |peer| peer.fail(reason, "not now"));
        for handler in [tcp(None, 8080), http("/")] {
            let outcome = guest.probe(handler);
            assert!(
                matches!(&outcome, Outcome::Error(why) if why.contains("not now")),
                "{outcome:?}"
            );
        }
    }
    let guest = Guest::new(|peer| peer.stay());
    let late = guest.probe_over(tcp(None, 1), IpFamily::Ipv4, Duration::ZERO);
    assert!(matches!(late, Outcome::Error(why) if why.contains("could not begin in time")));
    assert_eq!(guest.requests(), []);
    let stray = guest.probe(Handler::GuestAgentPing);
    assert!(matches!(stray, Outcome::Error(why) if why.contains("guestAgentPing")));
}

#[test]
fn a_vm_process_that_is_gone_or_silent_fails_the_probe() {
    let mut runner = NetworkRunner::new(
        tcp(None, 1),
        Duration::from_secs(1),
        IpFamily::Ipv4,
        std::path::Path::new("/nonexistent/a.dial"),
    );
    let gone = failure(runner.attempt(Instant::now() + HOUR));
    assert!(
        gone.contains("the VM process cannot be reached") && !gone.contains("/nonexistent"),
        "{gone}"
    );
    let silent = Guest::dialled(|peer| peer.stay());
    let silent = failure(silent.probe_over(tcp(None, 1), IpFamily::Ipv4, WHILE));
    assert!(
        silent.contains("the VM process did not answer in time"),
        "{silent}"
    );
}

#[test]
fn a_family_is_one_of_the_guests_addresses() {
    for (family, target) in [
        (IpFamily::Ipv4, Target::GuestIpv4),
        (IpFamily::Ipv6, Target::GuestIpv6),
    ] {
        let guest = Guest::new(|_| {});
        let outcome = guest.probe_over(tcp(None, 80), family, HOUR);
        assert_eq!(outcome, Outcome::Success);
        let requests = guest.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].target, target);
    }
    let ipv6 = Guest::dialled(|peer| peer.fail(Reason::Refused, "refused"));
    let said = failure(ipv6.probe_over(http("/"), IpFamily::Ipv6, HOUR));
    assert_eq!(said, "Get \"http://[fd10:0:2::2]:8080/\": refused");
}

#[test]
fn with_both_families_both_must_be_well() {
    let both = |deaf: Option<Target>| {
        let guest = Guest::dialled(move |peer| {
            if Some(peer.dialled.target) == deaf {
                peer.fail(Reason::Refused, "the guest refused the connection");
            } else {
                peer.accept();
            }
        });
        let outcome = guest.probe_over(tcp(None, 80), IpFamily::Both, HOUR);
        assert_eq!(guest.requests().len(), 2);
        outcome
    };
    assert_eq!(both(None), Outcome::Success);
    assert_eq!(
        failure(both(Some(Target::GuestIpv4))),
        "over IPv4: dial tcp 10.0.2.2:80: the guest refused the connection"
    );
    assert_eq!(
        failure(both(Some(Target::GuestIpv6))),
        "over IPv6: dial tcp [fd10:0:2::2]:80: the guest refused the connection"
    );
}

#[test]
fn a_family_that_hangs_leaves_the_other_its_time() {
    let guest = Guest::dialled(|peer| match peer.dialled.target {
        Target::GuestIpv4 => peer.stay(),
        _ => peer.accept(),
    });
    let said = failure(guest.probe_over(tcp(None, 80), IpFamily::Both, WHILE));
    assert!(said.starts_with("over IPv4: "), "{said}");
    assert!(!said.contains("over IPv6"), "{said}");
}

#[test]
fn a_host_on_the_guests_link_is_the_guests_and_others_are_dialled_from_here() {
    let on_link = |text: &str| Place::Guest(Target::Address(text.parse().unwrap()));
    for (host, place, name) in [
        ("10.0.2.2", on_link("10.0.2.2"), "10.0.2.2"),
        ("10.0.2.77", on_link("10.0.2.77"), "10.0.2.77"),
        ("fd10:0:2::9", on_link("fd10:0:2::9"), "[fd10:0:2::9]"),
        ("[fd10:0:2::9]", on_link("fd10:0:2::9"), "[fd10:0:2::9]"),
        (
            "10.0.3.2",
            Place::Address("10.0.3.2".parse().unwrap()),
            "10.0.3.2",
        ),
        ("::1", Place::Address("::1".parse().unwrap()), "[::1]"),
        (
            "localhost",
            Place::Name("localhost".to_owned()),
            "localhost",
        ),
    ] {
        assert_eq!(Place::of(host), place, "{host}");
        assert_eq!(Place::of(host).name(), name);
    }

    let guest = Guest::new(|_| {});
    assert_eq!(guest.probe(tcp(Some("10.0.2.77"), 80)), Outcome::Success);
    assert_eq!(
        guest.requests()[0].target,
        Target::Address("10.0.2.77".parse().unwrap())
    );
}

#[test]
fn this_host_dials_by_address_and_by_name() {
    let guest = Guest::dialled(|peer| peer.fail(Reason::Refused, "the guest was dialled"));
    let port = on_loopback(|peer| {
        let request = peer.hear();
        let mut lines = request.lines();
        // None, when it was the TCP probe.
        let host = lines.nth(1).unwrap_or_default();
        peer.say(format!(
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n{host}"
        ));
    });
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(guest.probe(tcp(Some(host), port)), Outcome::Success);
        let get = HttpGet {
            host: Some(host.to_owned()),
            port,
            ..page("/")
        };
        let why = format!("Probe terminated redirects, Response body: Host: {host}:{port}");
        assert_eq!(guest.probe(Handler::HttpGet(get)), Outcome::Warning(why));
    }
    // A port that was somebody's a moment ago, and is nobody's.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let said = failure(guest.probe(tcp(Some("127.0.0.1"), port)));
    assert_eq!(
        said,
        format!("dial tcp 127.0.0.1:{port}: connection refused")
    );
    assert_eq!(guest.requests(), []);
}

#[test]
fn a_name_that_nobody_has_is_a_failure() {
    let guest = Guest::new(|_| {});
    // Too long a label for any resolver to ask for.
    let name = "x".repeat(64);
    let said = failure(guest.probe(tcp(Some(&name), 80)));
    assert!(
        said.starts_with(&format!("lookup of \"{name}\": ")),
        "{said}"
    );
}

#[test]
fn an_address_keeps_the_interface_that_it_is_written_with() {
    let limit = super::Limit {
        deadline: Instant::now() + HOUR,
        timeout: HOUR,
    };
    let found = super::resolve::Resolver::default().resolve("fe80::1%lo", limit);
    let scopes: Vec<_> = found
        .expect("the loopback interface")
        .into_iter()
        .map(|address| match address {
            std::net::SocketAddr::V6(address) => address.scope_id(),
            std::net::SocketAddr::V4(_) => 0,
        })
        .collect();
    assert!(!scopes.is_empty() && !scopes.contains(&0), "{scopes:?}");
}

#[test]
fn no_outcome_has_the_systems_error_numbers_or_a_path_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("a.dial");
    let handlers = [
        tcp(Some("fe80::1"), 80),
        tcp(Some("255.255.255.255"), 80),
        tcp(Some("no-such-name.invalid"), 80),
        tcp(None, 80),
        http("/"),
    ];
    for handler in handlers {
        let time = Duration::from_secs(1);
        let mut runner = NetworkRunner::new(handler.clone(), time, IpFamily::Ipv4, &nobody);
        let outcome = runner.attempt(Instant::now() + HOUR);
        let (Outcome::Failure(why) | Outcome::Error(why)) = outcome else {
            panic!("{handler:?} came to {outcome:?}");
        };
        assert!(!why.contains("os error"), "{why}");
        assert!(!why.contains("a.dial"), "{why}");
        if handler == tcp(Some("fe80::1"), 80) {
            assert!(why.ends_with("nothing says on which interface"), "{why}");
        }
    }
}
