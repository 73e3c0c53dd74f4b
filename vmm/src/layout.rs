// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine's map: guest-physical addresses, I/O ports, interrupt lines and PCI slots.
//!
//! Everything that has a fixed place has it here and nowhere else; the ACPI tables, the memory map
//! that the guest gets, the buses and the boot structures are all derived from these constants.
//!
//! ```text
//! 0x0000_0500  GDT                          0x000e_0000  ACPI tables, RSDP first
//! 0x0000_6000  PVH start info               0x0010_0000  RAM, up to 3 GiB
//! 0x0000_7000  zero page (boot_params)      0xc000_0000  PCI memory window
//! 0x0000_9000  page tables                  0xfec0_0000  IOAPIC, LAPIC, KVM's own pages
//! 0x0002_0000  command line                 0x1_0000_0000  the RAM that did not fit below 3 GiB
//! 0x0009_fc00  EBDA, reserved
//! ```

use vm_memory::GuestAddress;

/// Size of a small page in bytes.
pub const PAGE_SIZE: u64 = 0x1000;

// --- Boot structures below 1 MiB ------------------------------------------------------------

/// Global descriptor table that the boot CPU starts with.
pub const GDT: GuestAddress = GuestAddress(0x500);
/// PVH `hvm_start_info`.
pub const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
/// PVH module list: one entry, the initrd.
pub const PVH_MODULES: GuestAddress = GuestAddress(0x6100);
/// PVH memory map table.
pub const PVH_MEMORY_MAP: GuestAddress = GuestAddress(0x6200);
/// Linux `boot_params`, one page.
pub const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// Top-level page table of the identity map.
pub const PML4: GuestAddress = GuestAddress(0x9000);
/// Page directory pointer table.
pub const PDPT: GuestAddress = GuestAddress(0xa000);
/// First of four page directories: 4 GiB in 2 MiB pages.
pub const PAGE_DIRECTORIES: GuestAddress = GuestAddress(0xb000);
/// Kernel command line.
pub const CMDLINE: GuestAddress = GuestAddress(0x2_0000);
/// Room for the command line in bytes, its NUL included.
pub const CMDLINE_AREA: u64 = 0x1_0000;

/// End of conventional memory: from here to [`HIMEM_START`] the memory map says reserved.
pub const EBDA: u64 = 0x9_fc00;
/// RSDP and the ACPI tables, in the area that BIOSes use and Linux scans.
pub const ACPI_TABLES: GuestAddress = GuestAddress(0xe_0000);
/// Room for the ACPI tables in bytes.
pub const ACPI_TABLES_AREA: u64 = HIMEM_START - 0xe_0000;
/// Start of memory that kernels are loaded into.
pub const HIMEM_START: u64 = 0x10_0000;

// --- RAM and the hole below 4 GiB -----------------------------------------------------------

/// RAM below 4 GiB ends here at the latest.
pub const LOW_RAM_LIMIT: u64 = 0xc000_0000;
/// RAM that does not fit below [`LOW_RAM_LIMIT`] starts here.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;
/// Least RAM a machine can boot anything with, in bytes.
pub const MIN_RAM: u64 = 0x20_0000;

/// First address of the PCI memory window.
pub const PCI_MEMORY_START: u32 = 0xc000_0000;
/// Last address of the PCI memory window, below the IOAPIC.
pub const PCI_MEMORY_LAST: u32 = 0xfebf_ffff;

