// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The ACPI tables as a guest finds them: from the RSDP on, by the specification's offsets.

use super::{MIB, bytes_at, memory, number_at};
use crate::boot::acpi::write;
use crate::layout;
use crate::memory::GuestRam;

const AREA: std::ops::Range<u64> = 0xe_0000..0x10_0000;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// A table with a standard header, whole, its checksum and place checked.
fn table(memory: &GuestRam, address: u64, signature: &[u8]) -> Vec<u8> {
    let length = number_at::<4>(memory, address + 4);
    assert!(
        AREA.contains(&address) && AREA.contains(&(address + length - 1)),
        "{address:#x}"
    );
    let bytes = bytes_at(
        memory,
        address,
        usize::try_from(length).expect("a small table"),
    );
    assert_eq!(&bytes[..4], signature);
    assert_eq!(
        sum(&bytes),
        0,
        "checksum of {}",
        String::from_utf8_lossy(signature)
    );
    assert_eq!(&bytes[10..24], b"KENNELKENNELVM");
    bytes
}

/// Where everything is, and the FADT and MADT.
struct Tables {
    memory: GuestRam,
    fadt: Vec<u8>,
    madt: Vec<u8>,
}

/// Walks RSDP, XSDT and the tables in it.
fn walk(vcpus: u32) -> Tables {
    let memory = memory(2 * MIB);
    let rsdp = write(&memory, vcpus).expect("room for the tables").0;
    assert_eq!(rsdp % 16, 0);
    let bytes = bytes_at(&memory, rsdp, 36);
    assert_eq!(&bytes[..8], b"RSD PTR ");
    assert_eq!((sum(&bytes[..20]), sum(&bytes)), (0, 0));
    assert_eq!(bytes[15], 2, "revision");
    let xsdt = table(&memory, number_at::<8>(&memory, rsdp + 24), b"XSDT");
    let entries: Vec<u64> = xsdt[36..]
        .chunks_exact(8)
        .map(|entry| u64::from_le_bytes(entry.try_into().expect("eight bytes")))
        .collect();
    assert_eq!(entries.len(), 2);
    let fadt = table(&memory, entries[0], b"FACP");
    let madt = table(&memory, entries[1], b"APIC");
    Tables { memory, fadt, madt }
}

fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    bytes[offset..offset + length]
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[test]
fn fadt_describes_fixed_hardware_with_a_power_button_and_a_reset_register() {
    let Tables { memory, fadt, .. } = walk(1);
    // Offsets: ACPI 6.5, table 5.9.
    assert_eq!(number(&fadt, 46, 2), 9, "SCI_INT");
    assert_eq!(number(&fadt, 48, 4), 0, "SMI_CMD");
    assert_eq!(number(&fadt, 56, 4), u64::from(layout::PM1A_EVENT_PORT));
    assert_eq!(number(&fadt, 64, 4), u64::from(layout::PM1A_CONTROL_PORT));
    assert_eq!((fadt[88], fadt[89]), (4, 2), "lengths of PM1_EVT, PM1_CNT");
    assert_eq!(
        (number(&fadt, 76, 4), number(&fadt, 80, 4)),
        (0, 0),
        "PM_TMR, GPE0"
    );
    assert_eq!(number(&fadt, 109, 2) & 1 << 3, 0, "MSI is not forbidden");
    assert_eq!(
        number(&fadt, 109, 2) & 1 << 1,
        0,
        "no keyboard controller to probe"
    );
    let flags = number(&fadt, 112, 4);
    assert_eq!(flags & 1 << 4, 0, "PWR_BUTTON: a fixed one");
    assert_eq!(flags & 1 << 10, 1 << 10, "RESET_REG_SUP");
    assert_eq!(flags & 1 << 20, 0, "HW_REDUCED_ACPI");
    assert_eq!(
        fadt[116..128],
        [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0],
        "RESET_REG"
    );
    assert_eq!(fadt[128], 0x06, "RESET_VALUE");
    assert_eq!(
        fadt[148..160],
        [1, 32, 0, 2, 0x00, 0x06, 0, 0, 0, 0, 0, 0],
        "X_PM1a_EVT"
    );
    assert_eq!(
        fadt[172..184],
        [1, 16, 0, 2, 0x04, 0x06, 0, 0, 0, 0, 0, 0],
        "X_PM1a_CNT"
    );
    let facs = number(&fadt, 36, 4);
    assert_eq!(
        (facs % 64, bytes_at(&memory, facs, 4)),
        (0, b"FACS".to_vec())
    );
    assert_eq!(number_at::<4>(&memory, facs + 4), 64);
    assert_eq!(
        number(&fadt, 40, 4),
        number(&fadt, 140, 8),
        "DSDT and X_DSDT"
    );
}

