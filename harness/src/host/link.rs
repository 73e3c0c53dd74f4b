// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One end of the connection between caller and agent: frames over a descriptor that never blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use thiserror::Error;

use super::protocol::{CHUNK, Decoder, Frame, ProtocolError};

/// Why the connection is over before its time.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the other end sent {0}")]
    Protocol(#[from] ProtocolError),
}

/// A connection. Its descriptor must have been made non-blocking.
#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
}

impl Link {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            decoder: Decoder::default(),
            out: Vec::new(),
            sent: 0,
            buffer: vec![0; CHUNK],
        }
    }

    /// Puts a frame into the queue; [`Link::flush`] sends it.
    pub(super) fn queue(&mut self, frame: &Frame) {
        frame.encode(&mut self.out);
    }

    /// Whether something waits for the other end to take it.
    pub(super) fn has_queued(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Sends as much as goes without waiting.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&self.fd, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads once. False once the other end is gone.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        match rustix::io::read(&self.fd, &mut self.buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.decoder
                    .push(self.buffer.get(..count).unwrap_or_default());
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(Errno::CONNRESET | Errno::PIPE) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next frame of what was read.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        self.decoder.next()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::protocol::Stream;
    use super::*;

    fn pair() -> (Link, Link) {
        let (a, b) = UnixStream::pair().expect("a socket pair");
        a.set_nonblocking(true).expect("non-blocking");
        b.set_nonblocking(true).expect("non-blocking");
        (Link::new(a.into()), Link::new(b.into()))
    }

    #[test]
    fn more_than_the_socket_holds_arrives_in_order() {
        let (mut a, mut b) = pair();
        let data: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for piece in data.chunks(CHUNK) {
            a.queue(&Frame::Data(Stream::Stdout, piece.to_vec()));
        }
        a.flush().expect("open");
        assert!(a.has_queued(), "the socket cannot hold it all");
        let mut seen = Vec::new();
        while seen.len() < data.len() {
            a.flush().expect("open");
            assert!(b.receive().expect("open"));
            while let Some(frame) = b.next().expect("well-formed") {
                let Frame::Data(Stream::Stdout, piece) = frame else {
                    unreachable!("only data was sent");
                };
                seen.extend(piece);
            }
        }
        assert!(seen == data && !a.has_queued());
    }

    #[test]
    fn the_other_end_going_away_is_not_an_error() {
        let (mut a, b) = pair();
        drop(b);
        assert!(!a.receive().expect("closed, not failed"));
    }
}
