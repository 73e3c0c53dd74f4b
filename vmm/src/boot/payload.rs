// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a bzImage packs: the kernel proper, an ELF file, behind a program that unpacks it in the
//! guest. A host unpacks it several times quicker.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use lzma_rust2::{Action, Status, XzStream};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::bzimage::Header;
use super::elf;

/// What a decompressor may take for itself; kernels are packed with windows of 128 MiB at most.
const WORKING_MEMORY: u32 = 160 << 20;
/// What is read of the file at once.
const CHUNK: usize = 64 << 10;
/// Behind a payload, or as the end of its own format, is the length of what it packs.
pub(super) const LENGTH_BYTES: u64 = 4;

/// A packing that can be undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Xz,
    Gzip,
    Zstd,
}

impl Packing {
    /// As many bytes of a payload as tell its packing.
    pub(super) const MAGIC_BYTES: usize = 6;

    /// The packing of a payload that starts with `start`.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Xz => "xz",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The part of the payload at `range` that the decompressor reads: gzip's own last bytes are the
    /// length, the others have it behind them.
    pub(super) fn packed(self, range: Range<u64>) -> Range<u64> {
        match self {
            Self::Gzip => range,
            Self::Xz | Self::Zstd => range.start..range.end.saturating_sub(LENGTH_BYTES),
        }
    }

    /// Unpacks `input`.
    pub(super) fn unpack<'a>(self, input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let input = BufReader::with_capacity(CHUNK, input);
        Ok(match self {
            Self::Xz => {
                let stream = XzStream::new_mem_limit(false, WORKING_MEMORY >> 10);
                Box::new(Xz { stream, input })
            }
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
            Self::Zstd => {
                let decoder =
                    StreamingDecoder::new_with_max_window_size(input, WORKING_MEMORY.into());
                Box::new(Zstd(decoder.map_err(io::Error::other)?))
            }
        })
    }
}

/// An xz stream. Its decoder is no generic type, so it is as quick in an unoptimised build.
struct Xz<R> {
    stream: XzStream,
    input: R,
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.input.fill_buf()?;
            let action = if input.is_empty() {
                Action::Finish
            } else {
                Action::Run
            };
            let step = self.stream.process(input, buffer, action)?;
            self.input.consume(step.bytes_consumed);
            if step.bytes_produced > 0 || step.status == Status::StreamEnd || buffer.is_empty() {
                return Ok(step.bytes_produced);
            }
            if step.bytes_consumed == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A zstd frame whose checksum is looked at, which the decoder leaves to its user.
struct Zstd<R: Read>(StreamingDecoder<R, FrameDecoder>);

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        let frame = &self.0.decoder;
        let told = frame.get_checksum_from_data();
        if count == 0
            && !buffer.is_empty()
            && told.is_some()
            && told != frame.get_calculated_checksum()
        {
            return Err(io::Error::other("its checksum is another"));
        }
        Ok(count)
    }
}

/// The ELF file that `bzimage` packs, for a machine that starts it without unpacking it each time;
/// `None` if it is no bzImage, damaged, or packed in another way than by xz, gzip or zstd.
#[must_use]
pub fn vmlinux(bzimage: &[u8]) -> Option<Vec<u8>> {
    let part = |range: Range<u64>| {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        bzimage.get(start.ok()?..end.ok()?)
    };
    let range = Header::parse(bzimage)?.payload()?;
    let payload = part(range.clone())?;
    let packing = Packing::of(payload)?;
    let length = u32::from_le_bytes(*payload.last_chunk()?);
    let unpacked = packing.unpack(part(packing.packed(range))?).ok()?;
    let mut elf = Vec::new();
    // One more than promised tells what is longer.
    let count = unpacked.take(u64::from(length) + 1).read_to_end(&mut elf);
    let whole = u32::try_from(count.ok()?) == Ok(length) && elf::matches(&elf);
    whole.then_some(elf)
}
