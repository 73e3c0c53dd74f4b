// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The client's side of [`kennel_vmm::dial`]: a connection to a port of a guest.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kennel_vmm::dial::{Answer, LINE_BYTES, LineError, Reason, Request, Target};
use rustix::event::PollFlags;
use rustix::net::RecvFlags;

use crate::socket::{self, BUSY_RETRY};

/// What is kept of the time, a twentieth up to this, for the VM process' word to come back, so that
/// it is its word about the guest that is heard, and no deadline of our own.
const WAY_BACK: Duration = Duration::from_millis(500);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The VM process says so.
    #[error("{text}")]
    Failed {
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        text: String,
    },
    /// The VM process cannot be reached: why. Events say it, so it names no path.
    #[error("the VM process cannot be reached: {0}")]
    Socket(String),
    /// The VM process has not answered.
    #[error("the VM process did not answer in time; it hangs, or this host is very busy")]
    TimedOut,
    /// What it answers makes no sense.
    #[error("the VM process: {0}")]
    Garbled(#[from] LineError),
}

/// Connects to `port` of `target` through the dial socket at `socket`, by `deadline`. The stream is
/// blocking, as std makes them; nothing of what the guest says is lost.
///
/// # Errors
/// Why there is no connection.
pub fn connect(
    socket: &Path,
    target: Target,
    port: u16,
    deadline: Instant,
) -> Result<UnixStream, DialError> {
    let mut stream = reach(socket, deadline)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = left.saturating_sub(WAY_BACK.min(left / 20));
    let request = Request {
        target,
        port,
        timeout,
    };
    // A VM process that has no room answers without reading: what it said is heard below.
    let sent = stream.write_all(request.to_string().as_bytes());
    let line = line(&stream, deadline).map_err(|error| match (error, sent) {
        (Some(error), _) | (None, Err(error)) => failed(&error),
        (None, Ok(())) => DialError::TimedOut,
    })?;
    match line.parse()? {
        Answer::Connected { .. } => {
            let blocking = stream.set_nonblocking(false);
            blocking.map_err(|error| failed(&error))?;
            Ok(stream)
        }
        Answer::Failed { reason, text } => Err(DialError::Failed { reason, text }),
    }
}

fn failed(error: &io::Error) -> DialError {
    DialError::Socket(match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
            "it closed the connection without an answer".to_owned()
        }
        _ => socket::cause(error),
    })
}

/// A connection to the VM process, not yet to its guest.
fn reach(path: &Path, deadline: Instant) -> Result<UnixStream, DialError> {
    loop {
        match socket::connect_unix(path) {
            Ok(Some(socket)) => return Ok(socket.into()),
            Ok(None) => {}
            Err(why) => return Err(DialError::Socket(why)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(DialError::TimedOut);
        }
        thread::sleep(left.min(BUSY_RETRY));
    }
}

/// The answer, and not a byte of what the guest says behind it. No error is the deadline.
fn line(mut stream: &UnixStream, deadline: Instant) -> Result<String, Option<io::Error>> {
    let mut line = Vec::new();
    let mut piece = [0; LINE_BYTES];
    while line.len() < LINE_BYTES && line.last() != Some(&b'\n') {
        if !socket::wait(stream, PollFlags::IN, deadline)? {
            return Err(None);
        }
        // As much as a line may still have: a longer one is as long in pieces.
        let left = LINE_BYTES.saturating_sub(line.len());
        let room = piece.get_mut(..left).unwrap_or_default();
        let there = match rustix::net::recv(stream, room, RecvFlags::PEEK) {
            Ok((0, _)) => return Err(Some(io::ErrorKind::UnexpectedEof.into())),
            Ok((count, _)) => piece.get(..count).unwrap_or_default(),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Some(error.into())),
        };
        let end = there.iter().position(|byte| *byte == b'\n');
        let ours = end.map_or(there.len(), |at| at.saturating_add(1));
        let ours = piece.get_mut(..ours).unwrap_or_default();
        stream.read_exact(ours)?;
        line.extend_from_slice(ours);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests;
