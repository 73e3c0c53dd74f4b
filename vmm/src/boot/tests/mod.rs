// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tests of loading, on images built here; guest memory is read by the offsets of the public
//! specifications, not through the types that wrote it.

use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress};

use super::{BootError, BootImage, BootSource, EntryPoint};
use crate::memory::{self, GuestRam};

mod acpi;
mod errors;
mod handover;
mod images;
mod packed;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Guest memory of a machine with `bytes` of RAM.
fn memory(bytes: u64) -> GuestRam {
    memory::map(bytes).expect("address space for the guest")
}

/// Files of one test, removed with it.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file in the temporary folder");
        path
    }
}

/// A source with only a kernel.
fn only(kernel: &Path) -> BootSource<'_> {
    BootSource {
        kernel,
        initrd: None,
        initrd_overlay: &[],
        cmdline: "",
    }
}

/// Opens `source` and loads it.
fn load(memory: &GuestRam, source: &BootSource<'_>, vcpus: u32) -> Result<EntryPoint, BootError> {
    BootImage::open(source)?.load(memory, vcpus)
}

/// Boots `source` on a machine with `bytes` of RAM and one vCPU.
fn boot(bytes: u64, source: &BootSource<'_>) -> Result<EntryPoint, BootError> {
    load(&memory(bytes), source, 1)
}

/// Bytes of guest memory.
fn bytes_at(memory: &GuestRam, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .expect("an address in RAM");
    bytes
}

/// A little-endian number of `N` bytes in guest memory.
fn number_at<const N: usize>(memory: &GuestRam, address: u64) -> u64 {
    bytes_at(memory, address, N)
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}
