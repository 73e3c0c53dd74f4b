// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bad input on the command line: each kind gets one clear message and its exit status, and leaves
//! nothing behind.

use std::fs;

use kennel_tests::documents::{FILE, Folder, VALID, edited, place, with_kernel};
use kennel_tests::kennel::Call;
use kennel_tests::tier::{self, Obstacle};
use libtest_mimic::Trial;

use crate::surroundings::{self, Wrapper};
use crate::test;

const ACTION: &str = "spec.domain.devices.watchdog.i6300esb.action";
const MEMORY: &str = "spec.domain.resources.requests.memory";
const WATCHDOG: &str = "spec.domain.devices.watchdog";
const CONTAINER: &str = "spec.domain.firmware.kernelBoot.container";
/// More than any machine has.
const TOO_MUCH: &str = "memory: 4096Ti";

/// A test that may find that it cannot run.
type Body = fn() -> Result<(), Obstacle>;

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("cli_bad_usage", bad_usage),
        test("cli_guest_build_on_bad_files", bad_guest_files),
        test("cli_program_that_is_missing", missing_program),
        test("cli_document_file_missing", document_missing),
        test("cli_document_file_is_a_directory", document_is_directory),
        test("cli_memory_beyond_the_host", too_much_memory),
        test("cli_kernel_files_missing", kernel_missing),
        test("cli_kernel_files_odd", kernel_odd),
        test("cli_ports_that_are_not_published", ports),
    ];
    tests.extend(mistakes().into_iter().map(Mistake::test));
    let able: [(&str, Body); 7] = [
        ("cli_document_file_unreadable", document_unreadable),
        ("cli_kernel_and_initrd_unreadable", kernel_unreadable),
        ("cli_no_kvm", no_kvm),
        ("cli_no_permission_for_kvm", no_permission),
        ("cli_kvm_that_is_none", no_real_kvm),
        ("cli_neither_kvm_nor_box", neither_kvm_nor_box),
        ("cli_document_and_memory_come_before_kvm", order),
    ];
    let able = able.map(|(name, body)| tier::test_if_able(tier::PURE, name, body));
    tests.extend(able);
    tests
}

/// What is wrong with `--publish` is bad usage, and found before anything is begun.
fn ports() {
    let folder = Folder::with(VALID);
    for (port, why) in [
        ("8080", "it has no GUESTPORT"),
        ("8080:http", "\"http\" is no port"),
        ("localhost:8080:80", "\"localhost\" is no IP address"),
        ("8080:80,Ready", "\"Ready\" is not \"ready\""),
    ] {
        let ended = folder.call(&["run", FILE, "--publish", port]).run();
        ended.is_bad_usage(&["--publish", port, why, "as in 8080:80"]);
    }
    let run = ["run", FILE, "--publish", "8080:80", "--publish", "8081:81"];
    let off = "    devices:\n      autoattachPodInterface: false\n";
    let without = Folder::with(edited("    devices:\n", off)).call(&run).run();
    let network = "attaches no pod network";
    without.is_messages(2, &[&["port 80 ", network], &["port 81 ", network]]);
    let one = "    devices:\n      interfaces: [{name: a, masquerade: {}, ports: [{port: 81}]}]\n";
    let listed = edited("    devices:\n", one) + "  networks: [{name: a, pod: {}}]\n";
    let listed = Folder::with(listed).call(&run).run();
    listed.is_messages(2, &[&["--publish: port 80 ", "allowed: 81;"]]);
}

/// A document with one mistake, and what is said about it.
struct Mistake {
    name: &'static str,
    document: String,
    /// What stands in the line that the message names.
    at: &'static str,
    /// Path, value, what is allowed or what to do.
    parts: &'static [&'static str],
}

impl Mistake {
    /// `validate` and `run` say the same.
    fn test(self) -> Trial {
        test(&format!("cli_document_{}", self.name), move || {
            let folder = Folder::with(&self.document);
            let place = place(&self.document, self.at);
            let parts: Vec<_> = std::iter::once(place.as_str())
                .chain(self.parts.iter().copied())
                .collect();
            let validated = folder.validate();
            validated.is_one_message(2, &parts);
            let run = folder.run();
            run.is_one_message(2, &parts);
            assert_eq!(run.stderr, validated.stderr);
        })
    }
}

