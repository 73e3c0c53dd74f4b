// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ethernet frames on a byte stream, as passt and QEMU's stream back-end have them: the length in
//! four bytes, big-endian, then the frame.

use std::io::{self, ErrorKind, Write};

/// Shorter is no Ethernet frame.
const MIN_FRAME: usize = 14;
/// Longer is none that anybody sends.
const MAX_FRAME: usize = 64 << 10;
/// Bytes of a length.
const PREFIX: usize = 4;
/// Frames that the other side has not taken yet, in bytes; beyond that more are dropped.
const BACKLOG: usize = 256 << 10;

/// The other side sent a length that no frame has: where the next frame starts is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it sent a frame of {0} bytes; {MIN_FRAME} to {MAX_FRAME} are possible")]
pub(super) struct LengthError(u32);

/// Takes a stream apart into frames.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    partial: Vec<u8>,
}

impl FrameReader {
    /// Gives `sink` the frames that `bytes` complete.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), LengthError> {
        self.partial.extend_from_slice(bytes);
        let mut rest = self.partial.as_slice();
        while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX>() {
            let length = u32::from_be_bytes(*prefix);
            let bytes = usize::try_from(length).unwrap_or(usize::MAX);
            if !(MIN_FRAME..=MAX_FRAME).contains(&bytes) {
                return Err(LengthError(length));
            }
            let Some((frame, after)) = after.split_at_checked(bytes) else {
                break;
            };
            sink(frame);
            rest = after;
        }
        let used = self.partial.len().saturating_sub(rest.len());
        self.partial.drain(..used);
        Ok(())
    }
}

/// Puts frames on a stream; a frame is on it whole or not at all.
#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    backlog: Vec<u8>,
}

impl FrameWriter {
    /// Queues a frame; false if it was dropped.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        let fits = self.backlog.len().saturating_add(frame.len()) <= BACKLOG;
        let length = u32::try_from(frame.len()).ok().filter(|_| {
            let possible = (MIN_FRAME..=MAX_FRAME).contains(&frame.len());
            fits && possible
        });
        if let Some(length) = length {
            self.backlog.extend_from_slice(&length.to_be_bytes());
            self.backlog.extend_from_slice(frame);
        }
        length.is_some()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Writes what `stream` takes.
    pub(super) fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            let rest = self.backlog.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match stream.write(rest) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(count) => written = written.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.backlog.drain(..written.min(self.backlog.len()));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(fill: u8, length: usize) -> Vec<u8> {
        vec![fill; length]
    }

    fn on_stream(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = FrameWriter::default();
        assert!(frames.iter().all(|frame| writer.push(frame)));
        let mut bytes = vec![];
        writer.flush(&mut bytes).expect("a vector takes everything");
        assert!(writer.is_empty());
        bytes
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let frames = [frame(1, 14), frame(2, 1514), frame(3, 60)];
        let bytes = on_stream(&frames);
        assert_eq!(bytes[..4], [0, 0, 0, 14]);
        for step in [1, 2, 3, 5, 17, 18, 19, 1518, bytes.len()] {
            let (mut reader, mut seen) = (FrameReader::default(), vec![]);
            for piece in bytes.chunks(step) {
                let taken = reader.take(piece, &mut |frame| seen.push(frame.to_vec()));
                taken.expect("lengths are right");
            }
            assert_eq!(seen, frames, "pieces of {step}");
        }
    }

    #[test]
    fn impossible_lengths_end_the_stream() {
        for length in [0, 13, (64 << 10) + 1, u32::MAX] {
            let taken = FrameReader::default().take(&length.to_be_bytes(), &mut |_| {});
            assert_eq!(taken, Err(LengthError(length)));
        }
        let mut writer = FrameWriter::default();
        assert!(!writer.push(&[0; 13]) && writer.is_empty());
    }

    /// Takes `room` bytes, then no more.
    struct Narrow(Vec<u8>, usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1).min(7);
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.1 -= count;
            self.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn slow_readers_get_whole_frames_and_lose_whole_frames() {
        let (mut writer, mut stream) = (FrameWriter::default(), Narrow(vec![], 10));
        let sent = (0..=u8::MAX).filter(|fill| writer.push(&frame(*fill, 1500)));
        let sent: Vec<u8> = sent.collect();
        assert!((170..180).contains(&sent.len()), "{}", sent.len());
        while !writer.is_empty() {
            writer.flush(&mut stream).expect("full is no failure");
            stream.1 = 1000;
        }
        let (mut reader, mut seen) = (FrameReader::default(), vec![]);
        let taken = reader.take(&stream.0, &mut |frame| seen.push((frame[0], frame.len())));
        taken.expect("lengths are right");
        assert_eq!(
            seen,
            sent.iter().map(|fill| (*fill, 1500)).collect::<Vec<_>>()
        );
    }
}
