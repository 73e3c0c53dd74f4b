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

/// With what Kennel puts before them, a kernel reads 2047 bytes.
#[test]
fn kernel_arguments_fit_the_kernel() {
    let most = 2047 - super::super::command_line(Some("")).len();
    let with_args = |count: usize| {
        let args = format!("kernelArgs: {}\n        container:", "a".repeat(count));
        with("container:", &args)
    };
    accept(&with_args(most));
    assert_eq!(
        super::refuse(&with_args(most + 1)),
        [format!(
            "vm.yaml:9: spec.domain.firmware.kernelBoot.kernelArgs: kernel arguments of {} bytes make a command line of \
             2048 with what Kennel puts before them, and this kernel reads 2047; allowed: at most {most} bytes; \
             shorten them by 1",
            most + 1
        )]
    );

    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("vm.yaml");
    let kernel = folder.path().join("k");
    let own = "image: .\n          kernelPath: /k";
    let said = |count: usize| {
        let text = with_args(count).replace("image: kennel/guest", own);
        write(&file, text.as_bytes());
        let document = load_file(&file).expect("its length is the kernel's to bound");
        document
            .check_files()
            .map_err(|problems| problems.to_string())
    };
    // Linux' own bound, where the file says nothing else.
    write(&kernel, b"\x7fELF");
    assert_eq!(said(most), Ok(()));
    assert!(said(most + 1).is_err_and(|said| said.contains("reads 2047")));
    // A bzImage says it itself.
    let mut header = vec![0; 0x240];
    header[0x202..0x206].copy_from_slice(b"HdrS");
    header[0x238..0x23c].copy_from_slice(&100_u32.to_le_bytes());
    write(&kernel, &header);
    let few = most + 100 - 2047;
    assert_eq!(said(few), Ok(()));
    assert!(said(few + 1).is_err_and(|said| said.contains(":9: ") && said.contains("reads 100;")));
}
