// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random port traffic: nothing panics, read-only bits stay, and the owner's map, built from effects
//! alone, is always what the functions decode.

mod board;

use std::collections::BTreeMap;

use board::{Board, at};
use kennel_pci::FunctionAddress;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Select a function that exists, then access one of its registers.
    Write(usize, u8, Vec<u8>),
    Read(usize, u8, usize),
    /// Any access to any of the eight ports, and to those around.
    Out(u16, Vec<u8>),
    In(u16, usize),
    Interrupt(bool),
    Reset,
}

const FUNCTIONS: [(u8, u8); 4] = [(0, 0), (4, 0), (5, 0), (5, 3)];

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(1_usize), 4 => Just(2), 8 => Just(4), 1 => 0..9_usize]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0xff), Just(0x00), Just(0x02), Just(0x07), any::<u8>()];
    width().prop_flat_map(move |len| prop::collection::vec(byte.clone(), len))
}

fn register() -> impl Strategy<Value = u8> {
    prop_oneof![3 => 0x04..0x06_u8, 5 => 0x10..0x28_u8, 2 => 0x40..0x70_u8, 2 => any::<u8>()]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..4_usize, register(), data()).prop_map(|(f, r, d)| Op::Write(f, r, d)),
        2 => (0..4_usize, register(), width()).prop_map(|(f, r, n)| Op::Read(f, r, n)),
        3 => (0xcf0..0xd08_u16, data()).prop_map(|(p, d)| Op::Out(p, d)),
        1 => (any::<u16>(), data()).prop_map(|(p, d)| Op::Out(p, d)),
        2 => (0xcf0..0xd08_u16, 0..9_usize).prop_map(|(p, n)| Op::In(p, n)),
        1 => any::<bool>().prop_map(Op::Interrupt),
        1 => Just(Op::Reset),
    ]
}

/// Bits a guest can change, written down by hand from the board's description.
fn writable(function: FunctionAddress) -> [u8; 256] {
    let mut mask = [0; 256];
    mask[0x04..0x06].copy_from_slice(&[0x47, 0x05]);
    mask[0x0c] = 0xff;
    mask[0x3c] = 0xff;
    if function == at(4, 0) {
        mask[0x06] = 0x08; // interrupt status: the device changes it
        mask[0x10..0x14].copy_from_slice(&[0xf0, 0xff, 0xff, 0xff]);
    }
    if function == at(5, 0) {
        mask[0x10..0x18].copy_from_slice(&[0x00, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        mask[0x18..0x1a].copy_from_slice(&[0xe0, 0xff]);
        mask[0x1c..0x20].copy_from_slice(&[0x00, 0x80, 0xff, 0xff]);
        mask[0x53] = 0xc0; // second capability: message control's upper byte
    }
    if function != at(0, 0) {
        mask[0x60..0x6c].fill(0xff);
    }
    mask
}

fn images(board: &Board) -> BTreeMap<FunctionAddress, [u8; 256]> {
    let bus = board.ports.bus();
    bus.functions()
        .map(|(address, function)| {
            let mut image = [0; 256];
            function.config_read(0, &mut image);
            (address, image)
        })
        .collect()
}

fn run(board: &mut Board, op: Op) {
    let select = |board: &mut Board, index: usize, register: u8| {
        let (device, function) = FUNCTIONS[index];
        let address = [register, device << 3 | function, 0, 0x80];
        board.out(0xcf8, &address);
        0xcfc + u16::from(register & 3)
    };
    match op {
        Op::Write(index, register, data) => {
            let port = select(board, index, register);
            board.out(port, &data);
        }
        Op::Read(index, register, len) => {
            let port = select(board, index, register);
            board.ports.read(port, &mut vec![0; len]);
        }
        Op::Out(port, data) => board.out(port, &data),
        Op::In(port, len) => board.ports.read(port, &mut vec![0; len]),
        Op::Interrupt(level) => {
            let _ = board.watchdog.set_interrupt(level);
        }
        Op::Reset => board.reset(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn read_only_bits_stay_and_the_map_is_exact(ops in prop::collection::vec(op(), 1..60)) {
        let mut board = Board::new();
        let fresh = images(&board);
        for op in ops {
            run(&mut board, op);
            for (address, image) in images(&board) {
                let mask = writable(address);
                let bytes = image.iter().zip(&fresh[&address]).zip(&mask);
                let changed = bytes.into_iter().position(|((a, b), mask)| (a ^ b) & !mask != 0);
                prop_assert_eq!(changed, None, "{}: read-only bits changed", address);
            }
            let decoded: BTreeMap<_, _> = board
                .ports
                .bus()
                .functions()
                .flat_map(|(address, function)| {
                    let bars = function.decoded_bars().into_iter().enumerate();
                    bars.filter_map(move |(bar, range)| Some(((address, bar), range?)))
                })
                .collect();
            prop_assert_eq!(&board.mapped, &decoded);
        }
        board.reset();
        prop_assert_eq!(images(&board), fresh);
    }
}
