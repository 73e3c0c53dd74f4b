// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every way to a reset, and what survives it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kennel_tests::machine::{Machine, Seen};
use kennel_vmm::config::{MachineConfig, WatchdogAction, WatchdogConfig};
use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::{Command, Ending, News};
use libtest_mimic::Trial;
use tempfile::{NamedTempFile, TempPath};

use crate::registers::ended;
use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("reset_control_register", || {
            ordinary_reset('c', ResetCause::ResetControl)
        }),
        test("keyboard_controller_reset", || {
            ordinary_reset('k', ResetCause::KeyboardController)
        }),
        test("triple_fault_is_a_reset", || {
            ordinary_reset('t', ResetCause::TripleFault)
        }),
        test("reset_disarms_and_unlocks_the_watchdog", || {
            ordinary_reset('p', ResetCause::ResetControl);
        }),
        test("host_reset", host_reset),
        test("reset_reads_files_that_are_gone", files_that_are_gone),
        test(
            "commands_are_served_while_a_reset_loads",
            served_while_loading,
        ),
        test("stop_ends_a_machine_that_loads", stopped_while_loading),
        test("reset_of_a_bitten_machine", reset_of_a_bitten_machine),
        test("new_process_shows_the_old_ones_bite", bitten_elsewhere),
        test("acpi_soft_off_ends_the_machine", soft_off),
        test("a_hundred_bites_leave_nothing_behind", hundred_bites),
    ]
}

fn reset(news: &News) -> Option<(ResetCause, u64)> {
    match news {
        News::Reset { cause, count } => Some((*cause, *count)),
        _ => None,
    }
}

/// The payload asks for a reset in each boot; none of them was the watchdog's.
fn ordinary_reset(letter: char, expected: ResetCause) {
    let mut machine = Machine::start(letter, Some(WatchdogConfig::default()));
    for number in 1..=3 {
        let (_, (cause, count)) = machine.news("reset", reset);
        assert_eq!((cause, count), (expected, number));
    }
    machine.tell(&Command::Stop);
    machine.news("end", ended);
    for seen in machine.log() {
        let Seen::Line(line) = seen else { continue };
        assert_eq!(
            line, "timed_out=00000000",
            "nothing behind a reset request is reached"
        );
    }
}

fn host_reset() {
    let mut machine = Machine::start('w', None);
    machine.line("done");
    machine.tell(&Command::Reset);
    let (_, (cause, count)) = machine.news("reset", reset);
    assert_eq!((cause, count), (ResetCause::Host, 1));
    // The payload runs from its start to its end again, in memory that knows nothing of it.
    assert_eq!(machine.line("mark="), "00000000", "RAM was wiped");
    machine.line("done");
    let (holds, _) = at_rest(&mut machine, 1);
    assert_eq!(holds.kvm_vms, 1, "no watchdog, and none ready");
}

fn paused(news: &News) -> Option<()> {
    matches!(news, News::Paused { by_watchdog: false }).then_some(())
}

/// A machine that takes a while to load, and its files, which go with the second part.
fn loads_slowly() -> (Machine, (TempPath, NamedTempFile)) {
    const INITRD_BYTES: u64 = 512 << 20;
    let kernel = kennel_tests::payload::write();
    let initrd = NamedTempFile::new().expect("a temporary file");
    initrd.as_file().set_len(INITRD_BYTES).expect("a long file");
    let machine = Machine::start_as(MachineConfig {
        memory_bytes: INITRD_BYTES + (64 << 20),
        vcpus: 1,
        kernel: kernel.to_path_buf(),
        initrd: Some(initrd.path().to_owned()),
        initrd_overlay: vec![],
        cmdline: "w".to_owned(),
        watchdog: None,
        agent_socket: None,
        network: None,
        resets: 0,
    });
    (machine, (kernel, initrd))
}

/// Kernel and initrd are those that were there at the start.
fn files_that_are_gone() {
    let (mut machine, files) = loads_slowly();
    machine.line("done");
    let kernel = files.0.to_path_buf();
    drop(files);
    fs::write(&kernel, "no kernel").expect("another file of that name");
    machine.tell(&Command::Reset);
    machine.news("reset", reset);
    machine.line("done");
    fs::remove_file(kernel).expect("removed");
}

/// What is asked during a reset is answered before its end, but for the question whether it has ended.
fn served_while_loading() {
    let (mut machine, _files) = loads_slowly();
    machine.line("done");
    for command in [
        Command::Reset,
        Command::Status,
        Command::Reset,
        Command::Sync { token: 7 },
        Command::Pause,
    ] {
        machine.tell(&command);
    }
    let (_, resets) = machine.news("status", |news| match news {
        News::Status(status) => Some(status.resets),
        _ => None,
    });
    assert_eq!(resets, 0, "the loop went on");
    machine.news("pause", paused);
    let (_, (_, count)) = machine.news("reset", reset);
    assert_eq!(count, 1);
    let synced = |news: &News| matches!(news, News::Synced { token: 7 }).then_some(());
    machine.news("synced", synced);
    let lines = |machine: &Machine| {
        let is_line = |seen: &&Seen| matches!(seen, Seen::Line(_));
        machine.log().iter().filter(is_line).count()
    };
    let before = lines(&machine);
    machine.tell(&Command::Status);
    let (_, resets) = machine.news("status", |news| match news {
        News::Status(status) => status.frozen.then_some(status.resets),
        _ => None,
    });
    assert_eq!(resets, 1, "the second reset of a guest that had not run");
    assert_eq!(lines(&machine), before, "a paused guest runs");
    machine.tell(&Command::Resume);
    machine.line("done");
}

