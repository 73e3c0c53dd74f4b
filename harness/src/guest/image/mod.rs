// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest images: a kernel and an initrd that runs a scenario.
//!
//! The same parts give the same bytes, and an image is built once for each set of parts; it lies in the cache under the
//! digest of everything that went into it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::init;
use super::kernel::{self, Kernel, KernelError};
use super::libraries;
use super::modules::ModuleError;
use super::newc::NewcError;
use super::packages::{Package, PackageError, PackageStore};
use super::{Progress, Step};

mod assemble;
mod cached;
mod programs;

use assemble::{Assembled, assemble};
use cached::{ImageCache, Key};

/// The package of the static busybox, and the file in it.
const BUSYBOX: (&str, &str) = ("busybox-static", "bin/busybox");
/// Names under which a machine may have a static busybox of its own.
const HOST_BUSYBOX: [&str; 4] = [
    "/bin/busybox",
    "/usr/bin/busybox",
    "/bin/busybox.static",
    "/usr/lib/busybox/busybox-static",
];

/// Where a guest's kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The distribution's kernel package.
    Packages,
    /// The kernel that this machine runs, with its modules.
    HostKernel,
    /// A kernel and an initrd that somebody made: taken as they are, nothing is built.
    Files {
        /// A bzImage or an ELF vmlinux.
        kernel: PathBuf,
        /// An initramfs archive, compressed or not.
        initrd: PathBuf,
    },
}

/// A guest that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// The kernel.
    pub kernel: PathBuf,
    /// The same kernel as an uncompressed ELF file, if it could be had: boots several seconds sooner where the CPU is
    /// emulated.
    pub vmlinux: Option<PathBuf>,
    /// The initrd; a scenario goes behind it ([`init::with_overlay`]).
    pub initrd: PathBuf,
    /// The kernel's release, such as `6.1.0-56-amd64`; "unknown" for a kernel that does not say.
    pub kernel_version: String,
    /// What the user should know, such as parts that are missing; one sentence each.
    pub notes: Vec<String>,
}

/// Why there is no guest image.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A package cannot be had.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The kernel cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel lacks a module, or one cannot be read.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A file does not fit into an initrd.
    #[error(transparent)]
    Archive(#[from] NewcError),
    /// There is no busybox.
    #[error("the guest needs a static busybox, but this machine has none in {looked}, and the package {} cannot be had: {source}", BUSYBOX.0)]
    NoBusybox {
        /// Where it was looked for.
        looked: String,
        /// Why there is no package.
        source: PackageError,
    },
    /// The file is not an initrd.
    #[error(
        "{path} is not an initrd: it is neither a cpio archive nor compressed in a way that Linux knows; an initrd is usually called initrd.img or initramfs"
    )]
    NotAnInitrd {
        /// The file.
        path: PathBuf,
    },
    /// The image cannot be written.
    #[error("cannot write {path}: {source}; make room or choose another directory")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Gives the guest image from `source`: from the cache directory `cache` if its parts are unchanged, else built.
///
/// # Errors
/// A part is missing and cannot be fetched, is not what it should be, or the cache cannot be written.
pub fn build(
    source: &Source,
    cache: &Path,
    progress: Progress<'_>,
) -> Result<GuestImage, BuildError> {
    match source {
        Source::Files { kernel, initrd } => from_files(kernel, initrd),
        Source::Packages => from_packages(cache, progress),
        Source::HostKernel => from_host(cache, progress),
    }
}

impl GuestImage {
    /// The kernel that boots fastest: the uncompressed one, if there is one.
    #[must_use]
    pub fn fastest_kernel(&self) -> &Path {
        self.vmlinux.as_deref().unwrap_or(&self.kernel)
    }

