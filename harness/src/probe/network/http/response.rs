// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An answer, as it comes in.

use std::io;

use httparse::{EMPTY_HEADER, ParserConfig, Status};

use super::super::{Limit, Trouble};
use super::body::{Body, Length};
use crate::socket::cause;

/// How long an answer's headers may be, with those of the 1xx answers before it.
const LONGEST_HEAD: usize = 64 << 10;
/// Below this, bytes are looked at even before an empty line ends the head: many that are no answer are
/// known by their first ones. Above, they are not looked at again and again.
const BEGINNING: usize = 1 << 10;
/// How much of what is no answer is shown.
const SHOWN: usize = 80;

/// Status and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    length: Length,
}

/// A whole answer, or as much as there was and is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Answer {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// So much of it is there.
    Head(Vec<u8>),
    Body(Head, Body),
}

/// An answer that is being read.
pub(super) struct Response<'a> {
    wants_body: &'a dyn Fn(&Head) -> bool,
    state: State,
    received: usize,
}

impl<'a> Response<'a> {
    /// `wants_body` says whether an answer's body is waited for.
    pub(super) const fn new(wants_body: &'a dyn Fn(&Head) -> bool) -> Self {
        Self {
            wants_body,
            state: State::Head(Vec::new()),
            received: 0,
        }
    }

    /// More of what the server sends.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.received = self.received.saturating_add(bytes.len());
        let head = match &mut self.state {
            State::Body(_, body) => {
                body.feed(bytes);
                return Ok(());
            }
            State::Head(head) => head,
        };
        let seen = head.len();
        head.extend_from_slice(bytes);
        if self.received > BEGINNING && !has_empty_line(head, seen) {
            return self.bounded();
        }
        while let Some((parsed, size)) = parse(head)? {
            let rest = head.split_off(size);
            // It announces another one, unless it changes protocols.
            if matches!(parsed.status, 100 | 102..=199) {
                *head = rest;
                continue;
            }
            let mut body = Body::new(&parsed.length);
            body.feed(&rest);
            self.state = State::Body(parsed, body);
            return Ok(());
        }
        // Empty lines before an answer are skipped, and for good.
        if head.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            let half = usize::from(head.ends_with(b"\r"));
            head.drain(..head.len().saturating_sub(half));
        }
        self.bounded()
    }

    fn bounded(&self) -> Result<(), Trouble> {
        if self.received <= LONGEST_HEAD {
            return Ok(());
        }
        let longest = LONGEST_HEAD >> 10;
        let why = format!("the answer's headers are longer than {longest} KiB");
        Err(Trouble::Failed(why))
    }

    /// No more of it is wanted.
    pub(super) fn is_over(&self) -> bool {
        match &self.state {
            State::Head(_) => false,
            State::Body(head, body) => body.is_over() || !(self.wants_body)(head),
        }
    }

    /// What there is once the connection has ended, by this error if by any. After the headers, how
    /// it ended is of no interest.
    pub(super) fn ended(self, error: Option<&io::Error>) -> Result<Answer, Trouble> {
        match self.state {
            State::Body(head, body) => Ok(Answer {
                head,
                body: body.kept(),
            }),
            State::Head(_) => {
                let how = error.map_or_else(|| "EOF".to_owned(), cause);
                Err(Trouble::Failed(match self.received {
                    0 => format!("the connection was closed without an answer ({how})"),
                    _ => format!("the connection was closed within the answer's headers ({how})"),
                }))
            }
        }
    }

    /// What there is once the time is over. A body that does not end is no answer in time.
    pub(super) fn timed_out(self, limit: Limit) -> Result<Answer, Trouble> {
        let within = limit.seconds();
        let why = match self.state {
            State::Body(head, body) if !matches!(head.status, 200..=399) => {
                return Ok(Answer {
                    head,
                    body: body.kept(),
                });
            }
            State::Body(head, body) => format!(
                "the answer's body did not end within {within} (status {}, {} bytes of it came)",
                head.status,
                body.kept().len()
            ),
            State::Head(_) if self.received == 0 => format!("no answer within {within}"),
            State::Head(_) => format!("the answer's headers did not end within {within}"),
        };
        Err(Trouble::Failed(why))
    }
}

