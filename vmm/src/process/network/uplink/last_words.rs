// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a program complained of last, out of everything that it wrote to its standard error.

/// Bytes of a line that are kept.
const LONGEST_LINE: usize = 512;
/// passt says this of itself where there is no system log.
const NOISE: &[u8] = b"Failed to send ";

/// The last two lines.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    line: Vec<u8>,
    before: Vec<u8>,
    last: Vec<u8>,
}

impl LastWords {
    /// The program wrote `bytes`.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii();
        if !line.is_empty() && !line.starts_with(NOISE) {
            self.before = std::mem::replace(&mut self.last, line.to_vec());
        }
    }

    /// Both lines, for people; empty if there were none.
    pub(super) fn text(&mut self) -> String {
        self.end_line();
        let lines = [&self.before, &self.last].map(|line| String::from_utf8_lossy(line));
        let said = lines.iter().filter(|line| !line.is_empty());
        let said: Vec<_> = said
            .map(|line| line.replace(char::is_control, " "))
            .collect();
        said.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_lines_are_told_without_the_noise() {
        let mut words = LastWords::default();
        assert_eq!(words.text(), "");
        words.hear(b"Failed to send 47 bytes to syslog\nstarting\nno inter");
        words.hear(b"face\n\nFailed to send 3 bytes to syslog\nnot \x1busable");
        assert_eq!(words.text(), "no interface; not  usable");
        words.hear(&[b'x'; 10_000]);
        assert_eq!(words.text(), format!("not  usable; {}", "x".repeat(512)));
    }
}
