// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files and what the host has.

use std::fs;
use std::path::Path;

use super::super::{HostLimits, load_file};
use super::{INSTANCE, accept, with};

const GIB: u64 = 1 << 30;

#[test]
fn a_host_with_too_little_is_told_apart_from_one_with_enough() {
    let text =
        with("128Mi", "5Gi").replace("    devices:\n", "    cpu:\n      cores: 3\n    devices:\n");
    let document = accept(&text);
    document
        .check_host(&HostLimits {
            available_bytes: 5 * GIB,
            max_vcpus: 3,
        })
        .expect("just enough");
    let problems = document
        .check_host(&HostLimits {
            available_bytes: 5 * GIB - 1,
            max_vcpus: 2,
        })
        .expect_err("too little");
    assert_eq!(
        problems.to_string(),
        "vm.yaml:13: spec.domain.resources.requests.memory: 5120 MiB of memory are more than this host has available; \
         allowed: up to 5119 MiB; ask for less, or free some\n\
         vm.yaml:15: spec.domain.cpu: 3 vCPUs are more than this host's KVM gives one machine; allowed: 1 to 2"
    );
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the temporary directory can be written");
}

fn first_line(path: &Path) -> String {
    let problems = load_file(path).expect_err("refused");
    problems
        .to_string()
        .replace(&path.display().to_string(), "FILE")
}

#[test]
fn unreadable_files_say_why() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("vm.yaml");
    assert_eq!(
        first_line(&file),
        "FILE: cannot read the document: no such file or directory"
    );
    assert_eq!(
        load_file(folder.path())
            .expect_err("a directory")
            .to_string(),
        format!(
            "{}: cannot read the document: it is a directory",
            folder.path().display()
        )
    );
    write(&file, b"kind: x\n# \xff\n");
    assert_eq!(
        first_line(&file),
        "FILE: the document is not UTF-8 text (line 2); save it as UTF-8"
    );
    write(&file, INSTANCE.as_bytes());
    assert_eq!(load_file(&file).expect("valid").vmi.name, "small");
}

#[test]
fn kernel_and_initrd_must_be_files() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("vm.yaml");
    let container = "image: guest\n          kernelPath: /vmlinuz\n          initrdPath: /initrd";
    write(&file, with("image: kennel/guest", container).as_bytes());
    let check = || {
        let document = load_file(&file).expect("valid");
        let problems = document
            .check_files()
            .err()
            .map(|problems| problems.to_string());
        problems
            .unwrap_or_default()
            .replace(&folder.path().display().to_string(), "")
    };
    let container = "spec.domain.firmware.kernelBoot.container";
    assert_eq!(
        check(),
        format!(
            "/vm.yaml:10: {container}.image: image directory \"/guest\": no such file or directory; \
             a relative one is relative to the document's folder; kennel/guest is the built guest image"
        )
    );
    let guest = folder.path().join("guest");
    fs::create_dir(&guest).expect("created");
    fs::create_dir(guest.join("initrd")).expect("created");
    assert_eq!(
        check(),
        format!(
            "/vm.yaml:11: {container}.kernelPath: kernel \"/guest/vmlinuz\": no such file or directory\n\
             /vm.yaml:12: {container}.initrdPath: initrd \"/guest/initrd\" is not a regular file"
        )
    );
    fs::remove_dir(guest.join("initrd")).expect("removed");
    write(&guest.join("initrd"), b"");
    write(&guest.join("vmlinuz"), b"kernel");
    assert_eq!(
        check(),
        format!("/vm.yaml:12: {container}.initrdPath: initrd \"/guest/initrd\" is empty")
    );
    write(&guest.join("initrd"), b"initrd");
    assert_eq!(check(), "");
    write(&guest.join("oci-layout"), b"{}");
    assert!(
        check().contains("OCI layouts are not supported yet"),
        "{}",
        check()
    );
}
