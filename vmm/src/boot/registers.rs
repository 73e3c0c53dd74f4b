// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The boot CPU at a kernel's first instruction: registers, and the GDT and page tables they name.
//!
//! The other CPUs need nothing: they wait for INIT and SIPI, as KVM creates them.

use kvm_bindings::{kvm_dtable, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Address, Bytes, GuestAddress};

use super::{BootError, BootMode, EntryPoint};
use crate::layout;
use crate::memory::GuestRam;

/// Selectors that the Linux boot protocol prescribes (`__BOOT_CS`, `__BOOT_DS`), and a TSS.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x20;
/// Two unused, code, data, and a TSS that takes two in 64-bit mode.
const GDT_ENTRIES: usize = 6;
/// Size of the GDT in bytes, less one.
const GDT_LIMIT: u16 = 6 * 8 - 1;

const SEGMENT_CODE_READ_ACCESSED: u8 = 0xb;
const SEGMENT_DATA_WRITE_ACCESSED: u8 = 0x3;
const SEGMENT_TSS_BUSY: u8 = 0xb;

const RFLAGS_RESERVED: u64 = 1 << 1;
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const PAGE_PRESENT: u64 = 1 << 0;
const PAGE_WRITABLE: u64 = 1 << 1;
const PAGE_LARGE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 0x20_0000;
const TABLE_ENTRIES: u64 = 512;
/// One page directory maps 1 GiB; four of them map all addresses below 4 GiB.
const DIRECTORIES: u64 = 4;

/// x87 control word after FNINIT.
const FCW: u16 = 0x37f;
/// SSE control word after reset.
const MXCSR: u32 = 0x1f80;

/// `IA32_TIME_STAMP_COUNTER`.
const MSR_TSC: u32 = 0x10;
/// `IA32_MISC_ENABLE` and its fast-string bit.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1 << 0;
/// `IA32_MTRR_DEF_TYPE`: MTRRs on, write-back.
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// General registers: instruction pointer, and the boot structure in RSI (Linux) or RBX (PVH).
#[must_use]
pub fn general(entry: &EntryPoint) -> kvm_regs {
    let mut regs = kvm_regs {
        rip: entry.address.raw_value(),
        rflags: RFLAGS_RESERVED,
        ..kvm_regs::default()
    };
    match entry.mode {
        BootMode::Linux64 => regs.rsi = entry.boot_info.raw_value(),
        BootMode::Pvh32 => regs.rbx = entry.boot_info.raw_value(),
    }
    regs
}

/// Segment and control registers, on top of `initial`, which is what KVM gives a fresh vCPU.
#[must_use]
pub fn special(entry: &EntryPoint, initial: &kvm_sregs) -> kvm_sregs {
    let data = data_segment();
    let mut sregs = kvm_sregs {
        cs: code_segment(entry.mode),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task_segment(),
        gdt: kvm_dtable {
            base: layout::GDT.raw_value(),
            limit: GDT_LIMIT,
            ..Default::default()
        },
        idt: kvm_dtable::default(),
        ..*initial
    };
    match entry.mode {
        BootMode::Linux64 => {
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = layout::PML4.raw_value();
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
        BootMode::Pvh32 => {
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr3 = 0;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
    }
    sregs
}

/// Floating-point state as after FNINIT, for every CPU.
#[must_use]
pub fn fpu() -> kvm_fpu {
    kvm_fpu {
        fcw: FCW,
        mxcsr: MXCSR,
        ..kvm_fpu::default()
    }
}

/// MSRs that firmware would have set, for every CPU; all others are as KVM creates them.
#[must_use]
pub fn msrs() -> [kvm_msr_entry; 2] {
    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    };
    [
        msr(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        msr(MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK),
    ]
}

/// The time stamp counter as after a reset. KVM takes a 0 for a vCPU that is plugged in later, and
/// would leave it as it is.
#[must_use]
pub fn time_stamp_counter() -> kvm_msr_entry {
    kvm_msr_entry {
        index: MSR_TSC,
        data: 1,
        ..kvm_msr_entry::default()
    }
}

/// Writes the GDT, and for 64-bit mode the page tables: the first 4 GiB mapped to themselves.
pub(super) fn write_tables(memory: &GuestRam, mode: BootMode) -> Result<(), BootError> {
    let gdt: [u64; GDT_ENTRIES] = [
        0,
        0,
        descriptor(&code_segment(mode)),
        descriptor(&data_segment()),
        descriptor(&task_segment()),
        0,
    ];
    write_words(memory, "the GDT", layout::GDT, &gdt)?;
    if mode == BootMode::Linux64 {
        write_identity_map(memory)
    } else {
        Ok(())
    }
}

fn write_identity_map(memory: &GuestRam) -> Result<(), BootError> {
    const TABLE: u64 = PAGE_PRESENT | PAGE_WRITABLE;
    let what = "the page tables";
    let directories = layout::PAGE_DIRECTORIES.raw_value();
    write_words(
        memory,
        what,
        layout::PML4,
        &[layout::PDPT.raw_value() | TABLE],
    )?;
    let pointers: Vec<u64> = (0..DIRECTORIES)
        .map(|index| (directories + index * layout::PAGE_SIZE) | TABLE)
        .collect();
    write_words(memory, what, layout::PDPT, &pointers)?;
    let pages: Vec<u64> = (0..DIRECTORIES * TABLE_ENTRIES)
        .map(|index| (index * LARGE_PAGE) | TABLE | PAGE_LARGE)
        .collect();
    write_words(memory, what, layout::PAGE_DIRECTORIES, &pages)
}

fn write_words(
    memory: &GuestRam,
    what: &'static str,
    address: GuestAddress,
    words: &[u64],
) -> Result<(), BootError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory
        .write_slice(&bytes, address)
        .map_err(|_| BootError::GuestMemory {
            what,
            address: address.raw_value(),
        })
}

const fn flat_segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

const fn code_segment(mode: BootMode) -> kvm_segment {
    let flat = flat_segment(CODE_SELECTOR, SEGMENT_CODE_READ_ACCESSED);
    match mode {
        BootMode::Linux64 => kvm_segment {
            db: 0,
            l: 1,
            ..flat
        },
        BootMode::Pvh32 => flat,
    }
}

const fn data_segment() -> kvm_segment {
    flat_segment(DATA_SELECTOR, SEGMENT_DATA_WRITE_ACCESSED)
}

/// VMX wants a usable busy TSS; nobody switches tasks.
const fn task_segment() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        db: 0,
        s: 0,
        g: 0,
        ..flat_segment(TSS_SELECTOR, SEGMENT_TSS_BUSY)
    }
}

