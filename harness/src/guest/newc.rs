// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Writes initramfs archives in cpio's "newc" form, the only one that Linux unpacks.
//!
//! The output depends on the calls alone: owner, group and time are 0, inode numbers count up. An archive ends on a
//! 512-byte boundary, so archives can be put one behind the other and Linux unpacks them in that order.
//!
//! Source of the format: Linux' documentation "initramfs buffer format".

use std::collections::BTreeSet;

use thiserror::Error;

/// Every archive starts and ends on a multiple of this many bytes.
pub const BLOCK: usize = 512;

/// Mode bits that say what an entry is.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;
/// The permissions of directories that nobody asked for by name.
const PARENT_MODE: u32 = 0o755;
/// The longest name Linux takes (PATH_MAX), with its closing NUL.
const NAME_MAX: usize = 4096;
const TRAILER: &str = "TRAILER!!!";

/// Why an entry cannot be written.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NewcError {
    /// The name is empty, too long, holds a NUL byte or steps out of the archive with `..`.
    #[error(
        "{name:?} cannot be a path in an initramfs: it must be 1 to 4095 bytes long, without NUL and without \"..\""
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// The format has 32 bits for a file's size.
    #[error("/{name} is {size} bytes long; an initramfs holds files of up to 4294967295 bytes")]
    Size {
        /// The file's path.
        name: String,
        /// Its size in bytes.
        size: usize,
    },
}

/// An archive under construction. Missing parent directories are added by themselves (mode 0755).
#[derive(Debug, Default)]
pub struct Archive {
    out: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

/// What a header says beside name and size.
struct Entry {
    mode: u32,
    links: u32,
    device: (u32, u32),
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with the permissions `mode`.
    ///
    /// # Errors
    /// The path is not usable.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), NewcError> {
        let path = relative(path)?;
        self.parents(path)?;
        self.directories.insert(path.to_owned());
        self.entry(
            path,
            &Entry {
                mode: DIRECTORY | (mode & 0o7777),
                links: 2,
                device: (0, 0),
            },
            &[],
        )
    }

    /// Adds a file with the permissions `mode`.
    ///
    /// # Errors
    /// The path is not usable, or the file has 4 GiB or more.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<(), NewcError> {
        let path = relative(path)?;
        self.parents(path)?;
        self.entry(
            path,
            &Entry {
                mode: REGULAR | (mode & 0o7777),
                links: 1,
                device: (0, 0),
            },
            data,
        )
    }

    /// Adds a symbolic link to `target`, which is taken as it is.
    ///
    /// # Errors
    /// The path is not usable.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), NewcError> {
        let path = relative(path)?;
        self.parents(path)?;
        self.entry(
            path,
            &Entry {
                mode: SYMLINK | 0o777,
                links: 1,
                device: (0, 0),
            },
            target.as_bytes(),
        )
    }

    /// Adds a character device node; needs no privilege, since it only exists once the guest unpacks it.
    ///
    /// # Errors
    /// The path is not usable.
    pub fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<(), NewcError> {
        let path = relative(path)?;
        self.parents(path)?;
        self.entry(
            path,
            &Entry {
                mode: CHARACTER | (mode & 0o7777),
                links: 1,
                device: (major, minor),
            },
            &[],
        )
    }

    /// Closes the archive and gives its bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.write(
            0,
            TRAILER,
            &Entry {
                mode: 0,
                links: 1,
                device: (0, 0),
            },
            0,
            &[],
        );
        pad(&mut self.out, BLOCK);
        self.out
    }

    fn parents(&mut self, path: &str) -> Result<(), NewcError> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if self.directories.insert(parent.to_owned()) {
                self.entry(
                    parent,
                    &Entry {
                        mode: DIRECTORY | PARENT_MODE,
                        links: 2,
                        device: (0, 0),
                    },
                    &[],
                )?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, entry: &Entry, data: &[u8]) -> Result<(), NewcError> {
        let size = u32::try_from(data.len()).map_err(|_| NewcError::Size {
            name: path.to_owned(),
            size: data.len(),
        })?;
        self.entries += 1;
        self.write(self.entries, path, entry, size, data);
        Ok(())
    }

    fn write(&mut self, inode: u32, path: &str, entry: &Entry, size: u32, data: &[u8]) {
        // Names are bounded by `relative`, so the length always fits.
        let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let (major, minor) = entry.device;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        let fields = [
            inode,
            entry.mode,
            0,
            0,
            entry.links,
            0,
            size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ];
        self.out.extend_from_slice(b"070701");
        for field in fields {
            self.out
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.out.extend_from_slice(path.as_bytes());
        self.out.push(0);
        pad(&mut self.out, 4);
        self.out.extend_from_slice(data);
        pad(&mut self.out, 4);
    }
}

