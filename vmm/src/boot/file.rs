// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opening the files a guest is booted from, with an answer for each way that can fail.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

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

/// Opens a regular, non-empty file for reading; gives it with its size in bytes.
pub(super) fn open(role: FileRole, path: &Path) -> Result<(File, u64), BootError> {
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
    if metadata.len() == 0 {
        return Err(BootError::FileEmpty {
            role,
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(|error| fault(role, path, &error))?;
    Ok((file, metadata.len()))
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
fn reason(error: &io::Error) -> String {
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
}