/// A segment as a GDT entry (Intel SDM volume 3, figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = segment.type_ | (segment.s << 4) | (segment.dpl << 5) | (segment.present << 7);
    let flags = segment.avl | (segment.l << 1) | (segment.db << 2) | (segment.g << 3);
    (limit & 0xffff)
        | ((segment.base & 0xff_ffff) << 16)
        | (u64::from(access) << 40)
        | ((limit >> 16 & 0xf) << 48)
        | (u64::from(flags) << 52)
        | ((segment.base >> 24 & 0xff) << 56)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mode: BootMode) -> EntryPoint {
        EntryPoint {
            mode,
            address: GuestAddress(0x10_0200),
            boot_info: GuestAddress(0x7000),
        }
    }

    #[test]
    fn descriptors_are_the_flat_segments_that_linux_names() {
        assert_eq!(
            descriptor(&code_segment(BootMode::Linux64)),
            0x00af_9b00_0000_ffff
        );
        assert_eq!(
            descriptor(&code_segment(BootMode::Pvh32)),
            0x00cf_9b00_0000_ffff
        );
        assert_eq!(descriptor(&data_segment()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task_segment()), 0x0000_8b00_0000_0067);
        let segment = kvm_segment {
            base: 0x1234_5678,
            limit: 0xf_ffff,
            ..kvm_segment::default()
        };
        assert_eq!(descriptor(&segment), 0x120f_0034_5678_ffff);
    }

    #[test]
    fn linux_is_entered_in_long_mode_with_the_zero_page_in_rsi() {
        let regs = general(&entry(BootMode::Linux64));
        assert_eq!(
            (regs.rip, regs.rsi, regs.rbx, regs.rflags),
            (0x10_0200, 0x7000, 0, 2)
        );
        let initial = kvm_sregs {
            apic_base: 0xfee0_0900,
            ..kvm_sregs::default()
        };
        let sregs = special(&entry(BootMode::Linux64), &initial);
        assert_eq!(
            (sregs.cr0, sregs.cr3, sregs.cr4),
            (0x8000_0011, 0x9000, 0x20)
        );
        assert_eq!(sregs.efer, 0x500);
        assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db), (0x10, 1, 0));
        assert_eq!((sregs.ds.selector, sregs.ss.selector), (0x18, 0x18));
        assert_eq!(sregs.apic_base, 0xfee0_0900, "what KVM set is kept");
    }

    #[test]
    fn pvh_is_entered_in_protected_mode_with_the_start_info_in_rbx() {
        let regs = general(&entry(BootMode::Pvh32));
        assert_eq!((regs.rip, regs.rbx, regs.rsi), (0x10_0200, 0x7000, 0));
        let dirty = kvm_sregs {
            cr3: 1,
            cr4: 2,
            efer: 3,
            ..kvm_sregs::default()
        };
        let sregs = special(&entry(BootMode::Pvh32), &dirty);
        assert_eq!(
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer),
            (0x11, 0, 0, 0)
        );
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.limit), (0, 1, u32::MAX));
        assert_eq!((sregs.tr.type_, sregs.tr.s, sregs.tr.limit), (0xb, 0, 0x67));
    }

    /// Walks the page tables as the CPU would.
    fn translate(memory: &GuestRam, address: u64) -> u64 {
        let word = |table: u64, index: u64| -> u64 {
            memory
                .read_obj(GuestAddress(table + index * 8))
                .expect("a table in RAM")
        };
        let frame = |entry: u64| entry & 0x000f_ffff_ffff_f000;
        let pml4e = word(layout::PML4.raw_value(), address >> 39 & 0x1ff);
        assert_eq!(pml4e & 3, 3);
        let pdpte = word(frame(pml4e), address >> 30 & 0x1ff);
        assert_eq!(pdpte & 3, 3);
        let pde = word(frame(pdpte), address >> 21 & 0x1ff);
        assert_eq!(pde & 0x83, 0x83);
        frame(pde) + (address & 0x1f_ffff)
    }

    #[test]
    fn page_tables_map_the_first_4_gib_to_themselves() {
        let memory = crate::memory::map(0x20_0000).expect("memory");
        write_tables(&memory, BootMode::Linux64).expect("room for tables");
        for address in [0, 0x7000, 0x10_0200, 0x3fff_ffff, 0x4000_0000, 0xffff_ffff] {
            assert_eq!(translate(&memory, address), address);
        }
        let mut gdt = [0; 8];
        memory
            .read_slice(&mut gdt, GuestAddress(layout::GDT.raw_value() + 0x10))
            .expect("a GDT in RAM");
        assert_eq!(u64::from_le_bytes(gdt), 0x00af_9b00_0000_ffff);
    }
}
