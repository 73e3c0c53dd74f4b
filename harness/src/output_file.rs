// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that a run writes: for their owner alone, and no larger than they may grow.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Opens `path` and empties it. A file that was not there is its owner's alone: a guest's secrets may be
/// in it. One that was keeps its mode.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

/// Whether `path` is a FIFO, which cannot be opened before somebody reads it.
pub(crate) fn is_fifo(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo())
}

/// A file of a limited size. Once it is full it becomes FILE.1, in the place of an older one, and FILE
/// begins anew.
#[derive(Debug)]
pub(crate) struct LimitedFile {
    path: PathBuf,
    limit: Option<u64>,
    /// `None` until the first write to a FIFO, or after the file could not be begun anew.
    file: Option<File>,
    size: u64,
}

impl LimitedFile {
    /// Opens `path`, unless it is a FIFO: that is opened by the first write.
    pub(crate) fn open(path: &Path, limit: Option<u64>) -> io::Result<Self> {
        let mut path = path.to_owned();
        let file = if is_fifo(&path) {
            None
        } else {
            Some(create(&path)?)
        };
        if limit.is_some() {
            let is_regular = match &file {
                Some(file) => file.metadata()?.is_file(),
                None => false,
            };
            if !is_regular {
                let why = "it is no regular file, whose size can be limited";
                return Err(io::Error::other(why));
            }
            // Behind a symbolic link it is the file that moves, not the link.
            path = fs::canonicalize(&path)?;
        }
        Ok(Self {
            path,
            limit,
            file,
            size: 0,
        })
    }

    fn older(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }

    /// How much of so many bytes the file takes, now that there is room.
    fn room(&mut self, wanted: usize) -> io::Result<usize> {
        let Some(limit) = self.limit else {
            return Ok(wanted);
        };
        if self.size >= limit {
            self.file = None;
            fs::rename(&self.path, self.older())?;
            self.size = 0;
        }
        let left = usize::try_from(limit.saturating_sub(self.size)).unwrap_or(usize::MAX);
        Ok(wanted.min(left))
    }
}

impl Write for LimitedFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = self.room(data.len())?;
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        let written = file.write(data.get(..room).unwrap_or_default())?;
        let grown = u64::try_from(written).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(grown);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file of whole lines. The part of a line that a full disk took is taken back, so that the next line is not
/// written behind it.
#[derive(Debug)]
pub(crate) struct LineFile {
    file: File,
    size: u64,
    /// How much of that is whole lines.
    whole: u64,
}

impl LineFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = create(path)?;
        let (size, whole) = (0, 0);
        Ok(Self { file, size, whole })
    }

    /// What is no regular file cannot be cut, and has taken all of a line or nothing.
    fn take_back(&mut self) {
        if self.size > self.whole
            && self.file.set_len(self.whole).is_ok()
            && self.file.seek(SeekFrom::Start(self.whole)).is_ok()
        {
            self.size = self.whole;
        }
    }
}

impl Write for LineFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data);
        let taken = *written.as_ref().unwrap_or(&0);
        let length = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let last = data.iter().take(taken).rposition(|byte| *byte == b'\n');
        if let Some(last) = last {
            self.whole = self.size.saturating_add(length(last)).saturating_add(1);
        }
        self.size = self.size.saturating_add(length(taken));
        if written.is_err() {
            self.take_back();
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_its_owners_and_keeps_the_mode_that_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        create(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "old").unwrap();
        create(&path).unwrap();
        assert_eq!(mode(&path), 0o644);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn half_a_line_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut file = LineFile::create(&path).unwrap();
        file.write_all(b"one\ntwo\nthr").unwrap();
        file.take_back();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        file.take_back();
        file.write_all(b"four\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nfour\n");
    }

    #[test]
    fn a_full_file_is_kept_and_the_one_before_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let older = folder.path().join("console.1");
        let mut file = LimitedFile::open(&path, Some(10)).unwrap();
        let all: Vec<u8> = (b'a'..=b'z').collect();
        file.write_all(&all[..10]).unwrap();
        assert!(!older.exists(), "full, and nothing more to write");
        file.write_all(&all[10..13]).unwrap();
        assert_eq!(fs::read(&older).unwrap(), &all[..10]);
        file.write_all(&all[13..26]).unwrap();
        assert_eq!(fs::read(&older).unwrap(), &all[10..20]);
        assert_eq!(fs::read(&path).unwrap(), &all[20..]);
        assert_eq!((mode(&path), mode(&older)), (0o600, 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_kept_stays_within_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        // A directory in its place.
        fs::create_dir(folder.path().join("console.1")).unwrap();
        let mut file = LimitedFile::open(&path, Some(4)).unwrap();
        file.write_all(b"abcd").unwrap();
        for _ in 0..3 {
            file.write_all(b"e").unwrap_err();
        }
        assert_eq!(fs::read(&path).unwrap(), b"abcd");
        fs::remove_dir(folder.path().join("console.1")).unwrap();
        file.write_all(b"e").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"e");
    }

    #[test]
    fn the_file_behind_a_link_is_kept_and_what_is_no_file_is_not_limited() {
        let folder = tempfile::tempdir().unwrap();
        let (link, real) = (folder.path().join("link"), folder.path().join("real"));
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut file = LimitedFile::open(&link, Some(2)).unwrap();
        file.write_all(b"abc").unwrap();
        assert_eq!(fs::read(&link).unwrap(), b"c");
        assert_eq!(fs::read(folder.path().join("real.1")).unwrap(), b"ab");
        let error = LimitedFile::open(Path::new("/dev/null"), Some(2)).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
    }
}
