// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents that are refused, and with which words.

use super::{INSTANCE, refuse, with};

/// Each document is refused with exactly one line, this one.
fn table(rows: &[(String, &str)]) {
    for (text, expected) in rows {
        assert_eq!(refuse(text), [*expected], "{text}");
    }
}

#[test]
fn memory() {
    let memory = "vm.yaml:13: spec.domain.resources.requests.memory:";
    for (value, expected) in [
        ("0", "memory \"0\" is no memory; allowed: 32Mi or more"),
        (
            "3",
            "memory \"3\" is 3 bytes, too few for a guest kernel; allowed: 32Mi or more; \
             a number without a unit counts bytes: write 3Mi or 3Gi",
        ),
        (
            "12Q",
            "unknown unit \"Q\" in quantity \"12Q\"; \
             allowed: Ki, Mi, Gi, Ti, Pi, Ei, k, M, G, T, P, E, or none for bytes",
        ),
        (
            "1GB",
            "unknown unit \"GB\" in quantity \"1GB\"; allowed: Ki, Mi, Gi, Ti, Pi, Ei, k, M, G, T, P, E, \
             or none for bytes; write G (thousand M) or Gi (1024 Mi)",
        ),
        (
            "512m",
            "memory \"512m\" is no memory; allowed: 32Mi or more; m means thousandths: write 512M or 512Mi",
        ),
        ("-1Gi", "memory \"-1Gi\" is negative; allowed: 32Mi or more"),
        (
            "lots",
            "\"lots\" is not a quantity; write a number and a unit, such as 512Mi or 1G",
        ),
        ("99Ei", "quantity \"99Ei\" is too large"),
        ("[1Gi]", "must be a quantity such as 512Mi, is a list of 1"),
    ] {
        assert_eq!(
            refuse(&with("128Mi", value)),
            [format!("{memory} {expected}")],
            "{value}"
        );
    }
    let hint =
        "write how much memory the guest has, such as domain.resources.requests.memory: 512Mi";
    table(&[
        (
            with("        memory: 128Mi\n", "        cpu: 1\n"),
            &format!("vm.yaml:12: spec.domain.resources.requests.memory: missing; {hint}"),
        ),
        (
            with(
                "    resources:\n      requests:\n        memory: 128Mi\n",
                "",
            ),
            &format!("vm.yaml:6: spec.domain.resources: missing; {hint}"),
        ),
        (
            with("memory: 128Mi", "memmory: 128Mi"),
            "vm.yaml:13: spec.domain.resources.requests.memmory: unknown key \"memmory\" in ResourceList; \
             did you mean \"memory\"?",
        ),
    ]);
}

#[test]
fn watchdogs() {
    let actions = "allowed: reset, poweroff, shutdown, pause, inject-nmi, none";
    let device = "        name: mywatchdog\n        i6300esb:\n          action: poweroff\n";
    table(&[
        (
            with("poweroff", "powerof"),
            &format!(
                "vm.yaml:18: spec.domain.devices.watchdog.i6300esb.action: unknown watchdog action \"powerof\"; \
                 {actions}; did you mean \"poweroff\"?"
            ),
        ),
        (
            with("poweroff", "explode"),
            &format!(
                "vm.yaml:18: spec.domain.devices.watchdog.i6300esb.action: unknown watchdog action \"explode\"; {actions}"
            ),
        ),
        (
            with(
                device,
                "      - name: one\n        i6300esb: {}\n      - name: two\n        i6300esb: {}\n",
            ),
            "vm.yaml:16: spec.domain.devices.watchdog: Watchdog must be a mapping of keys and values, is a list of 2; \
             a machine has one watchdog: write its name and i6300esb directly under watchdog",
        ),
        (
            format!("{INSTANCE}      watchdog:\n        name: second\n"),
            "vm.yaml:19: spec.domain.devices.watchdog: key \"watchdog\" is given twice, first on line 15; \
             keep one of them",
        ),
        (
            with(
                device,
                "        name: mywatchdog\n        diag288:\n          action: reset\n",
            ),
            "vm.yaml:18: spec.domain.devices.watchdog.diag288: the diag288 watchdog is one of s390x machines, \
             this machine is amd64; allowed: i6300esb",
        ),
        (
            with("        name: mywatchdog\n", ""),
            "vm.yaml:15: spec.domain.devices.watchdog.name: missing; give the watchdog a name, such as name: mywatchdog",
        ),
        (
            with(
                "    devices:\n      watchdog:\n",
                "    watchdog:\n      # under the wrong parent\n",
            ),
            "vm.yaml:14: spec.domain.watchdog: unknown key \"watchdog\" in DomainSpec; \
             it belongs at spec.domain.devices.watchdog",
        ),
    ]);
}

