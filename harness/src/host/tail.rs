// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The last lines of a console, fit to be shown in an error message.

use std::collections::VecDeque;

/// Bytes kept.
const KEPT: usize = 16 * 1024;
/// Lines shown.
const LINES: usize = 15;

/// Keeps the end of what it is given.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let surplus = self.0.len().saturating_sub(KEPT);
        self.0.drain(..surplus);
    }

    /// The last lines that hold something, indented, without what would move a terminal's cursor.
    pub(super) fn lines(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = without_escapes(&String::from_utf8_lossy(&bytes));
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty() && !is_noise(line))
            .collect();
        let first = lines.len().saturating_sub(LINES);
        let (before, last) = lines.split_at(first);
        // A panic's reason stands above its long trace.
        let panic = before.iter().rfind(|line| line.contains("Kernel panic"));
        if last.is_empty() {
            return " (nothing)".to_owned();
        }
        panic
            .into_iter()
            .chain(last)
            .map(|line| format!("\n  | {line}"))
            .collect()
    }
}

/// QEMU says at each start, for each virtual CPU, what of the CPU model it does not emulate.
fn is_noise(line: &str) -> bool {
    line.contains("TCG doesn't support requested feature")
}

/// The text without control sequences (ESC, `[`, parameters, a letter) and control characters other than line ends.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                }
                chars.next();
            }
            '\n' => out.push('\n'),
            char if char.is_control() => {}
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_and_noise_are_left_out() {
        let mut tail = Tail::default();
        tail.push(b"\x1bc\x1b[?7l\x1b[2JSeaBIOS\r\n\r\nwarning: TCG doesn't support requested feature: x\n");
        tail.push(b"Kernel panic\xff\n");
        assert_eq!(tail.lines(), "\n  | SeaBIOS\n  | Kernel panic\u{fffd}");
    }

    #[test]
    fn a_panic_is_shown_with_its_reason() {
        let mut tail = Tail::default();
        assert_eq!(tail.lines(), " (nothing)");
        tail.push(b"Kernel panic - not syncing: why\n");
        (0..LINES).for_each(|_| tail.push(b"trace\n"));
        assert!(
            tail.lines()
                .starts_with("\n  | Kernel panic - not syncing: why\n  | trace")
        );
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        for n in 0..100_000 {
            tail.push(format!("{n}\n").as_bytes());
        }
        assert!(tail.0.len() <= KEPT);
        assert_eq!(tail.lines().lines().count(), LINES + 1);
        assert!(tail.lines().ends_with("99999"));
    }
}
