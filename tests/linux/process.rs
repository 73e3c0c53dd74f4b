// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The processes behind a run: console input, signals, what is left behind, what it costs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};

use kennel_tests::workers::Need;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::guest::{Prepared, Spec};
use crate::{Body, Image, LinuxCase, group};

pub(crate) fn tests() -> Vec<LinuxCase> {
    let cases: [(&'static str, Body); 7] = [
        ("console_is_interactive", Box::new(console)),
        ("virtio_console_is_interactive", Box::new(virtio_console)),
        (
            "ctrl_c_ends_everything",
            Box::new(|image| signal(image, Signal::INT, Some(130))),
        ),
        (
            "sigterm_ends_everything",
            Box::new(|image| signal(image, Signal::TERM, Some(143))),
        ),
        (
            "killed_supervisor_takes_its_vm_along",
            Box::new(|image| signal(image, Signal::KILL, None)),
        ),
        ("killed_vm_is_told", Box::new(killed_vm)),
        ("paused_machine_goes_on_at_sigcont", Box::new(sigcont)),
    ];
    let mut tests = group("process", cases);
    // What a process shares with others is counted by how many they are.
    let memory: (_, Body) = ("memory_beyond_guest_ram", Box::new(memory));
    let memory = group("process", [memory]).into_iter();
    tests.extend(memory.map(|test| test.needing(Need::SMALL.alone())));
    tests
}

/// What ending may take at the most; the tests tell how long it really took.
const BOUND: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};
/// A guest that has come up and stays.
const STAY: &str = "echo ready\nwhile :; do sleep 1000; done";

/// A run whose console comes to us line by line.
struct Live {
    prepared: Prepared,
    child: Child,
    console: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Live {
    fn start(image: &Image, spec: &Spec, input: Stdio) -> Self {
        let mut prepared = spec.prepare(image);
        // The later --console wins over the file.
        prepared
            .command
            .args(["--console", "-"])
            .stdin(input)
            .stderr(Stdio::null());
        Self::of(prepared)
    }

    /// Starts a run whose standard output is the lines to wait for.
    fn of(mut prepared: Prepared) -> Self {
        let mut child = prepared.spawn();
        let stdout = child.stdout.take().expect("piped");
        Self {
            prepared,
            child,
            console: BufReader::new(stdout).lines(),
        }
    }

    /// The next console line that contains `text`; the run's own --timeout bounds the wait.
    fn line(&mut self, text: &str) -> String {
        let lines = self.console.by_ref().map_while(Result::ok);
        let mut seen = vec![];
        for line in lines {
            if line.contains(text) {
                return line.trim_end().to_owned();
            }
            seen.push(line);
        }
        panic!("no {text:?} in {seen:#?}")
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The VM process: the supervisor's only child.
    fn vm(&self) -> Pid {
        only_child(self.pid())
    }
}

/// The children of a process, each of whose threads has some of its own.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let threads = format!("/proc/{}/task", parent.as_raw_nonzero());
    let threads = fs::read_dir(threads).expect("alive").flatten();
    let children = threads.flat_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children"));
        let pids: Vec<_> = children
            .unwrap_or_default()
            .split_whitespace()
            .map(|pid| Pid::from_raw(pid.parse().expect("a process ID")).expect("not 0"))
            .collect();
        pids
    });
    children.collect()
}

/// The only child of a process.
pub(crate) fn only_child(parent: Pid) -> Pid {
    let children = children(parent);
    let [child] = children.as_slice() else {
        panic!("one child, and not {children:?}");
    };
    *child
}

/// Waits until the process is gone; false when the bound runs out.
fn gone(pidfd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&BOUND)).expect("poll") == 1
}

fn console(image: &Image) {
    // Without a script the guest's init gives a shell.
    let spec = Spec {
        script: "exec setsid cttyhack sh -l",
        ..Spec::default()
    };
    interactive(image, &spec, "kennel: guest is up");
}

fn virtio_console(image: &Image) {
    let spec = Spec {
        kernel_args: Some("console=hvc0"),
        // It leads its session already: it must stay, or the terminal that it opens hangs up.
        script: "exec sh -c 'echo ready; exec sh' </dev/hvc0 >/dev/hvc0 2>&1",
        ..Spec::default()
    };
    interactive(image, &spec, "ready");
}

/// A guest with a shell on its console, once it has said so.
fn interactive(image: &Image, spec: &Spec, says: &str) {
    let mut live = Live::start(image, spec, Stdio::piped());
    live.line(says);
    let mut input = live.child.stdin.take().expect("piped");
    // Longer than the FIFO, so that input waits for the guest.
    let padding = "x".repeat(200);
    writeln!(input, "echo $((6 * 7)){padding}").expect("the run listens");
    live.line(&format!("42{padding}"));
    writeln!(input, "poweroff -f").expect("the run listens");
    let status = live.child.wait().expect("a child");
    assert_eq!(status.code(), Some(0));
}

fn signal(image: &Image, signal: Signal, expected: Option<i32>) {
    let spec = Spec {
        script: STAY,
        ..Spec::default()
    };
    let mut live = Live::start(image, &spec, Stdio::null());
    live.line("ready");
    let vm = pidfd_open(live.vm(), PidfdFlags::empty()).expect("alive");
    let asked = std::time::Instant::now();
    kill_process(live.pid(), signal).expect("alive");
    assert!(gone(&vm), "the VM process is still there");
    let took = asked.elapsed();
    let status = live.child.wait().expect("a child");
    assert_eq!(status.code(), expected);
    eprintln!(
        "VM process gone {:.3} s after {signal:?}",
        took.as_secs_f64()
    );
    // Its folder holds what it was asked to write, and nothing else.
    let mut names: Vec<_> = fs::read_dir(live.prepared.path(""))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["events", "vmi.yaml"]);
}

