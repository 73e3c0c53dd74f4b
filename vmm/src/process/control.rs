// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VM process' end of the supervisor's socket.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::teller::Teller;
use crate::config::MachineConfig;
use crate::protocol::Command;

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
        let mut commands = vec![];
        let mut pieces = chunk
            .get(..count)
            .unwrap_or_default()
            .split(|byte| *byte == b'\n');
        let first = pieces.next().unwrap_or_default();
        self.partial.extend_from_slice(first);
        // Each further piece begins after the end of a line.
        for piece in pieces {
            let line = std::mem::replace(&mut self.partial, piece.to_vec());
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
    let teller = Teller::start(socket.try_clone()?)?;
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
