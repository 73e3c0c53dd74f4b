// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An ordinary client of a guest agent's socket, as small as can be: the same for every contender.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Trouble;

/// A guest that boots needs this long at most, on an emulated machine.
const FIRST_ANSWER: Duration = Duration::from_secs(300);
/// And an answer, later.
const ANSWER: Duration = Duration::from_secs(20);
/// A request that nobody took is repeated.
const AGAIN: Duration = Duration::from_millis(500);

/// A connection that has its answers in step.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    next: u32,
    received: Vec<u8>,
}

impl Client {
    /// Connects to `path` and asks until the agent answers, or `check` finds that it never will.
    pub(crate) fn connect(
        path: &Path,
        mut check: impl FnMut() -> Result<(), Trouble>,
    ) -> Result<Self, Trouble> {
        let deadline = Instant::now() + FIRST_ANSWER;
        let mut client = None;
        while Instant::now() < deadline {
            check()?;
            match &mut client {
                None => {
                    client = UnixStream::connect(path).ok().map(Self::new);
                    std::thread::sleep(Duration::from_millis(10));
                }
                Some(asking) => match asking.sync() {
                    Ok(true) => return client.ok_or_else(|| Trouble::new("no client")),
                    Ok(false) => {}
                    Err(_) => client = None,
                },
            }
        }
        Err(Trouble::new("the guest's agent does not answer"))
    }

    const fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            next: 1,
            received: vec![],
        }
    }

    /// Whether an answer to a sync came in a while: whatever comes after it is in step.
    fn sync(&mut self) -> Result<bool, Trouble> {
        let number = self.number();
        let end = Instant::now() + AGAIN;
        self.send(&format!(
            "{{\"execute\":\"guest-sync\",\"arguments\":{{\"id\":{number}}}}}\n"
        ))?;
        loop {
            while let Some(line) = self.line() {
                if has(&line, "return", number) {
                    return Ok(true);
                }
            }
            if !self.receive(end)? {
                return Ok(false);
            }
        }
    }

    fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1) & 0x7fff_ffff;
        self.next
    }

    /// The time from a guest-ping to its answer, in ns.
    pub(crate) fn ping(&mut self) -> Result<u64, Trouble> {
        let number = self.number();
        let request = format!("{{\"execute\":\"guest-ping\",\"id\":{number}}}\n");
        let begin = Instant::now();
        let end = begin + ANSWER;
        self.send(&request)?;
        loop {
            while let Some(line) = self.line() {
                if has(&line, "id", number) {
                    return Ok(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
            }
            if !self.receive(end)? {
                return Err(Trouble::new("a guest-ping had no answer for 20 s"));
            }
        }
    }

    fn send(&mut self, request: &str) -> Result<(), Trouble> {
        self.stream
            .write_all(request.as_bytes())
            .map_err(|error| Trouble::new(format!("the agent's socket takes nothing: {error}")))
    }

    /// False once `end` has passed.
    fn receive(&mut self, end: Instant) -> Result<bool, Trouble> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.stream
            .set_read_timeout(Some(left))
            .map_err(Trouble::new)?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Trouble::new("the agent's socket was closed")),
            Ok(count) => {
                self.received
                    .extend_from_slice(chunk.get(..count).unwrap_or_default());
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(Trouble::new(format!("the agent's socket: {error}"))),
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        Some(self.received.drain(..=end).collect())
    }
}

/// Whether the answer in `line` has this `number` as its `key`.
fn has(line: &[u8], key: &str, number: u32) -> bool {
    serde_json::from_slice::<serde_json::Value>(line)
        .is_ok_and(|answer| answer.get(key) == Some(&number.into()))
}