/// IOAPIC registers (where KVM's in-kernel IOAPIC is).
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC registers (where KVM's in-kernel LAPIC is).
pub const LAPIC: u32 = 0xfee0_0000;
/// From here to 4 GiB: interrupt controllers and KVM's pages, never RAM, never a BAR.
pub const PLATFORM_START: u64 = 0xfec0_0000;
/// Page for `KVM_SET_IDENTITY_MAP_ADDR`.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for `KVM_SET_TSS_ADDR`.
pub const KVM_TSS: u64 = 0xfffb_d000;

// --- I/O ports ------------------------------------------------------------------------------

/// First serial port.
pub const COM1_PORT: u16 = 0x3f8;
/// Number of ports of a serial port.
pub const COM1_PORTS: u16 = 8;
/// Keyboard controller data port; only the reset pulse behind [`I8042_COMMAND_PORT`] exists.
pub const I8042_DATA_PORT: u16 = 0x60;
/// Keyboard controller status and command port.
pub const I8042_COMMAND_PORT: u16 = 0x64;
/// ACPI PM1a event block: status (16 bits), then enable (16 bits).
pub const PM1A_EVENT_PORT: u16 = 0x600;
/// Number of ports of the PM1a event block.
pub const PM1A_EVENT_PORTS: u8 = 4;
/// ACPI PM1a control register, 16 bits.
pub const PM1A_CONTROL_PORT: u16 = 0x604;
/// Number of ports of the PM1a control register.
pub const PM1A_CONTROL_PORTS: u8 = 2;
/// `SLP_TYP` that, written with `SLP_EN`, means S5 (soft off).
pub const S5_SLEEP_TYPE: u8 = 0;
/// PCI configuration address register (32-bit accesses only).
pub const PCI_CONFIG_ADDRESS_PORT: u16 = 0xcf8;
/// PCI configuration data, four ports.
pub const PCI_CONFIG_DATA_PORT: u16 = 0xcfc;
/// Reset control register (8-bit accesses only), inside the PCI address register.
pub const RESET_PORT: u16 = 0xcf9;
/// What the FADT tells the guest to write to [`RESET_PORT`]: system reset, CPU reset.
pub const RESET_VALUE: u8 = 0x06;

// --- Interrupt lines ------------------------------------------------------------------------

/// GSI of the first serial port (edge).
pub const COM1_GSI: u32 = 4;
/// ISA number of the ACPI system control interrupt.
pub const SCI_IRQ: u8 = 9;
/// GSI of the ACPI system control interrupt (level, active high).
pub const SCI_GSI: u32 = SCI_IRQ as u32;
/// First GSI of PCI INTx (level); the IOAPIC's pins 16 to 23.
pub const PCI_INTX_GSI_START: u32 = 16;
/// Number of GSIs that PCI INTx is spread over.
pub const PCI_INTX_GSIS: u32 = 8;

// --- PCI bus 0 ------------------------------------------------------------------------------

/// Slots on the bus.
pub const PCI_SLOTS: u8 = 32;
/// Host bridge.
pub const HOST_BRIDGE_SLOT: u8 = 0;
/// i6300esb watchdog.
pub const WATCHDOG_SLOT: u8 = 4;
/// Virtio console with the guest agent's port.
pub const CONSOLE_SLOT: u8 = 5;
/// Where the virtio console's BAR 0 is before the guest moves it.
pub const CONSOLE_BAR: u32 = 0xfebe_0000;
/// Virtio network device.
pub const NET_SLOT: u8 = 6;
/// Where the network device's BAR 0 is before the guest moves it.
pub const NET_BAR: u32 = 0xfebd_0000;
/// Where the watchdog's BAR 0 is before the guest moves it; the top page of the window.
pub const WATCHDOG_BAR: u32 = 0xfebf_f000;

/// GSI of a slot's interrupt pin (0 is INTA), as the DSDT's `_PRT` tells the guest.
#[must_use]
pub const fn pci_intx_gsi(slot: u8, pin: u8) -> u32 {
    PCI_INTX_GSI_START + (slot as u32 + pin as u32) % PCI_INTX_GSIS
}

/// Guest RAM as address and length of each contiguous piece, for `memory_bytes` of RAM in all.
#[must_use]
pub fn ram_ranges(memory_bytes: u64) -> Vec<(GuestAddress, usize)> {
    let low = memory_bytes.min(LOW_RAM_LIMIT);
    let high = memory_bytes - low;
    [(GuestAddress(0), low), (GuestAddress(HIGH_RAM_START), high)]
        .into_iter()
        .filter_map(|(start, length)| Some((start, usize::try_from(length).ok()?)))
        .filter(|&(_, length)| length > 0)
        .collect()
}

/// What a range of the memory map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// RAM that the guest may use.
    Ram,
    /// Not for the guest to allocate.
    Reserved,
}

