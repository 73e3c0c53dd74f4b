// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The agent's channel under bad treatment: by clients, by the agent's end, by the guest's reset,
//! and by a guest that writes whatever it likes into the port.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kennel::agent::{AgentError, Connection};
use serde_json::{Value, json};

use crate::guest::Spec;
use crate::operated::{BOUND, Operated};
use crate::process::proportional;
use crate::{Body, Image, LinuxCase, group};

pub(crate) fn tests() -> Vec<LinuxCase> {
    let cases: [(&'static str, Body); 1] = [(
        "channel_survives_clients_agents_resets_and_garbage",
        Box::new(channel),
    )];
    group("agent", cases)
}

/// How many agents are killed in the middle of an answer.
const RESTARTS: u32 = 10;
const CLIENTS: u64 = 16;
/// What an agent is asked for that is to be killed in the middle of it, in bytes of the guest's.
const LONG_ANSWER: u64 = 1 << 20;
/// How much more than after the first of these treatments the process may hold, in KiB: three long
/// answers, of some twenty that it has had to deal with.
const GROWTH_KIB: u64 = 4 << 10;

/// Waits until the agent has written much of an answer, and kills it. It looks seldom, as it computes meanwhile: an
/// emulated machine does not stand a loop of system calls for minutes (docs/testing.md).
const KILL_MID_ANSWER: &str = "busybox awk -v pid=$(cat /run/qemu-ga.pid) '\
    function written(line, bytes) { \
        while ((getline line < io) > 0) if (sub(/^wchar: /, \"\", line)) bytes = line; \
        close(io); return bytes + 0 } \
    BEGIN { io = \"/proc/\" pid \"/io\"; end = written() + 200000; print \"watching\"; fflush(); \
        while (written() < end) for (i = 0; i < 3000; i++); \
        system(\"kill -9 \" pid) }'; agent-stop";
/// Starts it, and waits until it has its port open.
const START: &str = "agent-start; \
    until ls -l /proc/$(cat /run/qemu-ga.pid)/fd 2>/dev/null | grep -q vport; do sleep 0.05; done";

/// Numbers that no two requests of this program share.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Asks something to which nobody else has the same answer; an answer is that one.
fn ask(connection: &mut Connection, bound: Duration) -> Result<(), AgentError> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = format!("/no/such/{number}");
    let asked = json!({ "path": path });
    match connection.call("guest-file-open", &asked, Instant::now() + bound) {
        Err(AgentError::Refused { desc, .. }) => {
            assert!(
                desc.contains(&format!("'{path}'")),
                "a stale answer to {number}: {desc}"
            );
            Ok(())
        }
        Err(error) => Err(error),
        Ok(value) => panic!("an answer to something else than {number}: {value}"),
    }
}

/// The run, and a client that stays.
struct Guest {
    run: Operated,
    client: Connection,
}

impl Guest {
    fn client(&self) -> Connection {
        Connection::open(&self.run.socket()).expect("the machine listens")
    }

    /// One request is enough.
    fn answers(&mut self) {
        if let Err(error) = ask(&mut self.client, BOUND) {
            panic!(
                "the agent is there and does not answer: {error}: {}",
                self.run
            );
        }
    }

    /// An open file that has no end.
    fn endless(&mut self) -> Value {
        let asked = json!({ "path": "/dev/zero" });
        let bound = Instant::now() + BOUND;
        self.client
            .call("guest-file-open", &asked, bound)
            .expect("it can be read")
    }

    /// The VM process's descriptors, and its own memory beyond the guest's in KiB.
    fn holds(&self) -> (usize, u64) {
        let vm = self.run.vm();
        let descriptors = fs::read_dir(format!("/proc/{}/fd", vm.as_raw_nonzero())).expect("alive");
        let sizes = proportional(vm);
        assert!(
            sizes.guest > 0,
            "guest RAM was not found among the mappings"
        );
        (descriptors.count(), sizes.own)
    }
}

fn channel(image: &Image) {
    let spec = Spec {
        action: None,
        ..Spec::default()
    };
    let mut run = Operated::start(image, &spec);
    run.reason("AgentConnected");
    run.ready();
    let client = Connection::open(&run.socket()).expect("the machine listens");
    let mut guest = Guest { run, client };
    let vm = guest.run.vm();
    guest.answers();
    typed(&mut guest);
    many(&mut guest);
    hang_up(&mut guest);
    killed(&mut guest, 2);
    garbage(&mut guest);
    // The last client to hang up has been let go by the time of another one's answer.
    guest.answers();
    let before = guest.holds();
    many(&mut guest);
    hang_up(&mut guest);
    let restarts = std::env::var("KENNEL_TEST_AGENT_RESTARTS").ok();
    let restarts = restarts.map(|text| text.parse().expect("a number"));
    killed(&mut guest, restarts.unwrap_or(RESTARTS));
    garbage(&mut guest);
    reboot(&mut guest);
    guest.answers();
    let mut after = guest.holds();
    // Those that have hung up may take a moment to be let go.
    for _ in 0..100 {
        if after.0 <= before.0 {
            break;
        }
        guest.answers();
        after = guest.holds();
    }
    eprintln!("VM process: descriptors and KiB beyond guest RAM: {before:?}, then {after:?}");
    assert_eq!(after.0, before.0, "descriptors");
    assert!(after.1 <= before.1 + GROWTH_KIB, "{before:?}, {after:?}");
    assert_eq!(guest.run.vm(), vm, "it is the same process");
    guest.run.power_off();
}

