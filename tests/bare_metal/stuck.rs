// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VM processes with a thread that hangs on purpose, and VM processes and supervisors that do not run:
//! what `kennel run` tells and does, and what the guest's next boot reads.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use kennel_tests::documents::{FILE, Folder};
use kennel_tests::kennel::Ended;
use kennel_tests::payload;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("link_that_hangs_at_the_end_holds_up_nobody", link_at_end),
        test("process_that_does_not_run_is_told", process_stopped),
        test(
            "supervisor_that_does_not_run_counts_nothing",
            supervisor_stopped,
        ),
    ];
    for (action, status) in [("poweroff", 3), ("pause", 1)] {
        let name = format!("stuck_machine_ends_instead_of_{action}");
        tests.push(test(&name, move || ends(action, status)));
    }
    for (place, where_it_hangs) in [
        ("loop", ANYWHERE),
        ("loop-at-bite", &[("event loop", "idle")]),
        ("vcpu", &[("vCPU", "wait-for-vcpus")]),
        ("kernel-load", &[("kernel load", "load-kernel")]),
        ("link", &[("link", "wait-for-link")]),
    ] {
        let name = format!("reset_goes_on_in_a_new_process_when_{place}_hangs");
        tests.push(test(&name, move || reset(place, where_it_hangs)));
    }
    tests
}

/// What hangs, and in which phase, by the event `Stuck`.
type Hang = (&'static str, &'static str);
/// The event loop is asked for its sign of life between any two of its handlers, also while a reset loads its guest on
/// the loader's thread.
const ANYWHERE: &[Hang] = &[
    ("event loop", "idle"),
    ("event loop", "wipe"),
    ("event loop", "build-vm"),
    ("kernel load", "load-kernel"),
];

/// Longer than anything here is waited for.
const BOUND: Duration = Duration::from_secs(100);

/// A run of the program that arms its watchdog for 0.4 s in each boot, and pings never.
struct Run {
    folder: Folder,
    events: PathBuf,
    /// A thread hangs when this file is there.
    token: PathBuf,
}

impl Run {
    fn new(action: &str) -> Self {
        let folder = Folder::with(format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: dog, \
             annotations: {{kennel/uplink: none}}}}, spec: {{terminationGracePeriodSeconds: 0, \
             domain: {{resources: {{requests: {{memory: 64Mi}}}}, firmware: {{kernelBoot: \
             {{container: {{image: ./image, kernelPath: /guest}}}}}}, devices: \
             {{watchdog: {{name: w, i6300esb: {{action: {action}}}}}}}}}}}}}"
        ));
        folder.file("image/guest", &payload::elf_of('l'));
        let (events, token) = (folder.path("events"), folder.path("token"));
        Self {
            folder,
            events,
            token,
        }
    }

    /// Runs it with a thread that hangs at `place`, once the token is there, and does `act` meanwhile.
    fn run(&self, place: &str, act: impl FnOnce(Pid)) -> Ended {
        let wedge = format!("KENNEL_WEDGE={place}={}", self.token.display());
        let args = [
            "run",
            FILE,
            "--no-box",
            "--events",
            "events",
            "--console",
            "console",
        ];
        let call = self.folder.call(&args).through(&["env", &wedge]);
        if place.is_empty() {
            call.with_stops()
        } else {
            call
        }
        .run_while(act)
    }

    fn hang(&self) {
        fs::write(&self.token, "").expect("a file");
    }

    /// Events so far.
    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.events).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let event = |line| serde_json::from_str(line).expect("JSON");
        whole.lines().map(event).collect()
    }

    fn events_of(&self, reason: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["reason"] == reason);
        events
    }

    /// Waits until there are so many events of this reason; false if they do not come.
    fn wait_for(&self, reason: &str, count: usize) -> bool {
        let end = Instant::now() + BOUND;
        while self.events_of(reason).len() < count {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// What the guest read of the timed-out flag, a boot each.
    fn flags(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path("console")).expect("a console");
        let flag = |line: &str| {
            line.trim_end()
                .strip_prefix("timed_out=")
                .map(str::to_owned)
        };
        text.lines().filter_map(flag).collect()
    }
}

fn vm_process(event: &Value) -> Pid {
    let pid = event["data"]["pid"].as_i64().expect("a process ID");
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.expect("a process ID")
}

fn send(pid: Pid, signal: Signal) {
    kill_process(pid, signal).expect("it is there");
}

fn in_time(stuck: &Value) {
    let bound = stuck["data"]["bound_ns"].as_u64().expect("a time");
    let silent = stuck["data"]["silent_ns"].as_u64().expect("a time");
    assert_eq!(bound, 10_000_000_000);
    assert!((bound..bound + 2_000_000_000).contains(&silent), "{stuck}");
}