/// Whether there is an empty line in `head` whose end is not among the first `seen` bytes.
fn has_empty_line(head: &[u8], seen: usize) -> bool {
    let new = head.get(seen.saturating_sub(2)..).unwrap_or_default();
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

/// The answer's head and its size, once it is complete.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Trouble> {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let mut headers = vec![EMPTY_HEADER; lines];
    let mut response = httparse::Response::new(&mut headers);
    let mut parser = ParserConfig::default();
    // The status line decides: nothing of this keeps it from being understood.
    parser
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    match parser.parse_response(&mut response, bytes) {
        Ok(Status::Complete(size)) => Ok(Some((Head::of(&response), size))),
        Ok(Status::Partial) => Ok(None),
        Err(_) => Err(Trouble::Failed(malformed(bytes))),
    }
}

fn malformed(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..SHOWN).unwrap_or(bytes));
    let line = text.lines().next().unwrap_or_default();
    let hint = match bytes {
        // An alert or a handshake, version 3.
        [0x15 | 0x16, 3, ..] => "; it speaks TLS: is scheme: HTTPS meant?",
        _ => "",
    };
    format!("malformed HTTP response {line:?}{hint}")
}

impl Head {
    fn of(response: &httparse::Response<'_, '_>) -> Self {
        let status = response.code.unwrap_or_default();
        let value = |wanted: &str| {
            let mut headers = response.headers.iter();
            let found = headers.find(|header| header.name.eq_ignore_ascii_case(wanted));
            found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        let chunked = value("Transfer-Encoding")
            .is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"));
        let length = value("Content-Length").and_then(|length| length.parse().ok());
        Self {
            status,
            location: value("Location"),
            length: match length {
                _ if matches!(status, 101 | 204 | 304) => Length::Bytes(0),
                _ if chunked => Length::Chunked,
                Some(length) => Length::Bytes(length),
                None => Length::UntilClose,
            },
        }
    }

    #[cfg(test)]
    pub(super) fn with_location(status: u16, location: Option<&str>) -> Self {
        Self {
            status,
            location: location.map(str::to_owned),
            length: Length::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer whose bytes come in pieces of `piece`.
    fn read(bytes: &[u8], piece: usize) -> Result<Answer, Trouble> {
        let mut response = Response::new(&|_| true);
        for piece in bytes.chunks(piece) {
            response.feed(piece)?;
        }
        response.ended(None)
    }

    #[test]
    fn a_long_head_is_the_same_however_it_is_cut() {
        for end in ["\n", "\r\n"] {
            let early = format!("{end}{end}HTTP/1.1 103 Early{end}{end}").repeat(40);
            let headers = format!("x: y{end}").repeat(1000);
            let text = format!("{early}HTTP/1.1 204 So{end}{headers}Location: z{end}{end}");
            for piece in [1, 2, 3, 1000, text.len()] {
                let answer = read(text.as_bytes(), piece).expect("an answer");
                let expected = Head {
                    length: Length::Bytes(0),
                    ..Head::with_location(204, Some("z"))
                };
                assert_eq!(answer.head, expected, "{end:?} by {piece}");
            }
        }
    }

    #[test]
    fn empty_lines_before_an_answer_are_not_kept() {
        let mut response = Response::new(&|_| true);
        for _ in 0..10_000 {
            response.feed(b"\r").expect("no answer yet");
            response.feed(b"\n").expect("no answer yet");
            let State::Head(head) = &response.state else {
                panic!("no answer yet");
            };
            assert!(head.len() < 4, "{head:?}");
        }
        response.feed(b"HTTP/1.1 200 So\n\n").expect("one now");
        assert!(matches!(response.state, State::Body(..)));
    }

    #[test]
    fn only_an_empty_line_that_is_new_is_looked_at() {
        for (head, seen, is_new) in [
            (&b"a\n"[..], 0, false),
            (b"a\n\n", 0, true),
            (b"a\n\n", 2, true),
            (b"a\r\n\r\n", 4, true),
            (b"a\r\n\r\n", 3, true),
            (b"a\r\n\r", 3, false),
            (b"a\n\nbc", 4, false),
            (b"a\n\r\nbc", 5, false),
        ] {
            assert_eq!(has_empty_line(head, seen), is_new, "{head:?} from {seen}");
        }
    }
}
