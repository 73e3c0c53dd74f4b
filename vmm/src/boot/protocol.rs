// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a kernel is handed at its entry: the zero page (Linux) or the start info (PVH).

use linux_loader::loader::bootparam::{LOADED_HIGH, boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Address, ByteValued, Bytes, GuestAddress};

use super::BootError;
use super::initrd::Placement;
use crate::layout::{self, MemoryKind, MemoryRange};
use crate::memory::GuestRam;

/// "No registered boot loader" in `type_of_loader`.
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// Protocol 2.15, the newest known.
const PROTOCOL: u16 = 0x020f;
/// `hvm_start_info` with a memory map.
const START_INFO_VERSION: u32 = 1;

/// What both protocols hand over.
#[derive(Debug)]
pub(super) struct Handover {
    /// Command line in bytes, without NUL.
    pub cmdline_length: u32,
    pub initrd: Option<Placement>,
    pub rsdp: GuestAddress,
    pub memory_map: Vec<MemoryRange>,
}

/// The number for a kind, the same in e820 and in PVH's memory map.
const fn kind_number(kind: MemoryKind) -> u32 {
    match kind {
        MemoryKind::Ram => 1,
        MemoryKind::Reserved => 2,
    }
}

/// A guest-physical address below 4 GiB in 32 bits; everything handed over is there.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(0)
}

fn write<T: ByteValued>(
    memory: &GuestRam,
    what: &'static str,
    object: T,
    address: GuestAddress,
) -> Result<(), BootError> {
    memory
        .write_obj(object, address)
        .map_err(|_| BootError::GuestMemory {
            what,
            address: address.raw_value(),
        })
}

/// Writes the command line with its NUL.
pub(super) fn write_cmdline(
    memory: &GuestRam,
    cmdline: &str,
    limit: usize,
) -> Result<u32, BootError> {
    let area = usize::try_from(layout::CMDLINE_AREA - 1).unwrap_or(usize::MAX);
    let limit = limit.min(area);
    if let Some(offset) = cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CmdlineNul { offset });
    }
    let length = cmdline.len();
    if length > limit {
        return Err(BootError::CmdlineTooLong { length, limit });
    }
    let bytes = [cmdline.as_bytes(), &[0]].concat();
    memory
        .write_slice(&bytes, layout::CMDLINE)
        .map_err(|_| BootError::GuestMemory {
            what: "the command line",
            address: layout::CMDLINE.raw_value(),
        })?;
    Ok(u32::try_from(length).unwrap_or(0))
}

/// Writes `boot_params`, from the kernel's own setup header if it came with one.
pub(super) fn write_zero_page(
    memory: &GuestRam,
    header: Option<setup_header>,
    handover: &Handover,
) -> Result<GuestAddress, BootError> {
    let mut params = boot_params {
        hdr: header.unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HEADER_MAGIC,
            version: PROTOCOL,
            loadflags: LOADED_HIGH,
            kernel_alignment: 0x20_0000,
            cmdline_size: handover.cmdline_length,
            ..setup_header::default()
        }),
        acpi_rsdp_addr: handover.rsdp.raw_value(),
        ..boot_params::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = low(layout::CMDLINE.raw_value());
    if let Some(initrd) = handover.initrd {
        params.hdr.ramdisk_image = low(initrd.address);
        params.hdr.ramdisk_size = low(initrd.size);
    }
    let mut entries = 0;
    let mut table = params.e820_table;
    for (entry, range) in table.iter_mut().zip(&handover.memory_map) {
        *entry = boot_e820_entry {
            addr: range.start,
            size: range.length,
            r#type: kind_number(range.kind),
        };
        entries += 1;
    }
    params.e820_table = table;
    params.e820_entries = entries;
    write(memory, "the zero page", params, layout::ZERO_PAGE)?;
    Ok(layout::ZERO_PAGE)
}

/// Writes `hvm_start_info`, its memory map and its module list.
pub(super) fn write_start_info(
    memory: &GuestRam,
    handover: &Handover,
) -> Result<GuestAddress, BootError> {
    let mut memmap_entries = 0;
    let mut address = layout::PVH_MEMORY_MAP;
    for range in &handover.memory_map {
        let entry = hvm_memmap_table_entry {
            addr: range.start,
            size: range.length,
            type_: kind_number(range.kind),
            reserved: 0,
        };
        write(memory, "the PVH memory map", entry, address)?;
        address = address.unchecked_add(size_of::<hvm_memmap_table_entry>() as u64);
        memmap_entries += 1;
    }
    let mut info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: START_INFO_VERSION,
        cmdline_paddr: layout::CMDLINE.raw_value(),
        rsdp_paddr: handover.rsdp.raw_value(),
        memmap_paddr: layout::PVH_MEMORY_MAP.raw_value(),
        memmap_entries,
        ..hvm_start_info::default()
    };
    if let Some(initrd) = handover.initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.address,
            size: initrd.size,
            ..hvm_modlist_entry::default()
        };
        write(memory, "the PVH module list", module, layout::PVH_MODULES)?;
        info.nr_modules = 1;
        info.modlist_paddr = layout::PVH_MODULES.raw_value();
    }
    write(memory, "the PVH start info", info, layout::PVH_START_INFO)?;
    Ok(layout::PVH_START_INFO)
}
