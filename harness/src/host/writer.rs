// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes to the caller's stdout and stderr, each from a thread of its own: they may block for as long as whoever reads
//! them likes, and they are shared with other processes, so that they cannot be made non-blocking.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::protocol::Stream;

/// What a writer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// So many bytes are written.
    Written(usize),
    /// Nobody reads any more, or the disk is full.
    Broken,
    /// The writer has written all and is gone.
    Done,
}

/// Where reports go, and what wakes their reader.
#[derive(Debug)]
pub(super) struct Reports {
    pub receiver: Receiver<(Stream, Report)>,
    sender: Sender<(Stream, Report)>,
    /// Readable when there are reports.
    pub bell: UnixStream,
    ring: UnixStream,
}

impl Reports {
    pub(super) fn new() -> io::Result<Self> {
        let (sender, receiver) = channel();
        let (bell, ring) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        // A full pipe has rung already.
        ring.set_nonblocking(true)?;
        Ok(Self {
            receiver,
            sender,
            bell,
            ring,
        })
    }

    /// Starts a writer; it ends when the sender it gives back is dropped.
    pub(super) fn writer(&self, stream: Stream, to: OwnedFd) -> io::Result<Sender<Vec<u8>>> {
        let (sender, data) = channel::<Vec<u8>>();
        let reports = self.sender.clone();
        let mut ring = self.ring.try_clone()?;
        let mut report = move |what| {
            // Without a reader of reports there is nothing left to do for one either.
            let _ = reports.send((stream, what));
            let _ = ring.write(&[0]);
        };
        thread::Builder::new()
            .name("kennel-box-output".into())
            .spawn(move || {
                for data in data {
                    if write_all(&to, &data).is_err() {
                        report(Report::Broken);
                        break;
                    }
                    report(Report::Written(data.len()));
                }
                report(Report::Done);
            })?;
        Ok(sender)
    }
}

/// As `Write::write_all`, also for a descriptor that somebody made non-blocking.
fn write_all(to: &OwnedFd, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::write(to, data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => data = data.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(to, PollFlags::OUT)], None)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn everything_is_written_then_done() {
        let reports = Reports::new().expect("descriptors");
        let (mut reader, to) = UnixStream::pair().expect("a socket pair");
        to.set_nonblocking(true).expect("non-blocking");
        let sender = reports.writer(Stream::Stdout, to.into()).expect("a thread");
        sender.send(vec![1; 3_000_000]).expect("running");
        drop(sender);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).expect("readable");
        assert_eq!(seen.len(), 3_000_000);
        let reported: Vec<_> = (0..2).flat_map(|_| reports.receiver.recv()).collect();
        assert_eq!(
            reported,
            [
                (Stream::Stdout, Report::Written(3_000_000)),
                (Stream::Stdout, Report::Done)
            ]
        );
    }

    #[test]
    fn a_reader_that_went_away_is_reported() {
        let reports = Reports::new().expect("descriptors");
        let (reader, to) = UnixStream::pair().expect("a socket pair");
        drop(reader);
        let sender = reports.writer(Stream::Stderr, to.into()).expect("a thread");
        sender.send(vec![1]).expect("running");
        assert_eq!(
            reports.receiver.recv(),
            Ok((Stream::Stderr, Report::Broken))
        );
    }
}
