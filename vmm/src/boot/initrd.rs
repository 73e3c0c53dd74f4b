// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The initial RAM disk: a file, an overlay segment behind it, or both.

use std::path::Path;

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::file::{BootFile, FileRole};
use crate::layout::PAGE_SIZE;
use crate::memory::GuestRam;

/// Linux wants each cpio segment of an initrd to start at a multiple of this.
const SEGMENT_ALIGNMENT: u64 = 4;

/// Where the initrd is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub address: u64,
    pub size: u64,
}

/// Where an initrd may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// First address behind the kernel.
    pub start: u64,
    /// First address that is no longer allowed.
    pub end: u64,
    /// All of the guest's RAM in bytes, for messages.
    pub ram: u64,
}

/// Loads `file` and `overlay` as high as `room` allows; `None` if there is neither.
pub(super) fn load(
    memory: &GuestRam,
    file: Option<&BootFile>,
    overlay: &[u8],
    room: Room,
) -> Result<Option<Placement>, BootError> {
    let file_size = file.map_or(Ok(0), BootFile::size)?;
    let overlay_size = overlay.len() as u64;
    // Zeros between segments are skipped by the kernel.
    let overlay_offset = file_size.saturating_add(SEGMENT_ALIGNMENT - 1) & !(SEGMENT_ALIGNMENT - 1);
    let size = if overlay.is_empty() {
        file_size
    } else {
        overlay_offset + overlay_size
    };
    if size == 0 {
        return Ok(None);
    }
    let name = file.map_or(Path::new("(overlay)"), BootFile::path);
    let address = place(size, room).ok_or_else(|| BootError::InitrdTooLarge {
        path: name.to_owned(),
        size_bytes: size,
        available_bytes: room.end.saturating_sub(room.start),
        ram_bytes: room.ram,
    })?;
    if let Some(file) = file {
        let length = usize::try_from(file_size).unwrap_or(usize::MAX);
        let mut reader = file.reader(0..file_size);
        memory
            .read_exact_volatile_from(GuestAddress(address), &mut reader, length)
            .map_err(|error| BootError::FileUnreadable {
                role: FileRole::Initrd,
                path: name.to_owned(),
                reason: read_failure(&error),
            })?;
    }
    if !overlay.is_empty() {
        let overlay_address = GuestAddress(address + overlay_offset);
        memory
            .write_slice(overlay, overlay_address)
            .map_err(|_| BootError::GuestMemory {
                what: "the initrd overlay",
                address: overlay_address.0,
            })?;
    }
    Ok(Some(Placement { address, size }))
}

/// Highest page that leaves `size` bytes below the end of `room`.
fn place(size: u64, room: Room) -> Option<u64> {
    let address = room.end.checked_sub(size)? & !(PAGE_SIZE - 1);
    (address >= room.start).then_some(address)
}

fn read_failure(error: &vm_memory::GuestMemoryError) -> String {
    match error {
        vm_memory::GuestMemoryError::PartialBuffer {
            expected,
            completed,
        } => {
            format!("it ended after {completed} of {expected} bytes (is something writing it?)")
        }
        _ => "a read failed half-way".to_owned(),
    }
}
