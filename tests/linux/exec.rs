// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands in the guest by `kennel probe`: what arrives, what comes back, and what is left behind.

use crate::guest::Spec;
use crate::operated::{Operated, Probed};
use crate::{Body, Image, LinuxCase, group};

pub(crate) fn tests() -> Vec<LinuxCase> {
    let cases: [(&'static str, Body); 1] = [(
        "commands_come_back_as_they_ended_and_leave_nothing",
        Box::new(exec),
    )];
    group("agent", cases)
}

/// A guest, and what ran in it before any command.
struct Guest {
    run: Operated,
    at_first: Vec<String>,
}

impl Guest {
    fn start(image: &Image) -> Self {
        let spec = Spec {
            action: None,
            ..Spec::default()
        };
        let mut run = Operated::start(image, &spec);
        run.reason("AgentConnected");
        run.ready();
        // Its output is everybody's /dev/null: whoever cleans up must not take it along.
        run.shell("sleep 4000 >/dev/null 2>&1 &");
        let mut guest = Self {
            run,
            at_first: vec![],
        };
        guest.at_first = guest.processes();
        guest
    }

    /// Every process of the guest's, without the kernel's own.
    fn processes(&mut self) -> Vec<String> {
        let shown = self.run.shell("ps -o args");
        let others = |line: &String| !line.starts_with('[') && line != "ps -o args";
        let mut processes: Vec<_> = shown.into_iter().filter(others).collect();
        processes.sort();
        processes
    }

    /// Nothing runs but what ran at first, and `daemon`.
    fn nothing_is_left(&mut self, after: &str, daemon: Option<&str>) {
        let mut expected = self.at_first.clone();
        expected.extend(daemon.map(str::to_owned));
        expected.sort();
        let mut seen = vec![];
        // What was killed may take a moment to be gone.
        for _ in 0..50 {
            seen = self.processes();
            if seen == expected {
                return;
            }
        }
        assert_eq!(seen, expected, "after {after}: {}", self.run);
    }

    /// The command within so many seconds.
    fn command(&self, seconds: &str, command: &[&str]) -> Probed {
        let (program, arguments) = command.split_first().expect("a program");
        let options = ["--timeoutSeconds", seconds, "--command", program, "--"];
        self.run.probe(&[&options, arguments].concat())
    }

    /// Shell lines in the guest, by the agent.
    fn shell(&self, seconds: &str, lines: &str) -> Probed {
        self.command(seconds, &["sh", "-c", lines])
    }

    fn pings(&self) {
        let ping = ["--guestAgentPing", "--timeoutSeconds", PATIENT];
        let probed = self.run.probe(&ping);
        assert_eq!((probed.status, probed.errors.as_str()), (Some(0), ""));
    }
}

/// Seconds that no command of these needs.
const PATIENT: &str = "170";

fn exec(image: &Image) {
    let mut guest = Guest::start(image);
    guest.pings();
    arguments(&guest);
    endings(&guest);
    long_output(&guest);
    guest.nothing_is_left("commands that ended", None);
    left_behind(&mut guest);
    without_dev_null(&mut guest);
    agent_away(&mut guest);
    guest.nothing_is_left("all of it", None);
    let Guest { run, .. } = guest;
    run.power_off();
}

fn arguments(guest: &Guest) {
    let long = "0123456789abcdef".repeat(4 << 10);
    let words = [
        "plain",
        "two words",
        "",
        "say \"hello\"",
        "it's",
        "back\\slash\\",
        "\\n \\u0041 \\\"",
        "line\nbreak\r\n\ttab\n",
        "grüße, 世界 🐕",
        "\u{1}\u{7f}",
        "$(reboot -f) `reboot -f` $HOME; reboot -f & | > /x *",
        "--help",
        "-",
        &long,
    ];
    let print = ["sh", "-c", "printf '%s\\0' \"$@\"", "-x"];
    let probed = guest.command(PATIENT, &[&print, &words[..]].concat());
    assert_eq!(probed.status, Some(0), "{}", probed.errors);
    let seen: Vec<_> = probed.output.split(|byte| *byte == 0).collect();
    let (end, seen) = seen.split_last().expect("a word");
    assert_eq!(end, b"");
    assert_eq!(seen.len(), words.len());
    for (seen, word) in seen.iter().zip(words) {
        assert!(
            *seen == word.as_bytes(),
            "{word:?} arrived as {:?}",
            String::from_utf8_lossy(seen)
        );
    }
}

