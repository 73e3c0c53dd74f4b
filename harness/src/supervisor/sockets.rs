// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which sockets an instance has: those of its name, unless another run has that.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::runtime_dir::{RuntimeDir, RuntimeDirError};

/// Other runs may end while a name is claimed, but not for ever.
const TRIES: u32 = 100;

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    /// There is no place for them.
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

/// Paths of an instance's sockets that no other run has, until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    agent: PathBuf,
    dial: PathBuf,
    lock: PathBuf,
    /// Locked as long as it is open.
    _held: File,
}

/// The claims of a run.
#[derive(Debug)]
pub(super) struct Claims {
    dir: RuntimeDir,
    /// The directory was not there before.
    made: bool,
}

impl Claims {
    pub(super) const fn new(dir: RuntimeDir) -> Self {
        Self { dir, made: false }
    }

    /// Claims the sockets of `name` in `namespace`. While another run has an instance of that name,
    /// this process's number is added to it.
    pub(super) fn claim(&mut self, namespace: &str, name: &str) -> Result<Claim, ClaimError> {
        if let Some(claim) = self.take(namespace, name)? {
            return Ok(claim);
        }
        let second = format!("{name}-{}", std::process::id());
        if let Some(claim) = self.take(namespace, &second)? {
            return Ok(claim);
        }
        Err(ClaimError::Lock {
            path: lock_of(&self.dir.agent_socket(namespace, &second)?),
            source: ErrorKind::AddrInUse.into(),
        })
    }

    /// None if somebody else has them.
    fn take(&mut self, namespace: &str, name: &str) -> Result<Option<Claim>, ClaimError> {
        let agent = self.dir.agent_socket(namespace, name)?;
        let dial = self.dir.dial_socket(namespace, name)?;
        let lock = lock_of(&agent);
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
                    agent,
                    dial,
                    lock,
                    _held: held,
                }));
            }
        }
        Err(failed(ErrorKind::AddrInUse.into()))
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        if self.made {
            // It fails while other runs have sockets there.
            let _dir = fs::remove_dir(self.dir.path());
        }
    }
}

impl Claim {
    /// Where the guest agent's socket is to be.
    pub(super) fn agent(&self) -> &Path {
        &self.agent
    }

    /// Where the socket to the guest's ports is to be, if it has a network.
    pub(super) fn dial(&self) -> &Path {
        &self.dial
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A VM process that was killed leaves its sockets behind.
        for socket in [&self.agent, &self.dial] {
            let _socket = fs::remove_file(socket);
        }
        let _lock = fs::remove_file(&self.lock);
    }
}

/// One for all of them.
fn lock_of(agent: &Path) -> PathBuf {
    agent.with_extension("lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_had_once_at_a_time() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("kennel");
        let mut claims = Claims::new(RuntimeDir::at(path.clone()));
        let mut claim = || claims.claim("lab", "dog").expect("a claim");
        let (first, second) = (claim(), claim());
        let names = |claim: &Claim| -> Vec<_> {
            let paths = [claim.agent(), claim.dial()].into_iter();
            let names = paths.filter_map(Path::file_name);
            names
                .map(|name| name.to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names(&first), ["lab_dog.agent", "lab_dog.dial"]);
        let number = std::process::id();
        let other = ["agent", "dial"].map(|kind| format!("lab_dog-{number}.{kind}"));
        assert_eq!(names(&second), other);
        // As VM processes leave them behind.
        for socket in [second.agent(), second.dial()] {
            File::create(socket).expect("a file");
        }
        drop(second);
        let third = claim();
        assert_eq!(names(&third), other);
        assert!(!third.agent().exists() && !third.dial().exists());
        drop(first);
        assert_eq!(names(&claim()), ["lab_dog.agent", "lab_dog.dial"]);
        drop(third);
        assert!(path.exists());
        drop(claims);
        assert!(!path.exists(), "nothing is left behind");
    }
}
