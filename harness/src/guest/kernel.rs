// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel and its modules, from a package or from the machine itself.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::modules::Modules;
use super::packages::{Contents, PackageError};

/// Where a bzImage has its signature "HdrS" (Linux x86 boot protocol).
const SIGNATURE: usize = 0x202;
/// Where it has the place of its version string, counted from 0x200.
const VERSION: usize = 0x20e;

/// Why a kernel cannot be used.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The package holds no kernel.
    #[error(
        "the package holds no /boot/vmlinuz-*; name a kernel and an initrd of your own instead"
    )]
    NotInPackage,
    /// The package's files cannot be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The machine keeps no kernel where distributions put it.
    #[error(
        "this machine runs kernel {release}, but neither {} nor {} exists; name a kernel and an initrd of your own, or \
         use the distribution's package",
        .looked[0].display(), .looked[1].display()
    )]
    NotOnHost {
        /// The release of the running kernel.
        release: String,
        /// Where it was looked for.
        looked: [PathBuf; 2],
    },
    /// The machine has no modules for its kernel.
    #[error(
        "kernel {release} has no modules in {directory}: {source}; name a kernel and an initrd of your own, or use the \
         distribution's package"
    )]
    NoModules {
        /// The kernel's release.
        release: String,
        /// Where they should be.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {what} {path}: {source}{}", advice(.source, .path))]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not a kernel.
    #[error(
        "{path} is not an x86-64 Linux kernel: it is neither a bzImage (\"HdrS\" at 0x202) nor an ELF file; a kernel is usually called vmlinuz"
    )]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
}

fn advice(source: &io::Error, path: &Path) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "; make it readable (`sudo chmod +r {}`) or name a copy of it",
                path.display()
            )
        }
        io::ErrorKind::NotFound => "; check the path".to_owned(),
        _ => String::new(),
    }
}

/// A kernel with its modules.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// Its release, such as `6.1.0-56-amd64`.
    pub release: String,
    /// The bootable image.
    pub vmlinuz: Vec<u8>,
    /// Its modules.
    pub modules: Modules<'a>,
}

impl<'a> Kernel<'a> {
    /// The kernel in an unpacked kernel package.
    ///
    /// # Errors
    /// The package holds no kernel, or its files cannot be read.
    pub fn from_package(contents: &'a Contents) -> Result<Self, KernelError> {
        let image = contents
            .paths()
            .find(|path| path.starts_with("boot/vmlinuz-"));
        let image = image.ok_or(KernelError::NotInPackage)?;
        let release = image.trim_start_matches("boot/vmlinuz-").to_owned();
        let tree = format!("lib/modules/{release}/");
        let builtin = contents.read(&format!("{tree}modules.builtin"))?;
        let paths = contents
            .paths()
            .filter(|path| path.starts_with(&tree))
            .map(str::to_owned);
        let modules = Modules::new(
            &release,
            paths,
            &String::from_utf8_lossy(&builtin),
            |path| contents.read(path).map_err(io::Error::other),
        );
        Ok(Self {
            vmlinuz: contents.read(image)?,
            release,
            modules,
        })
    }

    /// The kernel `release` of the machine whose root directory is `root`.
    ///
    /// # Errors
    /// The kernel or its modules are missing or unreadable.
    pub fn from_host(root: &Path, release: &str) -> Result<Kernel<'static>, KernelError> {
        let tree = root.join("lib/modules").join(release);
        let looked = [
            tree.join("vmlinuz"),
            root.join("boot").join(format!("vmlinuz-{release}")),
        ];
        let image = looked
            .iter()
            .find(|path| fs::symlink_metadata(path).is_ok())
            .cloned();
        let image = image.ok_or_else(|| KernelError::NotOnHost {
            release: release.to_owned(),
            looked,
        })?;
        let vmlinuz = read_kernel(&image)?;
        let mut paths = Vec::new();
        let listed =
            list(&tree, &mut paths).and_then(|()| fs::read_to_string(tree.join("modules.builtin")));
        let builtin = listed.map_err(|source| KernelError::NoModules {
            release: release.to_owned(),
            directory: tree.clone(),
            source,
        })?;
        let modules = Modules::new(release, paths, &builtin, |path: &str| fs::read(path));
        Ok(Kernel {
            release: release.to_owned(),
            vmlinuz,
            modules,
        })
    }
}

/// The release of the kernel that this machine runs.
///
/// # Errors
/// `/proc` is not mounted.
pub fn host_release() -> Result<String, KernelError> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    let release = fs::read_to_string(path)
        .map_err(|source| read_error("the kernel's release in", path, source))?;
    Ok(release.trim().to_owned())
}

