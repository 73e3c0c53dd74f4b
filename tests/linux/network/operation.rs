// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A machine whose servers stop, move and start again: what its probes and a published port do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::Image;
use crate::guest::Spec;
use crate::operated::{BOUND, OBEY, Operated};

const SERVE: &str = "httpd -p 8080 -h /www";
const STOP: &str = "killall httpd";
const ELSEWHERE: &str = "httpd -p 8081 -h /www";
const HEALTHY: &str = "echo yes >/www/healthz";
const SICK: &str = "rm /www/healthz";
const ALIVE: &str =
    "nc -ll -p 9090 -e echo -e 'HTTP/1.1 200 OK\\n\\nalive' >/dev/null 2>&1 & alive=$!";

fn start(image: &Image) -> Operated {
    let fields = vec![
        // No attempt before the slowest guest is up.
        "livenessProbe:\n  httpGet: { port: 9090 }\n  initialDelaySeconds: 90\n  periodSeconds: 2\n  \
         timeoutSeconds: 5",
        "readinessProbe:\n  httpGet: { port: 8080, path: /healthz }\n  periodSeconds: 1\n  \
         timeoutSeconds: 5\n  failureThreshold: 2",
        "terminationGracePeriodSeconds: 5",
    ];
    let spec = Spec {
        fields,
        action: None,
        run_strategy: Some("Always"),
        script: OBEY,
        ..Spec::default()
    };
    let mut prepared = spec.prepare(image);
    prepared
        .command
        .args(["--publish", "127.0.0.1:0:8080,ready"]);
    Operated::of(prepared)
}

/// It is ready, and its port open; where.
fn becomes_ready(run: &mut Operated) -> SocketAddr {
    let opened = run.reason("PortOpened");
    run.reason("Ready");
    assert_eq!(opened["data"]["guest_port"], 8080, "{opened}");
    let address = opened["data"]["address"].as_str().expect("an address");
    let address = address.parse().expect("an address");
    let mut stream = TcpStream::connect(address).expect("it is open");
    stream.set_read_timeout(Some(BOUND)).expect("set");
    let asked = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
    asked.expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("an end");
    assert!(page.ends_with("\r\nyes\n"), "{page}");
    address
}

/// It is not ready any more, for this reason, and its port was closed before that was told.
fn is_no_longer(run: &mut Operated, address: SocketAddr, why: &str) {
    for streak in 1..=2 {
        if streak == 2 {
            // What decides closes it first.
            run.reason("PortClosed");
        }
        let event = run.event(why, |event| {
            event["reason"] == "Unhealthy" && event["data"]["probe"] == "readiness"
        });
        let message = event["message"].as_str().expect("a message");
        // The server may end in the middle of an attempt.
        let is_cut = streak == 1 && message.contains("the connection was closed without an answer");
        assert!(message.contains(why) || is_cut, "{event}");
        assert_eq!(event["data"]["streak"], streak, "{event}");
    }
    run.reason("NotReady");
    let refused = TcpStream::connect(address);
    let refused = refused.expect_err("it is closed").kind();
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
}

pub(super) fn servers(image: &Image) {
    let mut run = start(image);
    run.ready();
    for line in ["mkdir -p /www", HEALTHY, ALIVE, ELSEWHERE] {
        run.shell(line);
    }
    let refused = "refused: nobody listens on port 8080";
    run.event("the wrong port", |event| {
        let message = event["message"].as_str();
        event["reason"] == "Unhealthy" && message.is_some_and(|message| message.contains(refused))
    });
    let told = run.reasons().iter().any(|reason| reason == "PortOpened");
    assert!(!told, "nobody serves there: {run}");
    run.shell(SERVE);
    let address = becomes_ready(&mut run);
    run.shell(STOP);
    is_no_longer(&mut run, address, refused);
    run.shell(SERVE);
    let address = becomes_ready(&mut run);
    run.shell(SICK);
    is_no_longer(&mut run, address, "HTTP probe failed with statuscode: 404");
    run.shell(HEALTHY);
    let address = becomes_ready(&mut run);

    run.shell("kill $alive");
    for streak in 1..=3 {
        let event = run.event("liveness", |event| event["data"]["probe"] == "liveness");
        assert_eq!(event["data"]["streak"], streak, "{event}");
    }
    let killing = run.event("the end", |event| event["reason"] == "Killing");
    assert_eq!(killing["data"]["cause"], "LivenessFailed", "{killing}");
    run.reason("NotReady");
    let refused = TcpStream::connect(address);
    let refused = refused.expect_err("its guest ends").kind();
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    run.reason("Stopped");
    run.reason("Started");
    run.ready();
    for line in ["mkdir -p /www", HEALTHY, ALIVE, SERVE] {
        run.shell(line);
    }
    becomes_ready(&mut run);
}
