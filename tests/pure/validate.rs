// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel validate`: what it says about good documents, and all it says about bad ones.

use std::path::{Path, PathBuf};

use kennel_tests::documents::{FILE, Folder, VALID, edited};
use kennel_tests::kennel::{Call, Ended};
use libtest_mimic::Trial;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("validate_the_examples", examples),
        test("validate_a_virtual_machine", virtual_machine),
        test("validate_names_what_it_leaves_out", notes),
        test("validate_says_ten_mistakes_at_once", ten_mistakes),
        test("validate_takes_the_tutorials", tutorials),
        test("validate_says_ten_mistakes_of_probes", probe_mistakes),
        test("validate_tells_kubevirts_numbers", compat),
        test("validate_keeps_a_flood_of_mistakes_short", flood),
        test("validate_quotes_no_control_characters", control_characters),
    ]
}

fn is_valid(ended: &Ended, lines: &[&str]) {
    assert_eq!(ended.status, 0, "{ended}");
    assert_eq!(ended.stderr, "", "{ended}");
    let said: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(said, lines, "{ended}");
}

fn examples() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let validated = |file: &str| Call::new(&["validate", file]).within(&folder).run();
    let valid = "watchdog.yaml: VirtualMachineInstance default/watchdog-example is valid";
    is_valid(&validated("watchdog.yaml"), &[valid]);
    for name in ["probes", "http"] {
        let ended = validated(&format!("{name}.yaml"));
        let valid = format!("{name}.yaml: VirtualMachine default/{name}-example is valid");
        let mut said = ended.stdout.lines();
        assert_eq!((ended.status, said.next()), (0, Some(&*valid)), "{ended}");
        let image = "note: no kernelBoot.container: the built guest image";
        let note = said.next();
        assert!(note.is_some_and(|note| note.starts_with(image)), "{ended}");
        assert_eq!(said.next(), None, "{ended}");
    }
}

/// As the tutorials have it: a `VirtualMachine` with disks, a network and a probe, switched off.
const MACHINE: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: lab
  namespace: probes
spec:
  running: false
  template:
    metadata:
      labels:
        kubevirt.io/domain: lab
    spec:
      tolerations: []
      domain:
        devices:
          watchdog:
            name: mywatchdog
            i6300esb:
              action: inject-nmi
          disks:
            - name: root
              disk:
                bus: virtio
          interfaces:
            - name: default
              masquerade: {}
        resources:
          requests:
            memory: 1Gi
      networks:
        - name: default
          pod: {}
      volumes:
        - name: root
          containerDisk:
            image: example/image
      livenessProbe:
        tcpSocket:
          port: 22
";

fn virtual_machine() {
    let ended = Folder::with(MACHINE).validate();
    assert_eq!(ended.status, 0, "{ended}");
    let valid = "vm.yaml: VirtualMachine probes/lab is valid\n";
    assert!(ended.stdout.starts_with(valid), "{ended}");
}

/// Every note names a field with its line, and no field that counts is named.
fn notes() {
    let ended = Folder::with(MACHINE).validate();
    let note_on = |path: &str, line: usize| {
        let place = format!("{path} (line {line})");
        let note = ended.stdout.lines().find(|line| line.contains(&place));
        assert!(note.is_some(), "no note on {place}: {ended}");
        let note = note.unwrap_or_default();
        assert!(note.starts_with("note: "), "{ended}");
        note.to_owned()
    };
    let spec = "spec.template.spec";
    let disks = note_on(&format!("{spec}.domain.devices.disks"), 20);
    let volumes = note_on(&format!("{spec}.volumes"), 33);
    let unused = note_on(&format!("{spec}.tolerations"), 13);
    let action = note_on(
        &format!("{spec}.domain.devices.watchdog.i6300esb.action"),
        19,
    );
    let off = note_on("spec.running", 7);
    assert_eq!(disks, volumes, "one note for all that is not attached");
    let others = [&disks, &unused, &action, &off];
    for (index, note) in others.iter().enumerate() {
        assert!(!others[..index].contains(note), "{note} means two things");
    }
    assert!(action.contains("not in KubeVirt"), "{action}");
    for taken in ["memory", "interfaces", "networks", "livenessProbe"] {
        assert!(!ended.stdout.contains(taken), "{ended}");
    }
    assert!(!ended.stdout.contains(".name"), "{ended}");
}

