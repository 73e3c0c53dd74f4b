// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What Linux does with configuration mechanism #1, port access by port access.

mod board;

use board::{Board, at};
use kennel_pci::{IntxLine, ResetRequest};

fn select(board: &mut Board, device: u8, function: u8, register: u16) {
    let address = 0x8000_0000
        | u32::from(device) << 11
        | u32::from(function) << 8
        | u32::from(register & 0xfc);
    board.out(0xcf8, &address.to_le_bytes());
}

fn read<const N: usize>(board: &mut Board, device: u8, function: u8, register: u16) -> [u8; N] {
    select(board, device, function, register);
    let mut data = [0; N];
    board.ports.read(0xcfc + (register & 3), &mut data);
    data
}

fn read32(board: &mut Board, device: u8, register: u16) -> u32 {
    u32::from_le_bytes(read(board, device, 0, register))
}

fn write(board: &mut Board, device: u8, register: u16, data: &[u8]) {
    select(board, device, 0, register);
    board.out(0xcfc + (register & 3), data);
}

#[test]
fn mechanism_1_is_found_and_passes_the_sanity_check() {
    let mut board = Board::new();
    let inl = |board: &Board| {
        let mut data = [0; 4];
        board.ports.read(0xcf8, &mut data);
        u32::from_le_bytes(data)
    };
    board.out(0xcfb, &[0x01]);
    let saved = inl(&board);
    assert_eq!(saved, 0, "a byte write to 0xCFB is no address write");
    board.out(0xcf8, &0x8000_0000_u32.to_le_bytes());
    assert_eq!(inl(&board), 0x8000_0000);
    // On bus 0, one function must be a host bridge or VGA, or from Intel or Compaq.
    assert_eq!(read::<2>(&mut board, 0, 0, 0x0a), [0x00, 0x06]);
    assert_eq!(read::<2>(&mut board, 0, 0, 0x00), [0x86, 0x80]);
    board.out(0xcf8, &saved.to_le_bytes());
    assert_eq!(inl(&board), saved);
    assert!(board.resets.is_empty());
}

#[test]
fn a_scan_finds_every_function_and_no_other() {
    let mut board = Board::new();
    let mut found = Vec::new();
    for device in 0..32 {
        let many = read::<1>(&mut board, device, 0, 0x0e)[0];
        let functions = if many != 0xff && many & 0x80 != 0 {
            8
        } else {
            1
        };
        for function in 0..functions {
            let id = u32::from_le_bytes(read(&mut board, device, function, 0));
            if id != u32::MAX {
                found.push((device, function, id));
            }
        }
    }
    assert_eq!(
        found,
        [
            (0, 0, 0x0d57_8086),
            (4, 0, 0x25ab_8086),
            (5, 0, 0x1043_1af4),
            (5, 3, 0x1041_1af4)
        ]
    );
}

/// Saves command, clears its decode bits, sizes each register by all ones, restores everything.
fn size_bars(board: &mut Board, device: u8) -> Vec<u32> {
    let command = read::<2>(board, device, 0, 0x04);
    write(board, device, 0x04, &[command[0] & !0x03, command[1]]);
    let masks = (0x10..0x28_u16)
        .step_by(4)
        .map(|register| {
            let saved = read32(board, device, register);
            write(board, device, register, &[0xff; 4]);
            let mask = read32(board, device, register);
            write(board, device, register, &saved.to_le_bytes());
            mask
        })
        .collect();
    write(board, device, 0x04, &command);
    masks
}

#[test]
fn sizing_never_maps_a_bar_elsewhere() {
    let mut board = Board::new();
    assert_eq!(size_bars(&mut board, 4), [0xffff_fff0, 0, 0, 0, 0, 0]);
    assert_eq!(
        size_bars(&mut board, 5),
        [0xffff_c004, 0xffff_ffff, 0x0000_ffe1, 0xffff_8000, 0, 0]
    );
    assert_eq!(board.moves, 0, "disabled before, disabled after");

    write(&mut board, 4, 0x04, &[0x02, 0x00]);
    let before = board.mapped.clone();
    assert_eq!(before[&(at(4, 0), 0)].start(), 0xfebf_0000);
    assert_eq!(board.moves, 1);
    let _ = size_bars(&mut board, 4);
    assert_eq!(board.mapped, before);
    assert_eq!(board.moves, 3, "off and on again at the same place");
}

