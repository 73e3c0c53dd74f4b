// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! UNIX sockets at paths, for clients of the machine.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::SocketFlags;

/// A listener whose path goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, in the place of a machine that is no more; never of one that listens.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let bind = || UnixListener::bind(path);
        let socket = match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                bind()?
            }
            bound => bound?,
        };
        let path = path.to_owned();
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }

    /// A client that waits, ready to be watched.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(rustix::net::accept_with(&self.socket, flags)?.into())
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have tidied up before.
        let _removed = std::fs::remove_file(&self.path);
    }
}

/// Whether to try again when the descriptor is ready.
pub(super) fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether the client that was to be accepted still waits, because the process is out of
/// descriptors or the kernel out of memory: it would wake the loop for ever.
pub(super) fn waits_on(error: &io::Error) -> bool {
    !is_temporary(error) && error.kind() != ErrorKind::ConnectionAborted
}