fn ten_mistakes() {
    let document = "\
apiVersion: kubevirt.io/v2
kind: VirtualMachineInstance
metadata:
  name: Tested_One
  annotations:
    kennel/pretimout: event
    kennel/shutdown-grace: soon
spec:
  terminationGracePeriodSeconds: -1
  domain:
    cpu:
      cores: -2
    resources:
      requests:
        memory: 12Q
    firmware:
      kernelBoot:
        container:
          image: oci:somewhere
          kernelPath: /vmlinuz
    devices:
      watchdgo: {}
      watchdog:
        name: mywatchdog
        i6300esb:
          action: powerof
";
    let ended = Folder::with(document).validate();
    ended.is_messages(
        2,
        &[
            &[
                "vm.yaml:1:",
                "apiVersion",
                "\"kubevirt.io/v2\"",
                "kubevirt.io/v1",
            ],
            &["vm.yaml:4:", "metadata.name", "\"Tested_One\""],
            &[
                "vm.yaml:6:",
                "\"kennel/pretimout\"",
                "did you mean \"kennel/pretimeout\"?",
            ],
            &["vm.yaml:7:", "kennel/shutdown-grace", "\"soon\""],
            &["vm.yaml:9:", "spec.terminationGracePeriodSeconds", "-1"],
            &["vm.yaml:12:", "spec.domain.cpu.cores", "-2"],
            &["vm.yaml:15:", "requests.memory", "\"12Q\"", "Ki, Mi, Gi"],
            &[
                "vm.yaml:19:",
                "container.image",
                "\"oci:somewhere\"",
                "kennel/guest",
            ],
            &[
                "vm.yaml:22:",
                "devices.watchdgo",
                "did you mean \"watchdog\"?",
            ],
            &[
                "vm.yaml:26:",
                "i6300esb.action",
                "\"powerof\"",
                "did you mean \"poweroff\"?",
            ],
        ],
    );
    // Each of the ten says what is allowed or what to do.
    for line in ended.stderr.lines() {
        let helps = line.contains("; ") || line.contains("must be");
        assert!(helps, "{line} leaves its reader alone");
    }
}