#[test]
fn keys_and_types() {
    table(&[
        (
            with("      watchdog:", "      watchdg:"),
            "vm.yaml:15: spec.domain.devices.watchdg: unknown key \"watchdg\" in Devices; did you mean \"watchdog\"?",
        ),
        (
            with(
                "image: kennel/guest",
                "image: kennel/guest\n          zzz: 1",
            ),
            "vm.yaml:11: spec.domain.firmware.kernelBoot.container.zzz: unknown key \"zzz\" in KernelBootContainer; \
             allowed: image, kernelPath, initrdPath, imagePullPolicy, imagePullSecret",
        ),
        (
            with(
                "    devices:\n",
                "    cpu:\n      cores: two\n    devices:\n",
            ),
            "vm.yaml:15: spec.domain.cpu.cores: must be a whole number from 0 up, is the text \"two\"",
        ),
        (
            with(
                "    devices:\n",
                "    cpu:\n      cores: \"2\"\n    devices:\n",
            ),
            "vm.yaml:15: spec.domain.cpu.cores: must be a whole number from 0 up, is the text \"2\"; \
             write 2 without quotes",
        ),
        (
            with(
                "    devices:\n",
                "    cpu:\n      cores: -1\n    devices:\n",
            ),
            "vm.yaml:15: spec.domain.cpu.cores: must be a whole number from 0 up, is the number -1",
        ),
        (
            with(
                "    devices:\n",
                "    cpu:\n      cores: 99999999999999999999\n    devices:\n",
            ),
            "vm.yaml:15: spec.domain.cpu: 18446744073709551615 vCPUs are too many; allowed: 1 to 1024",
        ),
        (
            with("      watchdog:\n", "      disks: none\n      watchdog:\n"),
            "vm.yaml:15: spec.domain.devices.disks: must be a list, is the text \"none\"",
        ),
        (
            with("  name: small", "  name: 12"),
            "vm.yaml:4: metadata.name: must be a string, is the number 12; write it in quotes: \"12\"",
        ),
        (
            with("spec:\n", "spec:\n  <<: {a: b}\n"),
            "vm.yaml:6: spec[<<]: unknown key \"<<\" in VirtualMachineInstanceSpec; \
             merge keys are not taken: write the keys out",
        ),
        (
            with(
                "spec:\n",
                "spec:\n  terminationGracePeriodSeconds: 99999999999\n",
            ),
            "vm.yaml:6: spec.terminationGracePeriodSeconds: \"99999999999\" seconds are too long; allowed: 0 to 31536000",
        ),
        (
            format!(
                "{INSTANCE}  livenessProbe:\n    guestAgentPing: {{}}\n    successThreashold: 1\n"
            ),
            "vm.yaml:21: spec.livenessProbe.successThreashold: unknown key \"successThreashold\" in Probe; \
             did you mean \"successThreshold\"?",
        ),
    ]);
}