/// Sixteen at once, each of which gets its own answers.
fn many(guest: &mut Guest) {
    let clients: Vec<_> = (0..CLIENTS).map(|_| guest.client()).collect();
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for _ in 0..5 {
                    ask(&mut client, BOUND).expect("an answer");
                }
            });
        }
    });
}

/// Clients that are gone before the long answer to them is there.
fn hang_up(guest: &mut Guest) {
    let handle = guest.endless();
    let asked = json!({
        "execute": "guest-file-read", "arguments": { "handle": handle, "count": 1 << 20 }
    });
    for _ in 0..4 {
        let mut client = UnixStream::connect(guest.run.socket()).expect("the machine listens");
        writeln!(client, "{asked}").expect("room");
    }
    guest.answers();
    let close = json!({ "handle": handle });
    let bound = Instant::now() + BOUND;
    guest
        .client
        .call("guest-file-close", &close, bound)
        .expect("it was open");
}

/// The agent is killed in the middle of an answer, and started again.
fn killed(guest: &mut Guest, times: u32) {
    for round in 0..times {
        let handle = guest.endless();
        let mut client = guest.client();
        guest.run.begin(KILL_MID_ANSWER);
        guest.run.line("watching");
        let asked = json!({ "handle": handle, "count": LONG_ANSWER });
        let answer = client.call("guest-file-read", &asked, Instant::now() + BOUND);
        guest.run.finish();
        assert_eq!(answer, Err(AgentError::Restarted), "round {round}");
        guest.run.shell(START);
        ask(&mut client, BOUND).expect("it is there again");
        guest.answers();
    }
}

/// Lines of many times what the serial port holds, and what Linux takes from it at once.
fn typed(guest: &mut Guest) {
    for length in (500..4000).step_by(500) {
        guest.run.shell(&format!(": {}", "x".repeat(length)));
    }
}

/// Something in the guest that is no agent has the port and writes into it.
fn garbage(guest: &mut Guest) {
    let port = "/dev/virtio-ports/org.qemu.guest_agent.0";
    for garbage in [
        "head -c 500000 /dev/urandom",
        "yes '{\"return\": {}}' | head -c 500000",
        "yes '{\"error\": {\"class\": \"GenericError\", \"desc\": \"failed to open' | head -c 500000",
        "head -c 500000 /dev/zero",
    ] {
        let mut client = guest.client();
        guest.run.shell("agent-stop");
        guest.run.begin(&format!("{garbage} >{port}"));
        // Long enough for many an answer, if this were one.
        let answer = ask(&mut client, Duration::from_millis(500));
        assert!(answer.is_err(), "{garbage} is taken for an answer");
        guest.run.finish();
        guest.run.shell(START);
        ask(&mut client, BOUND).expect("in step again");
        guest.answers();
    }
}

/// The guest boots again while its agent has a request, and another waits behind that.
fn reboot(guest: &mut Guest) {
    let (mut first, mut second) = (guest.client(), guest.client());
    let late = json!({ "path": "/run/late", "mode": "w" });
    let bound = Instant::now() + BOUND;
    guest.run.shell("kill -STOP $(cat /run/qemu-ga.pid)");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| first.call("guest-file-open", &late, bound));
        // Behind the first, or before it: the agent answers neither.
        let waited = ask(&mut guest.client, Duration::from_secs(1));
        assert_eq!(waited, Err(AgentError::TimedOut));
        let second = scope.spawn(|| second.call("guest-file-open", &late, bound));
        guest.run.begin("reboot -f");
        for client in [first, second] {
            let answer = client.join().expect("no panic");
            let over = matches!(
                answer,
                Err(AgentError::Restarted | AgentError::NotConnected)
            );
            assert!(over, "{answer:?}");
        }
    });
    guest.run.reason("Reset");
    guest.run.reason("AgentConnected");
    guest.run.ready();
    for client in [&mut first, &mut second] {
        ask(client, BOUND).expect("the next boot's agent");
    }
    let late = guest.run.shell("ls /run/late 2>/dev/null");
    assert!(late.is_empty(), "a request of the boot before was executed");
}
