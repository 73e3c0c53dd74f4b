// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An answer's body, as far as it is kept.

/// How much of a body is read, as the kubelet does.
pub(super) const KEPT: usize = 10 << 10;
/// The longest line in which a chunk's size is found.
const SIZE_LINE: usize = 4 << 10;

/// How long a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// This many bytes.
    Bytes(u64),
    /// Until the connection is closed.
    UntilClose,
    /// In chunks.
    Chunked,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Bytes(u64),
    UntilClose,
    /// A chunk's size, or the end of the line behind the chunk before: so much of the line is there.
    Size(Vec<u8>),
    Chunk(u64),
    Nothing,
}

/// A body that is being read.
#[derive(Clone, Debug)]
pub(super) struct Body {
    kept: Vec<u8>,
    next: Next,
}

impl Body {
    pub(super) const fn new(length: &Length) -> Self {
        Self {
            kept: Vec::new(),
            next: match length {
                Length::Bytes(0) => Next::Nothing,
                Length::Bytes(count) => Next::Bytes(*count),
                Length::UntilClose => Next::UntilClose,
                Length::Chunked => Next::Size(Vec::new()),
            },
        }
    }

    /// No more of it is wanted, or will come.
    pub(super) fn is_over(&self) -> bool {
        self.next == Next::Nothing
    }

    pub(super) fn kept(self) -> Vec<u8> {
        self.kept
    }

    /// More of what the server sends. What makes no sense as chunks ends it.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let next = std::mem::replace(&mut self.next, Next::Nothing);
            self.next = match next {
                Next::Nothing => return,
                Next::UntilClose => {
                    self.keep(bytes);
                    bytes = &[];
                    Next::UntilClose
                }
                Next::Bytes(left) => match self.take(left, &mut bytes) {
                    0 => Next::Nothing,
                    left => Next::Bytes(left),
                },
                Next::Chunk(left) => match self.take(left, &mut bytes) {
                    0 => Next::Size(Vec::new()),
                    left => Next::Chunk(left),
                },
                Next::Size(line) => size_line(line, &mut bytes),
            };
            if self.kept.len() >= KEPT {
                self.next = Next::Nothing;
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.extend(bytes.iter().take(room));
    }

    /// Takes up to `left` of the bytes; how many are left.
    fn take(&mut self, left: u64, bytes: &mut &[u8]) -> u64 {
        let ours = usize::try_from(left).unwrap_or(usize::MAX);
        let (ours, rest) = bytes.split_at(ours.min(bytes.len()));
        self.keep(ours);
        *bytes = rest;
        left.saturating_sub(ours.len() as u64)
    }
}

/// What comes after more of such a line.
fn size_line(mut line: Vec<u8>, bytes: &mut &[u8]) -> Next {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (ours, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at.saturating_add(1)));
    *bytes = rest;
    line.extend_from_slice(ours);
    if line.len() > SIZE_LINE {
        return Next::Nothing;
    }
    if end.is_none() {
        return Next::Size(line);
    }
    let text = String::from_utf8_lossy(&line);
    let size = text.split(';').next().unwrap_or_default().trim();
    if size.is_empty() {
        return Next::Size(Vec::new());
    }
    match u64::from_str_radix(size, 16) {
        Ok(0) | Err(_) => Next::Nothing,
        Ok(size) => Next::Chunk(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of `bytes` that come in pieces of `piece`, and whether the body is over then.
    fn read(length: &Length, bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let mut body = Body::new(length);
        for piece in bytes.chunks(piece) {
            body.feed(piece);
        }
        let over = body.is_over();
        (body.kept(), over)
    }

    #[test]
    fn bodies_of_every_kind_of_length() {
        for (length, bytes, kept, over) in [
            (Length::Bytes(0), "", "", true),
            (Length::Bytes(12), "Hello World!\n", "Hello World!", true),
            (Length::Bytes(12), "Hello", "Hello", false),
            (Length::UntilClose, "Hello", "Hello", false),
            (
                Length::Chunked,
                "5\r\nHello\r\n1\r\n!\r\n0\r\n\r\n",
                "Hello!",
                true,
            ),
            (Length::Chunked, "5\nHello\n0\n", "Hello", true),
            (
                Length::Chunked,
                "A;x=y\r\n0123456789\r\n00\r\n",
                "0123456789",
                true,
            ),
            (Length::Chunked, "5\r\nHel", "Hel", false),
            (Length::Chunked, "5\r\nHello\r\n", "Hello", false),
            // Not chunks at all.
            (Length::Chunked, "Hello\r\n", "", true),
            (Length::Chunked, "-5\r\nHello\r\n", "", true),
            (Length::Chunked, "fffffffffffffffff\r\n", "", true),
        ] {
            for piece in [1, 2, 1000] {
                let got = read(&length, bytes.as_bytes(), piece);
                assert_eq!(
                    got,
                    (kept.as_bytes().to_vec(), over),
                    "{bytes:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn ten_kib_are_kept_and_no_more_is_waited_for() {
        for (there, kept, over) in [
            (KEPT - 1, KEPT - 1, false),
            (KEPT, KEPT, true),
            (KEPT + 1, KEPT, true),
        ] {
            let got = read(&Length::UntilClose, &vec![b'x'; there], 1000);
            assert_eq!(got, (vec![b'x'; kept], over));
            let got = read(&Length::Bytes(u64::MAX), &vec![b'x'; there], 1000);
            assert_eq!(got, (vec![b'x'; kept], over));
        }
        let endless = [b"1\r\nx\r\n".as_slice(); KEPT].concat();
        assert_eq!(
            read(&Length::Chunked, &endless, 1000),
            (vec![b'x'; KEPT], true)
        );
        let endless = vec![b'1'; SIZE_LINE + 1];
        assert_eq!(read(&Length::Chunked, &endless, 1000), (vec![], true));
    }
}
