// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests that would silence their watchdog, and those who should read and do not: the watchdog bites all the
//! same, and its action is carried out.

use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use kennel::supervisor::vm_process::{ConsoleEnds, VmProcess, Word};
use kennel_tests::documents::{FILE, Folder};
use kennel_tests::machine::{Machine, Seen};
use kennel_tests::silencer;
use kennel_tests::tier;
use kennel_vmm::config::{MachineConfig, WatchdogAction, WatchdogConfig};
use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::{self, Ending, News, Notice};
use libtest_mimic::Trial;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::registers::ended;
use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("unread_pipe_silences_no_watchdog", || deaf(unread_pipe())),
        test("unread_terminal_silences_no_watchdog", || {
            deaf(unread_terminal());
        }),
        test("colliding_bars_hold_up_no_reset", collisions),
        test("log_of_colliding_bars_is_bounded", logged_collisions),
        test("log_of_a_flooded_console_is_bounded", logged_flood),
        test("stopped_vm_process_dies_with_its_supervisor", orphan),
        test("agents_bytes_are_read_beside_the_loop", agent_flood),
        test("supervisor_that_does_not_read_costs_nothing", unheard),
    ]
}

/// Longer than anything here takes, on any machine.
const BOUND: Duration = Duration::from_secs(180);

/// An output that nobody reads, full to the brim: its next byte waits.
struct Unread {
    output: OwnedFd,
    _reader: Box<dyn Send>,
}

fn fill(output: &OwnedFd) {
    let flags = fcntl_getfl(output).expect("flags");
    fcntl_setfl(output, flags | OFlags::NONBLOCK).expect("flags");
    let mut piece = 4096;
    while piece > 0 {
        match rustix::io::write(output, &vec![b'.'; piece]) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, Errno::AGAIN, "it is full");
                piece /= 2;
            }
        }
    }
    fcntl_setfl(output, flags).expect("flags");
}

fn unread_pipe() -> Unread {
    let (reader, writer) = io::pipe().expect("a pipe");
    let output = OwnedFd::from(writer);
    fill(&output);
    Unread {
        output,
        _reader: Box::new(reader),
    }
}

fn unread_terminal() -> Unread {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("a terminal");
    unlockpt(&terminal).expect("a terminal");
    let name = ptsname(&terminal, vec![]).expect("its name");
    let open = |flags| rustix::fs::open(&*name, flags | OFlags::NOCTTY, rustix::fs::Mode::empty());
    let output = open(OFlags::RDWR).expect("its other end");
    fill(&output);
    Unread {
        output,
        _reader: Box::new(terminal),
    }
}

fn config(kernel: &Path, letter: char, action: WatchdogAction) -> MachineConfig {
    let watchdog = WatchdogConfig {
        action,
        ..WatchdogConfig::default()
    };
    MachineConfig {
        watchdog: Some(watchdog),
        ..Machine::config(kernel, &letter.to_string())
    }
}

/// The guest prints and has something logged, and nobody reads either.
fn deaf(unread: Unread) {
    let kernel = silencer::write();
    let config = config(&kernel, 'd', WatchdogAction::Poweroff);
    let console = unread.output.try_clone().expect("a descriptor");
    let mut machine = Machine::start_into(config, console, unread.output);
    let (_, report) = machine.news("bite", bite);
    assert_eq!(report, WatchdogAction::Poweroff);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::WatchdogPowerOff);
    machine.wait_for("the end of the process", |seen| {
        matches!(seen, Seen::Gone).then_some(())
    });
}

fn bite(news: &News) -> Option<WatchdogAction> {
    match news {
        News::Watchdog(report) => Some(report.action),
        _ => None,
    }
}

fn collisions() {
    let kernel = silencer::write();
    let unread = unread_pipe();
    let config = config(&kernel, 'c', WatchdogAction::Reset);
    let mut machine = Machine::start_logging_to(config, unread.output);
    for number in 1..=3 {
        let (_, count) = machine.news("reset", |news| match news {
            News::Reset {
                cause: ResetCause::Watchdog,
                count,
            } => Some(*count),
            _ => None,
        });
        assert_eq!(count, number);
    }
}

