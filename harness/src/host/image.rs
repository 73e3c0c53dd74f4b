// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The box's kernel and initramfs, made from the distribution's packages once and kept in the cache.
//!
//! The cache is keyed by what the image is made to be (its init and its modules), not by the kernel's version: the box
//! is a tool, and a kernel that worked goes on working without asking any server. Removing the directory makes it new.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::guest::Progress;
use crate::guest::modules::{Module, ModuleError, Modules, Wanted};
use crate::guest::newc::{Archive, NewcError};
use crate::guest::packages::{Contents, PackageError, PackageStore, default_cache};

/// Changes when an image has to be made anew although init and modules stayed the same.
const FORMAT: &str = "1";
const INIT: &str = include_str!("init.sh");
const BUSYBOX_PACKAGE: &str = "busybox-static";
/// Where busybox lies in its package: Debian 12 and earlier, later.
const BUSYBOX_PATHS: [&str; 2] = ["bin/busybox", "usr/bin/busybox"];
/// What the init loads side by side: the name of each list, and the modules that it is to bring in.
const LISTS: [(&str, &[&str]); 2] = [
    (
        "machine",
        &["virtio_pci", "9pnet_virtio", "9p", "virtio_console"],
    ),
    ("kvm", &["kvm_amd"]),
];

/// Why the box's image cannot be made.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A package cannot be had.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The kernel lacks a module that the box stands on.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The initramfs cannot be written.
    #[error(transparent)]
    Archive(#[from] NewcError),
    /// A package does not hold what it always held.
    #[error("package {package} has no {what}; the box cannot be built from it")]
    Lacks {
        /// The package's name.
        package: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The cache cannot be used.
    #[error("cannot write the box's image to {}: {source}; set XDG_CACHE_HOME to a directory with room", path.display())]
    Cache {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no place for a cache.
    #[error("no place for Kennel's cache: set HOME or XDG_CACHE_HOME to an absolute path")]
    NoCache,
}

/// Paths of a kernel and its initramfs that make a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BoxImage {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl BoxImage {
    fn in_directory(directory: &Path) -> Self {
        Self {
            kernel: directory.join("kernel"),
            initrd: directory.join("initrd"),
        }
    }
}

/// The image from the cache, made first if it is not there.
pub(super) fn obtain(progress: Progress<'_>) -> Result<BoxImage, ImageError> {
    let cache = default_cache().ok_or(ImageError::NoCache)?;
    let directory = cache.join("box").join(key());
    if !directory.is_dir() {
        make(&cache, &directory, progress)?;
    }
    Ok(BoxImage::in_directory(&directory))
}

/// What tells one image from another, as a directory name.
fn key() -> String {
    let mut digest = Sha256::new();
    let modules = LISTS.iter().flat_map(|(_, wanted)| *wanted);
    for part in [FORMAT, INIT, BUSYBOX_PACKAGE].iter().chain(modules) {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest
        .finalize()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Makes the image beside its final place and moves it there whole: several processes may do this at once.
fn make(cache: &Path, directory: &Path, progress: Progress<'_>) -> Result<(), ImageError> {
    let (kernel, initrd) = build(&PackageStore::open(cache, progress)?)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Cache { path, source }
    };
    let parent = cache.join("box");
    fs::create_dir_all(&parent).map_err(failed(&parent))?;
    let temporary = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(&parent)
        .map_err(failed(&parent))?;
    let image = BoxImage::in_directory(temporary.path());
    fs::write(&image.kernel, kernel).map_err(failed(&image.kernel))?;
    fs::write(&image.initrd, initrd).map_err(failed(&image.initrd))?;
    match fs::rename(temporary.path(), directory) {
        // Another process was faster, and its image is as good.
        Err(_) if directory.is_dir() => Ok(()),
        other => other.map_err(failed(directory)),
    }
}

fn build(store: &PackageStore<'_>) -> Result<(Vec<u8>, Vec<u8>), ImageError> {
    let busybox = busybox(store)?;
    let package = store.obtain_kernel()?;
    let files = store.unpack(&package)?;
    let lacks = |what| ImageError::Lacks {
        package: package.name.clone(),
        what,
    };
    let bzimage_path = files
        .paths()
        .find(|path| path.starts_with("boot/vmlinuz-"))
        .ok_or_else(|| lacks("kernel under /boot"))?
        .to_owned();
    let release = bzimage_path.trim_start_matches("boot/vmlinuz-");
    let bzimage = files.read(&bzimage_path)?;
    let lists = lists(&files, release)?;
    // Unpacked here, the kernel need not unpack itself under emulation (seconds). One we can't unpack still boots.
    let kernel = kennel_vmm::boot::vmlinux(&bzimage).unwrap_or(bzimage);
    Ok((kernel, initramfs(&busybox, &lists)?))
}

fn busybox(store: &PackageStore<'_>) -> Result<Vec<u8>, ImageError> {
    let package = store.obtain_one(BUSYBOX_PACKAGE)?;
    let files = store.unpack(&package)?;
    let path = BUSYBOX_PATHS.iter().find(|path| files.has(path));
    let path = path.ok_or(ImageError::Lacks {
        package: package.name,
        what: "busybox",
    })?;
    Ok(files.read(path)?)
}

/// Each list of modules with its name.
type Lists = Vec<(&'static str, Vec<Module>)>;

fn lists(files: &Contents, release: &str) -> Result<Lists, ImageError> {
    let tree = format!("lib/modules/{release}/");
    let builtin = files.read(&format!("{tree}modules.builtin"))?;
    let paths = files
        .paths()
        .filter(|path| path.starts_with(&tree))
        .map(str::to_owned);
    let read = |path: &str| files.read(path).map_err(io::Error::other);
    let modules = Modules::new(release, paths, &String::from_utf8_lossy(&builtin), read);
    let plan = |(name, wanted): (&'static str, &[&'static str])| {
        let wanted: Vec<Wanted<'_>> = wanted.iter().map(|name| Wanted::required(name)).collect();
        Ok((name, modules.plan(&wanted)?.load))
    };
    LISTS.into_iter().map(plan).collect()
}

fn initramfs(busybox: &[u8], lists: &Lists) -> Result<Vec<u8>, NewcError> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "machine"] {
        archive.directory(directory, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.character_device("dev/null", 0o666, 1, 3)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("bin/busybox", 0o755, busybox)?;
    let mut written = BTreeSet::new();
    for (list, modules) in lists {
        let mut order = String::new();
        for module in modules {
            if written.insert(&module.name) {
                archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.elf)?;
            }
            order.push_str(&module.name);
            order.push('\n');
        }
        archive.file(&format!("modules/{list}.order"), 0o644, order.as_bytes())?;
    }
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initramfs_holds_each_module_once_and_each_list_in_order() {
        let module = |name: &str| Module {
            name: name.to_owned(),
            path: String::new(),
            elf: format!("the module {name}").into_bytes(),
        };
        let lists = vec![
            ("machine", vec![module("crc16"), module("virtio")]),
            ("kvm", vec![module("crc16"), module("kvm_amd")]),
        ];
        let archive = initramfs(b"busybox", &lists).expect("well-formed names");
        let text = String::from_utf8_lossy(&archive);
        assert_eq!(text.matches("the module crc16").count(), 1);
        assert!(text.contains("crc16\nvirtio\n") && text.contains("crc16\nkvm_amd\n"));
        for (list, _) in LISTS {
            assert!(INIT.contains(&format!("load {list}")), "init loads {list}");
        }
    }

    #[test]
    fn the_key_is_a_directory_name() {
        assert_eq!(key().len(), 24);
        assert!(key().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
