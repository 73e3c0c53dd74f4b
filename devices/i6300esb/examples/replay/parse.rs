// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads recorded traces: one JSON object a line, `{"trace": N, "seed": S, "ops": [...]}`.
//!
//! A reader for just this shape, several times as fast as one for any JSON, so that reading is not what takes the time.

use crate::trace::{Op, Trace};

/// Reads one line.
///
/// # Errors
///
/// What was expected, and at which column.
pub(crate) fn parse_line(line: &str) -> Result<Trace, String> {
    let mut scanner = Scanner {
        rest: line.as_bytes(),
    };
    scanner.trace().map_err(|expected| {
        let column = line.len() - scanner.rest.len() + 1;
        format!("column {column}: expected {expected}")
    })
}

type Expected = &'static str;

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn trace(&mut self) -> Result<Trace, Expected> {
        let mut number = None;
        let mut ops = None;
        self.token(b'{', "{")?;
        loop {
            let key = self.string("a key")?;
            self.token(b':', ":")?;
            match key {
                b"trace" => number = Some(self.number("a trace number")?),
                b"seed" => {
                    self.number::<u64>("a seed")?;
                }
                b"ops" => ops = Some(self.ops()?),
                _ => return Err("one of the keys \"trace\", \"seed\", \"ops\""),
            }
            if !self.next_is(b',') {
                break;
            }
        }
        self.token(b'}', "} or ,")?;
        self.skip_space();
        if !self.rest.is_empty() {
            return Err("the end of the line");
        }
        Ok(Trace {
            trace: number.ok_or("a key \"trace\"")?,
            ops: ops.ok_or("a key \"ops\"")?,
        })
    }

    fn ops(&mut self) -> Result<Vec<Op>, Expected> {
        let mut ops = Vec::with_capacity(256);
        self.token(b'[', "[")?;
        if self.next_is(b']') {
            return Ok(ops);
        }
        loop {
            self.token(b'[', "an operation such as [\"mmio_write\", 12, 2, 128]")?;
            ops.push(self.op()?);
            self.token(b']', "] after the operation")?;
            if !self.next_is(b',') {
                break;
            }
        }
        self.token(b']', "] or ,")?;
        Ok(ops)
    }

    fn op(&mut self) -> Result<Op, Expected> {
        Ok(match self.string("the operation's name")? {
            b"mmio_write" => Op::MmioWrite {
                offset: self.argument("an offset")?,
                size: self.size()?,
                value: self.argument("a value")?,
            },
            b"config_write" => Op::ConfigWrite {
                offset: self.argument("an offset")?,
                size: self.size()?,
                value: self.argument("a value")?,
            },
            b"advance_ns" => Op::Advance(self.argument("nanoseconds")?),
            b"reset" => Op::Reset,
            b"timed_out" => Op::TimedOut(self.boolean()?),
            b"lock_reads" => Op::LockReads(self.argument("a byte")?),
            _ => {
                return Err("mmio_write, config_write, advance_ns, reset, timed_out or lock_reads");
            }
        })
    }

    fn size(&mut self) -> Result<u8, Expected> {
        match self.argument("a size")? {
            size @ 1..=8 => Ok(size),
            _ => Err("a size of 1 to 8 bytes"),
        }
    }

    fn argument<T: TryFrom<u64>>(&mut self, expected: Expected) -> Result<T, Expected> {
        self.token(b',', ",")?;
        self.number(expected)
    }

    fn boolean(&mut self) -> Result<bool, Expected> {
        self.token(b',', ",")?;
        self.skip_space();
        for (word, value) in [(&b"true"[..], true), (b"false", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err("true or false")
    }

    /// A whole number that fits `T`.
    fn number<T: TryFrom<u64>>(&mut self, expected: Expected) -> Result<T, Expected> {
        self.skip_space();
        let length = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (digits, rest) = self.rest.split_at(length);
        let digit = |byte: &u8| u64::from(byte - b'0');
        let value = match length {
            0 => None,
            // So many digits cannot overflow.
            1..=19 => Some(
                digits
                    .iter()
                    .fold(0, |value, byte| value * 10 + digit(byte)),
            ),
            _ => digits.iter().try_fold(0_u64, |value, byte| {
                value.checked_mul(10)?.checked_add(digit(byte))
            }),
        };
        let value = value
            .and_then(|value| T::try_from(value).ok())
            .ok_or(expected)?;
        self.rest = rest;
        Ok(value)
    }

    /// A string; none of those in a trace needs an escape.
    fn string(&mut self, expected: Expected) -> Result<&'a [u8], Expected> {
        self.token(b'"', expected)?;
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == b'"')
            .ok_or(expected)?;
        let (string, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Ok(string)
    }

    fn token(&mut self, token: u8, expected: Expected) -> Result<(), Expected> {
        if self.next_is(token) {
            Ok(())
        } else {
            Err(expected)
        }
    }

    fn next_is(&mut self, token: u8) -> bool {
        self.skip_space();
        match self.rest {
            [first, rest @ ..] if *first == token => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_line;
    use crate::trace::{Op, Trace};

    #[test]
    fn every_operation_is_read() {
        let line = r#"{"trace": 7, "seed":1,"ops":[["mmio_write",12,2,128],["config_write", 104,1,2],["advance_ns",18446744073709551615],["reset"],["timed_out",true],["lock_reads",3]]}"#;
        let Trace { trace, ops } = parse_line(line).expect("a trace");
        assert_eq!(trace, 7);
        assert_eq!(
            ops,
            [
                Op::MmioWrite {
                    offset: 12,
                    size: 2,
                    value: 128
                },
                Op::ConfigWrite {
                    offset: 104,
                    size: 1,
                    value: 2
                },
                Op::Advance(u64::MAX),
                Op::Reset,
                Op::TimedOut(true),
                Op::LockReads(3),
            ]
        );
        assert!(
            parse_line(r#"{"ops":[],"trace":0}"#)
                .expect("a trace")
                .ops
                .is_empty()
        );
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_column() {
        for (line, message) in [
            ("", "column 1: expected {"),
            (
                r#"{"trace":0,"ops":[["mmio_write",12,9,1]]}"#,
                "column 37: expected a size of 1 to 8 bytes",
            ),
            (
                r#"{"trace":0,"ops":[["explode"]]}"#,
                "column 29: expected mmio_write, config_write, advance_ns, reset, timed_out or lock_reads",
            ),
            (
                r#"{"trace":0,"ops":[["advance_ns",18446744073709551616]]}"#,
                "column 33: expected nanoseconds",
            ),
            (
                r#"{"trace":0,"ops":[["reset"]"#,
                "column 28: expected ] or ,",
            ),
            (r#"{"trace":0}"#, "column 12: expected a key \"ops\""),
            (
                r#"{"trace":0,"ops":[]} x"#,
                "column 22: expected the end of the line",
            ),
            (
                r#"{"trace":0,"ops":[["timed_out",1]]}"#,
                "column 32: expected true or false",
            ),
        ] {
            assert_eq!(
                parse_line(line).map(|_| ()),
                Err(message.to_owned()),
                "{line}"
            );
        }
    }
}
