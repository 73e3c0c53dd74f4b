// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `tcpSocket` and `httpGet` tell about a guest in every state that it may be in.

use std::path::PathBuf;

use kennel::spec::IpFamily;
use kennel_vmm::config::Uplink;
use kennel_vmm::protocol::{Command, News};
use rustix::process::Pid;

use super::asked::{Guest, Question, Verdict};
use super::{answers, passt};
use crate::Image;

use Verdict::{Fails, Late, Untold, Well};

const SCRIPT: &str = "mkdir -p /www\necho 'it is the guest' >/www/index.html\n\
    httpd -p 8080 -h /www\n\
    nc -ll -p 9000 -e sleep 100000 >/dev/null 2>&1 &\n\
    echo reachable";

const OPEN: u16 = 8080;
const CLOSED: u16 = 81;
/// It accepts, reads nothing and says nothing.
const SILENT: u16 = 9000;

/// A port by both kinds of probes over both families.
fn both(port: u16, tcp: Verdict, http: Verdict) -> Vec<Question> {
    let kinds = [
        ("TCP", format!("tcpSocket: {{port: {port}}}"), tcp),
        ("HTTP", format!("httpGet: {{port: {port}}}"), http),
    ];
    let questions = kinds.iter().flat_map(|(what, handler, verdict)| {
        [IpFamily::Ipv4, IpFamily::Ipv6].map(|family| (*what, handler.clone(), family, *verdict))
    });
    questions.collect()
}

/// Commands that take a guest to a state, and back.
struct State {
    name: &'static str,
    enter: &'static str,
    leave: &'static str,
    port: u16,
    tcp: Verdict,
    http: Verdict,
}

const STATES: [State; 5] = [
    State {
        name: "open",
        enter: "true",
        leave: "true",
        port: OPEN,
        tcp: Well,
        http: Well,
    },
    State {
        name: "closed",
        enter: "true",
        leave: "true",
        port: CLOSED,
        tcp: Fails("refused: nobody listens on port 81"),
        http: Fails("refused: nobody listens on port 81"),
    },
    State {
        name: "open but silent",
        enter: "true",
        leave: "true",
        port: SILENT,
        tcp: Well,
        http: Late("no answer within 10 s"),
    },
    State {
        name: "filtered",
        enter: "ip route add blackhole 10.0.2.1/32; ip -6 route add blackhole fd10:0:2::1/128",
        leave: "ip route del blackhole 10.0.2.1/32; ip -6 route del blackhole fd10:0:2::1/128",
        port: OPEN,
        tcp: Late("no connection within 10 s"),
        http: Late("no connection within 10 s"),
    },
    State {
        name: "down",
        enter: "ip link set eth0 down",
        leave: "ip link set eth0 up",
        port: OPEN,
        tcp: Late("its interface is down"),
        http: Late("its interface is down"),
    },
];

fn walk(guest: &mut Guest) {
    let mut wrong = vec![];
    for state in &STATES {
        guest.shell(state.enter);
        wrong.extend(guest.ask(state.name, &both(state.port, state.tcp, state.http)));
        guest.shell(state.leave);
    }
    wrong.extend(guest.ask("up again", &both(OPEN, Well, Well)));
    guest.pause();
    let paused = Untold("paused");
    wrong.extend(guest.ask("paused", &both(OPEN, paused, paused)));
    guest.machine.tell(&Command::Resume);
    wrong.extend(guest.ask("resumed", &both(OPEN, Well, Well)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

pub(super) fn without_uplink(image: &Image) {
    let script = [answers::SCRIPT, SCRIPT].concat();
    let mut guest = Guest::start(image, Uplink::None, &script);
    answers::all(&guest);
    walk(&mut guest);
    guest.stop();
}

pub(super) fn beside_passt(image: &Image, _passt: PathBuf) {
    let mut guest = Guest::start(image, Uplink::Passt, SCRIPT);
    guest.has_told(&News::UplinkUp);
    walk(&mut guest);
    let vm = i32::try_from(guest.machine.pid())
        .ok()
        .and_then(Pid::from_raw);
    passt::kill(vm.expect("a process ID"));
    let down = guest.machine.news("the uplink's end", |news| match news {
        News::UplinkDown { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(down.1.starts_with("passt ended (signal: 9"), "{down:?}");
    let wrong = guest.ask("its passt killed", &both(OPEN, Well, Well));
    assert!(wrong.is_empty(), "{wrong:#?}");
    guest.machine.news("the uplink again", |news| {
        (*news == News::UplinkUp).then_some(())
    });
    guest.stop();
}
