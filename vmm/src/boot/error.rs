// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a guest could not be put into memory.

use std::path::PathBuf;

use super::FileRole;

/// Why [`BootImage::load`](super::BootImage::load) could not put a guest into memory. Each message says what failed, with
/// which value, and what to do about it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// No such file.
    #[error("{role} {path}: no such file; give the path of {}", .role.wanted(), path = .path.display())]
    FileMissing {
        /// Which file.
        role: FileRole,
        /// Its path as given.
        path: PathBuf,
    },
    /// The file's or a folder's permissions forbid it.
    #[error(
        "{role} {path}: permission denied; let this user read it (chmod a+r, and a+x on its folders) or give a readable copy",
        path = .path.display()
    )]
    FileDenied {
        /// Which file.
        role: FileRole,
        /// Its path as given.
        path: PathBuf,
    },
    /// A folder, device, pipe or socket.
    #[error("{role} {path}: is {found}, not a file; give the path of {}", .role.wanted(), path = .path.display())]
    FileNotRegular {
        /// Which file.
        role: FileRole,
        /// Its path as given.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Nothing in it.
    #[error("{role} {path}: is empty (0 bytes); give {}", .role.wanted(), path = .path.display())]
    FileEmpty {
        /// Which file.
        role: FileRole,
        /// Its path as given.
        path: PathBuf,
    },
    /// Reading failed in some other way.
    #[error("{role} {path}: cannot be read: {reason}; check the file and the disk it is on", path = .path.display())]
    FileUnreadable {
        /// Which file.
        role: FileRole,
        /// Its path as given.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The file is not a kernel that this machine knows.
    #[error(
        "kernel {path}: is {found}, not a Linux kernel; give {}", FileRole::Kernel.wanted(),
        path = .path.display()
    )]
    NotAKernel {
        /// Its path as given.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// A kernel without a 64-bit entry point.
    #[error("kernel {path}: {found}, and this machine enters kernels in 64-bit mode; give an x86-64 kernel", path = .path.display())]
    Kernel32Bit {
        /// Its path as given.
        path: PathBuf,
        /// What says so.
        found: String,
    },
    /// The file ends before the kernel does.
    #[error(
        "kernel {path}: is cut short: its header promises {expected} bytes, the file has {actual}; copy or download it again",
        path = .path.display()
    )]
    KernelTruncated {
        /// Its path as given.
        path: PathBuf,
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes in the file.
        actual: u64,
    },
    /// The kernel wants to be where the boot structures are.
    #[error(
        "kernel {path}: wants to be loaded at {address:#x}, but memory below {limit:#x} belongs to the boot structures; link it at or above 1 MiB",
        path = .path.display()
    )]
    KernelTooLow {
        /// Its path as given.
        path: PathBuf,
        /// Lowest load address.
        address: u64,
        /// Lowest possible load address.
        limit: u64,
    },
    /// The kernel does not fit.
    #[error(
        "kernel {path}: needs memory up to {needed} ({needed_bytes} bytes) to start, the guest has {available} ({available_bytes} bytes) below the PCI hole; give the guest more memory",
        path = .path.display(), needed = Mib(*.needed_bytes), available = Mib(*.available_bytes)
    )]
    KernelTooLarge {
        /// Its path as given.
        path: PathBuf,
        /// Where the kernel's memory ends, in bytes from 0.
        needed_bytes: u64,
        /// Where the guest's low RAM ends, in bytes from 0.
        available_bytes: u64,
    },
    /// The loader refused what the checks had let through.
    #[error("kernel {path}: cannot be loaded: {reason}; check that the file is whole", path = .path.display())]
    KernelRefused {
        /// Its path as given.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// What a bzImage packs does not come out.
    #[error("kernel {path}: is damaged: its {packing} payload cannot be unpacked ({reason}); copy or download it again", path = .path.display())]
    KernelDamaged {
        /// Its path as given.
        path: PathBuf,
        /// How it is packed.
        packing: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The initrd does not fit.
    #[error(
        "initrd {path}: {size} ({size_bytes} bytes) does not fit into the {available} ({available_bytes} bytes) that the kernel leaves of the guest's {ram} of memory; give the guest more memory or use a smaller initrd",
        path = .path.display(), size = Mib(*.size_bytes), available = Mib(*.available_bytes), ram = Mib(*.ram_bytes)
    )]
    InitrdTooLarge {
        /// Its path as given.
        path: PathBuf,
        /// Size of the file and its overlay in bytes.
        size_bytes: u64,
        /// Bytes between the end of the kernel and the end of where an initrd may be.
        available_bytes: u64,
        /// All of the guest's RAM in bytes.
        ram_bytes: u64,
    },
    /// The command line does not fit into what the kernel reads.
    #[error("kernel command line: {length} bytes, and this kernel reads at most {limit}; shorten it by {}", .length - .limit)]
    CmdlineTooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A NUL would end the command line early.
    #[error(
        "kernel command line: has a NUL byte at offset {offset}, which would cut it there; remove it"
    )]
    CmdlineNul {
        /// Where.
        offset: usize,
    },
    /// Not even room for the boot structures.
    #[error(
        "guest memory: {bytes} bytes is too little to boot anything; give the guest at least {minimum} bytes, and 128 MiB or more for Linux"
    )]
    RamTooSmall {
        /// All of the guest's RAM in bytes.
        bytes: u64,
        /// Least possible.
        minimum: u64,
    },
    /// The ACPI tables cannot describe so many.
    #[error("vCPUs: {vcpus} cannot be described to the guest; give it between 1 and {limit}")]
    VcpuCount {
        /// The number given.
        vcpus: u32,
        /// The largest possible.
        limit: u32,
    },
    /// Guest memory has no RAM where the layout has a boot structure.
    #[error(
        "guest memory: cannot write {what} at {address:#x}; build the guest's memory from layout::ram_ranges"
    )]
    GuestMemory {
        /// Which structure.
        what: &'static str,
        /// Its guest-physical address.
        address: u64,
    },
}

/// A size in MiB for people; one decimal below 10 MiB.
struct Mib(u64);

impl std::fmt::Display for Mib {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = u128::from(self.0) * 10 / (1 << 20);
        if tenths < 100 {
            write!(f, "{}.{} MiB", tenths / 10, tenths % 10)
        } else {
            write!(f, "{} MiB", tenths / 10)
        }
    }
}