fn stopped_while_loading() {
    let (mut machine, _files) = loads_slowly();
    machine.line("done");
    machine.tell(&Command::Reset);
    machine.tell(&Command::Stop);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::Stopped);
    let told = |seen: &Seen| matches!(seen, Seen::Notice(notice) if reset(&notice.news).is_some());
    assert!(
        !machine.log().iter().any(told),
        "the end waited for the load"
    );
}

/// A machine that a bite pauses has no use for a KVM VM in reserve, but can be reset without it.
fn reset_of_a_bitten_machine() {
    let pauses = WatchdogConfig {
        action: WatchdogAction::Pause,
        ..WatchdogConfig::default()
    };
    let mut machine = Machine::start('b', Some(pauses));
    let paused = |news: &News| matches!(news, News::Paused { by_watchdog: true }).then_some(());
    machine.news("pause", paused);
    assert_eq!(machine.line("timed_out="), "00000000");
    assert_eq!(holdings(machine.pid()).kvm_vms, 1);
    machine.tell(&Command::Reset);
    let (_, (cause, count)) = machine.news("reset", reset);
    assert_eq!((cause, count), (ResetCause::Host, 1));
    machine.tell(&Command::Resume);
    assert_eq!(machine.line("timed_out="), "00000200");
    machine.news("second pause", paused);
    assert_eq!(holdings(machine.pid()).kvm_vms, 1);
}

/// A process that takes the place of one whose watchdog was to reset it: the guest reads the bite once.
fn bitten_elsewhere() {
    let bitten = WatchdogConfig {
        timed_out: true,
        ..WatchdogConfig::default()
    };
    let mut machine = Machine::start('p', Some(bitten));
    assert_eq!(machine.line("timed_out="), "00000200");
    machine.news("reset", reset);
    assert_eq!(machine.line("timed_out="), "00000000");
}

fn soft_off() {
    let mut machine = Machine::start('s', None);
    let (_, ending) = machine.news("end", ended);
    assert_eq!(ending, Ending::GuestPowerOff);
    let went_on = |seen: &Seen| *seen == Seen::Line("went_on".into());
    assert!(!machine.log().iter().any(went_on));
}

/// Event loop, pulse, console, log, notices, ports, loader, one vCPU.
const THREADS: usize = 8;

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    kvm_vms: usize,
    kvm_vcpus: usize,
    threads: usize,
}

fn holdings(pid: u32) -> Holdings {
    let entries = |what: &str| {
        fs::read_dir(format!("/proc/{pid}/{what}"))
            .expect("alive")
            .flatten()
    };
    // KVM lends the process a worker of its own once a vCPU has run.
    let ours = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| !name.starts_with("kvm"))
    };
    // Read once: what is being built must not be seen at two moments.
    let open: Vec<PathBuf> = entries("fd")
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .collect();
    let of_kvm = |what: &str| {
        let is = |it: &&PathBuf| it.to_string_lossy().starts_with(what);
        open.iter().filter(is).count()
    };
    Holdings {
        descriptors: open.len(),
        kvm_vms: of_kvm("anon_inode:kvm-vm"),
        kvm_vcpus: of_kvm("anon_inode:kvm-vcpu"),
        threads: entries("task").filter(ours).count(),
    }
}

/// Resident memory in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a process has it");
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}

/// What the process holds while its machine stands still, with its VM built, its vCPU parked, and so many KVM VMs.
fn at_rest(machine: &mut Machine, kvm_vms: usize) -> (Holdings, u64) {
    machine.tell(&Command::Pause);
    machine.news("pause", |news| {
        matches!(news, News::Paused { .. }).then_some(())
    });
    // The spare's thread is waited for, and one that has been joined, which can still be listed for a moment. A list
    // of threads that is read while one ends can miss another, so that their number alone says too little.
    let bound = Instant::now() + Duration::from_secs(20);
    let holds = loop {
        let holds = holdings(machine.pid());
        let built = [holds.kvm_vms, holds.kvm_vcpus] == [kvm_vms; 2];
        let settled = built && holds.threads == THREADS;
        if settled || Instant::now() > bound {
            break holds;
        }
        std::thread::yield_now();
    };
    let found = (holds, resident_kib(machine.pid()));
    machine.tell(&Command::Resume);
    found
}

fn hundred_bites() {
    const BITES: u64 = 100;
    let mut machine = Machine::start('b', Some(WatchdogConfig::default()));
    assert_eq!(
        machine.line("timed_out="),
        "00000000",
        "the first boot has no past"
    );
    let mut before = None;
    for number in 1..=BITES {
        assert_eq!(
            machine.line("timed_out="),
            "00000200",
            "boot {number} reports its reset"
        );
        if !number.is_multiple_of(10) {
            continue;
        }
        let (holds, resident) = at_rest(&mut machine, 2);
        match &before {
            None => {
                assert_eq!(holds.threads, THREADS);
                assert_eq!(holds.kvm_vms, 2, "one runs, and one is ready");
                before = Some((holds, resident));
            }
            Some((held, was_resident)) => {
                assert_eq!(holds, *held, "after {number} bites");
                // The allocator may keep a little more; a leak of one page a boot would not fit.
                let grown = resident.saturating_sub(*was_resident);
                assert!(grown < 256, "{grown} KiB more after {number} bites");
            }
        }
    }
    let bites = machine.log().iter().filter(|seen| match seen {
        Seen::Notice(notice) => matches!(notice.news, News::Watchdog(_)),
        _ => false,
    });
    assert!(bites.count() >= 100);
}
