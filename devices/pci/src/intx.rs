// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! INTx: pins of functions, lines of the board, and the wired-OR where several pins share a line.
//!
//! Which global interrupt a line ends at (and the `_PRT` that says so) is the owner's.

use std::collections::BTreeSet;

use crate::root::FunctionAddress;

/// Interrupt pin of a function, as its interrupt pin register numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InterruptPin {
    /// INTA#
    A,
    /// INTB#
    B,
    /// INTC#
    C,
    /// INTD#
    D,
}

impl InterruptPin {
    /// Value of the interrupt pin register, 1..=4.
    #[must_use]
    pub fn register_value(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
            Self::C => 3,
            Self::D => 4,
        }
    }

    /// Pin as `_PRT` numbers it, 0..=3.
    #[must_use]
    pub fn index(self) -> u8 {
        self.register_value().saturating_sub(1)
    }
}

/// One of the four interrupt lines of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntxLine(u8);

impl IntxLine {
    /// Number of lines.
    pub const COUNT: usize = 4;

    /// The line that `pin` of a device in slot `device` is wired to: the usual swizzle, so that the INTA#
    /// of neighbouring slots are spread over the lines.
    #[must_use]
    pub fn swizzle(device: u8, pin: InterruptPin) -> Self {
        Self(device.wrapping_add(pin.index()) & 0b11)
    }

    /// Number of the line, 0..=3.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Levels of the four lines, each the OR of the pins wired to it.
///
/// Not synchronised: the owner keeps it and the interrupt controller's input under one lock, so that the
/// levels arrive in order.
#[derive(Debug, Default)]
pub struct IntxLines {
    asserting: [BTreeSet<FunctionAddress>; IntxLine::COUNT],
}

impl IntxLines {
    /// All lines deasserted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what `function` drives `line` to; the line's new level if that changed it.
    #[must_use = "the interrupt controller must be told the line's new level"]
    pub fn set(&mut self, line: IntxLine, function: FunctionAddress, level: bool) -> Option<bool> {
        let asserting = self.asserting.get_mut(line.index())?;
        let before = !asserting.is_empty();
        if level {
            asserting.insert(function);
        } else {
            asserting.remove(&function);
        }
        let after = !asserting.is_empty();
        (before != after).then_some(after)
    }

    /// Level of a line.
    #[must_use]
    pub fn level(&self, line: IntxLine) -> bool {
        self.asserting
            .get(line.index())
            .is_some_and(|asserting| !asserting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_slots_use_different_lines() {
        use InterruptPin::{A, B, C, D};
        for (device, pin, line) in [
            (0, A, 0),
            (1, A, 1),
            (3, A, 3),
            (4, A, 0),
            (1, D, 0),
            (2, C, 0),
            (31, B, 0),
            (29, A, 1),
        ] {
            assert_eq!(
                IntxLine::swizzle(device, pin).index(),
                line,
                "{device} {pin:?}"
            );
        }
    }

    #[test]
    fn a_shared_line_stays_high_until_the_last_pin_lets_go() {
        let line = IntxLine::swizzle(1, InterruptPin::A);
        let [a, b] = [1, 5].map(|device| FunctionAddress::new(device, 0).expect("valid"));
        let mut lines = IntxLines::new();
        assert_eq!(lines.set(line, a, true), Some(true));
        assert_eq!(lines.set(line, b, true), None);
        assert_eq!(lines.set(line, a, true), None);
        assert_eq!(lines.set(line, a, false), None);
        assert!(lines.level(line));
        assert!(!lines.level(IntxLine::swizzle(0, InterruptPin::A)));
        assert_eq!(lines.set(line, b, false), Some(false));
        assert_eq!(lines.set(line, b, false), None);
        assert!(!lines.level(line));
    }
}
