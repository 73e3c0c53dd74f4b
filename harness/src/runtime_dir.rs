// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where running machines have their sockets: one directory a user; for each machine its agent's, and
//! one to its guest's ports.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The longest path of a UNIX socket, in bytes: `sun_path` is 108 with its terminator.
pub const SOCKET_PATH_MAX: usize = 107;
const AGENT_SUFFIX: &str = ".agent";
const DIAL_SUFFIX: &str = ".dial";
/// Bytes of the longest suffix: a machine has the same name with each.
const SUFFIX_BYTES: usize = AGENT_SUFFIX.len();
/// Bytes of the digest that stands for a name too long.
const DIGEST_BYTES: usize = 12;

/// Why there is no place for sockets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeDirError {
    /// It could not be made.
    #[error(
        "cannot make {path} for the machines' sockets: {source}; set XDG_RUNTIME_DIR to a directory of your own"
    )]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else could put sockets there.
    #[error(
        "{path} is not safe for the machines' sockets: {why}; remove it, or set XDG_RUNTIME_DIR to a directory of your own"
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not even a short name fits.
    #[error(
        "{path} is too long for the machines' sockets, of which a path has {SOCKET_PATH_MAX} bytes at most; set XDG_RUNTIME_DIR to a shorter one"
    )]
    TooLong {
        /// The directory.
        path: PathBuf,
    },
}

