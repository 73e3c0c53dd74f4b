// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Machines of every size reach userspace, from both kinds of kernel file; and a payload is
//! interrupted as hardware would.

use kennel_tests::stage_1::{By, interrupts_once};

use kennel_tests::workers::Need;

use crate::guest::Spec;
use crate::{Body, Image, LinuxCase, group};

pub(crate) fn tests() -> Vec<LinuxCase> {
    let sizes = [
        ("1_vcpu_128_mib_bzimage", 1, "128Mi", true),
        ("1_vcpu_128_mib_vmlinux", 1, "128Mi", false),
        ("2_vcpus_1_gib_bzimage", 2, "1Gi", true),
        ("2_vcpus_1_gib_vmlinux", 2, "1Gi", false),
        ("2_vcpus_5_gib_vmlinux", 2, "5Gi", false),
        ("1_vcpu_5_gib_bzimage", 1, "5Gi", true),
    ];
    let cases = sizes.map(|(name, cores, memory, bzimage)| -> (_, Body) {
        (
            name,
            Box::new(move |image| boot(image, cores, memory, bzimage)),
        )
    });
    let needs = sizes.map(|(_, _, memory, _)| match memory {
        "5Gi" => Need::SMALL.memory((5 << 10) + 512),
        // Of 1 GiB a guest touches a third.
        _ => Need::SMALL,
    });
    let tests = group("boots", cases).into_iter().zip(needs);
    let mut tests: Vec<_> = tests.map(|(test, need)| test.needing(need)).collect();
    tests.extend(group("payload", payloads()));
    tests
}

/// The payload's interrupts, where KVM's interrupt controllers are the real ones.
fn payloads() -> [(&'static str, Body); 2] {
    [
        ("stage_1_interrupts_once_by_its_pin", By::Pin),
        ("stage_1_interrupts_once_by_message", By::Message),
    ]
    .map(|(name, by)| -> (_, Body) {
        (
            name,
            Box::new(move |_| assert_eq!(interrupts_once(by), 0, "spurious interrupts")),
        )
    })
}

/// The guest counts its CPUs and its memory, and powers off by ACPI.
fn boot(image: &Image, cores: u32, memory: &'static str, bzimage: bool) {
    let script = "echo \"cpus $(nproc)\"\n\
        echo \"mib $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)\"\n\
        poweroff -f";
    let ran = Spec {
        memory,
        cores,
        script,
        bzimage,
        ..Spec::default()
    }
    .run(image);
    ran.expect(0, &format!("cpus {cores}"));
    let mib = ran
        .console
        .lines()
        .find_map(|line| line.trim_end().strip_prefix("mib "));
    let mib: u64 = mib.expect("the guest said it").parse().expect("a number");
    let whole = match memory {
        "128Mi" => 128,
        "1Gi" => 1024,
        _ => 5 * 1024,
    };
    // The kernel keeps some for itself.
    assert!(
        (whole / 2..whole).contains(&mib),
        "{mib} of {whole} MiB: {ran}"
    );
}
