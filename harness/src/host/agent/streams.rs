// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command's streams as the agent holds them: pipes, or the near end of its terminal. None of them ever blocks.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::host::link::Link;
use crate::host::protocol::{CHUNK, Frame, Stream, WINDOW};

/// How much may wait in the link before no more output is read: credit bounds it anyway, this bounds copying.
const READS_AT_ONCE: usize = 8;

/// Something the command writes to.
#[derive(Debug)]
pub(super) struct Output {
    stream: Stream,
    source: Option<Arc<OwnedFd>>,
    credit: usize,
}

impl Output {
    pub(super) fn new(stream: Stream, source: Arc<OwnedFd>) -> Self {
        Self {
            stream,
            source: Some(source),
            credit: WINDOW,
        }
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn is_open(&self) -> bool {
        self.source.is_some()
    }

    /// Open, but the caller has no room.
    pub(super) fn is_starved(&self) -> bool {
        self.is_open() && self.credit == 0
    }

    pub(super) fn grant(&mut self, bytes: u32) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.credit = self.credit.saturating_add(bytes);
    }

    /// The reader is gone: so the command's next write fails, as it would in a pipe.
    pub(super) fn close(&mut self) {
        self.source = None;
    }

    pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
        let source = self.source.as_ref().filter(|_| self.credit > 0)?;
        Some(PollFd::new(source, PollFlags::IN))
    }

    /// Passes on what is there, as far as credit goes.
    pub(super) fn pass_on(&mut self, link: &mut Link) {
        let mut buffer = vec![0; CHUNK];
        for _ in 0..READS_AT_ONCE {
            let room = self.credit.min(buffer.len());
            let (Some(source), Some(room)) = (&self.source, buffer.get_mut(..room)) else {
                return;
            };
            if room.is_empty() {
                return;
            }
            match rustix::io::read(&**source, &mut *room) {
                Ok(count) if count > 0 => {
                    self.credit = self.credit.saturating_sub(count);
                    let data = room.get(..count).unwrap_or_default().to_vec();
                    link.queue(&Frame::Data(self.stream, data));
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // The end; a terminal nobody has open any more says so by EIO.
                Ok(_) | Err(_) => {
                    self.source = None;
                    link.queue(&Frame::End(self.stream));
                    return;
                }
            }
        }
    }
}

/// What the command reads from.
#[derive(Debug)]
pub(super) struct Input {
    sink: Option<Arc<OwnedFd>>,
    pending: VecDeque<u8>,
    /// The caller has no more.
    ended: bool,
    /// The caller was told that no more is wanted.
    refused: bool,
    is_terminal: bool,
}

impl Input {
    pub(super) fn new(sink: Arc<OwnedFd>, is_terminal: bool) -> Self {
        Self {
            sink: Some(sink),
            pending: VecDeque::new(),
            ended: false,
            refused: false,
            is_terminal,
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        if self.sink.is_some() {
            self.pending.extend(data);
        }
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
        let sink = self.sink.as_ref()?;
        // Without anything to write, the poll still tells when the reader is gone.
        let flags = if self.pending.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        (!self.is_terminal || !flags.is_empty()).then(|| PollFd::new(sink, flags))
    }

    /// Passes on what the command takes, and tells the caller that there is room again.
    pub(super) fn pass_on(&mut self, link: &mut Link) {
        let mut taken = 0;
        while let Some(sink) = &self.sink {
            let (front, _) = self.pending.as_slices();
            if front.is_empty() {
                break;
            }
            match rustix::io::write(&**sink, front) {
                Ok(count) => {
                    self.pending.drain(..count);
                    taken += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.refuse(link),
            }
        }
        if taken > 0 {
            // At most `WINDOW` bytes are ever pending.
            let taken = u32::try_from(taken).unwrap_or(u32::MAX);
            link.queue(&Frame::Credit(Stream::Stdin, taken));
        }
        if self.ended && self.pending.is_empty() && !self.is_terminal {
            self.sink = None;
        }
        if !self.is_terminal && self.reader_is_gone() {
            self.refuse(link);
        }
    }

    fn refuse(&mut self, link: &mut Link) {
        self.sink = None;
        self.pending.clear();
        if !self.refused {
            self.refused = true;
            link.queue(&Frame::End(Stream::Stdin));
        }
    }

    fn reader_is_gone(&self) -> bool {
        let Some(sink) = &self.sink else {
            return false;
        };
        let mut fds = [PollFd::new(sink, PollFlags::empty())];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok()
            && fds[0].revents().contains(PollFlags::ERR)
    }
}
