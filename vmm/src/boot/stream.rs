// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An ELF kernel's bytes in their order: those of a file, or those that come out of a decompressor.

use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::file::Reader;
use crate::memory::GuestRam;

/// As much as is looked at before anything is loaded: an ELF file's headers.
const HEAD_BYTES: u64 = 16 << 10;
/// What is unpacked at once.
const CHUNK: usize = 64 << 10;

enum Source<'a> {
    /// Read by the kernel straight into guest memory.
    File(Reader<'a>),
    Packed(Box<dyn Read + 'a>),
}

/// Bytes from first to last, of which the first are at hand.
pub(super) struct Stream<'a> {
    source: Source<'a>,
    head: Vec<u8>,
    position: u64,
    length: u64,
}

impl<'a> Stream<'a> {
    /// The `length` bytes of a file.
    pub(super) fn file(file: Reader<'a>, length: u64) -> io::Result<Self> {
        Self::new(Source::File(file), length)
    }

    /// What is being unpacked, `length` bytes if it is whole.
    pub(super) fn packed(bytes: Box<dyn Read + 'a>, length: u64) -> io::Result<Self> {
        Self::new(Source::Packed(bytes), length)
    }

    fn new(mut source: Source<'a>, length: u64) -> io::Result<Self> {
        let mut head = Vec::new();
        match &mut source {
            Source::File(file) => file.take(HEAD_BYTES).read_to_end(&mut head),
            Source::Packed(bytes) => bytes.take(HEAD_BYTES).read_to_end(&mut head),
        }?;
        Ok(Self {
            source,
            head,
            position: 0,
            length,
        })
    }

    /// Its first bytes, which are still to come.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// How many bytes it has.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Goes on to `position`; what is being unpacked does not go back.
    pub(super) fn skip_to(&mut self, position: u64) -> io::Result<()> {
        if let Source::File(_) = self.source {
            self.position = position;
            return Ok(());
        }
        let count = position
            .checked_sub(self.position)
            .ok_or_else(|| io::Error::other("its parts overlap"))?;
        self.give(count, &mut |_, _| Ok(()))
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.give(count, &mut |_, chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Puts the next `count` bytes into guest memory at `address`.
    pub(super) fn put(
        &mut self,
        memory: &GuestRam,
        address: GuestAddress,
        count: u64,
    ) -> io::Result<()> {
        let Source::File(file) = &mut self.source else {
            return self.give(count, &mut |at, chunk| {
                let address = GuestAddress(address.0.saturating_add(at));
                memory.write_slice(chunk, address).map_err(io::Error::other)
            });
        };
        file.seek(SeekFrom::Start(self.position))?;
        self.position = self.position.saturating_add(count);
        let count = usize::try_from(count).map_err(io::Error::other)?;
        let put = memory.read_exact_volatile_from(address, file, count);
        put.map_err(|error| match error {
            GuestMemoryError::IOError(error) => error,
            _ => ends_early(),
        })
    }

    /// Reads what is left, and finds fault with a length other than promised.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.skip_to(self.length)?;
        let more = match &mut self.source {
            Source::File(_) => 0,
            Source::Packed(bytes) => bytes.read(&mut [0])?,
        };
        if more > 0 {
            return Err(io::Error::other("it is longer than it says"));
        }
        Ok(())
    }

    /// Gives the next `count` bytes to `sink`, each piece with its distance from here.
    fn give(
        &mut self,
        count: u64,
        sink: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![];
        let mut done = 0;
        while done < count {
            let left = usize::try_from(count - done).unwrap_or(usize::MAX);
            let chunk = match self.headed(left) {
                [] => {
                    buffer.resize(CHUNK.min(left), 0);
                    let read = self.read(&mut buffer)?;
                    buffer.get(..read).unwrap_or_default()
                }
                headed => headed,
            };
            sink(done, chunk)?;
            let given = chunk.len() as u64;
            done += given;
            self.position = self.position.saturating_add(given);
        }
        Ok(())
    }

    /// What is at hand of the next `most` bytes.
    fn headed(&self, most: usize) -> &[u8] {
        let position = usize::try_from(self.position).unwrap_or(usize::MAX);
        let headed = self.head.get(position..).unwrap_or_default();
        headed.get(..most).unwrap_or(headed)
    }

    /// Some of the bytes that are not at hand.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.source {
                Source::File(file) => {
                    file.seek(SeekFrom::Start(self.position))?;
                    file.read(buffer)
                }
                Source::Packed(bytes) => bytes.read(buffer),
            };
            match read {
                Ok(0) => return Err(ends_early()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

fn ends_early() -> io::Error {
    io::Error::other("it ends early")
}
