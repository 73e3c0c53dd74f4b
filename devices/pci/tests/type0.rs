// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Type-0 configuration space, register by register.

use kennel_pci::{
    AddressSpace, Bar, BarChange, BarError, BarRange, ConfigEffects, ConfigWindow, Identity,
    InterruptPin, LayoutError, Type0,
};

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const BAR0: u16 = 0x10;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x25ab,
    class: [0x08, 0x80, 0x01],
    revision: 0x02,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

fn with_bar(bar: Result<Bar, BarError>) -> Type0 {
    let mut config = Type0::new(IDENTITY);
    config
        .add_bar(0, bar.expect("a valid BAR"))
        .expect("BAR 0 is free");
    config
}

fn watchdog() -> Type0 {
    with_bar(Bar::memory32(16).and_then(|bar| bar.at(0xfebf_0000)))
}

fn bytes(config: &Type0) -> Vec<u8> {
    let mut data = vec![0; 256];
    config.read(0, &mut data);
    data
}

fn memory(start: u64, len: u64) -> Option<BarRange> {
    BarRange::new(AddressSpace::Memory, start, len)
}

fn change(effects: ConfigEffects) -> Option<(Option<BarRange>, Option<BarRange>)> {
    let changes: Vec<BarChange> = effects.bar_changes().collect();
    assert!(changes.len() <= 1, "{changes:x?}");
    changes.first().map(|change| {
        assert_eq!(change.bar, 0);
        (change.old, change.new)
    })
}

#[test]
fn the_header_after_reset() {
    let mut config = watchdog();
    config.set_interrupt_pin(InterruptPin::B, 11);
    let mut want = vec![0; 256];
    want[0x00..0x04].copy_from_slice(&[0x86, 0x80, 0xab, 0x25]);
    want[0x08..0x0c].copy_from_slice(&[0x02, 0x01, 0x80, 0x08]);
    want[0x10..0x14].copy_from_slice(&[0x00, 0x00, 0xbf, 0xfe]);
    want[0x2c..0x30].copy_from_slice(&[0xf4, 0x1a, 0x00, 0x11]);
    want[0x3c..0x3e].copy_from_slice(&[11, 2]);
    assert_eq!(bytes(&config), want);
    config.set_multifunction();
    want[0x0e] = 0x80;
    assert_eq!(bytes(&config), want);
}

#[test]
fn a_read_of_any_width_and_alignment_is_its_bytes() {
    let mut config = watchdog();
    config
        .add_capability(0x09, &[0x5a; 190], &[0; 190])
        .expect("192 bytes fit");
    let all = bytes(&config);
    for offset in 0..=260_u16 {
        for len in [1, 2, 3, 4, 8] {
            let mut data = vec![0; len];
            config.read(offset, &mut data);
            let want: Vec<u8> = (usize::from(offset)..)
                .take(len)
                .map(|at| all.get(at).copied().unwrap_or(0xff))
                .collect();
            assert_eq!(data, want, "{len} bytes at {offset:#x}");
        }
    }
}

#[test]
fn a_write_of_any_width_and_alignment_is_its_bytes() {
    let pattern = [0xa5, 0x5a, 0xc3, 0x3c, 0x96, 0x69, 0xff, 0x00];
    for offset in (0..=260_u16).chain([u16::MAX - 1, u16::MAX]) {
        for len in [1, 2, 3, 4, 8] {
            let (mut whole, mut bytewise) = (watchdog(), watchdog());
            let _ = whole.write(offset, &pattern[..len]);
            for (at, byte) in pattern[..len].iter().enumerate() {
                let Ok(at) = u16::try_from(usize::from(offset) + at) else {
                    continue;
                };
                let _ = bytewise.write(at, &[*byte]);
            }
            assert_eq!(
                bytes(&whole),
                bytes(&bytewise),
                "{len} bytes at {offset:#x}"
            );
            assert_eq!(whole.decoded_bars(), bytewise.decoded_bars());
        }
    }
}

#[test]
fn lanes_of_a_write_reach_their_own_byte_only() {
    let rows: &[(u16, &[u8], u32)] = &[
        (0x10, &[0x12], 0xfebf_0010),
        (0x11, &[0x12], 0xfebf_1200),
        (0x12, &[0x12], 0xfe12_0000),
        (0x13, &[0x12], 0x12bf_0000),
        (0x10, &[0x34, 0x12], 0xfebf_1230),
        (0x11, &[0x34, 0x12], 0xfe12_3400),
        (0x12, &[0x34, 0x12], 0x1234_0000),
        (0x10, &[0x78, 0x56, 0x34, 0x12], 0x1234_5670),
        (0x0e, &[0x78, 0x56, 0x34, 0x12], 0xfebf_1230),
        (0x12, &[0x78, 0x56, 0x34, 0x12], 0x5678_0000),
    ];
    for &(offset, data, want) in rows {
        let mut config = watchdog();
        let _ = config.write(offset, data);
        assert_eq!(config.u32_at(BAR0), want, "{data:x?} at {offset:#x}");
    }
}