/// Reads the file at `path` and makes sure that it looks like a kernel.
///
/// # Errors
/// The file cannot be read, or is no kernel.
pub fn read_kernel(path: &Path) -> Result<Vec<u8>, KernelError> {
    let image = read_file("the kernel", path)?;
    let elf = image.starts_with(b"\x7fELF");
    if elf || image.get(SIGNATURE..SIGNATURE + 4) == Some(b"HdrS") {
        return Ok(image);
    }
    Err(KernelError::NotAKernel {
        path: path.to_owned(),
    })
}

/// Reads a file that is needed as `what`.
pub(super) fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, KernelError> {
    let read = || {
        let mut file = fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| read_error(what, path, source))
}

fn read_error(what: &'static str, path: &Path, source: io::Error) -> KernelError {
    KernelError::Read {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The release that a bzImage says it is; None for other kernels.
#[must_use]
pub fn release_of(image: &[u8]) -> Option<String> {
    if image.get(SIGNATURE..SIGNATURE + 4)? != b"HdrS" {
        return None;
    }
    let place: [u8; 2] = image.get(VERSION..VERSION + 2)?.try_into().ok()?;
    let text = image.get(usize::from(u16::from_le_bytes(place)) + 0x200..)?;
    let end = text.iter().position(|byte| matches!(byte, 0 | b' '))?;
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// Adds the files below `directory` in a fixed order; links (to the kernel's sources) are not followed.
fn list(directory: &Path, paths: &mut Vec<String>) -> io::Result<()> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            list(&entry.path(), paths)?;
        } else {
            paths.push(entry.path().to_string_lossy().into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start of a bzImage whose version string is `version`.
    fn bzimage(version: &str) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[SIGNATURE..SIGNATURE + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
        image
    }

    #[test]
    fn a_kernel_says_its_release() {
        assert_eq!(
            release_of(&bzimage("6.1.0-56-amd64 (builder@host) #1")).as_deref(),
            Some("6.1.0-56-amd64")
        );
        assert_eq!(release_of(b"\x7fELF"), None);
        let mut wild = bzimage("x ");
        wild[VERSION..VERSION + 2].copy_from_slice(&0xffff_u16.to_le_bytes());
        assert_eq!(release_of(&wild), None, "a version string outside the file");
    }

    #[test]
    fn the_hosts_kernel_is_found_where_distributions_put_it() {
        let root = tempfile::tempdir().expect("temporary directory");
        let tree = root.path().join("lib/modules/6.9-x");
        fs::create_dir_all(tree.join("kernel/drivers")).expect("directory");
        fs::create_dir_all(root.path().join("boot")).expect("directory");
        let error = Kernel::from_host(root.path(), "6.9-x")
            .expect_err("no kernel yet")
            .to_string();
        assert!(
            error.contains("this machine runs kernel 6.9-x, but neither ")
                && error.contains("boot/vmlinuz-6.9-x"),
            "{error}"
        );

        fs::write(root.path().join("boot/vmlinuz-6.9-x"), bzimage("6.9-x ")).expect("write");
        let error = Kernel::from_host(root.path(), "6.9-x").expect_err("no modules.builtin yet");
        assert!(matches!(error, KernelError::NoModules { .. }), "{error}");

        fs::write(tree.join("modules.builtin"), "kernel/drivers/watchdog.ko\n").expect("write");
        fs::write(tree.join("kernel/drivers/i6300esb.ko.gz"), "").expect("write");
        let kernel = Kernel::from_host(root.path(), "6.9-x").expect("a kernel");
        assert_eq!(kernel.vmlinuz, bzimage("6.9-x "));
        assert_eq!(format!("{:?}", kernel.modules), "Modules(6.9-x, 1 files)");
    }

    #[test]
    fn what_is_not_a_kernel_is_named() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), "hello").expect("write");
        let error = read_kernel(file.path()).expect_err("no kernel").to_string();
        assert!(
            error.contains(&file.path().display().to_string())
                && error.contains("is not an x86-64 Linux kernel"),
            "{error}"
        );
        let error = read_kernel(Path::new("/nonexistent/vmlinuz"))
            .expect_err("no file")
            .to_string();
        assert!(
            error.starts_with("cannot read the kernel /nonexistent/vmlinuz: ")
                && error.ends_with("; check the path"),
            "{error}"
        );
        let error = read_kernel(Path::new("/"))
            .expect_err("a directory")
            .to_string();
        assert_eq!(error, "cannot read the kernel /: it is not a file");
    }
}