/// One range of the memory map that the guest gets (e820, PVH memory map).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First guest-physical address.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// What it is.
    pub kind: MemoryKind,
}

impl MemoryRange {
    const fn new(start: u64, end: u64, kind: MemoryKind) -> Self {
        Self {
            start,
            length: end.saturating_sub(start),
            kind,
        }
    }
}

/// The memory map that the guest gets for `memory_bytes` of RAM in all, in ascending order.
#[must_use]
pub fn memory_map(memory_bytes: u64) -> Vec<MemoryRange> {
    let low_end = memory_bytes.min(LOW_RAM_LIMIT);
    let high_end = HIGH_RAM_START.saturating_add(memory_bytes - low_end);
    [
        MemoryRange::new(0, EBDA, MemoryKind::Ram),
        MemoryRange::new(EBDA, HIMEM_START, MemoryKind::Reserved),
        MemoryRange::new(HIMEM_START, low_end, MemoryKind::Ram),
        MemoryRange::new(PLATFORM_START, HIGH_RAM_START, MemoryKind::Reserved),
        MemoryRange::new(HIGH_RAM_START, high_end, MemoryKind::Ram),
    ]
    .into_iter()
    .filter(|range| range.length > 0)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn ram(start: u64, length: u64) -> MemoryRange {
        MemoryRange {
            start,
            length,
            kind: MemoryKind::Ram,
        }
    }

    fn reserved(start: u64, length: u64) -> MemoryRange {
        MemoryRange {
            start,
            length,
            kind: MemoryKind::Reserved,
        }
    }

    #[test]
    fn ram_fills_the_low_part_first_and_leaves_the_hole() {
        assert_eq!(ram_ranges(0), []);
        assert_eq!(ram_ranges(128 * MIB), [(GuestAddress(0), 0x800_0000)]);
        assert_eq!(ram_ranges(3 * GIB), [(GuestAddress(0), 0xc000_0000)]);
        assert_eq!(
            ram_ranges(5 * GIB),
            [
                (GuestAddress(0), 0xc000_0000),
                (GuestAddress(0x1_0000_0000), 0x8000_0000)
            ]
        );
    }

    #[test]
    fn memory_map_of_a_small_a_middling_and_a_large_machine() {
        let first = [ram(0, 0x9_fc00), reserved(0x9_fc00, 0x6_0400)];
        let platform = reserved(0xfec0_0000, 0x140_0000);
        let expect = |rest: &[MemoryRange]| [&first[..], rest].concat();
        assert_eq!(
            memory_map(128 * MIB),
            expect(&[ram(0x10_0000, 127 * MIB), platform])
        );
        assert_eq!(
            memory_map(GIB),
            expect(&[ram(0x10_0000, 1023 * MIB), platform])
        );
        assert_eq!(
            memory_map(5 * GIB),
            expect(&[ram(0x10_0000, 3071 * MIB), platform, ram(4 * GIB, 2 * GIB)])
        );
    }

    #[test]
    fn memory_map_ram_lies_inside_the_machines_ram() {
        for bytes in [2 * MIB, 128 * MIB, 3 * GIB, 3 * GIB + PAGE_SIZE, 64 * GIB] {
            for range in memory_map(bytes)
                .iter()
                .filter(|range| range.kind == MemoryKind::Ram)
            {
                assert!(
                    ram_ranges(bytes).iter().any(|&(start, length)| {
                        range.start >= start.0
                            && range.start + range.length <= start.0 + length as u64
                    }),
                    "{range:x?} of {bytes:#x}"
                );
            }
        }
    }

    #[test]
    fn intx_stays_on_the_ioapic_pins_above_the_isa_ones() {
        for slot in 0..PCI_SLOTS {
            for pin in 0..4 {
                assert!((16..24).contains(&pci_intx_gsi(slot, pin)));
            }
        }
        assert_eq!(pci_intx_gsi(WATCHDOG_SLOT, 0), 20);
    }
}
