// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ACPI tables: what the guest is told about vCPUs, interrupts, power and reset.
//!
//! *Described:* RSDP (revision 2), XSDT, FADT with fixed hardware (PM1a event and control blocks,
//! SCI, fixed power button, reset register), FACS, MADT, and a DSDT (its own module).
//!
//! *Not described:* PM timer, general-purpose events, HPET, RTC, VGA, processor power states,
//! sleep states other than S5.
//!
//! *Differs from hardware:* there is no SMI command port, so the guest finds ACPI mode always on;
//! the keyboard controller is declared absent, since only its reset pulse exists, which Linux tries
//! without asking.

use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Address, Bytes, GuestAddress};

use super::{BootError, dsdt};
use crate::layout;
use crate::memory::GuestRam;

/// Most vCPUs that can be described: as many as KVM knows at its largest (`KVM_MAX_VCPUS`).
pub const MAX_VCPUS: u32 = 4096;

pub(super) const OEM_ID: [u8; 6] = *b"KENNEL";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"KENNELVM";
pub(super) const OEM_REVISION: u32 = 1;

/// IAPC boot flags (ACPI 6.5, table 5.11): there are devices on ISA ports.
const IAPC_LEGACY_DEVICES: u16 = 1 << 0;
/// Nothing answers on the VGA ports.
const IAPC_VGA_NOT_PRESENT: u16 = 1 << 2;
/// Nothing answers on the CMOS RTC ports.
const IAPC_RTC_NOT_PRESENT: u16 = 1 << 5;

/// MADT flag: there are two 8259 PICs beside the IOAPIC.
const MADT_PCAT_COMPAT: u32 = 1;
/// Largest APIC id that fits a MADT local APIC entry (255 is the broadcast id).
const LAST_XAPIC_ID: u32 = 254;
/// MPS INTI flags: conforms to the bus.
const INTI_BUS: u16 = 0;
/// MPS INTI flags: active high, level.
const INTI_LEVEL_HIGH: u16 = 0x000d;
/// GSI that the PIT's IRQ 0 arrives at.
const PIT_GSI: u32 = 2;

/// A table and where it goes.
struct Placed {
    address: GuestAddress,
    bytes: Vec<u8>,
}

/// Puts tables one behind the other.
struct Builder {
    next: GuestAddress,
    tables: Vec<Placed>,
}

impl Builder {
    /// Places `table` at the next address with `alignment` (a power of two).
    fn place(&mut self, table: &dyn Aml, alignment: u64) -> GuestAddress {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        self.place_bytes(bytes, alignment)
    }

    fn place_bytes(&mut self, bytes: Vec<u8>, alignment: u64) -> GuestAddress {
        let address = GuestAddress(self.next.raw_value().next_multiple_of(alignment));
        self.next = GuestAddress(address.raw_value() + bytes.len() as u64);
        self.tables.push(Placed { address, bytes });
        address
    }
}

/// Writes the tables for `vcpus` vCPUs (ACPI id = APIC id = index); gives the RSDP's address.
///
/// # Errors
/// [`BootError::VcpuCount`] for none or more than [`MAX_VCPUS`], [`BootError::GuestMemory`] when
/// there is no RAM at [`layout::ACPI_TABLES`].
pub fn write(memory: &GuestRam, vcpus: u32) -> Result<GuestAddress, BootError> {
    let too_many = BootError::VcpuCount {
        vcpus,
        limit: MAX_VCPUS,
    };
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(too_many);
    }
    let tables = build(vcpus);
    let limit = layout::ACPI_TABLES.raw_value() + layout::ACPI_TABLES_AREA;
    for table in &tables {
        let end = table.address.raw_value() + table.bytes.len() as u64;
        if end > limit {
            return Err(too_many);
        }
        memory
            .write_slice(&table.bytes, table.address)
            .map_err(|_| BootError::GuestMemory {
                what: "an ACPI table",
                address: table.address.raw_value(),
            })?;
    }
    Ok(layout::ACPI_TABLES)
}

fn build(vcpus: u32) -> Vec<Placed> {
    let rsdp_end = layout::ACPI_TABLES.raw_value() + Rsdp::len() as u64;
    let mut builder = Builder {
        next: GuestAddress(rsdp_end),
        tables: Vec::new(),
    };
    let facs = builder.place(&FACS::new(), 64);
    let dsdt = builder.place(&dsdt::table(), 16);
    let fadt = builder.place(&fadt(facs, dsdt), 16);
    let madt = builder.place(&madt(vcpus), 16);
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt.raw_value());
    xsdt.add_entry(madt.raw_value());
    let xsdt = builder.place(&xsdt, 16);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM_ID, xsdt.raw_value()).to_aml_bytes(&mut rsdp);
    builder.tables.push(Placed {
        address: layout::ACPI_TABLES,
        bytes: rsdp,
    });
    builder.tables
}