/// The tutorials' documents are valid, and what is left out of each is said.
fn tutorials() {
    let table = [
        ("fedora-http-liveness", "default/vmi-fedora"),
        ("fedora-http-readiness", "default/vmi-fedora"),
        ("fedora-tcp-liveness", "default/vmi-fedora"),
        ("lab-exec", "default/lab08-probe"),
        ("lab-http-both", "default/lab08-probe"),
        ("lab-http-liveness", "default/lab08-probe"),
        ("lab-ping-liveness", "default/lab08-probe"),
        ("lab-tcp-liveness", "default/lab08-probe"),
        ("lab-watchdog", "default/lab08-watchdog"),
        ("replica-set", "default/lab08-set"),
    ];
    let files = std::fs::read_dir(fixtures()).expect("there are fixtures");
    assert_eq!(
        files.count(),
        table.len(),
        "each fixture is held to something"
    );
    for (name, object) in table {
        let ended = valid_fixture(&[&format!("{name}.yaml")]);
        let first = ended.stdout.lines().next().unwrap_or_default();
        assert!(first.ends_with(&format!(" {object} is valid")), "{ended}");
        for taken in ["Probe (line", "interfaces", "networks"] {
            assert!(!ended.stdout.contains(taken), "{ended}");
        }
        let disks = ended
            .stdout
            .contains("note: not attached to the guest yet: ");
        assert_eq!(disks, name != "replica-set", "{ended}");
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn valid_fixture(args: &[&str]) -> Ended {
    let args: Vec<_> = ["validate"].iter().chain(args).copied().collect();
    let ended = Call::new(&args).within(&fixtures()).run();
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{ended}");
    ended
}

fn compat() {
    const WORDS: &str = "KubeVirt would run it with";
    let plain = valid_fixture(&["lab-ping-liveness.yaml"]);
    assert!(!plain.stdout.contains(WORDS), "{plain}");
    let ended = valid_fixture(&["--compat", "lab-ping-liveness.yaml"]);
    assert!(ended.stdout.starts_with(&plain.stdout), "{ended}");
    let told: Vec<_> = ended
        .stdout
        .lines()
        .filter(|line| line.contains(WORDS))
        .collect();
    assert_eq!(told.len(), 2, "one line for each probe: {ended}");
    let spec = "spec.template.spec";
    assert_eq!(
        told[0],
        format!(
            "note: {WORDS} initialDelaySeconds 130, timeoutSeconds 11, periodSeconds 20, successThreshold 1, \
             failureThreshold 3, as `virt-probe --domainName default_lab08-probe --timeoutSeconds 10 \
             --guestAgentPing`: {spec}.livenessProbe (line 28)"
        )
    );
    assert_eq!(
        told[1],
        format!(
            "note: {WORDS} initialDelaySeconds 130, timeoutSeconds 10, periodSeconds 20, successThreshold 5, \
             failureThreshold 5: {spec}.readinessProbe (line 33)"
        )
    );
}

fn probe_mistakes() {
    let document = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceReplicaSet
metadata:
  name: web
spec:
  replicas: -2
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: wbe
    spec:
      startStrategy: Paused
      domain:
        resources:
          requests:
            memory: 64Mi
      livenessProbe:
        initialDelaySeconds: -5
        periodSeconds: 20s
        successThreshold: 2
        failureTreshold: 3
        exec:
          command: []
      readinessProbe:
        successThreashold: 3
        httpGet:
          port: Web
";
    let ended = Folder::with(document).validate();
    let spec = "spec.template.spec";
    let live = format!("{spec}.livenessProbe");
    let ready = format!("{spec}.readinessProbe");
    let rows = [
        (6, "spec.replicas".to_owned(), "\"-2\"", "allowed: 0 to 64"),
        (
            9,
            "spec.selector.matchLabels.app".to_owned(),
            "\"web\"",
            "write app: web in spec.template.metadata.labels",
        ),
        (
            15,
            format!("{spec}.startStrategy"),
            "livenessProbe",
            "remove startStrategy",
        ),
        (
            21,
            format!("{live}.initialDelaySeconds"),
            "-5",
            "write 0 to probe from the start",
        ),
        (
            22,
            format!("{live}.periodSeconds"),
            "\"20s\"",
            "write 20: the unit is seconds",
        ),
        (
            23,
            format!("{live}.successThreshold"),
            "2 in a row",
            "allowed: 1; leave it out",
        ),
        (
            24,
            format!("{live}.failureTreshold"),
            "unknown key",
            "did you mean \"failureThreshold\"?",
        ),
        (
            26,
            format!("{live}.exec.command"),
            "empty",
            "command: [cat, /tmp/healthy]",
        ),
        (
            28,
            format!("{ready}.successThreashold"),
            "unknown key",
            "did you mean \"successThreshold\"?",
        ),
        (
            30,
            format!("{ready}.httpGet.port"),
            "\"Web\"",
            "write the number, or name a port",
        ),
    ];
    assert_eq!((ended.status, ended.stdout.as_str()), (2, ""), "{ended}");
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), rows.len(), "{ended}");
    for (line, (number, path, what, hint)) in lines.into_iter().zip(rows) {
        let place = format!("kennel: {FILE}:{number}: {path}: ");
        assert!(line.starts_with(&place), "{place}: {line}");
        assert!(line.contains(what), "{what}: {line}");
        let help = line.split_once("; ").map_or("", |(_, help)| help);
        assert!(help.contains(hint), "{hint}: {line}");
    }
}

fn flood() {
    let keys: String = (0..5000).map(|n| format!("      bad{n}: 1\n")).collect();
    let document = edited("    devices:\n", &format!("    devices:\n{keys}"));
    let ended = Folder::with(document).validate();
    ended.failed_clearly(2);
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 101, "a hundred, and how many more");
    assert!(lines[0].contains("vm.yaml:11:"), "{}", lines[0]);
    assert!(lines[100].contains("4900 more"), "{}", lines[100]);
}

/// A document cannot write to the terminal of whoever reads about it.
fn control_characters() {
    let document = edited("action: poweroff", "action: \"\\e[31mpower\\noff\"");
    let folder = Folder::with(document);
    for ended in [folder.validate(), folder.run()] {
        ended.is_one_message(2, &["vm.yaml:14:", "poweroff"]);
        assert!(!ended.stderr.contains('\u{1b}'), "{ended}");
    }
    let text = VALID.replace("tested", "\"te\u{7f}sted\"");
    let ended = Folder::with(text).call(&["validate", FILE]).run();
    ended.failed_clearly(2);
    assert!(!ended.stderr.contains('\u{7f}'), "{ended}");
}