fn reset(place: &str, where_it_hangs: &[Hang]) {
    let run = Run::new("reset");
    let mut came = (false, false);
    let ended = run.run(place, |kennel| {
        came.0 = run.wait_for("Reset", 1);
        run.hang();
        let new = |event: &Value| event["data"]["new_process"] == true;
        came.1 = run.wait_for("Stuck", 1) && {
            let end = Instant::now() + BOUND;
            // And again a reset in the new process itself.
            let goes_on = || {
                let resets = run.events_of("Reset");
                let at = resets.iter().position(new);
                at.is_some_and(|at| resets.len() > at + 1)
            };
            while !goes_on() && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
            goes_on()
        };
        send(kennel, Signal::TERM);
    });
    assert_eq!(came, (true, true), "{ended}\n{:#?}", run.events());
    assert_eq!(ended.status, 128 + 15, "{ended}");
    let stuck = run.events_of("Stuck");
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    in_time(&stuck[0]);
    let data = &stuck[0]["data"];
    let hangs = |(what, phase): &Hang| data["what"] == *what && data["phase"] == *phase;
    assert!(where_it_hangs.iter().any(hangs), "{data}");
    assert_eq!(
        (&data["action"], &data["instead"]),
        (&"reset".into(), &"reset".into())
    );
    // The same machine: its count of resets goes on, and it was created once.
    let resets = run.events_of("Reset");
    let counts: Vec<_> = resets
        .iter()
        .map(|reset| reset["data"]["count"].as_u64())
        .collect();
    assert!(counts.is_sorted_by(|one, next| one < next), "{counts:?}");
    let created = run.events_of("Created");
    assert_eq!(created.len(), 1, "{created:?}");
    let new = resets
        .iter()
        .find(|reset| reset["data"]["new_process"] == true);
    let new = new.expect("a reset in a new process");
    assert_ne!(vm_process(new), vm_process(&created[0]));
    assert_eq!(new["data"]["cause"], "watchdog");
    // Every boot but the first was the watchdog's doing, the one in the new process among them.
    let flags = run.flags();
    let boots = usize::try_from(new["data"]["count"].as_u64().expect("a count")).expect("few");
    assert!(flags.len() > boots, "{flags:?} {boots}");
    assert_eq!(flags[0], "00000000");
    assert!(
        flags[1..].iter().all(|flag| flag == "00000200"),
        "{flags:?}"
    );
}

/// The event loop hangs before it does anything about the bite.
fn ends(action: &str, status: i32) {
    let run = Run::new(action);
    run.hang();
    let ended = run.run("loop-at-bite", |_| {});
    assert_eq!(ended.status, status, "{ended}");
    let stuck = run.events_of("Stuck");
    assert_eq!(stuck.len(), 1, "{ended}");
    in_time(&stuck[0]);
    assert_eq!(stuck[0]["data"]["action"], action);
    let stopped = run.events_of("Stopped");
    assert_eq!(stopped[0]["data"]["phase"], "Failed");
}

/// The end is told before anybody is waited for, so that nothing is stuck: the process is killed.
fn link_at_end() {
    let run = Run::new("poweroff");
    run.hang();
    let ended = run.run("link-at-end", |_| {});
    assert_eq!(ended.status, 3, "{ended}");
    assert!(!run.token.exists(), "it hung");
    assert_eq!(run.events_of("Stuck"), Vec::<Value>::new());
    let stopped = run.events_of("Stopped");
    assert_eq!(stopped[0]["data"]["phase"], "Failed");
}

fn process_stopped() {
    let run = Run::new("none");
    let mut came = [false; 3];
    let ended = run.run("", |kennel| {
        came[0] = run.wait_for("Watchdog", 1);
        let vm = vm_process(&run.events_of("Created")[0]);
        send(vm, Signal::STOP);
        came[1] = run.wait_for("ProcessStopped", 1);
        let bites = run.events_of("Watchdog").len();
        send(vm, Signal::CONT);
        came[2] = run.wait_for("Watchdog", bites + 2);
        send(kennel, Signal::TERM);
    });
    assert_eq!(came, [true; 3], "{ended}\n{:#?}", run.events());
    assert_eq!(ended.status, 128 + 15, "{ended}");
    let told = run.events_of("ProcessStopped");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["data"]["state"], "T");
    assert_eq!(run.events_of("Stuck"), Vec::<Value>::new());
    assert_eq!(run.events_of("Created").len(), 1);
}

fn supervisor_stopped() {
    let run = Run::new("none");
    let mut came = [false; 2];
    let ended = run.run("", |kennel| {
        came[0] = run.wait_for("Watchdog", 1);
        let vm = vm_process(&run.events_of("Created")[0]);
        // The supervisor alone, then both: longer than a VM process may be silent.
        for both in [false, true] {
            send(kennel, Signal::STOP);
            if both {
                send(vm, Signal::STOP);
            }
            thread::sleep(Duration::from_secs(13));
            send(kennel, Signal::CONT);
            if both {
                send(vm, Signal::CONT);
            }
        }
        let bites = run.events_of("Watchdog").len();
        came[1] = run.wait_for("Watchdog", bites + 3);
        send(kennel, Signal::TERM);
    });
    assert_eq!(came, [true; 2], "{ended}\n{:#?}", run.events());
    assert_eq!(ended.status, 128 + 15, "{ended}");
    for never in ["Stuck", "ProcessStopped"] {
        assert_eq!(run.events_of(never), Vec::<Value>::new());
    }
    assert_eq!(run.events_of("Created").len(), 1);
}