#[test]
fn command_bits_a_guest_can_change() {
    let names = [
        (0, true),  // I/O
        (1, true),  // memory
        (2, true),  // bus master
        (3, false), // special cycles
        (4, false), // memory write and invalidate
        (5, false), // VGA snoop
        (6, true),  // parity error response
        (7, false),
        (8, true),  // SERR#
        (9, false), // fast back-to-back
        (10, true), // INTx disable
        (11, false),
        (12, false),
        (13, false),
        (14, false),
        (15, false),
    ];
    for (bit, writable) in names {
        let mut config = watchdog();
        let value = 1_u16 << bit;
        let _ = config.write(COMMAND, &value.to_le_bytes());
        assert_eq!(
            config.command(),
            if writable { value } else { 0 },
            "bit {bit}"
        );
        let _ = config.write(COMMAND, &[0, 0]);
        assert_eq!(config.command(), 0);
    }
}

#[test]
fn status_is_read_only() {
    let mut config = watchdog();
    config
        .add_capability(0x09, &[], &[])
        .expect("there is room");
    let _ = config.set_interrupt(true);
    assert_eq!(config.u16_at(STATUS), 0x0018);
    for value in [0_u16, 0xffff] {
        let _ = config.write(STATUS, &value.to_le_bytes());
        assert_eq!(config.u16_at(STATUS), 0x0018);
    }
}

#[test]
fn sizing_reads_back_the_mask_and_the_type_bits() {
    let rows: [(&str, Result<Bar, BarError>, u64); 9] = [
        ("16 bytes", Bar::memory32(16), 0xffff_fff0),
        ("4 KiB", Bar::memory32(0x1000), 0xffff_f000),
        ("2 GiB", Bar::memory32(1 << 31), 0x8000_0000),
        (
            "prefetchable",
            Bar::memory32(16).map(Bar::prefetchable),
            0xffff_fff8,
        ),
        ("64-bit", Bar::memory64(0x8000), 0xffff_ffff_ffff_8004),
        ("8 GiB", Bar::memory64(1 << 33), 0xffff_fffe_0000_0004),
        (
            "64-bit prefetchable",
            Bar::memory64(1 << 63).map(Bar::prefetchable),
            0x8000_0000_0000_000c,
        ),
        ("4 ports", Bar::io(4), 0xfffd),
        ("256 ports", Bar::io(256).map(Bar::prefetchable), 0xff01),
    ];
    for (name, bar, want) in rows {
        let mut config = with_bar(bar);
        let _ = config.write(BAR0, &[0xff; 8]);
        let low = u64::from(config.u32_at(BAR0));
        let high = u64::from(config.u32_at(BAR0 + 4));
        assert_eq!(high << 32 | low, want, "{name}");
    }
}

#[test]
fn registers_without_a_bar_read_zero_even_while_sized() {
    let mut config = watchdog();
    for register in (0x14..0x28_u16).step_by(4).chain([0x30]) {
        let _ = config.write(register, &[0xff; 4]);
        assert_eq!(config.u32_at(register), 0, "{register:#x}");
    }
}

#[test]
fn sizing_with_memory_disabled_maps_nothing() {
    let mut config = watchdog();
    assert_eq!(change(config.write(BAR0, &[0xff; 4])), None);
    assert_eq!(config.decoded_bars(), [None; 6]);
    assert_eq!(
        change(config.write(BAR0, &0xfebf_0000_u32.to_le_bytes())),
        None
    );
}

#[test]
fn memory_enable_decides_whether_a_bar_answers() {
    let mut config = watchdog();
    let range = memory(0xfebf_0000, 16);
    assert_eq!(change(config.write(COMMAND, &[0x02])), Some((None, range)));
    assert_eq!(config.decoded_bars()[0], range);
    assert_eq!(change(config.write(COMMAND, &[0x07, 0x04])), None);
    assert_eq!(change(config.write(COMMAND, &[0x01])), Some((range, None)));
    assert_eq!(config.decoded_bars(), [None; 6]);
}

#[test]
fn a_bar_moves_while_it_is_enabled() {
    let mut config = watchdog();
    let _ = config.write(COMMAND, &[0x02]);
    assert_eq!(
        change(config.write(BAR0, &0xd000_0000_u32.to_le_bytes())),
        Some((memory(0xfebf_0000, 16), memory(0xd000_0000, 16)))
    );
    // Only type bits differ: the address stays.
    assert_eq!(
        change(config.write(BAR0, &0xd000_000f_u32.to_le_bytes())),
        None
    );
    // Sized while enabled, it lies where the ones point.
    assert_eq!(
        change(config.write(BAR0, &[0xff; 4])),
        Some((memory(0xd000_0000, 16), memory(0xffff_fff0, 16)))
    );
    assert_eq!(
        change(config.write(BAR0, &[0; 4])),
        Some((memory(0xffff_fff0, 16), memory(0, 16)))
    );
}