#[test]
fn kinds_versions_and_names() {
    let kinds = "allowed: VirtualMachineInstance, VirtualMachine, VirtualMachineInstanceReplicaSet";
    table(&[
        (
            with("kind: VirtualMachineInstance", "kind: Pod"),
            &format!("vm.yaml:2: kind: unknown kind \"Pod\"; {kinds}"),
        ),
        (
            with(
                "kind: VirtualMachineInstance",
                "kind: VirtualMachineInstanc",
            ),
            &format!(
                "vm.yaml:2: kind: unknown kind \"VirtualMachineInstanc\"; {kinds}; \
                 did you mean \"VirtualMachineInstance\"?"
            ),
        ),
        (
            with("kind: VirtualMachineInstance\n", ""),
            "vm.yaml:1: kind: missing; write kind: VirtualMachineInstance",
        ),
        (
            with("kubevirt.io/v1", "kubevirt.io/v2"),
            "vm.yaml:1: apiVersion: unknown apiVersion \"kubevirt.io/v2\"; allowed: kubevirt.io/v1, \
             kubevirt.io/v1alpha3; did you mean \"kubevirt.io/v1\"?",
        ),
        (
            with("  name: small\n", "  labels: {}\n"),
            "vm.yaml:3: metadata.name: missing; write a name, such as name: my-vm",
        ),
        (
            with("name: small", "name: My_VM"),
            "vm.yaml:4: metadata.name: name \"My_VM\" is not a DNS name; allowed: lowercase letters, digits, - and ., \
             beginning and ending with a letter or digit, at most 253; write my-vm",
        ),
    ]);
}

#[test]
fn virtual_machines() {
    let machine = |spec: &str| {
        format!(
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {{name: m}}\nspec:\n{spec}  \
             template: {{spec: {{domain: {{memory: {{guest: 1Gi}}}}}}}}\n"
        )
    };
    table(&[
        (
            machine("  running: true\n  runStrategy: Always\n"),
            "vm.yaml:5: spec.running: running and runStrategy are mutually exclusive; remove running, which is deprecated",
        ),
        (
            machine(""),
            "vm.yaml:4: spec.runStrategy: missing; \
             write runStrategy: Always, or Manual, or one of RerunOnFailure, Halted, Once",
        ),
        (
            machine("  runStrategy: always\n"),
            "vm.yaml:5: spec.runStrategy: unknown runStrategy \"always\"; \
             allowed: Always, RerunOnFailure, Manual, Halted, Once; did you mean \"Always\"?",
        ),
        (
            machine("  running: \"true\"\n"),
            "vm.yaml:5: spec.running: must be true or false, is the text \"true\"; write true without quotes",
        ),
        (
            machine("  running: true\n  domain: {}\n"),
            "vm.yaml:6: spec.domain: unknown key \"domain\" in VirtualMachineSpec; it belongs at spec.template.spec.domain",
        ),
    ]);
}

#[test]
fn annotations() {
    let annotated = |line: &str| {
        with(
            "  name: small\n",
            &format!("  name: small\n  annotations:\n    {line}\n"),
        )
    };
    let known = "allowed: kennel/guest-script, kennel/pretimeout, kennel/pretimeout-lead, kennel/shutdown-grace, kennel/after-bite, \
                 kennel/uplink, kennel/probe-ip-family";
    table(&[
        (
            annotated("kennel/guest-scrip: x"),
            &format!(
                "vm.yaml:6: metadata.annotations[kennel/guest-scrip]: unknown annotation \"kennel/guest-scrip\"; {known}; \
                 did you mean \"kennel/guest-script\"?"
            ),
        ),
        (
            annotated("kennel/zzz: x"),
            &format!(
                "vm.yaml:6: metadata.annotations[kennel/zzz]: unknown annotation \"kennel/zzz\"; {known}"
            ),
        ),
        (
            annotated("kennel/shutdown-grace: 10"),
            "vm.yaml:6: metadata.annotations[kennel/shutdown-grace]: must be a string, is the number 10; \
             write it in quotes: \"10\"",
        ),
        (
            annotated("kennel/shutdown-grace: soon"),
            "vm.yaml:6: metadata.annotations[kennel/shutdown-grace]: \"soon\" is not a duration; allowed: numbers with \
             the units h, m, s, ms, us, ns, such as 10s or 1m30s, or plain seconds",
        ),
        (
            annotated("kennel/pretimeout: nmi"),
            "vm.yaml:6: metadata.annotations[kennel/pretimeout]: unknown pretimeout action \"nmi\"; \
             allowed: none, event, inject-nmi",
        ),
        (
            annotated("kennel/pretimeout-lead: 0s"),
            "vm.yaml:6: metadata.annotations[kennel/pretimeout-lead]: a pretimeout that comes with the bite itself is none; \
             write a longer lead, such as 2s, or leave it out",
        ),
        (
            annotated("kennel/pretimeout-lead: 2h"),
            "vm.yaml:6: metadata.annotations[kennel/pretimeout-lead]: duration \"2h\" is too long; allowed: 0s to 1h",
        ),
        (
            annotated("kennel/after-bite: re-arm-it"),
            "vm.yaml:6: metadata.annotations[kennel/after-bite]: unknown policy \"re-arm-it\"; \
             allowed: rearm, disarm, halt; did you mean \"rearm\"?",
        ),
    ]);
}

