// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents for the command line, one mistake or many.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::kennel::{Call, Ended};

/// A document that is valid.
pub const VALID: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: tested
spec:
  domain:
    resources:
      requests:
        memory: 64Mi
    devices:
      watchdog:
        name: mywatchdog
        i6300esb:
          action: poweroff
";

/// What goes below `domain` for a kernel out of the directory `image`.
pub const KERNEL_BOOT: &str = "    firmware:
      kernelBoot:
        container:
          image: ./image
          kernelPath: /vmlinuz
          initrdPath: /initrd
";

/// The document's file, as messages name it.
pub const FILE: &str = "vm.yaml";

/// [`VALID`] with another text in the place of `old`.
///
/// # Panics
///
/// `old` does not stand there, or more than once.
#[must_use]
pub fn edited(old: &str, new: &str) -> String {
    assert_eq!(VALID.matches(old).count(), 1, "{old:?} stands there once");
    VALID.replace(old, new)
}

/// [`VALID`] on a kernel out of the directory `image`.
#[must_use]
pub fn with_kernel() -> String {
    format!("{VALID}{KERNEL_BOOT}")
}

/// `vm.yaml:N:`, where `needle` stands.
///
/// # Panics
///
/// It stands nowhere.
#[must_use]
pub fn place(text: &str, needle: &str) -> String {
    let line = text.lines().position(|line| line.contains(needle));
    format!("{FILE}:{}:", line.expect("it stands there") + 1)
}

/// A directory with a document in it.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// A new one.
    ///
    /// # Panics
    ///
    /// The disk is full.
    #[must_use]
    pub fn with(document: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::write(folder.path().join(FILE), document).expect("room for a document");
        Self(folder)
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a file, and the directories on the way to it.
    ///
    /// # Panics
    ///
    /// It cannot be made.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("a directory");
        fs::write(&path, bytes).expect("room for a file");
        path
    }

    /// A call of `kennel` with this working directory.
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Call {
        Call::new(args).within(self.0.path())
    }

    /// `kennel validate` on the document.
    #[must_use]
    pub fn validate(&self) -> Ended {
        self.call(&["validate", FILE]).run()
    }

    /// `kennel run` on the document, on this machine.
    #[must_use]
    pub fn run(&self) -> Ended {
        self.call(&["run", FILE, "--no-box"]).run()
    }
}
