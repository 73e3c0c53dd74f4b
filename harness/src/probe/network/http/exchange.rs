// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Request and answer on one connection, at the same time: whatever the server does first is right.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;

use super::super::wire::Wire;
use super::super::{Limit, Trouble};
use super::response::{Answer, Head, Response};
use crate::socket;

/// How much is read in one go.
const PIECE: usize = 16 << 10;

/// A connection with a request on its way. Neither half waits.
pub(super) trait Lane: AsFd {
    /// Sends as much as goes now.
    fn send(&mut self) -> io::Result<()>;
    /// There is more to be sent.
    fn has_more(&self) -> bool;
    /// Receives what there is of the answer; 0 is its end.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// What people are told of an error.
    fn explain(&self, error: &io::Error) -> Option<Trouble>;
}

struct Plain {
    wire: Wire,
    unsent: Vec<u8>,
}

/// The request over the connection as it is.
pub(super) fn plain(wire: Wire, request: Vec<u8>) -> Box<dyn Lane> {
    Box::new(Plain {
        wire,
        unsent: request,
    })
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

impl Lane for Plain {
    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let count = self.wire.write(&self.unsent)?;
            self.unsent.drain(..count);
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wire.read(into)
    }

    fn explain(&self, _error: &io::Error) -> Option<Trouble> {
        None
    }
}

/// The answer to the request of `lane`. What cannot be sent any more is of no interest, as long as
/// there is an answer.
pub(super) fn run(
    lane: &mut dyn Lane,
    wants_body: &dyn Fn(&Head) -> bool,
    limit: Limit,
) -> Result<Answer, Trouble> {
    let mut response = Response::new(wants_body);
    let mut piece = vec![0; PIECE];
    let mut sends = true;
    loop {
        sends = sends && lane.send().err().is_none_or(|error| is_for_later(&error));
        match lane.receive(&mut piece) {
            Ok(0) => return response.ended(None),
            Ok(count) => {
                response.feed(piece.get(..count).unwrap_or_default())?;
                if response.is_over() {
                    return response.ended(None);
                }
                // A flood does not outlast the deadline.
                if limit.left().is_zero() {
                    return response.timed_out(limit);
                }
            }
            Err(error) if is_for_later(&error) => {
                let mut wanted = PollFlags::IN;
                if sends && lane.has_more() {
                    wanted |= PollFlags::OUT;
                }
                let waited = socket::wait(lane.as_fd(), wanted, limit.deadline);
                if !waited.map_err(|error| Trouble::Untold(socket::cause(&error)))? {
                    return response.timed_out(limit);
                }
            }
            Err(error) => {
                let trouble = lane.explain(&error);
                return response
                    .ended(Some(&error))
                    .map_err(|plain| trouble.unwrap_or(plain));
            }
        }
    }
}

/// Nothing can be done now, and nothing is wrong.
fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