#[test]
fn kernel_boot() {
    let image = |text: &str| with("image: kennel/guest", text);
    let images = "allowed: kennel/guest, or a directory such as ./guest";
    let container = "spec.domain.firmware.kernelBoot.container";
    table(&[
        (
            image("image: kennel/guests"),
            &format!(
                "vm.yaml:10: {container}.image: unknown image \"kennel/guests\"; {images}; did you mean \"kennel/guest\"?"
            ),
        ),
        (
            image("image: quay.io/kernels/linux"),
            &format!(
                "vm.yaml:10: {container}.image: image \"quay.io/kernels/linux\" is one of a registry, which is not pulled; \
                 {images}; unpack it, and write the directory"
            ),
        ),
        (
            image("image: oci:/srv/layout"),
            &format!(
                "vm.yaml:10: {container}.image: OCI layouts are not supported yet: \"oci:/srv/layout\"; {images}"
            ),
        ),
        (
            image("image: ./guest"),
            &format!(
                "vm.yaml:9: {container}.kernelPath: missing; write the kernel's path within the directory, such as /vmlinuz"
            ),
        ),
        (
            image("image: ./guest\n          kernelPath: /../../etc/shadow"),
            &format!(
                "vm.yaml:11: {container}.kernelPath: path \"/../../etc/shadow\" does not name a file of the image; \
                 allowed: an absolute path within the image, without .., such as /boot/vmlinuz"
            ),
        ),
        (
            with(
                "        container:\n          image: kennel/guest\n",
                "        kernelArgs: quiet\n",
            ),
            &format!(
                "vm.yaml:8: {container}: missing; kernelArgs need a kernel: write container with image: kennel/guest"
            ),
        ),
        (
            with(
                "        container:\n",
                "        kernelArgs: \"a\\nb\"\n        container:\n",
            ),
            "vm.yaml:9: spec.domain.firmware.kernelBoot.kernelArgs: kernel arguments \"a\\nb\" have a line break or control \
             character; allowed: one line of text",
        ),
    ]);
}

#[test]
fn devices_names() {
    let devices = |devices: &str, spec: &str| format!("{INSTANCE}{devices}{spec}");
    let disk =
        |name: &str| format!("      disks:\n      - name: {name}\n        disk: {{bus: virtio}}\n");
    let volume =
        |name: &str| format!("  volumes:\n  - name: {name}\n    emptyDisk: {{capacity: 1Gi}}\n");
    table(&[
        (
            devices(&disk("root"), ""),
            "vm.yaml:20: spec.domain.devices.disks[0].name: disk \"root\" has no volume of its name; \
             add a volume named root",
        ),
        (
            devices(&disk("rootdsk"), &volume("rootdisk")),
            "vm.yaml:20: spec.domain.devices.disks[0].name: disk \"rootdsk\" has no volume of its name; \
             did you mean \"rootdisk\"?",
        ),
        (
            devices("", &volume("data")),
            "vm.yaml:20: spec.volumes[0].name: no disk or filesystem is named \"data\"; add one, or remove this",
        ),
        (
            devices(
                "      interfaces:\n      - name: a\n      - name: a\n",
                "  networks: [{name: a, pod: {}}]\n",
            ),
            "vm.yaml:21: spec.domain.devices.interfaces[1].name: name \"a\" is given twice, first on line 20",
        ),
        (
            devices("      disks:\n      - disk: {bus: virtio}\n", ""),
            "vm.yaml:20: spec.domain.devices.disks[0].name: missing; give it a name",
        ),
    ]);
}

