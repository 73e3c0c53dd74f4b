// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VM process' end of the supervisor's socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::MachineConfig;
use crate::protocol::{Command, Notice};

/// A supervisor that reads nothing for this long is as good as gone.
const TELL_BOUND: Duration = Duration::from_secs(5);
/// Longer than any description of a machine.
const MAX_LINE: usize = 64 << 20;

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Reads commands, a line each.
#[derive(Debug)]
pub(super) struct Reader {
    socket: UnixStream,
    partial: Vec<u8>,
}

impl Reader {
    /// The commands that one read brings; `None` once the supervisor is gone.
    pub(super) fn read(&mut self) -> io::Result<Option<Vec<Command>>> {
        let mut chunk = [0; 16 << 10];
        let count = match self.socket.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Some(vec![])),
            Err(error) => return Err(error),
        };
        self.partial
            .extend_from_slice(chunk.get(..count).unwrap_or_default());
        let mut commands = vec![];
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let command = serde_json::from_slice(&line)
                .map_err(|error| invalid(format!("not a command: {error}")))?;
            commands.push(command);
        }
        if self.partial.len() > MAX_LINE {
            return Err(invalid("a command without end"));
        }
        Ok(Some(commands))
    }
}

impl Reader {
    /// Waits for the description of the machine, which is the first command; gives what came with it too.
    pub(super) fn wait_for_start(&mut self) -> io::Result<(MachineConfig, Vec<Command>)> {
        loop {
            let Some(commands) = self.read()? else {
                return Err(invalid("it closed the socket"));
            };
            let mut commands = commands.into_iter();
            match commands.next() {
                Some(Command::Start(config)) => return Ok((*config, commands.collect())),
                Some(other) => return Err(invalid(format!("it began with {other:?}"))),
                None => {}
            }
        }
    }
}

/// Both ends of the conversation.
pub(super) fn split(socket: UnixStream) -> io::Result<(Reader, Teller)> {
    socket.set_write_timeout(Some(TELL_BOUND))?;
    let teller = Teller(Arc::new(Mutex::new(socket.try_clone()?)));
    Ok((
        Reader {
            socket,
            partial: vec![],
        },
        teller,
    ))
}

impl AsRawFd for Reader {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Tells the supervisor.
#[derive(Clone, Debug)]
pub(super) struct Teller(Arc<Mutex<UnixStream>>);

impl Teller {
    /// A supervisor that is gone is noticed by the reader; what it was told is lost.
    pub(super) fn tell(&self, notice: &Notice) {
        // Held for whole lines: several threads tell.
        let mut socket = self.0.lock();
        let written = serde_json::to_vec(notice)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                socket.write_all(&line)
            });
        if let Err(error) = written {
            log::debug!("the supervisor was not told {notice:?}: {error}");
            // A line cut short cannot be taken back; an end of file can be understood.
            let _gone = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}
