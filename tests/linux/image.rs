// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's files: built where the network is, and named to each test by its environment.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use kennel::guest::image::{self, GuestImage, Source};
use kennel::guest::packages;
use kennel::host;

use crate::NAME;

/// How a test finds the image.
const IMAGE: [&str; 3] = [
    "KENNEL_TEST_BZIMAGE",
    "KENNEL_TEST_VMLINUX",
    "KENNEL_TEST_INITRD",
];

/// The guest's files.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) bzimage: PathBuf,
    pub(crate) vmlinux: PathBuf,
    pub(crate) initrd: PathBuf,
}

impl Image {
    /// What [`given`] reads.
    pub(crate) fn env(self) -> Vec<(OsString, OsString)> {
        let files = [self.bzimage, self.vmlinux, self.initrd].map(OsString::from);
        IMAGE.into_iter().map(OsString::from).zip(files).collect()
    }
}

/// The image that this process's environment names, if it does.
fn named() -> Option<Image> {
    let [bzimage, vmlinux, initrd] = IMAGE.map(|name| std::env::var_os(name).map(PathBuf::from));
    Some(Image {
        bzimage: bzimage?,
        vmlinux: vmlinux?,
        initrd: initrd?,
    })
}

/// The image of a test.
pub(crate) fn given() -> Image {
    named().expect("whoever starts a test names its image")
}

/// The environment of a worker's tests: in a box, it names a copy of the image in the box's own memory. Every boot reads
/// the kernel, and a box does not keep what it reads of the machine's files.
pub(crate) fn at_hand() -> Result<Vec<(&'static str, PathBuf)>, String> {
    if !host::inside_box() {
        return Ok(vec![]);
    }
    let place = std::env::var_os("XDG_RUNTIME_DIR").ok_or("a box has no XDG_RUNTIME_DIR")?;
    let copy = |name: &'static str| {
        let from = std::env::var_os(name).ok_or_else(|| format!("no {name}"))?;
        let to = PathBuf::from(&place).join(name);
        let copied = fs::copy(&from, &to);
        copied.map_err(|error| format!("cannot copy {}: {error}", from.display()))?;
        Ok((name, to))
    };
    IMAGE.into_iter().map(copy).collect()
}

/// The image from the cache, built first if it is not there; or the one that the environment names.
pub(crate) fn build() -> Result<Image, String> {
    if let Some(image) = named() {
        return Ok(image);
    }
    let cache = packages::default_cache().ok_or("set HOME or XDG_CACHE_HOME")?;
    let told = |step: &kennel::guest::Step| eprintln!("tier {NAME}: {step}");
    let built =
        image::build(&Source::Packages, &cache, &told).map_err(|error| error.to_string())?;
    let GuestImage {
        kernel,
        vmlinux,
        initrd,
        ..
    } = built;
    let vmlinux = vmlinux.ok_or("the guest image has no vmlinux")?;
    Ok(Image {
        bzimage: kernel,
        vmlinux,
        initrd,
    })
}