#[test]
fn malformed_text() {
    let first = |text: &str| refuse(text).into_iter().next().unwrap_or_default();
    let one = "one VirtualMachineInstance, VirtualMachine or VirtualMachineInstanceReplicaSet";
    for empty in ["", "\n\n", "# only a comment\n", "---\n", "---\n---\n"] {
        assert_eq!(
            refuse(empty),
            [format!(
                "vm.yaml: the file holds no document; allowed: {one}"
            )],
            "{empty:?}"
        );
    }
    let tab = with("  name: small", "\tname: small");
    assert!(
        first(&tab).starts_with("vm.yaml:4: malformed YAML:"),
        "{}",
        first(&tab)
    );
    assert!(
        first(&tab).ends_with("YAML is indented with spaces: replace the tab"),
        "{}",
        first(&tab)
    );
    let unclosed = with("name: small", "name: \"small");
    assert!(
        first(&unclosed).contains("malformed YAML:"),
        "{}",
        first(&unclosed)
    );
    let template = with("name: small", "name: {{% param \"name\" %}}-probe");
    assert!(
        first(&template).starts_with("vm.yaml:4: "),
        "{}",
        first(&template)
    );
    assert!(
        first(&template).contains("template placeholder"),
        "{}",
        first(&template)
    );
    let flat: String = INSTANCE
        .lines()
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    let lines = refuse(&flat);
    assert_eq!(
        lines[0],
        "vm.yaml: no line is indented: the document has lost its indentation; indent each level by two spaces"
    );
    // What is wrong is told beside the guess.
    assert!(
        lines.iter().any(|line| line.contains("metadata: missing")),
        "{lines:#?}"
    );
    let disks = "metadata:\nname: a\nspec:\ndomain:\ndevices:\ndisks:\n- disk:\nbus: virtio\nname: b\n- disk:\n";
    assert!(
        first(disks).ends_with("the document has lost its indentation"),
        "{}",
        first(disks)
    );
    let two = format!("{INSTANCE}---\n{INSTANCE}");
    assert_eq!(
        refuse(&two),
        [
            "vm.yaml:19: a second document begins here; allowed: one document in a file; \
          put each document into a file of its own"
        ]
    );
    assert!(
        first("just words").contains("must be a mapping"),
        "{}",
        first("just words")
    );
    assert!(first("- a\n- b\n").contains("must be a mapping of keys and values, is a list of 2"));
    assert!(first("? [a]\n: b\n").contains("a list or mapping stands where a key should be"));
    assert!(
        first("a: *nowhere\n").contains("malformed YAML"),
        "{}",
        first("a: *nowhere\n")
    );
}

#[test]
fn many_mistakes_are_all_told_in_the_order_of_the_text() {
    let text = INSTANCE
        .replace("kubevirt.io/v1", "kubevirt/v1")
        .replace("name: small", "nam: small")
        .replace("firmware", "firmwar")
        .replace("128Mi", "12Q")
        .replace("name: mywatchdog", "name: 3")
        .replace("poweroff", "powerof")
        + "  terminationGracePeriodSeconds: soon\n  livenesProbe: {}\n  replicas: 2\n  volumes: {}\n";
    let lines = refuse(&text);
    let numbers: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split(':').nth(1)?.parse::<u32>().ok())
        .collect();
    assert_eq!(numbers, [1, 4, 7, 13, 16, 18, 19, 20, 21, 22], "{lines:#?}");
}

/// The same text is valid without its mistake: no guess about lost indentation takes its place.
#[test]
fn a_document_in_flow_style_is_told_its_mistake() {
    let text = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: a}
spec: {livenessProbe: {guestAgentPing: {}, periodSeconds: \"5\"}, domain: {memory: {guest: 256Mi}, devices: {}}}
";
    let mistake = "vm.yaml:4: spec.livenessProbe.periodSeconds: must be a whole number, is the text \"5\"; \
                   write 5 without quotes";
    assert_eq!(refuse(text), [mistake]);
    super::accept(&text.replace("\"5\"", "5"));
    // Nor where a list stands in the column of its key.
    let listed = text.replace("metadata: {name: a}", "metadata:\n  {name: a}");
    assert_eq!(refuse(&listed).len(), 1);
}
