// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's network without an uplink: a stock guest gets its addresses from the link, and its
//! ports are reached through the dial socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kennel::guest::overlay;
use kennel_tests::machine::Machine;
use kennel_vmm::config::{MachineConfig, NetworkConfig, Uplink};
use kennel_vmm::dial::{Answer, GUEST_IPV4, HOST_IPV6, Reason, Request, Target};
use kennel_vmm::protocol::{Command, Ending, News};

use crate::Image;

/// Longer than a guest takes to answer, on any machine.
const BOUND: Duration = Duration::from_secs(60);
/// As long as it takes to learn that nobody answers.
const SHORT: Duration = Duration::from_millis(1500);
/// Clients at once; the guest's web server lets no more than nine wait.
const MANY: usize = 8;
const HTTP: u16 = 8080;
const ECHO: u16 = 9000;
const NOBODY: u16 = 81;

const SCRIPT: &str = "mkdir -p /www\necho 'it is the guest' >/www/index.html\n\
    httpd -p 8080 -h /www\nnc -ll -p 9000 -e cat >/dev/null 2>&1 &\n\
    until ip -4 addr show dev eth0 | grep -q 'inet 10.0.2.2/24 '; do sleep 0.05; done\n\
    echo reachable\nwhile :; do sleep 1000; done";

/// What came of a dial, and the connection if there is one.
fn dial(socket: &Path, target: Target, port: u16, timeout: Duration) -> (Answer, UnixStream) {
    let mut stream = UnixStream::connect(socket).expect("the machine listens");
    stream.set_read_timeout(Some(2 * BOUND)).expect("set");
    let request = Request {
        target,
        port,
        timeout,
    };
    stream
        .write_all(request.to_string().as_bytes())
        .expect("it reads");
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, &stream);
    reader.read_line(&mut line).expect("an answer");
    let answer = line.parse();
    (
        answer.unwrap_or_else(|error| panic!("{line:?}: {error}")),
        stream,
    )
}

fn reason(answer: &Answer) -> Reason {
    match answer {
        Answer::Failed { reason, .. } => *reason,
        Answer::Connected { .. } => panic!("{answer}"),
    }
}

/// Everything that the guest still says.
fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).expect("an end");
    bytes
}

/// The guest's own web server is reached by `target`.
fn serves(socket: &Path, target: Target) {
    let (answer, mut stream) = dial(socket, target, HTTP, BOUND);
    let Answer::Connected { address, port } = answer else {
        panic!("{answer}");
    };
    assert_eq!(port, HTTP);
    assert_eq!(address.is_ipv4(), target == Target::GuestIpv4);
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("it reads");
    let page = String::from_utf8_lossy(&rest(&stream)).into_owned();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.ends_with("\r\nit is the guest\n"), "{page}");
}

/// Bytes go both ways, more than any buffer holds, and each half ends by itself.
fn echoes(socket: &Path) {
    let (answer, stream) = dial(socket, Target::GuestIpv4, ECHO, BOUND);
    assert!(matches!(answer, Answer::Connected { .. }), "{answer}");
    let sent: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let mut writer = stream.try_clone().expect("a descriptor");
    let bytes = sent.clone();
    let writes = std::thread::spawn(move || {
        writer.write_all(&bytes).expect("it reads");
        writer.shutdown(Shutdown::Write).expect("open");
    });
    let got = rest(&stream);
    writes.join().expect("written");
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

/// Many at once, each of which is served.
fn serves_many(socket: &Path) {
    std::thread::scope(|scope| {
        for _ in 0..MANY {
            scope.spawn(|| serves(socket, Target::GuestIpv4));
        }
    });
}

fn has_ipv4(news: &News) -> Option<()> {
    let News::GuestAddresses { ipv4, .. } = news else {
        return None;
    };
    (*ipv4 == Some(GUEST_IPV4)).then_some(())
}

/// An address of the link's IPv6 prefix.
fn has_ipv6(news: &News) -> Option<()> {
    let News::GuestAddresses { ipv6, .. } = news else {
        return None;
    };
    let prefix = HOST_IPV6.segments();
    ipv6.is_some_and(|address| address.segments()[..4] == prefix[..4])
        .then_some(())
}

/// Ports answer over a pause and a reset.
pub(super) fn ports(image: &Image) {
    let place = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let place = tempfile::tempdir_in(place.unwrap_or_else(std::env::temp_dir)).expect("a folder");
    let socket = place.path().join("dial");
    let config = MachineConfig {
        memory_bytes: 256 << 20,
        vcpus: 1,
        kernel: image.vmlinux.clone(),
        initrd: Some(image.initrd.clone()),
        initrd_overlay: overlay(SCRIPT).expect("an archive"),
        cmdline: "console=ttyS0 quiet panic=-1 cryptomgr.notests".into(),
        watchdog: None,
        agent_socket: None,
        resets: 0,
        network: Some(NetworkConfig {
            uplink: Uplink::None,
            dial_socket: socket.clone(),
        }),
    };
    let mut machine = Machine::start_as(config);
    machine.news("start", |news| (*news == News::Started).then_some(()));
    let (answer, _) = dial(&socket, Target::GuestIpv4, HTTP, Duration::from_millis(10));
    assert_eq!(reason(&answer), Reason::NoDriver, "{answer}");

    machine.news("the guest's IPv4 address", has_ipv4);
    machine.line("reachable");
    serves(&socket, Target::GuestIpv4);
    let (answer, _) = dial(&socket, Target::GuestIpv4, NOBODY, BOUND);
    assert_eq!(reason(&answer), Reason::Refused, "{answer}");
    let elsewhere = Target::Address([10, 0, 2, 77].into());
    let (answer, _) = dial(&socket, elsewhere, HTTP, SHORT);
    assert_eq!(reason(&answer), Reason::Unreachable, "{answer}");
    echoes(&socket);
    serves_many(&socket);
    machine.news("an IPv6 address of the guest's", has_ipv6);
    serves(&socket, Target::GuestIpv6);

    machine.tell(&Command::Pause);
    machine.news("the pause", |news| {
        matches!(news, News::Paused { .. }).then_some(())
    });
    let (answer, _) = dial(&socket, Target::GuestIpv4, HTTP, SHORT);
    assert_eq!(reason(&answer), Reason::Paused, "{answer}");
    machine.tell(&Command::Resume);
    serves(&socket, Target::GuestIpv4);

    let (answer, open) = dial(&socket, Target::GuestIpv4, ECHO, BOUND);
    assert!(matches!(answer, Answer::Connected { .. }), "{answer}");
    machine.tell(&Command::Reset);
    assert_eq!(rest(&open), b"", "the reset ends it");
    machine.news("the reset", |news| {
        matches!(news, News::Reset { .. }).then_some(())
    });
    machine.news("the guest's IPv4 address again", has_ipv4);
    machine.line("reachable");
    serves(&socket, Target::GuestIpv4);

    machine.tell(&Command::Stop);
    machine.news("the end", |news| {
        (*news == News::Ended(Ending::Stopped)).then_some(())
    });
    // The news comes before the process has ended.
    let ended = machine.orphaned();
    assert!(ended.code().is_some(), "{ended}");
    assert!(!socket.exists(), "the socket went with the machine");
}