fn endings(guest: &Guest) {
    for (lines, status, says) in [
        ("echo out; echo err >&2", 0, ""),
        ("echo out; echo err >&2; exit 1", 1, ""),
        ("echo out; echo err >&2; exit 2", 2, ""),
        ("echo out; echo err >&2; exit 127", 127, ""),
        ("echo out; echo err >&2; kill -9 $$", 137, ""),
        ("echo out; echo err >&2; kill -11 $$", 139, ""),
    ] {
        let probed = guest.shell(PATIENT, lines);
        assert_eq!(probed.status, Some(status), "{lines}: {probed:?}");
        assert_eq!(probed.output, b"out\n", "{lines}");
        assert!(probed.errors.starts_with("err\n"), "{lines}: {probed:?}");
        assert!(probed.errors.contains(says), "{lines}: {probed:?}");
    }
    for (program, status, says) in [
        ("/no/such/program", 127, "/no/such/program"),
        ("no-such-program", 127, "not found"),
        ("/etc/passwd", 126, "/etc/passwd"),
    ] {
        let probed = guest.command(PATIENT, &[program]);
        assert_eq!(probed.status, Some(status), "{probed:?}");
        assert!(probed.errors.contains(says), "{probed:?}");
    }
}

/// MiB of output; an emulated guest takes some ten seconds for each.
const OUTPUT_MIB: usize = 1;

fn long_output(guest: &Guest) {
    let mib = std::env::var("KENNEL_TEST_OUTPUT_MIB").ok();
    let mib = mib.map(|text| text.parse().expect("a number"));
    let bytes = mib.unwrap_or(OUTPUT_MIB) << 20;
    // On an emulated CPU, 8 MiB take minutes.
    let probed = guest.shell("1200", &format!("yes 0123456 | head -c {bytes}"));
    assert_eq!(probed.status, Some(0), "{}", probed.errors);
    assert_eq!(probed.output.len(), bytes);
    assert!(probed.output.chunks(8).all(|line| line == b"0123456\n"));
}

fn left_behind(guest: &mut Guest) {
    for lines in [
        "sleep 1001",
        "sleep 1002 & sleep 1003 | sleep 1004",
        "trap '' TERM INT HUP; setsid sleep 1005 & while :; do :; done",
    ] {
        let probed = guest.shell("3", lines);
        assert_eq!(probed.status, Some(2), "{lines}: {probed:?}");
        let says =
            probed.errors.contains("command timed out") && probed.errors.contains("within 3 s");
        assert!(says, "{lines}: {probed:?}");
        guest.nothing_is_left(lines, None);
    }
    for lines in [
        "sleep 2001 & exit 0",
        "(trap '' TERM HUP; setsid sh -c 'sleep 2002; sleep 2003') & exit 0",
    ] {
        let probed = guest.shell(PATIENT, lines);
        assert_eq!(probed.status, Some(0), "{lines}: {probed:?}");
        guest.nothing_is_left(lines, None);
    }
    // What has let go of the command's output was meant to stay.
    let daemon = "setsid sleep 3001 </dev/null >/dev/null 2>&1 & exit 0";
    let probed = guest.shell(PATIENT, daemon);
    assert_eq!(probed.status, Some(0), "{probed:?}");
    guest.nothing_is_left(daemon, Some("sleep 3001"));
    guest
        .run
        .shell("kill $(ps | awk '/[s]leep 3001/ { print $1 }')");
    guest.pings();
}

fn without_dev_null(guest: &mut Guest) {
    guest.run.shell("mv /dev/null /dev/away");
    let probed = guest.shell(PATIENT, "exit 0");
    guest.run.shell("mv /dev/away /dev/null");
    assert_eq!(probed.status, Some(2), "{probed:?}");
    assert!(
        probed.errors.contains("is there a /dev/null in the guest?"),
        "{probed:?}"
    );
    let probed = guest.shell(PATIENT, "exit 0");
    assert_eq!(probed.status, Some(0), "{probed:?}");
}

fn agent_away(guest: &mut Guest) {
    guest.run.shell("agent-stop");
    for args in [&["--guestAgentPing"][..], &["--command", "true"]] {
        let probed = guest.run.probe(args);
        assert_eq!(probed.status, Some(2), "{probed:?}");
        assert!(
            probed.errors.contains("no guest agent is connected"),
            "{probed:?}"
        );
    }
    guest.run.reason("AgentDisconnected");
    guest.run.shell("agent-start");
    guest.run.reason("AgentConnected");
    guest.pings();
    guest.run.shell("kill -STOP $(cat /run/qemu-ga.pid)");
    let probed = guest.run.probe(&["--guestAgentPing"]);
    guest.run.shell("kill -CONT $(cat /run/qemu-ga.pid)");
    assert_eq!(probed.status, Some(2), "{probed:?}");
    assert!(
        probed.errors.contains("did not answer a ping within 1 s"),
        "{probed:?}"
    );
    guest.pings();
}