#[test]
fn a_device_is_assigned_enabled_moved_and_disabled() {
    let mut board = Board::new();
    write(&mut board, 4, 0x10, &0xe000_0000_u32.to_le_bytes());
    assert!(board.mapped.is_empty());
    write(&mut board, 4, 0x04, &[0x06, 0x00]);
    assert_eq!(board.mapped[&(at(4, 0), 0)].start(), 0xe000_0000);
    write(&mut board, 4, 0x12, &[0x34, 0xd2]);
    let moved = board.mapped[&(at(4, 0), 0)];
    assert_eq!((moved.start(), moved.last()), (0xd234_0000, 0xd234_000f));
    write(&mut board, 4, 0x04, &[0x04]);
    assert!(board.mapped.is_empty());
}

#[test]
fn device_registers_take_their_own_lanes() {
    let mut board = Board::new();
    write(&mut board, 4, 0x60, &[0x03, 0x00]);
    write(&mut board, 4, 0x68, &[0x02]);
    assert_eq!(read::<1>(&mut board, 4, 0, 0x68), [0x02]);
    assert_eq!(read32(&mut board, 4, 0x60), 0x0000_0003);
    write(&mut board, 4, 0x69, &[0xaa]);
    assert_eq!(read32(&mut board, 4, 0x68), 0x0000_aa02);
    write(&mut board, 4, 0x6c, &[0xff; 4]);
    assert_eq!(read32(&mut board, 4, 0x6c), 0);
}

#[test]
fn intx_masking_is_found_to_work() {
    let mut board = Board::new();
    let original = read::<2>(&mut board, 4, 0, 0x04);
    write(&mut board, 4, 0x04, &[original[0], original[1] ^ 0x04]);
    let toggled = read::<2>(&mut board, 4, 0, 0x04);
    assert_eq!(toggled[1] ^ original[1], 0x04);
    assert_eq!(board.watchdog.set_interrupt(true), None);
    assert_eq!(read::<2>(&mut board, 4, 0, 0x06)[0] & 0x08, 0x08);
}

#[test]
fn pins_are_wired_by_the_swizzle() {
    let board = Board::new();
    let routes: Vec<(String, usize)> = board
        .ports
        .bus()
        .intx_routes()
        .map(|route| {
            assert_eq!(
                route.line,
                IntxLine::swizzle(route.function.device(), route.pin)
            );
            (route.function.to_string(), route.line.index())
        })
        .collect();
    assert_eq!(
        routes,
        [("00:04.0".to_owned(), 0), ("00:05.0".to_owned(), 1)]
    );
}

#[test]
fn a_reboot_through_0xcf9_and_the_board_is_as_new() {
    let mut board = Board::new();
    let image = |board: &Board| {
        let mut image = vec![0; 256];
        board.ports.bus().config_read(at(4, 0), 0, &mut image);
        image
    };
    let fresh = image(&board);
    write(&mut board, 4, 0x04, &[0x02, 0x00]);
    write(&mut board, 4, 0x10, &0xd000_0000_u32.to_le_bytes());
    write(&mut board, 4, 0x60, &[0xff; 4]);

    // Linux: cf9 = inb & ~0x06; outb(cf9 | 2); outb(cf9 | 6).
    let mut cf9 = [0xff];
    board.ports.read(0xcf9, &mut cf9);
    let cf9 = cf9[0] & !0x06;
    board.out(0xcf9, &[cf9 | 0x02]);
    assert!(board.resets.is_empty());
    board.out(0xcf9, &[cf9 | 0x06]);
    board.out(0xcf9, &[cf9 | 0x06]);
    assert_eq!(board.resets, [ResetRequest::Hard]);

    board.reset();
    assert_eq!(image(&board), fresh);
    assert!(board.mapped.is_empty());
    let mut port = [0xff];
    board.ports.read(0xcf9, &mut port);
    assert_eq!(port, [0]);
    board.out(0xcf9, &[0x06]);
    assert_eq!(board.resets.len(), 2, "the next boot can reset again");
}
