// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! bzImage: the Linux boot protocol (Documentation/arch/x86/boot.rst), entered in 64-bit mode.

use linux_loader::loader::bootparam::XLF_KERNEL_64;
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{Address, GuestAddress};

use super::kernel::{INITRD_ADDRESS_MAX, KernelFile, LINUX_CMDLINE_SIZE, LoadedKernel};
use super::{BootError, BootMode};
use crate::layout;
use crate::memory::GuestRam;

/// Where the magic "HdrS" is.
const MAGIC_OFFSET: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
/// Behind the last field that is checked.
const HEADER_END: u64 = 0x264;
/// First protocol whose header says whether there is a 64-bit entry point.
const PROTOCOL_2_12: u16 = 0x020c;
/// The 64-bit entry point is this far behind the start of the protected-mode code.
const ENTRY_64_OFFSET: u64 = 0x200;
/// The setup code is counted in sectors, and its length in paragraphs.
const SECTOR: u64 = 512;
const PARAGRAPH: u64 = 16;

/// Whether a file that starts with `head` has a Linux setup header.
pub(super) fn matches(head: &[u8]) -> bool {
    head.get(MAGIC_OFFSET..)
        .is_some_and(|rest| rest.starts_with(MAGIC))
}

/// The header fields that are checked before anything is loaded.
struct Header {
    setup_bytes: u64,
    payload_bytes: u64,
    protocol: u16,
    xloadflags: u16,
    kernel_alignment: u64,
    pref_address: u64,
    init_size: u64,
}

impl Header {
    fn parse(head: &[u8]) -> Option<Self> {
        let u8_at = |offset: usize| head.get(offset).copied();
        let u16_at = |offset| Some(u16::from_le_bytes(*head.get(offset..)?.first_chunk()?));
        let u32_at = |offset| Some(u32::from_le_bytes(*head.get(offset..)?.first_chunk()?));
        let u64_at = |offset| Some(u64::from_le_bytes(*head.get(offset..)?.first_chunk()?));
        // 0 means 4, for old boot loaders' sake.
        let setup_sectors = match u8_at(0x1f1)? {
            0 => 4,
            sectors => u64::from(sectors),
        };
        Some(Self {
            setup_bytes: (setup_sectors + 1) * SECTOR,
            payload_bytes: u64::from(u32_at(0x1f4)?) * PARAGRAPH,
            protocol: u16_at(0x206)?,
            xloadflags: u16_at(0x236)?,
            kernel_alignment: u64::from(u32_at(0x230)?),
            pref_address: u64_at(0x258)?,
            init_size: u64::from(u32_at(0x260)?),
        })
    }

    /// Where the memory ends that the kernel uses before it reads the memory map, when its
    /// protected-mode code is loaded at [`layout::HIMEM_START`].
    fn run_time_end(&self, file_size: u64) -> Option<u64> {
        let load = layout::HIMEM_START;
        let loaded_end = load.checked_add(file_size.checked_sub(self.setup_bytes)?)?;
        // The decompressor moves up to its preferred address when it is loaded below it.
        let aligned = load.checked_next_multiple_of(self.kernel_alignment.max(1))?;
        let run_time_end = self.pref_address.max(aligned).checked_add(self.init_size)?;
        Some(loaded_end.max(run_time_end))
    }
}

/// Loads a bzImage at 1 MiB.
pub(super) fn load(
    memory: &GuestRam,
    kernel: &mut KernelFile<'_>,
    low_ram: u64,
) -> Result<LoadedKernel, BootError> {
    let header = Header::parse(&kernel.head).ok_or_else(|| kernel.truncated(HEADER_END))?;
    check_64_bit(kernel, &header)?;
    let file_bytes = header.setup_bytes + header.payload_bytes;
    // The length is rounded up to paragraphs.
    if kernel.size + PARAGRAPH <= file_bytes || kernel.size <= header.setup_bytes {
        return Err(kernel.truncated(file_bytes));
    }
    let end = header
        .run_time_end(kernel.size)
        .ok_or_else(|| kernel.not_a_kernel("a bzImage with impossible sizes in its header"))?;
    kernel.check_fit(layout::HIMEM_START, end, low_ram)?;

    let load = GuestAddress(layout::HIMEM_START);
    let loaded = BzImage::load(memory, Some(load), &mut kernel.file, Some(load))
        .map_err(|error| kernel.refused(&error))?;
    let setup_header = loaded.setup_header;
    let cmdline_size = setup_header.map_or(0, |header| header.cmdline_size);
    let initrd_max = setup_header.map_or(0, |header| header.initrd_addr_max);
    Ok(LoadedKernel {
        mode: BootMode::Linux64,
        entry: loaded.kernel_load.unchecked_add(ENTRY_64_OFFSET),
        end,
        // The header's size counts no NUL.
        cmdline_limit: match usize::try_from(cmdline_size) {
            Ok(0) | Err(_) => LINUX_CMDLINE_SIZE - 1,
            Ok(size) => size,
        },
        initrd_address_max: match u64::from(initrd_max) {
            0 => INITRD_ADDRESS_MAX,
            address => address,
        },
        setup_header,
    })
}

fn check_64_bit(kernel: &KernelFile<'_>, header: &Header) -> Result<(), BootError> {
    let found = if header.protocol < PROTOCOL_2_12 {
        let [minor, major] = header.protocol.to_le_bytes();
        format!("boot protocol {major}.{minor:02} is older than 2.12 and has no 64-bit entry point")
    } else if header.xloadflags & XLF_KERNEL_64 == 0 {
        "its header has no 64-bit entry point (XLF_KERNEL_64 is 0)".to_owned()
    } else {
        return Ok(());
    };
    Err(BootError::Kernel32Bit {
        path: kernel.path.to_owned(),
        found,
    })
}