/// An I/O port register for the FADT.
fn port(address: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(address))
}

fn fadt(facs: GuestAddress, dsdt: GuestAddress) -> FADT {
    // All of it is below 1 MiB; both widths are given, as firmware does.
    let address32 = |address: GuestAddress| u32::try_from(address.raw_value()).unwrap_or(0);
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .firmware_ctrl_32(address32(facs))
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // The power button is a fixed one (its flag stays 0); sleep button and RTC wake are none.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = address32(dsdt).into();
    fadt.x_dsdt = dsdt.raw_value().into();
    fadt.sci_int = u16::from(layout::SCI_IRQ).into();
    fadt.pm1a_evt_blk = u32::from(layout::PM1A_EVENT_PORT).into();
    fadt.pm1_evt_len = layout::PM1A_EVENT_PORTS;
    fadt.x_pm1a_evt_blk = port(
        layout::PM1A_EVENT_PORT,
        layout::PM1A_EVENT_PORTS * 8,
        AccessSize::WordAccess,
    );
    fadt.pm1a_cnt_blk = u32::from(layout::PM1A_CONTROL_PORT).into();
    fadt.pm1_cnt_len = layout::PM1A_CONTROL_PORTS;
    fadt.x_pm1a_cnt_blk = port(
        layout::PM1A_CONTROL_PORT,
        layout::PM1A_CONTROL_PORTS * 8,
        AccessSize::WordAccess,
    );
    // Above 100 and 1000 us: no C2, no C3 (ACPI 6.5, table 5.9).
    fadt.p_lvl2_lat = 0x0fff.into();
    fadt.p_lvl3_lat = 0x0fff.into();
    fadt.iapc_boot_arch =
        (IAPC_LEGACY_DEVICES | IAPC_VGA_NOT_PRESENT | IAPC_RTC_NOT_PRESENT).into();
    fadt.reset_reg = port(layout::RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.finalize()
}

fn madt(vcpus: u32) -> Sdt {
    let mut body = Vec::new();
    body.dword(layout::LAPIC);
    body.dword(MADT_PCAT_COMPAT);
    for id in 0..vcpus {
        match u8::try_from(id) {
            Ok(id) if u32::from(id) <= LAST_XAPIC_ID => {
                ProcessorLocalApic::new(id, id, EnabledStatus::Enabled).to_aml_bytes(&mut body);
            }
            _ => local_x2apic(&mut body, id),
        }
    }
    IoApic::new(0, layout::IOAPIC, 0).to_aml_bytes(&mut body);
    source_override(&mut body, 0, PIT_GSI, INTI_BUS);
    source_override(&mut body, layout::SCI_IRQ, layout::SCI_GSI, INTI_LEVEL_HIGH);
    nmi_on_lint1(&mut body);
    if vcpus > LAST_XAPIC_ID + 1 {
        nmi_on_lint1_of_x2apics(&mut body);
    }
    // Sdt::new wants the length of what it makes: the header.
    let mut table = Sdt::new(*b"APIC", 36, 4, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    table
}

/// Processor local x2APIC (type 9).
fn local_x2apic(body: &mut Vec<u8>, id: u32) {
    body.vec(&[9, 16, 0, 0]);
    body.dword(id);
    body.dword(EnabledStatus::Enabled as u32);
    body.dword(id);
}

/// Interrupt source override (type 2) of an ISA interrupt.
fn source_override(body: &mut Vec<u8>, irq: u8, gsi: u32, flags: u16) {
    body.vec(&[2, 10, 0, irq]);
    body.dword(gsi);
    body.word(flags);
}

/// Local APIC NMI (type 4): LINT1 of every processor, so that each takes an injected NMI.
fn nmi_on_lint1(body: &mut Vec<u8>) {
    body.vec(&[4, 6, 0xff]);
    body.word(INTI_BUS);
    body.byte(1);
}

/// Local x2APIC NMI (type 10), the same for ids above 254.
fn nmi_on_lint1_of_x2apics(body: &mut Vec<u8>) {
    body.vec(&[10, 12]);
    body.word(INTI_BUS);
    body.dword(u32::MAX);
    body.vec(&[1, 0, 0, 0]);
}
