// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::collections::BTreeMap;
use std::io::{self, Write};

use super::synthetic::module;
use super::*;

/// Modules in /k, with their `depends=`.
fn tree(modules: &[(&str, &str)]) -> Modules<'static> {
    let files: BTreeMap<String, Vec<u8>> = modules
        .iter()
        .map(|(path, depends)| (format!("k/{path}.ko"), module(path, depends)))
        .collect();
    from_files(
        files,
        "kernel/drivers/base/virtio.ko\nkernel/x/built-in-one.ko\n",
    )
}

fn from_files(files: BTreeMap<String, Vec<u8>>, builtin: &str) -> Modules<'static> {
    let paths: Vec<String> = files.keys().cloned().collect();
    Modules::new("6.1.0-test", paths, builtin, move |path| {
        files
            .get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    })
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.load
        .iter()
        .map(|module| module.name.as_str())
        .collect()
}

#[test]
fn dependencies_come_first_and_once() {
    let modules = tree(&[
        ("virtio_ring", ""),
        ("virtio_pci", "virtio-ring,virtio_pci_modern_dev"),
        ("virtio_pci_modern_dev", ""),
        ("virtio-console", "virtio_ring"),
        ("unrelated", ""),
    ]);
    let plan = modules
        .plan(&[
            Wanted::required("virtio_console"),
            Wanted::required("virtio-pci"),
        ])
        .expect("plan");
    assert_eq!(
        names(&plan),
        [
            "virtio_ring",
            "virtio_console",
            "virtio_pci_modern_dev",
            "virtio_pci"
        ]
    );
    assert_eq!(plan.load[1].path, "k/virtio-console.ko");
}

#[test]
fn what_the_kernel_has_built_in_is_not_loaded() {
    let modules = tree(&[("top", "built_in_one,virtio")]);
    let plan = modules
        .plan(&[Wanted::required("top"), Wanted::required("built-in-one")])
        .expect("plan");
    assert_eq!(names(&plan), ["top"]);
    assert!(plan.builtin.iter().eq(["built_in_one", "virtio"]));
}

#[test]
fn an_incomplete_optional_module_leaves_nothing_behind() {
    let modules = tree(&[("base", ""), ("half", "base,gone"), ("watchdog", "")]);
    let plan = modules
        .plan(&[
            Wanted::optional("half"),
            Wanted::optional("absent"),
            Wanted::required("watchdog"),
        ])
        .expect("optional modules may be missing");
    assert_eq!(names(&plan), ["watchdog"]);
    assert_eq!(plan.missing, ["half", "absent"]);
}

#[test]
fn a_missing_required_module_is_named_with_the_one_that_needs_it() {
    let error = tree(&[("i6300esb", "watchdog")])
        .plan(&[Wanted::required("i6300esb")])
        .expect_err("watchdog is missing");
    assert_eq!(
        error.to_string(),
        "kernel 6.1.0-test has no module watchdog (which its module i6300esb depends on); choose another kernel"
    );
}

#[test]
fn a_circle_is_an_error_and_not_an_endless_loop() {
    let modules = tree(&[("a", "b"), ("b", "c"), ("c", "a")]);
    assert!(matches!(
        modules.plan(&[Wanted::required("a")]),
        Err(ModuleError::Circle { .. })
    ));
}

#[test]
fn compressed_modules_are_unpacked() {
    let plain = module("i6300esb", "");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&plain).expect("write to memory");
    // A zstd frame with one raw block: magic, descriptor (single segment, 1-byte size), content size, block header.
    let watchdog = module("watchdog", "");
    let size = u16::try_from(watchdog.len()).expect("small");
    let mut zst = vec![0x28, 0xb5, 0x2f, 0xfd, 0x60];
    zst.extend((size - 256).to_le_bytes());
    zst.extend(&((u32::from(size) << 3) | 1).to_le_bytes()[..3]);
    zst.extend(&watchdog);
    let files = [
        ("m/i6300esb.ko.gz".to_owned(), gz.finish().expect("finish")),
        ("m/watchdog.ko.zst".to_owned(), zst),
    ];
    let plan = from_files(files.into(), "")
        .plan(&[Wanted::required("i6300esb"), Wanted::required("watchdog")])
        .expect("plan");
    assert_eq!(plan.load[0].elf, plain);
    assert_eq!(plan.load[1].elf, watchdog);
}

#[test]
fn a_file_that_is_no_module_is_named() {
    let files = [("m/i6300esb.ko".to_owned(), b"not an ELF file".to_vec())];
    let error = from_files(files.into(), "")
        .plan(&[Wanted::required("i6300esb")])
        .expect_err("no ELF file");
    assert!(
        error
            .to_string()
            .starts_with("m/i6300esb.ko is not a kernel module: "),
        "{error}"
    );
    let files = [("m/i6300esb.ko.xz".to_owned(), b"not an xz file".to_vec())];
    let error = from_files(files.into(), "")
        .plan(&[Wanted::required("i6300esb")])
        .expect_err("no xz file");
    assert!(
        error
            .to_string()
            .starts_with("cannot read kernel module m/i6300esb.ko.xz: "),
        "{error}"
    );
}