/// The directory of this user's sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// `$XDG_RUNTIME_DIR/kennel`, else `/run/kennel` for root and `/tmp/kennel-UID` for others.
    #[must_use]
    pub fn of_this_user() -> Self {
        let xdg = std::env::var_os("XDG_RUNTIME_DIR");
        Self::of(xdg.as_deref(), rustix::process::geteuid().as_raw())
    }

    /// This directory.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    fn of(xdg: Option<&OsStr>, uid: u32) -> Self {
        // The specification of XDG_RUNTIME_DIR: a relative path counts as none.
        let xdg = xdg.map(Path::new).filter(|path| path.is_absolute());
        let path = match (xdg, uid) {
            (Some(xdg), _) => xdg.join("kennel"),
            (None, 0) => "/run/kennel".into(),
            (None, uid) => format!("/tmp/kennel-{uid}").into(),
        };
        Self { path }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory, for this user alone, unless it is there; then it must be such.
    ///
    /// # Errors
    /// [`RuntimeDirError::Create`] and [`RuntimeDirError::Unsafe`].
    pub fn create(&self) -> Result<(), RuntimeDirError> {
        let failed = |source| RuntimeDirError::Create {
            path: self.path.clone(),
            source,
        };
        match std::fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(failed)?,
        }
        let metadata = std::fs::symlink_metadata(&self.path).map_err(failed)?;
        let why = if !metadata.is_dir() {
            "it is no directory"
        } else if metadata.uid() != rustix::process::geteuid().as_raw() {
            "it belongs to another user"
        } else if metadata.mode() & 0o077 != 0 {
            "others than its owner may use it (chmod 700 is what it needs)"
        } else {
            return Ok(());
        };
        Err(RuntimeDirError::Unsafe {
            path: self.path.clone(),
            why,
        })
    }

    /// Where the instance `name` of `namespace` has its guest agent's socket.
    ///
    /// # Errors
    /// [`RuntimeDirError::TooLong`].
    pub fn agent_socket(&self, namespace: &str, name: &str) -> Result<PathBuf, RuntimeDirError> {
        self.agent_socket_of_domain(&format!("{namespace}_{name}"))
    }

    /// The same by libvirt's name of the domain, `NAMESPACE_NAME`. Where that is too long for a
    /// socket's path, a digest of it stands for it.
    ///
    /// # Errors
    /// [`RuntimeDirError::TooLong`].
    pub fn agent_socket_of_domain(&self, domain: &str) -> Result<PathBuf, RuntimeDirError> {
        self.socket(domain, AGENT_SUFFIX)
    }

    /// Where the instance `name` of `namespace` has the socket to its guest's ports.
    ///
    /// # Errors
    /// [`RuntimeDirError::TooLong`].
    pub fn dial_socket(&self, namespace: &str, name: &str) -> Result<PathBuf, RuntimeDirError> {
        self.socket(&format!("{namespace}_{name}"), DIAL_SUFFIX)
    }

    fn socket(&self, domain: &str, suffix: &str) -> Result<PathBuf, RuntimeDirError> {
        let most = SOCKET_PATH_MAX.saturating_sub(SUFFIX_BYTES.saturating_sub(suffix.len()));
        let fits = |path: &PathBuf| path.as_os_str().as_bytes().len() <= most;
        let path = self.path.join(format!("{domain}{suffix}"));
        if fits(&path) {
            return Ok(path);
        }
        let digest = Sha256::digest(domain.as_bytes());
        let mut short = String::from("by-digest-");
        for byte in digest.iter().take(DIGEST_BYTES) {
            short.push_str(&format!("{byte:02x}"));
        }
        let path = self.path.join(format!("{short}{suffix}"));
        if fits(&path) {
            return Ok(path);
        }
        Err(RuntimeDirError::TooLong {
            path: self.path.clone(),
        })
    }

    /// The domains that have a socket here, by name, sorted. A name that is a digest is left out.
    #[must_use]
    pub fn domains(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten();
        let mut domains: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let domain = name.to_str()?.strip_suffix(AGENT_SUFFIX)?;
                domain.contains('_').then(|| domain.to_owned())
            })
            .collect();
        domains.sort();
        domains
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn dir(path: &str) -> RuntimeDir {
        RuntimeDir { path: path.into() }
    }

    #[test]
    fn one_directory_a_user() {
        for (xdg, uid, path) in [
            (Some("/run/user/7"), 7, "/run/user/7/kennel"),
            (Some("/run/user/0"), 0, "/run/user/0/kennel"),
            (None, 0, "/run/kennel"),
            (None, 7, "/tmp/kennel-7"),
            (Some(""), 7, "/tmp/kennel-7"),
            (Some("relative"), 0, "/run/kennel"),
        ] {
            assert_eq!(RuntimeDir::of(xdg.map(OsStr::new), uid), dir(path));
        }
    }

    #[test]
    fn sockets_are_named_as_libvirt_names_domains() {
        let path = dir("/run/kennel").agent_socket("lab", "vm-1").unwrap();
        assert_eq!(path, Path::new("/run/kennel/lab_vm-1.agent"));
        let path = dir("/run/kennel").dial_socket("lab", "vm-1").unwrap();
        assert_eq!(path, Path::new("/run/kennel/lab_vm-1.dial"));
    }

    #[test]
    fn long_names_have_short_paths_of_their_own() {
        let place = dir("/run/kennel");
        let room = SOCKET_PATH_MAX - "/run/kennel/n_.agent".len();
        let longest = place.agent_socket("n", &"x".repeat(room)).unwrap();
        assert_eq!(longest.as_os_str().len(), SOCKET_PATH_MAX);
        assert!(longest.ends_with(format!("n_{}.agent", "x".repeat(room))));
        let beyond = |letter: &str| place.agent_socket("n", &letter.repeat(room + 1)).unwrap();
        assert!(beyond("x").as_os_str().len() < SOCKET_PATH_MAX);
        assert_eq!(beyond("x"), beyond("x"));
        assert_ne!(beyond("x"), beyond("y"));
        // All sockets of a machine have the same name.
        for length in [room, room + 1] {
            let name = "x".repeat(length);
            let agent = place.agent_socket("n", &name).unwrap();
            let dial = place.dial_socket("n", &name).unwrap();
            assert_eq!(agent.with_extension(""), dial.with_extension(""));
        }
        let deep = dir(&format!("/{}", "d".repeat(100)));
        let error = deep.agent_socket("n", "x").unwrap_err().to_string();
        assert!(error.contains("XDG_RUNTIME_DIR"), "{error}");
    }

    #[test]
    fn the_directory_is_its_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let place = RuntimeDir {
            path: parent.path().join("kennel"),
        };
        place.create().unwrap();
        place.create().unwrap();
        let mode = std::fs::metadata(place.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(place.path(), open).unwrap();
        let error = place.create().unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        let link = RuntimeDir {
            path: parent.path().join("link"),
        };
        std::os::unix::fs::symlink(parent.path(), link.path()).unwrap();
        let error = link.create().unwrap_err().to_string();
        assert!(error.contains("no directory"), "{error}");
        let nowhere = RuntimeDir {
            path: parent.path().join("no/such"),
        };
        let error = nowhere.create().unwrap_err().to_string();
        assert!(error.contains("no/such"), "{error}");
    }

    #[test]
    fn domains_that_have_a_socket() {
        let parent = tempfile::tempdir().unwrap();
        let place = RuntimeDir {
            path: parent.path().to_owned(),
        };
        for name in ["b_x.agent", "a_y.agent", "by-digest-00.agent", "a_y.pid"] {
            std::fs::write(parent.path().join(name), "").unwrap();
        }
        assert_eq!(place.domains(), ["a_y", "b_x"]);
        assert_eq!(dir("/no/such").domains(), [] as [String; 0]);
    }
}