    /// Copies the image into `directory` as `vmlinuz`, `vmlinux` (if it has one) and `initrd`; makes the directory if
    /// need be.
    ///
    /// # Errors
    /// Something cannot be written.
    pub fn copy_to(&self, directory: &Path) -> Result<Self, BuildError> {
        let failed = |path: &Path, source| BuildError::Write {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
        let copy = |from: &Path, name: &str| {
            let to = directory.join(name);
            match fs::copy(from, &to) {
                Ok(_) => Ok(to),
                Err(source) => Err(failed(&to, source)),
            }
        };
        Ok(Self {
            kernel: copy(&self.kernel, "vmlinuz")?,
            vmlinux: self
                .vmlinux
                .as_deref()
                .map(|path| copy(path, "vmlinux"))
                .transpose()?,
            initrd: copy(&self.initrd, "initrd")?,
            ..self.clone()
        })
    }
}

fn from_files(kernel: &Path, initrd: &Path) -> Result<GuestImage, BuildError> {
    let image = kernel::read_kernel(kernel)?;
    let archive = kernel::read_file("the initrd", initrd)?;
    if !init::is_initrd(&archive) {
        return Err(BuildError::NotAnInitrd {
            path: initrd.to_owned(),
        });
    }
    Ok(GuestImage {
        kernel: kernel.to_owned(),
        vmlinux: None,
        initrd: initrd.to_owned(),
        kernel_version: kernel::release_of(&image).unwrap_or_else(|| "unknown".to_owned()),
        notes: Vec::new(),
    })
}

fn from_packages(cache: &Path, progress: Progress<'_>) -> Result<GuestImage, BuildError> {
    let store = PackageStore::open(cache, progress)?;
    let images = ImageCache::open(cache)?;
    let parts = Parts::current(&store);
    if let Some(image) = made_before(&parts, &images) {
        return Ok(image);
    }
    let parts = parts?;
    let key = parts.key();
    if let Some(image) = images.find(&key, &store) {
        return Ok(image);
    }
    let Parts {
        kernel,
        busybox,
        programs,
    } = parts;
    let kernel = store.unpack(&kernel)?;
    let kernel = Kernel::from_package(&kernel)?;
    let busybox = store.unpack(&busybox)?.read(BUSYBOX.1)?;
    let built = put_together(&kernel, &busybox, programs, &store, progress)?;
    images.store(&key, &kernel, &built.0, &built.1, &Source::Packages)
}

/// The packages of an image, in their current versions.
struct Parts {
    kernel: Package,
    busybox: Package,
    programs: Vec<programs::Obtained>,
}

impl Parts {
    fn current(store: &PackageStore<'_>) -> Result<Self, PackageError> {
        Ok(Self {
            kernel: store.obtain_kernel()?,
            busybox: store.obtain_one(BUSYBOX.0)?,
            programs: programs::obtain(store),
        })
    }

    fn key(&self) -> Key {
        let mut key = Key::new();
        let others = self
            .programs
            .iter()
            .filter_map(|(_, package)| package.as_ref().ok());
        for package in [&self.kernel, &self.busybox].into_iter().chain(others) {
            key.add(package.sha256.as_bytes());
        }
        key
    }
}

/// The image that was made last, if the current versions of its parts are out of reach: what worked then works now.
/// Where only programs are, it must have had them all.
fn made_before(parts: &Result<Parts, PackageError>, images: &ImageCache) -> Option<GuestImage> {
    let (error, needs_all) = match parts {
        Err(error) => (error, false),
        Ok(parts) => (
            parts
                .programs
                .iter()
                .filter_map(|(_, package)| package.as_ref().err())
                .find(|error| error.is_out_of_reach())?,
            true,
        ),
    };
    let image = error.is_out_of_reach().then(|| images.last())?;
    let mut image = image.filter(|image| !needs_all || image.notes.is_empty())?;
    image.notes.push(format!(
        "the guest is the one that was made last, since the packages' current versions cannot be had: {error}"
    ));
    Some(image)
}

fn from_host(cache: &Path, progress: Progress<'_>) -> Result<GuestImage, BuildError> {
    let store = PackageStore::open(cache, progress)?;
    let images = ImageCache::open(cache)?;
    let kernel = Kernel::from_host(Path::new("/"), &kernel::host_release()?)?;
    let busybox = host_busybox(&store)?;
    let programs = programs::obtain(&store);
    let (assembled, libraries) = put_together(&kernel, &busybox, programs, &store, progress)?;
    let mut key = Key::new();
    key.add(&kernel.vmlinuz);
    key.add(&assembled.initrd);
    images.store(&key, &kernel, &assembled, &libraries, &Source::HostKernel)
}

/// Builds the initrd; gives the packages of the programs' libraries beside it.
fn put_together(
    kernel: &Kernel<'_>,
    busybox: &[u8],
    programs: Vec<programs::Obtained>,
    store: &PackageStore<'_>,
    progress: Progress<'_>,
) -> Result<(Assembled, Vec<Package>), BuildError> {
    let gathered = programs::gather(programs, store);
    progress(&Step::BuildingImage);
    let mut assembled = assemble(kernel, busybox, &gathered.programs)?;
    assembled.notes.extend(gathered.notes);
    Ok((assembled, gathered.libraries))
}

/// The machine's own static busybox, else the package's.
fn host_busybox(store: &PackageStore<'_>) -> Result<Vec<u8>, BuildError> {
    let own = HOST_BUSYBOX
        .iter()
        .filter_map(|path| fs::read(path).ok())
        .find(|elf| libraries::is_static(elf));
    if let Some(busybox) = own {
        return Ok(busybox);
    }
    let packaged = || store.unpack(&store.obtain_one(BUSYBOX.0)?)?.read(BUSYBOX.1);
    packaged().map_err(|source| BuildError::NoBusybox {
        looked: HOST_BUSYBOX.join(", "),
        source,
    })
}

/// Writes a file and makes sure that it is on the disk before its directory is renamed.
fn write_file(path: &Path, data: &[u8]) -> Result<(), BuildError> {
    let write = || {
        let mut file = fs::File::create(path)?;
        file.write_all(data)?;
        file.sync_all()
    };
    write().map_err(|source| BuildError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
