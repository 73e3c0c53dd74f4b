// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which socket an instance's guest agent has: the one of its name, unless another run has that.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::runtime_dir::{RuntimeDir, RuntimeDirError};

/// Other runs may end while a name is claimed, but not for ever.
const TRIES: u32 = 100;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    /// There is no place for it.
    #[error(transparent)]
    Dir(#[from] RuntimeDirError),
    /// The name cannot be claimed.
    #[error("cannot make {}: {source}; make room, or set XDG_RUNTIME_DIR to another directory", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A socket's path that no other run has, until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    socket: PathBuf,
    lock: PathBuf,
    /// Locked as long as it is open.
    _held: File,
}

/// The sockets of a run.
#[derive(Debug)]
pub(super) struct AgentSockets {
    dir: RuntimeDir,
    /// The directory was not there before.
    made: bool,
}

impl AgentSockets {
    pub(super) const fn new(dir: RuntimeDir) -> Self {
        Self { dir, made: false }
    }

    /// Claims the socket of `name` in `namespace`. While another run has an instance of that name,
    /// this process's number is added to it.
    pub(super) fn claim(&mut self, namespace: &str, name: &str) -> Result<Claim, ClaimError> {
        let first = self.dir.agent_socket(namespace, name)?;
        if let Some(claim) = self.take(first)? {
            return Ok(claim);
        }
        let number = std::process::id();
        let second = self
            .dir
            .agent_socket(namespace, &format!("{name}-{number}"))?;
        let lock = lock_of(&second);
        self.take(second)?.ok_or_else(|| ClaimError::Lock {
            path: lock,
            source: ErrorKind::AddrInUse.into(),
        })
    }

    /// None if somebody else has it.
    fn take(&mut self, socket: PathBuf) -> Result<Option<Claim>, ClaimError> {
        let lock = lock_of(&socket);
        let failed = |source| ClaimError::Lock {
            path: lock.clone(),
            source,
        };
        for _ in 0..TRIES {
            self.made |= !self.dir.path().exists();
            self.dir.create()?;
            let held = match File::create(&lock) {
                // Another run has just ended, and has taken the directory along.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            match held.try_lock() {
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                locked => locked.map_err(|error| failed(error.into()))?,
            }
            // Whoever had it may have removed it in between: then this is no file of that name.
            let ours = held.metadata().map_err(failed)?;
            if fs::metadata(&lock).is_ok_and(|there| there.ino() == ours.ino()) {
                return Ok(Some(Claim {
                    socket,
                    lock,
                    _held: held,
                }));
            }
        }
        Err(failed(ErrorKind::AddrInUse.into()))
    }
}

impl Drop for AgentSockets {
    fn drop(&mut self) {
        if self.made {
            // It fails while other runs have sockets there.
            let _dir = fs::remove_dir(self.dir.path());
        }
    }
}

impl Claim {
    /// Where the socket is to be.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A VM process that was killed leaves its socket behind.
        let _socket = fs::remove_file(&self.socket);
        let _lock = fs::remove_file(&self.lock);
    }
}

fn lock_of(socket: &Path) -> PathBuf {
    let mut lock = socket.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_had_once_at_a_time() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("kennel");
        let mut sockets = AgentSockets::new(RuntimeDir::at(path.clone()));
        let mut claim = || sockets.claim("lab", "dog").expect("a claim");
        let (first, second) = (claim(), claim());
        let name = |claim: &Claim| {
            let name = claim.socket().file_name().expect("a name");
            name.to_string_lossy().into_owned()
        };
        assert_eq!(name(&first), "lab_dog.agent");
        let other = format!("lab_dog-{}.agent", std::process::id());
        assert_eq!(name(&second), other);
        drop(second);
        let third = claim();
        assert_eq!(name(&third), other);
        drop(first);
        assert_eq!(name(&claim()), "lab_dog.agent");
        drop(third);
        assert!(path.exists());
        drop(sockets);
        assert!(!path.exists(), "nothing is left behind");
    }
}
