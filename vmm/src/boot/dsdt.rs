// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! DSDT: soft-off, the PCI root with its windows and interrupt routing, the serial port.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package,
    PackageBuilder, Path, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::acpi::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::layout;

/// Pins of a PCI slot, INTA to INTD.
const PINS: u8 = 4;
/// Ports of the PCI configuration mechanism: address and data.
const PCI_CONFIG_PORTS: u8 = 8;

/// The table, whole.
pub(super) fn table() -> Sdt {
    let mut aml = Vec::new();
    soft_off(&mut aml);
    let pci = pci_root();
    let com1 = serial_port();
    Scope::new(Path::new("\\_SB_"), vec![&Raw(pci), &Raw(com1)]).to_aml_bytes(&mut aml);
    // Revision 2: integers are 64 bits wide.
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&aml);
    table
}

/// AML that is already bytes.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// `\_S5`: the sleep types to write for soft-off.
fn soft_off(aml: &mut Vec<u8>) {
    let sleep_type = &layout::S5_SLEEP_TYPE;
    let package = Package::new(vec![sleep_type, sleep_type, &0u8, &0u8]);
    Name::new(Path::new("_S5_"), &package).to_aml_bytes(aml);
}

/// `PCI0`: host bridge of bus 0 with its windows and `_PRT`.
fn pci_root() -> Vec<u8> {
    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let config = IO::new(
        layout::PCI_CONFIG_ADDRESS_PORT,
        layout::PCI_CONFIG_ADDRESS_PORT,
        1,
        PCI_CONFIG_PORTS,
    );
    let after_config = layout::PCI_CONFIG_ADDRESS_PORT + u16::from(PCI_CONFIG_PORTS);
    let low_ports = AddressSpace::new_io(0u16, layout::PCI_CONFIG_ADDRESS_PORT - 1, None);
    let high_ports = AddressSpace::new_io(after_config, u16::MAX, None);
    let memory = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        layout::PCI_MEMORY_START,
        layout::PCI_MEMORY_LAST,
        None,
    );
    let resources = ResourceTemplate::new(vec![&buses, &config, &low_ports, &high_ports, &memory]);
    let mut aml = Vec::new();
    Device::new(
        Path::new("PCI0"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0A03")),
            &Name::new(Path::new("_UID"), &0u8),
            &Name::new(Path::new("_CRS"), &resources),
            &Name::new(Path::new("_PRT"), &interrupt_routing()),
        ],
    )
    .to_aml_bytes(&mut aml);
    aml
}

/// `_PRT`: each pin of each slot goes to the GSI that the layout gives it, with no link device.
fn interrupt_routing() -> PackageBuilder {
    let mut routing = PackageBuilder::new();
    // The host bridge has no interrupt; 31 slots of 4 pins fit a package's 255 elements.
    for slot in 1..layout::PCI_SLOTS {
        // Slot in the high word, any function in the low one.
        let address = (u32::from(slot) << 16) | 0xffff;
        for pin in 0..PINS {
            let gsi = layout::pci_intx_gsi(slot, pin);
            routing.add_element(&Package::new(vec![&address, &pin, &0u8, &gsi]));
        }
    }
    routing
}

/// `COM1`.
fn serial_port() -> Vec<u8> {
    let [length, _] = layout::COM1_PORTS.to_le_bytes();
    let ports = IO::new(layout::COM1_PORT, layout::COM1_PORT, 1, length);
    let interrupt = Interrupt::new(true, true, false, false, layout::COM1_GSI);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let mut aml = Vec::new();
    Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &1u8),
            &Name::new(Path::new("_CRS"), &resources),
        ],
    )
    .to_aml_bytes(&mut aml);
    aml
}