fn killed_vm(image: &Image) {
    let spec = Spec {
        script: STAY,
        ..Spec::default()
    };
    let mut prepared = spec.prepare(image);
    prepared.command.args(["--console", "-"]);
    let mut live = Live::of(prepared);
    live.line("ready");
    kill_process(live.vm(), Signal::KILL).expect("alive");
    let output = live.child.wait_with_output().expect("a child");
    let ran = live.prepared.ran(&output);
    assert_eq!(ran.status, Some(1), "{ran}");
    assert!(
        ran.to_string()
            .contains("the VM process ended unexpectedly: signal: 9"),
        "{ran}"
    );
}

fn sigcont(image: &Image) {
    let script = "busybox watchdog -F -t 500ms -T 2000ms /dev/watchdog &\nsleep 1\nkill -9 $!";
    let spec = Spec {
        script,
        action: Some("pause"),
        ..Spec::default()
    };
    let mut prepared = spec.prepare(image);
    // The later --events wins over the file.
    prepared
        .command
        .args(["--events", "-"])
        .stderr(Stdio::null());
    let mut live = Live::of(prepared);
    live.line("\"Paused\"");
    kill_process(live.pid(), Signal::CONT).expect("alive");
    live.line("\"Resumed\"");
    // It started over, so it bites and pauses again.
    live.line("\"Watchdog\"");
    live.line("\"Paused\"");
    kill_process(live.pid(), Signal::TERM).expect("alive");
    assert_eq!(live.child.wait().expect("a child").code(), Some(143));
}

/// Proportional set size of a VM process in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Proportional {
    pub(crate) guest: u64,
    /// The program's code: how much of it is mapped and by how many it is shared depends on what
    /// ran before.
    pub(crate) code: u64,
    /// Everything else.
    pub(crate) rest: u64,
    /// What no other process has, of that and of code: its own data, whatever runs beside it.
    pub(crate) own: u64,
}

pub(crate) fn proportional(vm: Pid) -> Proportional {
    let process = format!("/proc/{}", vm.as_raw_nonzero());
    let smaps = fs::read_to_string(format!("{process}/smaps")).expect("alive");
    let program = fs::read_link(format!("{process}/exe")).expect("alive");
    let program = program.to_string_lossy();
    let mut sizes = Proportional::default();
    let (mut is_guest, mut is_code) = (false, false);
    for line in smaps.lines() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = || -> u64 {
            rest.trim()
                .trim_end_matches(" kB")
                .parse()
                .expect("a number")
        };
        match name {
            // No other mapping is as large as this test's guest.
            "Size:" => is_guest = number() == 256 << 10,
            "Pss:" if is_guest => sizes.guest += number(),
            "Pss:" if is_code => sizes.code += number(),
            "Pss:" => sizes.rest += number(),
            "Private_Dirty:" if !is_guest => sizes.own += number(),
            _ if !name.ends_with(':') => {
                is_code = rest.starts_with("r-xp") && rest.ends_with(&*program);
            }
            _ => {}
        }
    }
    sizes
}

fn memory(image: &Image) {
    let spec = Spec {
        script: STAY,
        ..Spec::default()
    };
    let mut live = Live::start(image, &spec, Stdio::null());
    live.line("ready");
    let Proportional {
        guest, code, rest, ..
    } = proportional(live.vm());
    assert!(guest > 0, "guest RAM was not found among the mappings");
    eprintln!(
        "VM process: {rest} KiB PSS beyond {guest} KiB of touched guest RAM and {code} KiB of an \
         unoptimised program's code"
    );
    kill_process(live.pid(), Signal::TERM).expect("alive");
    live.child.wait().expect("a child");
    // With an optimised program's code, whole, it is held by the benchmarks' gates.
    assert!(rest <= 4 << 10, "{rest} KiB");
}

/// Lets the guest be bitten `count` times in one VM process; the boot status of each boot.
pub(crate) fn bites(image: &Image, spec: &Spec, count: u32) -> Vec<String> {
    let mut prepared = spec.prepare(image);
    let longest = format!("{}s", 60 + 120 * count);
    prepared
        .command
        .args(["--console", "-", "--timeout", &longest])
        .stderr(Stdio::null());
    let mut live = Live::of(prepared);
    let mut statuses = vec![live.line("bootstatus ")];
    let vm = live.vm();
    let held = |vm: Pid| {
        let path = format!("/proc/{}", vm.as_raw_nonzero());
        let entries = |what: &str| {
            fs::read_dir(Path::new(&path).join(what))
                .expect("alive")
                .count()
        };
        (entries("fd"), entries("task"))
    };
    let (descriptors, threads) = held(vm);
    // With the first arming a KVM VM is kept ready for the reset to come, its vCPU, and a thread to load
    // the guest.
    let armed = (descriptors + 2, threads + 1);
    for _ in 0..count {
        statuses.push(live.line("bootstatus "));
        assert_eq!(live.vm(), vm, "still the same process");
        assert_eq!(held(vm), armed, "descriptors and threads");
    }
    kill_process(live.pid(), Signal::TERM).expect("alive");
    live.child.wait().expect("a child");
    statuses
}