fn mistakes() -> Vec<Mistake> {
    let mistake = |name, at, document, parts| Mistake {
        name,
        document,
        at,
        parts,
    };
    let memory = |name, value: &'static str, parts| {
        let line = format!("memory: {value}");
        mistake(name, value, edited("memory: 64Mi", &line), parts)
    };
    vec![
        mistake(
            "action_powerof",
            "action:",
            edited("poweroff", "powerof"),
            &[
                ACTION,
                "\"powerof\"",
                "reset, poweroff, shutdown",
                "did you mean \"poweroff\"?",
            ],
        ),
        mistake(
            "misspelt_key",
            "watchdgo:",
            edited("watchdog:", "watchdgo:"),
            &[
                "spec.domain.devices.watchdgo",
                "unknown key",
                "did you mean \"watchdog\"?",
            ],
        ),
        mistake(
            "unknown_key",
            "colour",
            edited(
                "          action",
                "          colour: red\n          action",
            ),
            &[
                "i6300esb.colour",
                "unknown key \"colour\"",
                "allowed: action",
            ],
        ),
        mistake(
            "two_watchdogs",
            "watchdog: {",
            edited("poweroff\n", "poweroff\n      watchdog: {name: other}\n"),
            &[
                WATCHDOG,
                "\"watchdog\" is given twice",
                "first on line 11",
                "keep one",
            ],
        ),
        mistake(
            "two_watchdogs_in_a_list",
            "watchdog:",
            edited(
                "      watchdog:\n        name: mywatchdog\n        i6300esb:\n          action: poweroff\n",
                "      watchdog: [{name: one}, {name: two}]\n",
            ),
            &[WATCHDOG],
        ),
        memory("memory_0", "0", &[MEMORY, "\"0\"", "32Mi or more"]),
        memory(
            "memory_3",
            "3",
            &[MEMORY, "\"3\"", "32Mi or more", "write 3Mi or 3Gi"],
        ),
        memory(
            "memory_12Q",
            "12Q",
            &[MEMORY, "unknown unit \"Q\"", "\"12Q\"", "Ki, Mi, Gi"],
        ),
        memory(
            "memory_negative",
            "-1Gi",
            &[MEMORY, "\"-1Gi\"", "32Mi or more"],
        ),
        memory(
            "memory_in_words",
            "lots",
            &[MEMORY, "\"lots\" is not a quantity", "512Mi"],
        ),
        mistake(
            "malformed_yaml",
            "kind: a: b",
            edited("kind: VirtualMachineInstance", "kind: a: b"),
            &["malformed YAML"],
        ),
        mistake(
            "of_another_kind",
            "kind:",
            edited("VirtualMachineInstance", "Pod"),
            &["kind", "\"Pod\"", "VirtualMachineInstance, VirtualMachine"],
        ),
    ]
}

fn bad_usage() {
    let usage = |args: &[&str], parts: &[&str]| Call::new(args).run().is_bad_usage(parts);
    usage(&["rnu", FILE], &["'rnu'", "Usage: "]);
    usage(&["host", "chekc"], &["'chekc'", "'check'"]);
    usage(&["run"], &["<FILE>"]);
    usage(&["validate"], &["<FILE>"]);
    usage(&["run", FILE, "--evnts", "-"], &["'--evnts'", "'--events'"]);
    usage(
        &["run", FILE, "--timeout", "0"],
        &["'0'", "'--timeout <S>'", "90s or 5m"],
    );
    usage(
        &["run", FILE, "--timeout", "soon"],
        &["'soon'", "90s or 5m"],
    );
    usage(&["guest", "build", "--kernel", "x"], &["--initrd <FILE>"]);
    usage(&["guest", "build", "--initrd", "x"], &["--kernel <FILE>"]);
    usage(&["host", "run"], &["<COMMAND>"]);
    let action = ["demo", "watchdog", "--action", "powerof"];
    usage(&action, &["'powerof'", "'poweroff'", "inject-nmi"]);
    let both = [
        "guest",
        "build",
        "--host-kernel",
        "--kernel",
        "x",
        "--initrd",
        "y",
    ];
    usage(&both, &["'--host-kernel'", "'--kernel <FILE>'"]);
    // Processes that kennel starts for itself.
    let vm_process = Call::new(&["vm-process"]).run();
    vm_process.is_one_message(2, &["vm-process", "kennel run FILE"]);
}