fn pipe() -> (OwnedFd, PipeReader) {
    let (reader, writer) = io::pipe().expect("a pipe");
    (writer.into(), reader)
}

/// A line for each of so many collisions would be thousands.
fn logged_collisions() {
    let kernel = silencer::write();
    let config = config(&kernel, 'c', WatchdogAction::None);
    let text = logged(
        |log| Machine::start_logging_to(config, log),
        |machine| (0..4).for_each(|_| drop(machine.line("*"))),
    );
    assert!(
        text.contains("suppressed"),
        "and the rest is counted: {text}"
    );
}

/// Its output is read, though not as fast as it comes.
fn logged_flood() {
    let kernel = silencer::write();
    let config = config(&kernel, 'p', WatchdogAction::None);
    let (console, mut printed) = pipe();
    thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while printed.read(&mut piece).is_ok_and(|count| count > 0) {
            thread::sleep(Duration::from_millis(2));
        }
    });
    logged(
        |log| Machine::start_into(config, console, log),
        |machine| (0..4).for_each(|_| drop(machine.news("bite", bite))),
    );
}

/// What a guest has had logged that went on for a while.
fn logged(start: impl FnOnce(OwnedFd) -> Machine, go_on: impl FnOnce(&mut Machine)) -> String {
    let began = Instant::now();
    let (log, mut reader) = pipe();
    let mut machine = start(log);
    let reads = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    go_on(&mut machine);
    assert!(machine.orphaned().success());
    let text = reads.join().expect("no panic").expect("text");
    // Of all places together: a burst of 32, then 4 a second, and a last line.
    let most = 33 + 4 * (began.elapsed().as_secs() + 1);
    let lines = text.lines().count();
    assert!(
        u64::try_from(lines).is_ok_and(|lines| lines <= most),
        "{lines} lines, of {most} at most, the first {:?}",
        text.lines().next()
    );
    text
}