/// Fills up with zeros to a multiple of `to` bytes.
fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// The path without leading and trailing slashes, as Linux expects it in an initramfs.
fn relative(path: &str) -> Result<&str, NewcError> {
    let trimmed = path.trim_matches('/');
    let usable = !trimmed.is_empty()
        && trimmed.len() < NAME_MAX
        && trimmed != TRAILER
        && !trimmed.contains('\0')
        && trimmed
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if usable {
        Ok(trimmed)
    } else {
        Err(NewcError::Name {
            name: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One parsed entry: name, the 13 header fields, data.
    type Parsed = (String, Vec<u32>, Vec<u8>);

    /// Reads an archive back with nothing shared with the writer.
    fn parse(archive: &[u8]) -> Vec<Parsed> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            if archive[at] == 0 {
                at += 1;
                continue;
            }
            assert_eq!(at % 4, 0, "a header starts on a multiple of 4");
            assert_eq!(&archive[at..at + 6], b"070701");
            let fields: Vec<u32> = (0..13)
                .map(|n| {
                    let text = std::str::from_utf8(&archive[at + 6 + n * 8..at + 14 + n * 8])
                        .expect("ASCII");
                    assert_eq!(text, text.to_uppercase());
                    u32::from_str_radix(text, 16).expect("hexadecimal")
                })
                .collect();
            let name_end = at + 110 + fields[11] as usize;
            assert_eq!(archive[name_end - 1], 0);
            let name = String::from_utf8(archive[at + 110..name_end - 1].to_vec()).expect("UTF-8");
            let start = name_end.next_multiple_of(4);
            let end = start + fields[6] as usize;
            entries.push((name, fields, archive[start..end].to_vec()));
            at = end.next_multiple_of(4);
        }
        entries
    }

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new();
        archive
            .file("/etc/acpi/PWRF/00000080", 0o755, b"#!/bin/sh\n")
            .expect("file");
        archive.symlink("bin/sh", "busybox").expect("symlink");
        archive
            .character_device("dev/console", 0o600, 5, 1)
            .expect("device");
        archive.directory("proc/", 0o555).expect("directory");
        archive.finish()
    }

    #[test]
    fn entries_read_back_with_their_parents_first() {
        let archive = sample();
        assert_eq!(archive.len() % BLOCK, 0);
        let entries = parse(&archive);
        let seen: Vec<(&str, u32)> = entries
            .iter()
            .map(|(name, fields, _)| (name.as_str(), fields[1]))
            .collect();
        assert_eq!(
            seen,
            [
                ("etc", 0o040_755),
                ("etc/acpi", 0o040_755),
                ("etc/acpi/PWRF", 0o040_755),
                ("etc/acpi/PWRF/00000080", 0o100_755),
                ("bin", 0o040_755),
                ("bin/sh", 0o120_777),
                ("dev", 0o040_755),
                ("dev/console", 0o020_600),
                ("proc", 0o040_555),
                ("TRAILER!!!", 0),
            ]
        );
        assert_eq!(entries[3].2, b"#!/bin/sh\n");
        assert_eq!(entries[5].2, b"busybox");
        assert_eq!((entries[7].1[9], entries[7].1[10]), (5, 1));
    }

    #[test]
    fn nothing_of_the_machine_or_the_moment_gets_in() {
        let archive = sample();
        assert_eq!(archive, sample());
        for (position, (name, fields, _)) in parse(&archive).into_iter().enumerate() {
            assert_eq!(
                (fields[2], fields[3], fields[5]),
                (0, 0, 0),
                "uid, gid, mtime of {name}"
            );
            if name != "TRAILER!!!" {
                assert_eq!(fields[0] as usize, position + 1, "inode numbers count up");
            }
        }
    }

    #[test]
    fn archives_can_be_put_one_behind_the_other() {
        let mut second = Archive::new();
        second.file("kennel/script", 0o755, b"x").expect("file");
        let mut both = sample();
        both.extend(second.finish());
        let names: Vec<String> = parse(&both).into_iter().map(|entry| entry.0).collect();
        assert_eq!(
            names[names.len() - 3..],
            ["kennel", "kennel/script", "TRAILER!!!"]
        );
    }

    #[test]
    fn unusable_names_are_refused() {
        for name in [
            "",
            "/",
            "a/../b",
            "a//b",
            "./a",
            "nul\0",
            "TRAILER!!!",
            &"x".repeat(4096),
        ] {
            let refused = Archive::new().file(name, 0o644, b"");
            assert_eq!(
                refused,
                Err(NewcError::Name {
                    name: name.to_owned()
                })
            );
        }
    }
}
