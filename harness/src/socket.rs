// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sockets that nobody waits for longer than until a deadline.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::words::without_error_numbers;

/// How soon a connection is tried again that the other side had no room for.
pub(crate) const BUSY_RETRY: Duration = Duration::from_millis(20);

/// A non-blocking connection to the UNIX socket at `path`; none if the other side has no room for
/// more, and nothing tells when there is. The error says why there is none; where, only its caller
/// knows whether to say: most of these paths are this program's own.
pub(crate) fn connect_unix(path: &Path) -> Result<Option<OwnedFd>, String> {
    let failed = |error: Errno| match error {
        Errno::NAMETOOLONG => {
            "the path is longer than the 107 bytes of a socket's address; use a shorter one".into()
        }
        Errno::CONNREFUSED => "nobody listens there".into(),
        Errno::NOENT => "there is no such socket".into(),
        _ => cause(&error.into()),
    };
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = AddressFamily::UNIX;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None);
    let socket = socket.map_err(failed)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Waits until the socket can do one of `flags`, is closed, or was woken for nothing; false if
/// `deadline` came first.
pub(crate) fn wait(socket: impl AsFd, flags: PollFlags, deadline: Instant) -> io::Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(false);
    }
    // A deadline centuries away is beyond what the kernel's time holds.
    let left = left.min(Duration::from_secs(86_400));
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&socket, flags)], Some(&timeout)) {
        // That the time is over is for the next call to find.
        Ok(_) | Err(Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// A socket's error for people: the usual ones in words, without the system's number.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::BrokenPipe => "the other side closed it".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => without_error_numbers(&error.to_string()),
    }
}
