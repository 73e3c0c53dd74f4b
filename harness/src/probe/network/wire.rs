// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A connection's bytes, without waiting.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A connection that does not block.
#[derive(Debug)]
pub(super) enum Wire {
    /// To the guest, through its VM process.
    Guest(UnixStream),
    /// From this host.
    Host(TcpStream),
}

impl Wire {
    pub(super) fn guest(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Guest(stream))
    }

    pub(super) fn host(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Host(stream))
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Guest(stream) => stream.read(into),
            Self::Host(stream) => stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Guest(stream) => stream.write(bytes),
            Self::Host(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Guest(stream) => stream.as_fd(),
            Self::Host(stream) => stream.as_fd(),
        }
    }
}