#[test]
fn one_write_may_move_and_enable() {
    let mut config = watchdog();
    let mut image = [0; 16];
    image[0] = 0x02;
    image[12..].copy_from_slice(&0xd000_0000_u32.to_le_bytes());
    assert_eq!(
        change(config.write(COMMAND, &image)),
        Some((None, memory(0xd000_0000, 16)))
    );
}

#[test]
fn a_64_bit_bar_moves_by_halves() {
    let mut config = with_bar(Bar::memory64(0x4000).and_then(|bar| bar.at(0x8_0000_0000)));
    let _ = config.write(COMMAND, &[0x02]);
    assert_eq!(
        change(config.write(BAR0, &0xc000_0000_u32.to_le_bytes())),
        Some((memory(0x8_0000_0000, 0x4000), memory(0x8_c000_0000, 0x4000)))
    );
    assert_eq!(
        change(config.write(BAR0 + 4, &0x20_u32.to_le_bytes())),
        Some((
            memory(0x8_c000_0000, 0x4000),
            memory(0x20_c000_0000, 0x4000)
        ))
    );
    let top = change(config.write(BAR0, &[0xff; 8])).and_then(|(_, new)| new);
    assert_eq!(top.map(|range| range.last()), Some(u64::MAX));
}

#[test]
fn io_and_memory_bars_have_their_own_enable() {
    let mut config = watchdog();
    let ports = Bar::io(8).and_then(|bar| bar.at(0xc000)).expect("valid");
    config.add_bar(1, ports).expect("BAR 1 is free");
    let effects = config.write(COMMAND, &[0x01]);
    let changes: Vec<_> = effects.bar_changes().collect();
    let io = BarRange::new(AddressSpace::Io, 0xc000, 8);
    assert_eq!(
        changes,
        [BarChange {
            bar: 1,
            old: None,
            new: io
        }]
    );
    // The upper half of an I/O BAR is hard-wired to zero.
    let _ = config.write(BAR0 + 4, &0xdead_d00f_u32.to_le_bytes());
    assert_eq!(config.u32_at(BAR0 + 4), 0x0000_d009);
    assert_eq!(config.write(COMMAND, &[0x03]).bar_changes().count(), 1);
    assert_eq!(config.write(COMMAND, &[0x00]).bar_changes().count(), 2);
}

#[test]
fn bars_that_collide_or_do_not_exist_are_refused() {
    let bar32 = Bar::memory32(16).expect("valid");
    let bar64 = Bar::memory64(16).expect("valid");
    let mut config = Type0::new(IDENTITY);
    assert_eq!(config.add_bar(6, bar32), Err(BarError::Index(6)));
    assert_eq!(config.add_bar(5, bar64), Err(BarError::Index(5)));
    assert_eq!(
        config.add_bar(usize::MAX, bar64),
        Err(BarError::Index(usize::MAX))
    );
    assert_eq!(config.add_bar(2, bar64), Ok(()));
    assert_eq!(config.add_bar(1, bar64), Err(BarError::InUse(1)));
    assert_eq!(config.add_bar(2, bar32), Err(BarError::InUse(2)));
    assert_eq!(config.add_bar(3, bar32), Err(BarError::InUse(3)));
    assert_eq!(config.add_bar(1, bar32), Ok(()));
    assert_eq!(config.add_bar(4, bar64), Ok(()));
    assert_eq!(config.bar(4), Some(bar64));
    assert_eq!(config.bar(5), None);
}

#[test]
fn reset_brings_back_the_assignment_and_says_what_moved() {
    let mut config = watchdog();
    config.set_interrupt_pin(InterruptPin::A, 10);
    config.set_power_on_command(!0x0400);
    let fresh = bytes(&config);
    assert_eq!(config.command(), 0x0147);
    assert!(config.reset().is_none());

    let _ = config.write(BAR0, &0xd000_0000_u32.to_le_bytes());
    let _ = config.write(0x3c, &[5]);
    let _ = config.write(0x0c, &[16]);
    assert_eq!(config.set_interrupt(true), Some(true));
    let effects = config.reset();
    assert_eq!(effects.intx(), Some(false));
    assert_eq!(
        change(effects),
        Some((memory(0xd000_0000, 16), memory(0xfebf_0000, 16)))
    );
    assert_eq!(bytes(&config), fresh);
}

