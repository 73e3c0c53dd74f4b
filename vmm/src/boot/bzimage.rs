// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! bzImage: the Linux boot protocol (Documentation/arch/x86/boot.rst), entered in 64-bit mode.

use std::io::Read;
use std::ops::Range;

use linux_loader::loader::bootparam::{XLF_KERNEL_64, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{Address, ByteValued, GuestAddress};

use super::kernel::{INITRD_ADDRESS_MAX, KernelFile, LINUX_CMDLINE_SIZE, LoadedKernel};
use super::payload::{self, Packing};
use super::stream::Stream;
use super::{BootError, BootMode, elf};
use crate::layout;
use crate::memory::GuestRam;

/// Where the magic "HdrS" is.
const MAGIC_OFFSET: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
/// Behind the last field that is checked.
const HEADER_END: u64 = 0x264;
/// Where the setup header begins.
const SETUP_HEADER: u64 = 0x1f1;
/// First protocol whose header says where the packed kernel is.
const PROTOCOL_2_08: u16 = 0x0208;
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

/// The header fields that are looked at before anything is loaded.
pub(super) struct Header {
    setup_bytes: u64,
    code_bytes: u64,
    payload_offset: u64,
    payload_bytes: u64,
    protocol: u16,
    xloadflags: u16,
    kernel_alignment: u64,
    pref_address: u64,
    init_size: u64,
}

impl Header {
    /// The header of the bzImage that starts with `head`.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        if !matches(head) {
            return None;
        }
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
            code_bytes: u64::from(u32_at(0x1f4)?) * PARAGRAPH,
            protocol: u16_at(0x206)?,
            xloadflags: u16_at(0x236)?,
            kernel_alignment: u64::from(u32_at(0x230)?),
            payload_offset: u64::from(u32_at(0x248)?),
            payload_bytes: u64::from(u32_at(0x24c)?),
            pref_address: u64_at(0x258)?,
            init_size: u64::from(u32_at(0x260)?),
        })
    }

    /// Where in the file the packed kernel is; `None` for protocols that do not tell.
    pub(super) fn payload(&self) -> Option<Range<u64>> {
        let start = self.setup_bytes + self.payload_offset;
        let told = self.protocol >= PROTOCOL_2_08 && self.payload_bytes > payload::LENGTH_BYTES;
        told.then(|| start..start + self.payload_bytes)
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

/// Loads what a bzImage packs where it wants to be, or, if that cannot be unpacked here, the bzImage
/// itself at 1 MiB.
pub(super) fn load(
    memory: &GuestRam,
    kernel: &KernelFile<'_>,
    low_ram: u64,
) -> Result<LoadedKernel, BootError> {
    let header = Header::parse(&kernel.head).ok_or_else(|| kernel.truncated(HEADER_END))?;
    check_64_bit(kernel, &header)?;
    let file_bytes = header.setup_bytes + header.code_bytes;
    // The length is rounded up to paragraphs.
    if kernel.size + PARAGRAPH <= file_bytes || kernel.size <= header.setup_bytes {
        return Err(kernel.truncated(file_bytes));
    }
    let mut setup_header = setup_header::default();
    let mut reader = kernel.reader(SETUP_HEADER..kernel.size);
    reader
        .read_exact(setup_header.as_mut_slice())
        .map_err(|error| kernel.file.fault(&error))?;
    if let Some(unpacked) = unpack(memory, kernel, &header, low_ram)? {
        return Ok(with_limits(unpacked, setup_header));
    }
    let end = header
        .run_time_end(kernel.size)
        .ok_or_else(|| kernel.not_a_kernel("a bzImage with impossible sizes in its header"))?;
    kernel.check_fit(layout::HIMEM_START, end, low_ram)?;

    let load = GuestAddress(layout::HIMEM_START);
    let loaded = BzImage::load(memory, Some(load), &mut kernel.whole(), Some(load))
        .map_err(|error| kernel.refused(&error))?;
    let entered = LoadedKernel {
        mode: BootMode::Linux64,
        entry: loaded.kernel_load.unchecked_add(ENTRY_64_OFFSET),
        end,
        cmdline_limit: 0,
        initrd_address_max: 0,
        setup_header: None,
    };
    Ok(with_limits(
        entered,
        loaded.setup_header.unwrap_or(setup_header),
    ))
}

/// `kernel` with what its setup header says of command line and initrd.
fn with_limits(kernel: LoadedKernel, setup_header: setup_header) -> LoadedKernel {
    LoadedKernel {
        // The header's size counts no NUL.
        cmdline_limit: match usize::try_from(setup_header.cmdline_size) {
            Ok(0) | Err(_) => LINUX_CMDLINE_SIZE - 1,
            Ok(size) => size,
        },
        initrd_address_max: match u64::from(setup_header.initrd_addr_max) {
            0 => INITRD_ADDRESS_MAX,
            address => address,
        },
        setup_header: Some(setup_header),
        ..kernel
    }
}

/// Unpacks the ELF file in a bzImage into guest memory; `None`, and nothing is written, if it is
/// packed in a way not known here, or is not to be entered without the bzImage around it.
fn unpack(
    memory: &GuestRam,
    kernel: &KernelFile<'_>,
    header: &Header,
    low_ram: u64,
) -> Result<Option<LoadedKernel>, BootError> {
    let payload = header.payload().filter(|range| range.end <= kernel.size);
    let Some(payload) = payload else {
        return Ok(None);
    };
    let mut magic = [0; Packing::MAGIC_BYTES];
    let mut length = [0; 4];
    let mut last = kernel.reader(payload.end - payload::LENGTH_BYTES..payload.end);
    kernel
        .reader(payload.clone())
        .read_exact(&mut magic)
        .and_then(|()| last.read_exact(&mut length))
        .map_err(|error| kernel.file.fault(&error))?;
    let Some(packing) = Packing::of(&magic) else {
        return Ok(None);
    };
    let length = u64::from(u32::from_le_bytes(length));
    // What comes out is bounded before anything does.
    kernel.check_fit(layout::HIMEM_START, length, low_ram)?;
    let unpacked = packing.unpack(kernel.reader(packing.packed(payload)));
    let mut stream = unpacked
        .and_then(|bytes| Stream::packed(bytes, length))
        .map_err(|error| kernel.damaged(packing, &error))?;
    let plan = match elf::plan(kernel, &stream, low_ram) {
        Ok(plan) => plan,
        Err(error @ BootError::KernelTooLarge { .. }) => return Err(error),
        Err(error) => {
            log::debug!("the bzImage is entered itself, as for what it packs: {error}");
            return Ok(None);
        }
    };
    let loaded = plan
        .load(memory, &mut stream)
        .and_then(|loaded| stream.finish().map(|()| loaded))
        .map_err(|error| kernel.damaged(packing, &error))?;
    kernel.check_entry(&loaded)?;
    Ok(Some(loaded))
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
        path: kernel.file.path().to_owned(),
        found,
    })
}
