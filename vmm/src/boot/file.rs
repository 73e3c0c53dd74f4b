// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The files a guest is booted from: opened once, with an answer for each way that can fail, and read
//! at offsets.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::BootError;

/// Which of the boot files a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// The kernel image.
    Kernel,
    /// The initial RAM disk.
    Initrd,
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        })
    }
}

impl FileRole {
    /// What a user can give instead.
    pub(super) const fn wanted(self) -> &'static str {
        match self {
            Self::Kernel => "a bzImage (vmlinuz) or an ELF vmlinux for x86-64",
            Self::Initrd => "a cpio archive, compressed or not, or no initrd at all",
        }
    }
}

/// A boot file that stays open, so that neither a new file at its path nor the end of that path
/// changes what the machine boots.
#[derive(Debug)]
pub(super) struct BootFile {
    role: FileRole,
    path: PathBuf,
    file: File,
    steps: Arc<AtomicU64>,
}

/// What is read at once: each piece is a step that others see.
const MOST_AT_ONCE: usize = 1 << 20;

impl BootFile {
    /// Opens a regular, non-empty file for reading. `steps` counts what is read.
    pub(super) fn open(
        role: FileRole,
        path: &Path,
        steps: &Arc<AtomicU64>,
    ) -> Result<Self, BootError> {
        // Before opening: opening a FIFO would wait for a writer.
        let metadata = std::fs::metadata(path).map_err(|error| fault(role, path, &error))?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() {
                "a directory"
            } else {
                "a device, pipe or socket"
            };
            return Err(BootError::FileNotRegular {
                role,
                path: path.to_owned(),
                found,
            });
        }
        let file = Self {
            role,
            path: path.to_owned(),
            file: File::open(path).map_err(|error| fault(role, path, &error))?,
            steps: Arc::clone(steps),
        };
        file.size()?;
        Ok(file)
    }

    /// As it was given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its present size in bytes, which is not 0.
    pub(super) fn size(&self) -> Result<u64, BootError> {
        let metadata = self.file.metadata().map_err(|error| self.fault(&error))?;
        match metadata.len() {
            0 => Err(BootError::FileEmpty {
                role: self.role,
                path: self.path.clone(),
            }),
            size => Ok(size),
        }
    }

    /// Reads `range` from its start on.
    pub(super) fn reader(&self, range: Range<u64>) -> Reader<'_> {
        Reader {
            file: &self.file,
            steps: &self.steps,
            position: range.start,
            range,
        }
    }

    /// The error for a failed system call on this file.
    pub(super) fn fault(&self, error: &io::Error) -> BootError {
        fault(self.role, &self.path, error)
    }
}

/// Reads a part of a file without the descriptor's own position, which others may move.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a File,
    steps: &'a AtomicU64,
    position: u64,
    range: Range<u64>,
}

impl Reader<'_> {
    /// As many of `wanted` bytes as the part has left.
    fn at_most(&self, wanted: usize) -> usize {
        let left = self.range.end.saturating_sub(self.position);
        wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn advance(&mut self, count: usize) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.position = self.position.saturating_add(count as u64);
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.at_most(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let count = self.file.read_at(buffer, self.position)?;
        self.advance(count);
        Ok(count)
    }
}

impl ReadVolatile for Reader<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let most = self.at_most(buffer.len());
        let target = buffer.ptr_guard_mut();
        let mut done = 0;
        // All of it, as guest memory takes no less for an answer; piece by piece, as others look on.
        while done < most {
            let position = libc::off_t::try_from(self.position).unwrap_or(libc::off_t::MAX);
            // SAFETY: the slice has room for `most` bytes, of which `done` are in use and at most the rest
            // is written; the guard keeps them mapped. It is guest memory, whose bytes may be anything at
            // any time.
            let count = unsafe {
                libc::pread(
                    self.file.as_raw_fd(),
                    target.as_ptr().add(done).cast(),
                    MOST_AT_ONCE.min(most - done),
                    position,
                )
            };
            let count = usize::try_from(count)
                .map_err(|_| VolatileMemoryError::IOError(io::Error::last_os_error()))?;
            if count == 0 {
                break;
            }
            self.advance(count);
            done = done.saturating_add(count);
        }
        buffer.bitmap().mark_dirty(0, done);
        Ok(done)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(offset) => (self.range.start.checked_add(offset), 0),
            SeekFrom::End(offset) => (Some(self.range.end), offset),
            SeekFrom::Current(offset) => (Some(self.position), offset),
        };
        let position = base.and_then(|base| base.checked_add_signed(offset));
        self.position = position
            .filter(|position| *position >= self.range.start)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position - self.range.start)
    }
}

/// The error for a failed system call on a boot file.
pub(super) fn fault(role: FileRole, path: &Path, error: &io::Error) -> BootError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => BootError::FileMissing { role, path },
        io::ErrorKind::PermissionDenied => BootError::FileDenied { role, path },
        io::ErrorKind::NotADirectory => BootError::FileUnreadable {
            role,
            path,
            reason: "a part of the path is a file".into(),
        },
        _ => BootError::FileUnreadable {
            role,
            path,
            reason: reason(error),
        },
    }
}

/// The system's words without "(os error N)".
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_words_only() {
        assert_eq!(
            reason(&io::Error::from_raw_os_error(5)),
            "Input/output error"
        );
        assert_eq!(reason(&io::Error::other("torn")), "torn");
    }

    #[test]
    fn a_long_file_is_read_whole_and_in_steps() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * MOST_AT_ONCE + 5).collect();
        std::fs::write(&path, &bytes).expect("a file");
        let steps = Arc::default();
        let file = BootFile::open(FileRole::Initrd, &path, &steps).expect("a file");
        let mut target = vec![0; bytes.len()];
        let mut slice = VolatileSlice::from(target.as_mut_slice());
        let mut reader = file.reader(0..bytes.len() as u64);
        assert_eq!(reader.read_volatile(&mut slice).expect("all"), bytes.len());
        assert!(target == bytes);
        assert_eq!(steps.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_part_is_read_whatever_others_do_with_the_descriptor() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, b"0123456789").expect("a file");
        let file = BootFile::open(FileRole::Initrd, &path, &Arc::default()).expect("a file");
        std::fs::remove_file(&path).expect("removed");
        let mut reader = file.reader(2..7);
        let mut two = [0; 2];
        reader.read_exact(&mut two).expect("two bytes");
        assert_eq!(&two, b"23");
        let mut shared = file.file.try_clone().expect("a descriptor");
        shared.seek(SeekFrom::End(0)).expect("moved");
        let mut rest = [0; 8];
        let mut slice = VolatileSlice::from(&mut rest[..]);
        assert_eq!(reader.read_volatile(&mut slice).expect("the rest"), 3);
        assert_eq!(&rest, b"456\0\0\0\0\0");
        assert_eq!(reader.seek(SeekFrom::End(-5)).expect("the start"), 0);
        let mut all = String::new();
        reader.read_to_string(&mut all).expect("all");
        assert_eq!(all, "23456");
        assert!(reader.seek(SeekFrom::Current(-9)).is_err());
    }
}