/// The VM process is stopped, so that it can do nothing about it.
fn orphan() {
    let folder = Folder::with(
        "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: orphan, \
         annotations: {kennel/uplink: none}}, spec: {domain: {resources: {requests: {memory: \
         64Mi}}, firmware: {kernelBoot: {container: {image: ./image, kernelPath: /guest}}}}}}",
    );
    folder.file("image/guest", &silencer::image());
    let mut supervisor = Command::new(std::env::current_exe().expect("this program has a file"))
        .args(["run", FILE, "--no-box", "--events", "events"])
        .args(["--console", "console", "--timeout", "600"])
        .current_dir(folder.path(""))
        .env(tier::ACT_AS_KENNEL, "1")
        .env("XDG_RUNTIME_DIR", folder.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a supervisor");
    let events = folder.path("events");
    let vm = until("the machine runs", || {
        let text = fs::read_to_string(&events).unwrap_or_default();
        let created: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
        let started = text.contains(r#""reason":"Started""#);
        created["data"]["pid"].as_i64().filter(|_| started)
    });
    let pid = i32::try_from(vm).ok().and_then(Pid::from_raw);
    let pid = pid.expect("a process");
    kill_process(pid, Signal::STOP).expect("it is ours");
    until("it is stopped", || (state(vm) == Some('T')).then_some(()));
    supervisor.kill().expect("it runs");
    supervisor.wait().expect("a child");
    // Whoever takes it over may let it lie dead for a while.
    until("the VM process is dead", || {
        matches!(state(vm), None | Some('Z' | 'X')).then_some(())
    });
}

/// Of a process; none if it is gone.
fn state(pid: i64) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

fn until<T>(what: &str, mut happens: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(happened) = happens() {
            return happened;
        }
        assert!(Instant::now() < end, "{what}: not within {BOUND:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody has asked for what the agent sends.
fn agent_flood() {
    let kernel = silencer::write();
    let mut machine = Machine::start_as(config(&kernel, 'a', WatchdogAction::None));
    machine.line("+");
    let before = ticks(machine.pid());
    let main = before.first().map(|(name, _)| name.clone());
    let main = main.expect("a process has a thread");
    let (mut on_the_loop, mut beside) = (0, 0);
    for _ in 0..200 {
        machine.line("*");
        let now = ticks(machine.pid());
        let used = |name: &str| sum(&now, name).saturating_sub(sum(&before, name));
        (on_the_loop, beside) = (used(&main), used("ports"));
        if beside >= 40 {
            break;
        }
    }
    machine.news("bite", bite);
    assert!(beside >= 40, "messages of 46 MiB take time: {beside} ticks");
    assert!(
        on_the_loop * 4 <= beside,
        "{on_the_loop} ticks on the loop, {beside} beside it: {before:?}, {:?}",
        ticks(machine.pid())
    );
}

/// Of all threads of this name.
fn sum(ticks: &[(String, u64)], name: &str) -> u64 {
    let named = ticks.iter().filter(|(thread, _)| thread == name);
    named.map(|(_, ticks)| ticks).sum()
}

/// Each thread's CPU time outside the kernel, the main thread first.
fn ticks(pid: u32) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let mut paths: Vec<_> = tasks.flatten().map(|task| task.path()).collect();
    paths.sort_by_key(|path| path.file_name() != Some(pid.to_string().as_ref()));
    let thread = |path: &PathBuf| {
        let text = fs::read_to_string(path.join("stat")).ok()?;
        let (head, tail) = text.rsplit_once(") ")?;
        let user: u64 = tail.split(' ').nth(11)?.parse().ok()?;
        Some((head.split_once('(')?.1.to_owned(), user))
    };
    paths.iter().filter_map(thread).collect()
}

/// More notices than the socket holds wait; then they are heard, merged, and the last of all at the end.
fn unheard() {
    const ASKED: usize = 3_000;
    const BOOTS: usize = 20;
    let kernel = silencer::write();
    let (console, printed) = pipe();
    let mut printed = BufReader::new(printed).lines();
    let (hears, heard) = channel::<Notice>();
    let (listen, listens) = channel::<()>();
    let mut deaf = true;
    let mut process = VmProcess::start_logging_to(
        Machine::config(&kernel, "r"),
        ConsoleEnds {
            input: Stdio::null(),
            output: console.into(),
        },
        Stdio::inherit(),
        move |word| {
            if std::mem::take(&mut deaf) {
                // Until the other end is dropped.
                let _dropped = listens.recv();
            }
            match word {
                Word::Notice(notice) => hears.send(*notice).is_ok(),
                Word::Gone => true,
            }
        },
    )
    .expect("a VM process");
    for _ in 0..ASKED {
        // It takes no more for now while the VM process has many to read.
        until("the command is taken", || {
            let told = process.tell(&protocol::Command::Status);
            match told.map_err(|error| error.kind()) {
                Err(io::ErrorKind::WouldBlock) => None,
                told => Some(told),
            }
        })
        .expect("it listens");
    }
    for _ in 0..BOOTS {
        let line = printed.next().and_then(Result::ok);
        assert_eq!(line.as_deref(), Some("+"), "it boots on");
    }
    process.tell(&protocol::Command::Stop).expect("it listens");
    // The process ends although nobody has heard it.
    let pid = i64::from(process.pid());
    until("the process has ended", || {
        matches!(state(pid), None | Some('Z' | 'X')).then_some(())
    });
    let status = process.wait().expect("a child");
    assert!(status.success(), "{status}");
    drop(listen);
    let notices: Vec<_> = heard.iter().collect();
    let count = |pick: fn(&News) -> bool| notices.iter().filter(|one| pick(&one.news)).count();
    assert_eq!(count(|news| matches!(news, News::Started)), 1);
    assert!(count(|news| matches!(news, News::Status(_))) < ASKED);
    let resets: Vec<_> = notices
        .iter()
        .filter_map(|notice| match notice.news {
            News::Reset { count, .. } => usize::try_from(count).ok(),
            _ => None,
        })
        .collect();
    assert!(
        resets.is_sorted() && resets.last() >= Some(&(BOOTS - 1)),
        "{resets:?}"
    );
    let last = notices.last().map(|notice| notice.news.clone());
    assert_eq!(last, Some(News::Ended(Ending::Stopped)));
}