#[test]
fn intx_level_follows_wish_disable_and_pin() {
    let with_pin = |pin: Option<InterruptPin>| {
        let mut config = watchdog();
        if let Some(pin) = pin {
            config.set_interrupt_pin(pin, 0);
        }
        config
    };
    let mut config = with_pin(Some(InterruptPin::A));
    assert_eq!(config.set_interrupt(false), None);
    assert_eq!(config.set_interrupt(true), Some(true));
    assert_eq!(config.set_interrupt(true), None);
    assert_eq!(config.u16_at(STATUS) & 8, 8);
    assert_eq!(config.write(COMMAND, &[0, 0x04]).intx(), Some(false));
    assert_eq!(config.u16_at(STATUS) & 8, 8, "the wish stays visible");
    assert_eq!(config.write(COMMAND, &[0, 0x04]).intx(), None);
    assert_eq!(config.set_interrupt(false), None, "disabled: no edge");
    assert_eq!(config.u16_at(STATUS) & 8, 0);
    assert_eq!(config.set_interrupt(true), None);
    assert_eq!(config.write(COMMAND, &[0, 0]).intx(), Some(true));
    assert!(config.intx_line());
    assert_eq!(config.set_interrupt(false), Some(false));

    let mut without = with_pin(None);
    assert_eq!(without.set_interrupt(true), None);
    assert!(!without.intx_line());
    assert_eq!(without.u16_at(STATUS) & 8, 8);
}

/// Walks the list as a guest does: (offset, id) until the null pointer.
fn capabilities(config: &Type0) -> Vec<(u16, u8)> {
    let mut found = Vec::new();
    let mut at = u16::from(config.u8_at(0x34));
    while at != 0 && found.len() < 64 {
        found.push((at, config.u8_at(at)));
        at = config.u8_at(at + 1).into();
    }
    found
}

#[test]
fn capabilities_form_a_list_around_device_registers() {
    let mut config = watchdog();
    assert_eq!(config.u16_at(STATUS) & 0x10, 0);
    assert_eq!(capabilities(&config), []);
    config
        .reserve(ConfigWindow::new(0x60, 12))
        .expect("behind the header");
    let mut add = |id, len| config.add_capability(id, &vec![id; len], &vec![0; len]);
    assert_eq!(add(0x09, 14), Ok(0x40));
    assert_eq!(add(0x09, 18), Ok(0x6c), "20 bytes do not fit below 0x60");
    assert_eq!(add(0x05, 12), Ok(0x50), "but 14 do");
    assert_eq!(add(0x11, 10), Ok(0x80));
    assert_eq!(config.u16_at(STATUS) & 0x10, 0x10);
    assert_eq!(
        capabilities(&config),
        [(0x40, 0x09), (0x6c, 0x09), (0x50, 0x05), (0x80, 0x11)]
    );
    assert_eq!(config.u32_at(0x60), 0);
    let list = capabilities(&config);
    let _ = config.reset();
    assert_eq!(capabilities(&config), list, "a reset keeps the list");
}

#[test]
fn capability_bits_are_writable_as_their_mask_says() {
    let mut config = watchdog();
    // MSI-X message control: size read-only, function mask and enable writable.
    let body = [0x01, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x50, 0x00, 0x00];
    let mask = [0x00, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0];
    let at = config.add_capability(0x11, &body, &mask).expect("fits");
    let _ = config.write(at, &[0xff; 12]);
    assert_eq!(config.u16_at(at), 0x0011);
    assert_eq!(config.u16_at(at + 2), 0xc001);
    assert_eq!(config.u32_at(at + 4), 0x4000);
    let _ = config.reset();
    assert_eq!(config.u16_at(at + 2), 0x0001);
}

#[test]
fn layouts_that_do_not_fit_are_refused() {
    let mut config = watchdog();
    for (start, len) in [(0x3c, 8), (0xfc, 8), (0x100, 4), (0x40, 0), (u16::MAX, 9)] {
        let window = ConfigWindow::new(start, len);
        let refused = config.reserve(window);
        assert!(
            matches!(refused, Err(LayoutError::Window { .. })),
            "{start:#x}"
        );
    }
    assert_eq!(
        config.add_capability(9, &[0; 3], &[0; 2]),
        Err(LayoutError::MaskLength {
            id: 9,
            body: 3,
            mask: 2
        })
    );
    assert_eq!(
        config.add_capability(9, &[0; 191], &[0; 191]),
        Err(LayoutError::NoSpace { id: 9, len: 193 })
    );
    assert_eq!(config.add_capability(9, &[0; 190], &[0; 190]), Ok(0x40));
    assert_eq!(
        config.add_capability(9, &[], &[]),
        Err(LayoutError::NoSpace { id: 9, len: 2 })
    );
    let taken = config.reserve(ConfigWindow::new(0xfc, 1));
    assert!(matches!(taken, Err(LayoutError::Window { .. })));
}
