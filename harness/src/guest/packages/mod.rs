// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Gets Debian packages and reads the files in them, without root and without installing anything.
//!
//! `apt-get` does the finding, the downloading and the checking of signatures, with the machine's own sources. Where the
//! machine's package lists are missing or so old that the server no longer has what they name, Kennel keeps lists of its
//! own beside its cache; the machine's own apt is never changed. A downloaded package stays in the cache, so that a
//! second run needs no network. Several processes may use one cache: files appear there complete, by renaming.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Progress, Step};

mod answers;
mod apt;
mod deb;

use apt::{Apt, Listed, Lists};
pub use deb::Contents;

/// The package that depends on the distribution's current kernel.
const KERNEL_META: &str = "linux-image-amd64";
/// How the packages of kernels themselves begin.
const KERNEL_PREFIX: &str = "linux-image-";

/// Why a package cannot be had.
#[derive(Debug, Error)]
pub enum PackageError {
    /// There is no apt on this machine.
    #[error(
        "cannot run {program}: {source}; packages are taken from Debian with it: on another system, name a kernel and \
         an initrd of your own, or use the host's kernel"
    )]
    NoApt {
        /// The program.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// apt cannot find or fetch what was asked for.
    #[error(
        "{command} failed: {output}; check the network and the sources in /etc/apt, then run `apt-get update` as root and try again"
    )]
    Apt {
        /// The command and its most telling arguments.
        command: String,
        /// What it complained of, in one line.
        output: String,
    },
    /// apt said something that cannot be understood.
    #[error(
        "{command} gave an answer that cannot be understood: {answer:?}; name a kernel and an initrd of your own instead"
    )]
    Answer {
        /// The command and its most telling arguments.
        command: String,
        /// The line in question.
        answer: String,
    },
    /// The meta package depends on no kernel.
    #[error(
        "package {KERNEL_META} depends on no package {KERNEL_PREFIX}*: {depends:?}; name a kernel and an initrd of your own instead"
    )]
    NoKernel {
        /// Its Depends field.
        depends: String,
    },
    /// The cache directory or something in it cannot be read or written.
    #[error(
        "cannot {action} {path}: {source}; make it usable or set XDG_CACHE_HOME to another directory"
    )]
    Cache {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A cached package is not what apt vouched for.
    #[error(
        "{path} is damaged (its SHA-256 is {found}, not {expected}) and has been removed: try again, and it is downloaded anew"
    )]
    Damaged {
        /// The package's file.
        path: PathBuf,
        /// The digest that the package lists give.
        expected: String,
        /// The digest of the file.
        found: String,
    },
    /// A package file is not a .deb that can be read.
    #[error("cannot read package {path}: {reason}; remove the file and try again")]
    Unreadable {
        /// The package's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A package lacks a file.
    #[error("package {package} has no file /{file}")]
    NoFile {
        /// The package's name and version.
        package: String,
        /// The path asked for.
        file: String,
    },
}

impl PackageError {
    /// Whether the package may be there, and cannot be found or fetched from here, as without a network.
    pub(super) fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Apt { .. } | Self::NoApt { .. })
    }

    fn nothing_said(name: &str) -> Self {
        Self::Answer {
            command: format!("apt-get --print-uris download {name}"),
            answer: String::new(),
        }
    }

    fn cache(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Cache {
            action,
            path,
            source,
        }
    }
}

/// A package that lies in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as apt writes it.
    pub version: String,
    /// SHA-256 of the .deb in hexadecimal, from apt's signed lists.
    pub sha256: String,
    /// The .deb itself.
    pub path: PathBuf,
}

/// The packages of the distribution, by way of a cache directory.
pub struct PackageStore<'a> {
    cache: PathBuf,
    debs: PathBuf,
    apt: Apt,
    /// Set once Kennel's own lists were refreshed by this process: never more than once.
    refreshed: RefCell<bool>,
    progress: Progress<'a>,
}