fn bad_guest_files() {
    let folder = Folder::with("");
    folder.file("text", b"These words are neither a kernel nor an initrd.\n");
    folder.file("empty", b"");
    let kernel = |file: &str, parts: &[&str]| {
        let args = ["guest", "build", "--kernel", file, "--initrd", "text"];
        folder.call(&args).run().is_one_message(1, parts);
    };
    kernel(
        "none",
        &["kernel none", "No such file or directory", "check the path"],
    );
    kernel("text", &["text"]);
    kernel("empty", &["empty"]);
    kernel(".", &["kernel .", "not a file"]);
}

fn missing_program() {
    let ended = Call::new(&["host", "run", "--no-box", "--", "/none/at-all"]).run();
    ended.is_one_message(1, &["cannot run /none/at-all", "No such file", "PATH"]);
}

fn document_missing() {
    let folder = Folder::with(VALID);
    for command in ["validate", "run"] {
        let ended = folder.call(&[command, "none.yaml"]).run();
        ended.is_one_message(
            2,
            &["none.yaml:", "cannot read", "no such file or directory"],
        );
    }
    let ended = folder.call(&["validate", "vm.yaml/deeper.yaml"]).run();
    ended.is_one_message(2, &["vm.yaml/deeper.yaml:", "not a directory"]);
}

fn document_is_directory() {
    let folder = Folder::with(VALID);
    for command in ["validate", "run"] {
        let ended = folder.call(&[command, "."]).run();
        ended.is_one_message(2, &[".:", "cannot read", "it is a directory"]);
    }
    for (bytes, parts) in [
        (&b""[..], ["vm.yaml:", "holds no document"]),
        (
            b"# nothing but a comment\n",
            ["vm.yaml:", "holds no document"],
        ),
        (b"apiVersion: \xff\n", ["vm.yaml:", "UTF-8"]),
    ] {
        let folder = Folder::with(bytes);
        folder.validate().is_one_message(2, &parts);
        folder.run().is_one_message(2, &parts);
    }
}

fn too_much_memory() {
    let document = edited("memory: 64Mi", TOO_MUCH);
    let folder = Folder::with(&document);
    let validated = folder.validate();
    assert_eq!(validated.status, 0, "elsewhere it may run: {validated}");
    let place = place(&document, TOO_MUCH);
    let run = folder.run();
    run.is_one_message(
        2,
        &[
            &place,
            MEMORY,
            "4294967296 MiB",
            "allowed: up to",
            "ask for less",
        ],
    );
}

fn kernel_missing() {
    let document = with_kernel();
    let folder = Folder::with(&document);
    let image = place(&document, "image:");
    let directory = [
        image.as_str(),
        CONTAINER,
        "image",
        "no such file",
        "kennel/guest",
    ];
    folder.validate().is_one_message(2, &directory);
    folder.run().is_one_message(2, &directory);

    fs::create_dir(folder.path("image")).expect("a directory");
    let places = ["kernelPath", "initrdPath"].map(|key| place(&document, key));
    let missing: &[&[&str]] = &[
        &[
            &places[0],
            "kernelPath",
            "kernel \"./image/vmlinuz\"",
            "no such file",
        ],
        &[
            &places[1],
            "initrdPath",
            "initrd \"./image/initrd\"",
            "no such file",
        ],
    ];
    folder.validate().is_messages(2, missing);
    folder.run().is_messages(2, missing);
}

fn kernel_odd() {
    let document = with_kernel();
    let folder = Folder::with(&document);
    folder.file("image/initrd", b"");
    fs::create_dir(folder.path("image/vmlinuz")).expect("a directory");
    let expected: &[&[&str]] = &[
        &["kernelPath", "\"./image/vmlinuz\"", "is not a regular file"],
        &["initrdPath", "\"./image/initrd\"", "is empty"],
    ];
    folder.validate().is_messages(2, expected);
    folder.run().is_messages(2, expected);
}

