// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the caller and the box's agent say to each other over one byte stream (a virtio-serial port).
//!
//! A frame is one byte of kind, four bytes of payload length (little endian), and the payload. Data flows against
//! credit: a sender may have [`WINDOW`] bytes of a stream on the way, and the receiver grants more once it has passed
//! data on. So a stream that nobody reads never holds up the others, nor signals, nor the exit status.

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Both ends are the same binary; a different number means they are not.
pub(super) const VERSION: u8 = 2;
/// How often the agent says that it is there, whatever else it has to say.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Bytes of one stream that may be sent before the receiver grants more.
pub(super) const WINDOW: usize = 256 * 1024;
/// The most data put into one frame.
pub(super) const CHUNK: usize = 32 * 1024;
/// The longest payload accepted: a command with all its arguments and environment as JSON.
const PAYLOAD_MAX: usize = 32 * 1024 * 1024;
const HEADER: usize = 5;

/// A stream of bytes between caller and command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdin,
    Stdout,
    Stderr,
    /// What the command's terminal shows, if it has one: output and echo alike.
    Terminal,
}

impl Stream {
    const fn index(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Terminal => 3,
        }
    }

    fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Terminal),
            _ => None,
        }
    }
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// The command that the box runs, and what it finds around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub program: OsString,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub cwd: OsString,
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
    /// Which of stdin, stdout and stderr are terminals.
    pub terminal: [bool; 3],
    pub window: Option<WindowSize>,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ended {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The agent is there and speaks this version.
    Hello(u8),
    /// The agent is still there.
    Alive,
    /// Run this.
    Start(Box<Start>),
    /// Bytes of a stream.
    Data(Stream, Vec<u8>),
    /// From the writer: that was all. From the reader: no more is wanted.
    End(Stream),
    /// The receiver of a stream has room for so many bytes more.
    Credit(Stream, u32),
    /// Deliver this signal to the command.
    Signal(u8),
    /// The terminal has this size now.
    Window(WindowSize),
    /// The command ended; all its output was sent before.
    Exit(Ended),
    /// The command could not be started: exit status in the shell's manner (126 or 127), and why.
    NotStarted(u8, String),
}

/// What cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ProtocolError {
    #[error("a frame of {0} bytes, more than {PAYLOAD_MAX}")]
    TooLong(usize),
    #[error("an unknown or malformed frame of kind {0:#04x}")]
    Malformed(u8),
    #[error("a command that is no valid JSON: {0}")]
    Command(String),
}

impl Frame {
    /// Appends the frame to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(version) => put(out, b'H', &[*version]),
            Self::Alive => put(out, b'A', &[]),
            // Serialising owned strings and numbers into memory has nothing that could fail.
            Self::Start(start) => put(out, b'S', &serde_json::to_vec(start).unwrap_or_default()),
            Self::Data(stream, data) => put_parts(out, b'D', &[&[stream.index()], data]),
            Self::End(stream) => put(out, b'E', &[stream.index()]),
            Self::Credit(stream, bytes) => {
                put_parts(out, b'C', &[&[stream.index()], &bytes.to_le_bytes()]);
            }
            Self::Signal(number) => put(out, b'K', &[*number]),
            Self::Window(size) => put_parts(
                out,
                b'W',
                &[&size.rows.to_le_bytes(), &size.columns.to_le_bytes()],
            ),
            Self::Exit(Ended::Code(code)) => put(out, b'X', &[0, *code]),
            Self::Exit(Ended::Signal(number)) => put(out, b'X', &[1, *number]),
            Self::NotStarted(code, reason) => {
                put_parts(out, b'N', &[&[*code], reason.as_bytes()]);
            }
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, ProtocolError> {
        let malformed = ProtocolError::Malformed(kind);
        let stream = |index: &u8| Stream::from_index(*index).ok_or(ProtocolError::Malformed(kind));
        Ok(match (kind, payload) {
            (b'H', [version]) => Self::Hello(*version),
            (b'A', []) => Self::Alive,
            (b'S', json) => Self::Start(Box::new(
                serde_json::from_slice(json).map_err(|e| ProtocolError::Command(e.to_string()))?,
            )),
            (b'D', [index, data @ ..]) => Self::Data(stream(index)?, data.to_vec()),
            (b'E', [index]) => Self::End(stream(index)?),
            (b'C', [index, a, b, c, d]) => {
                Self::Credit(stream(index)?, u32::from_le_bytes([*a, *b, *c, *d]))
            }
            (b'K', [number]) => Self::Signal(*number),
            (b'W', [a, b, c, d]) => Self::Window(WindowSize {
                rows: u16::from_le_bytes([*a, *b]),
                columns: u16::from_le_bytes([*c, *d]),
            }),
            (b'X', [0, code]) => Self::Exit(Ended::Code(*code)),
            (b'X', [1, number]) => Self::Exit(Ended::Signal(*number)),
            (b'N', [code, reason @ ..]) => {
                Self::NotStarted(*code, String::from_utf8_lossy(reason).into_owned())
            }
            _ => return Err(malformed),
        })
    }
}

fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    put_parts(out, kind, &[payload]);
}

fn put_parts(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // A longer payload than `PAYLOAD_MAX` is refused by the receiver, so saturating loses nothing.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.push(kind);
    out.extend_from_slice(&length.to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Turns bytes, in whatever pieces they arrive, into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Takes what was received.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame that is complete.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((&[kind, a, b, c, d], rest)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > PAYLOAD_MAX {
            return Err(ProtocolError::TooLong(length));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::decode(kind, payload)?;
        self.start += HEADER + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn start() -> Start {
        Start {
            program: OsString::from_vec(b"/bin/not utf-8 \xff".to_vec()),
            args: vec!["-c".into(), "exit 7".into(), OsString::new()],
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/tmp".into(),
            uid: 1000,
            gid: 100,
            umask: 0o22,
            terminal: [true, false, true],
            window: Some(WindowSize {
                rows: 24,
                columns: 80,
            }),
        }
    }

    fn all() -> Vec<Frame> {
        let size = WindowSize {
            rows: 50,
            columns: 301,
        };
        vec![
            Frame::Hello(VERSION),
            Frame::Alive,
            Frame::Start(Box::new(start())),
            Frame::Data(Stream::Stdin, vec![0, 1, 255]),
            Frame::Data(Stream::Stdout, Vec::new()),
            Frame::End(Stream::Stderr),
            Frame::Credit(Stream::Stdout, 262_144),
            Frame::Signal(15),
            Frame::Window(size),
            Frame::Exit(Ended::Code(7)),
            Frame::Exit(Ended::Signal(9)),
            Frame::NotStarted(127, "no such program".into()),
        ]
    }

    fn drain(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next().expect("well-formed")).collect()
    }

    #[test]
    fn every_frame_survives_any_cut_of_the_stream() {
        let mut bytes = Vec::new();
        all().iter().for_each(|frame| frame.encode(&mut bytes));
        for size in [1, 2, 3, 5, 7, 64, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                seen.extend(drain(&mut decoder));
            }
            assert_eq!(seen, all(), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_refused() {
        for (bytes, error) in [
            (&b"Z\0\0\0\0"[..], ProtocolError::Malformed(b'Z')),
            (&b"D\x01\0\0\0\x04"[..], ProtocolError::Malformed(b'D')),
            (&b"C\x02\0\0\0\x00\x01"[..], ProtocolError::Malformed(b'C')),
            (
                &b"D\xff\xff\xff\xff"[..],
                ProtocolError::TooLong(0xffff_ffff),
            ),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.next(), Err(error));
        }
    }

    proptest! {
        #[test]
        fn no_input_brings_the_decoder_down(bytes: Vec<u8>, cut in 1usize..40) {
            let mut decoder = Decoder::default();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Ok(Some(_)) = decoder.next() {}
            }
        }
    }
}