impl std::fmt::Debug for PackageStore<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackageStore")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl<'a> PackageStore<'a> {
    /// Opens the cache in the directory `cache` and makes it if need be (see [`default_cache`]).
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(cache: &Path, progress: Progress<'a>) -> Result<Self, PackageError> {
        let debs = cache.join("packages");
        fs::create_dir_all(&debs).map_err(PackageError::cache("make the directory", &debs))?;
        let apt = Apt::new(&cache.join("apt"))?;
        Ok(Self {
            cache: cache.to_owned(),
            debs,
            apt,
            refreshed: RefCell::new(false),
            progress,
        })
    }

    /// The package of the distribution's current kernel, in the cache.
    ///
    /// # Errors
    /// As [`PackageStore::obtain`].
    pub fn obtain_kernel(&self) -> Result<Package, PackageError> {
        let mut packages = self.with_lists(|lists| {
            // Name and file from the same lists: older lists may name a kernel that newer ones have no more.
            let depends = self.apt.depends(KERNEL_META, lists)?;
            match kernel_in(&depends) {
                Some(kernel) => self.obtain_from(lists, &[kernel]),
                None => Err(PackageError::NoKernel { depends }),
            }
        })?;
        packages
            .pop()
            .ok_or_else(|| PackageError::nothing_said(KERNEL_META))
    }

    /// [`PackageStore::obtain`] for one package.
    ///
    /// # Errors
    /// As [`PackageStore::obtain`].
    pub fn obtain_one(&self, name: &str) -> Result<Package, PackageError> {
        let mut packages = self.obtain(&[name])?;
        // `obtain` gives as many as it was asked for.
        packages
            .pop()
            .ok_or_else(|| PackageError::nothing_said(name))
    }

    /// The packages called `names` in their current version, downloaded unless they lie in the cache already.
    ///
    /// # Errors
    /// There is no apt, it does not know a package, the download fails, or the cache cannot be written.
    pub fn obtain(&self, names: &[&str]) -> Result<Vec<Package>, PackageError> {
        self.with_lists(|lists| self.obtain_from(lists, names))
    }

    fn obtain_from(&self, lists: Lists, names: &[&str]) -> Result<Vec<Package>, PackageError> {
        let listed = self.apt.locate(names, lists)?;
        let missing: Vec<&Listed> = listed.iter().filter(|package| !self.has(package)).collect();
        if !missing.is_empty() {
            self.download(&missing, lists)?;
        }
        Ok(listed
            .into_iter()
            .map(|package| self.package(package))
            .collect())
    }

    /// Reads the package's files.
    ///
    /// # Errors
    /// The .deb is damaged or cannot be read, or the cache has no room for its files.
    pub fn unpack(&self, package: &Package) -> Result<Contents, PackageError> {
        (self.progress)(&Step::Unpacking {
            package: package.name.clone(),
        });
        deb::verify(package)?;
        Contents::read_deb(package, &self.cache)
    }

    /// Does `work` with the machine's package lists, then with our own, then with our own made new, until it succeeds.
    fn with_lists<T>(
        &self,
        work: impl Fn(Lists) -> Result<T, PackageError>,
    ) -> Result<T, PackageError> {
        let first = match work(Lists::System) {
            Err(error @ PackageError::Apt { .. }) => error,
            other => return other,
        };
        if self.apt.has_own_lists()
            && let Ok(done) = work(Lists::Own)
        {
            return Ok(done);
        }
        if self.refreshed.replace(true) {
            return Err(first);
        }
        (self.progress)(&Step::RefreshingPackageLists);
        let refreshed = self.apt.refresh_own_lists();
        match work(Lists::Own) {
            // One of several sources may be out of order without harm.
            Err(PackageError::Apt { .. }) if refreshed.is_err() => {
                Err(refreshed.err().unwrap_or(first))
            }
            other => other,
        }
    }

    fn has(&self, package: &Listed) -> bool {
        fs::metadata(self.debs.join(&package.file)).is_ok_and(|file| file.len() == package.size)
    }

    fn package(&self, listed: Listed) -> Package {
        let path = self.debs.join(&listed.file);
        Package {
            name: listed.name,
            version: listed.version,
            sha256: listed.sha256,
            path,
        }
    }

    fn download(&self, packages: &[&Listed], lists: Lists) -> Result<(), PackageError> {
        let dir = tempfile::Builder::new()
            .prefix("download-")
            .tempdir_in(&self.cache)
            .map_err(PackageError::cache("make a directory in", &self.cache))?;
        let names: Vec<String> = packages
            .iter()
            .map(|package| package.name.clone())
            .collect();
        let bytes = packages.iter().map(|package| package.size).sum();
        let mut shown = None;
        self.apt
            .download(packages, lists, dir.path(), &mut |percent| {
                if shown.replace(percent) != Some(percent) {
                    (self.progress)(&Step::Downloading {
                        packages: names.clone(),
                        bytes,
                        percent,
                    });
                }
            })?;
        for package in packages {
            let (from, to) = (
                dir.path().join(&package.file),
                self.debs.join(&package.file),
            );
            fs::rename(&from, &to).map_err(PackageError::cache("write", &to))?;
        }
        Ok(())
    }
}

/// Where Kennel keeps what it can get again: `$XDG_CACHE_HOME/kennel`, else `~/.cache/kennel`.
/// None if neither variable holds an absolute path.
#[must_use]
pub fn default_cache() -> Option<PathBuf> {
    let directory = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = directory("XDG_CACHE_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("kennel"))
}

/// The kernel package in a Depends field such as `linux-image-6.1.0-56-amd64 (= 6.1.192-2)`.
fn kernel_in(depends: &str) -> Option<&str> {
    let mut names = depends
        .split([',', '|'])
        .filter_map(|part| part.split_whitespace().next());
    names.find(|name| {
        name.strip_prefix(KERNEL_PREFIX)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_among_what_the_meta_package_depends_on() {
        assert_eq!(
            kernel_in("linux-image-6.1.0-56-amd64 (= 6.1.192-2)"),
            Some("linux-image-6.1.0-56-amd64")
        );
        assert_eq!(
            kernel_in("linux-base, linux-image-6.12.1+deb13-amd64 (= 6.12)"),
            Some("linux-image-6.12.1+deb13-amd64")
        );
        assert_eq!(kernel_in("linux-image-amd64-signed-template, libc6"), None);
    }
}