fn document_unreadable() -> Result<(), Obstacle> {
    let folder = Folder::with(VALID);
    let wrapper = surroundings::unreadable(&folder.path(FILE))?;
    for command in ["validate", "run"] {
        let ended = folder.call(&[command, FILE]).through(&wrapper).run();
        ended.is_one_message(2, &["vm.yaml:", "cannot read", "permission denied"]);
    }
    Ok(())
}

fn kernel_unreadable() -> Result<(), Obstacle> {
    let folder = Folder::with(with_kernel());
    let mut wrapper = vec![];
    for file in ["image/vmlinuz", "image/initrd"] {
        wrapper = surroundings::unreadable(&folder.file(file, b"some bytes"))?;
    }
    let ended = folder.call(&["run", FILE]).through(&wrapper).run();
    let expected: &[&[&str]] = &[
        &["kernelPath", "\"./image/vmlinuz\"", "permission denied"],
        &["initrdPath", "\"./image/initrd\"", "permission denied"],
    ];
    ended.is_messages(2, expected);
    Ok(())
}

/// A run of a valid document on this machine, behind `wrapper`.
fn run_behind(wrapper: &Wrapper) -> kennel_tests::kennel::Ended {
    let folder = Folder::with(VALID);
    folder
        .call(&["run", FILE, "--no-box"])
        .through(wrapper)
        .run()
}

fn no_kvm() -> Result<(), Obstacle> {
    let ended = run_behind(&surroundings::without_kvm()?);
    ended.is_one_message(
        1,
        &["/dev/kvm does not exist", "kvm_intel or kvm_amd", "--box"],
    );
    Ok(())
}

fn no_permission() -> Result<(), Obstacle> {
    let ended = run_behind(&surroundings::denied_kvm()?);
    ended.is_one_message(
        1,
        &["/dev/kvm may not be opened", "usermod -aG kvm", "--box"],
    );
    Ok(())
}

fn no_real_kvm() -> Result<(), Obstacle> {
    let ended = run_behind(&surroundings::fake_kvm()?);
    ended.is_one_message(1, &["/dev/kvm"]);
    Ok(())
}

fn neither_kvm_nor_box() -> Result<(), Obstacle> {
    let wrapper = surroundings::without_kvm_and_programs()?;
    let folder = Folder::with(VALID);
    let ended = folder.call(&["run", FILE]).through(&wrapper).run();
    let message: &[&[&str]] = &[
        &["no Linux guest can run here"],
        &[
            "KVM",
            "/dev/kvm does not exist",
            "load kvm-intel or kvm-amd",
        ],
        &["box", "no qemu-system-x86_64", "install it with"],
        &["Linux guests", "no"],
    ];
    ended.is_messages(1, message);
    let boxed = folder.call(&["run", FILE, "--box"]).through(&wrapper).run();
    boxed.is_one_message(
        1,
        &[
            "box",
            "qemu-system-x86_64",
            "not installed",
            "install it with",
        ],
    );
    let ended = folder.call(&["host", "check"]).through(&wrapper).run();
    assert_eq!(ended.status, 1, "{ended}");
    assert!(ended.stdout.ends_with("Linux guests  no\n"), "{ended}");
    assert_eq!(ended.stderr, "", "{ended}");
    Ok(())
}

/// What the user can mend in the document is told before what the machine lacks.
fn order() -> Result<(), Obstacle> {
    let wrapper = surroundings::without_kvm_and_programs()?;
    for (document, part) in [
        (edited("poweroff", "powerof"), "did you mean \"poweroff\"?"),
        (with_kernel(), "image directory"),
        (edited("memory: 64Mi", TOO_MUCH), "ask for less"),
    ] {
        let folder = Folder::with(document);
        for args in [
            &["run", FILE, "--no-box"][..],
            &["run", FILE],
            &["run", FILE, "--box"],
        ] {
            let ended = folder.call(args).through(&wrapper).run();
            ended.is_one_message(2, &[part]);
        }
    }
    Ok(())
}