#[test]
fn dsdt_names_what_the_layout_has() {
    let Tables { memory, fadt, .. } = walk(1);
    let dsdt = table(&memory, number(&fadt, 140, 8), b"DSDT");
    let contains = |part: &[u8]| dsdt.windows(part.len()).any(|window| window == part);
    assert!(
        contains(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"),
        "_S5 is Package {{0, 0, 0, 0}}"
    );
    assert!(contains(b"PCI0") && contains(b"COM1") && contains(b"_PRT"));
    // A DWordMemory descriptor from 0xC0000000 to 0xFEBFFFFF.
    assert!(contains(
        b"\0\0\0\0\0\0\0\xc0\xff\xff\xbf\xfe\0\0\0\0\0\0\xc0\x3e"
    ));
    // INTA of the watchdog's slot: Package {0x4FFFF, 0, 0, 20}.
    assert!(contains(b"\x04\x0c\xff\xff\x04\x00\x00\x00\x0a\x14"));
    // COM1: 0x3F8, eight ports; edge, active high, exclusive interrupt 4.
    assert!(contains(b"\x47\x01\xf8\x03\xf8\x03\x01\x08"));
    assert!(contains(b"\x89\x06\x00\x03\x01\x04\x00\x00\x00"));
}

/// The entries of a MADT, as type and content behind the length byte.
fn madt_entries(madt: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut rest = &madt[44..];
    while let [kind, length, ..] = *rest {
        let (entry, next) = rest.split_at(length.into());
        entries.push((kind, entry[2..].to_vec()));
        rest = next;
    }
    assert_eq!(rest, [0u8; 0], "the entries fill the table");
    entries
}

#[test]
fn madt_has_each_vcpu_once_and_the_interrupt_wiring() {
    for vcpus in [1, 2, 64, 255, 256, 4096] {
        let Tables { madt, .. } = walk(vcpus);
        assert_eq!(number(&madt, 36, 4), 0xfee0_0000, "local APIC address");
        assert_eq!(number(&madt, 40, 4), 1, "there are 8259s");
        let entries = madt_entries(&madt);
        let of = |wanted: u8| {
            entries
                .iter()
                .filter(move |(kind, _)| *kind == wanted)
                .map(|(_, entry)| &entry[..])
        };
        let mut ids: Vec<u64> = Vec::new();
        for entry in of(0) {
            assert_eq!(entry[0], entry[1], "ACPI id is APIC id");
            assert_eq!(number(entry, 2, 4), 1, "enabled");
            ids.push(entry[1].into());
        }
        for entry in of(9) {
            assert_eq!(
                number(entry, 2, 4),
                number(entry, 10, 4),
                "ACPI id is x2APIC id"
            );
            assert_eq!(number(entry, 6, 4), 1, "enabled");
            ids.push(number(entry, 2, 4));
        }
        assert_eq!(ids, (0..u64::from(vcpus)).collect::<Vec<_>>());
        assert_eq!(
            of(9).count(),
            usize::try_from(vcpus.saturating_sub(255)).expect("a count")
        );
        let ioapics: Vec<_> = of(1).collect();
        assert_eq!(ioapics, [[0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]]);
        let overrides: Vec<_> = of(2).collect();
        assert_eq!(
            overrides,
            [[0, 0, 2, 0, 0, 0, 0, 0], [0, 9, 9, 0, 0, 0, 0x0d, 0]]
        );
        assert_eq!(
            of(4).collect::<Vec<_>>(),
            [[0xff, 0, 0, 1]],
            "NMI on every LINT1"
        );
        assert_eq!(of(10).count(), usize::from(vcpus > 255));
    }
}
