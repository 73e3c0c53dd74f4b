// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where objects begin and end.

use proptest::prelude::*;

use crate::agent::framing::{Frame, Framer, Limits};

const SMALL: Limits = Limits {
    bytes: 40,
    nesting: 4,
    values: 6,
};

fn object(text: &str, delimited: bool) -> Frame {
    Frame::Object {
        bytes: text.into(),
        delimited,
    }
}

fn garbage(bytes: usize) -> Frame {
    Frame::Garbage { bytes }
}

fn reset(discarded: usize) -> Frame {
    Frame::Reset { discarded }
}

fn frames_in_pieces(text: &[u8], piece: usize) -> Vec<Frame> {
    let mut framer = Framer::new(SMALL);
    let mut frames = Vec::new();
    for mut input in text.chunks(piece) {
        while let Some(frame) = framer.next(&mut input) {
            frames.push(frame);
        }
        assert!(input.is_empty());
        assert!(framer.held() <= SMALL.bytes);
    }
    frames
}

#[test]
fn streams_in_pieces_of_any_length() {
    let table: &[(&[u8], &[Frame])] = &[
        (b"{}", &[object("{}", false)]),
        (
            b" {} \n\t{}\r\n",
            &[object("{}", false), object("{}", false)],
        ),
        (
            b"{}{\"a\":[1]}",
            &[object("{}", false), object("{\"a\":[1]}", false)],
        ),
        (b"{\"}\":\"\\\"}\"}", &[object("{\"}\":\"\\\"}\"}", false)]),
        (b"{'\"':'}'}", &[object("{'\"':'}'}", false)]),
        (b"\xff{}", &[reset(0), object("{}", true)]),
        (
            b"\xff \n{}{}",
            &[reset(0), object("{}", true), object("{}", false)],
        ),
        (b"{\"a\xff{}", &[reset(3), object("{}", true)]),
        (b"{\"a\\\xff{}", &[reset(4), object("{}", true)]),
        (b"\xff\xff", &[reset(0), reset(0)]),
        (b"abc\n{}", &[garbage(4), object("{}", false)]),
        (b"abc\xff{}", &[garbage(3), reset(0), object("{}", true)]),
        (b"\xffx\n{}", &[reset(0), garbage(2), object("{}", false)]),
        (b"tail\"}}\n{}", &[garbage(8), object("{}", false)]),
        (b"]{}\n{}", &[garbage(4), object("{}", false)]),
        // A line cut short inside a string: the next one counts again.
        (b"{\"a\": \"cut\n{}", &[garbage(11), object("{}", false)]),
        (
            b"{\"a\":[[[[1]]]]}\n{}",
            &[garbage(16), object("{}", false)],
        ),
        (
            b"{\"a\":[1,2,3,4,5,6]}\n{}",
            &[object("{\"a\":[1,2,3,4,5,6]}", false), object("{}", false)],
        ),
        (
            b"{\"a\":[1,2,3,4,5,6,7]}\n{}",
            &[garbage(22), object("{}", false)],
        ),
        (
            b"{\"a\":\"0123456789012345678901234567890123\"}\n{}",
            &[garbage(43), object("{}", false)],
        ),
        (
            b"{\"a\":\"01234567890123456789012345678901\"}{}",
            &[
                object("{\"a\":\"01234567890123456789012345678901\"}", false),
                object("{}", false),
            ],
        ),
        (b"{\"unfinished\":", &[]),
        (b"", &[]),
    ];
    for (text, expected) in table {
        for piece in 1..=text.len().max(1) {
            let frames = frames_in_pieces(text, piece);
            let shown = String::from_utf8_lossy(text);
            assert_eq!(frames, *expected, "{shown} in pieces of {piece}");
        }
    }
}

#[test]
fn a_restart_forgets_the_unfinished() {
    let mut framer = Framer::new(SMALL);
    assert_eq!(framer.next(&mut &b"\xff"[..]), Some(reset(0)));
    assert_eq!(framer.next(&mut &b"{\"half"[..]), None);
    framer.restart();
    assert_eq!(framer.next(&mut &b"{}"[..]), Some(object("{}", false)));
}

proptest! {
    #[test]
    fn any_bytes_mean_the_same_in_any_pieces(
        text in proptest::collection::vec(
            proptest::sample::select(b"{}[]\"'\\,:a \n\xff".to_vec()), 0..200),
        piece in 1usize..50,
    ) {
        prop_assert_eq!(frames_in_pieces(&text, piece), frames_in_pieces(&text, text.len().max(1)));
    }
}
