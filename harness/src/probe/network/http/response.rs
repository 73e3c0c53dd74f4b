// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An answer, as it comes in.

use std::io;

use httparse::{EMPTY_HEADER, ParserConfig, Status};

use super::super::{Limit, Trouble};
use super::body::{Body, Length};
use crate::socket::cause;

/// How long an answer's headers may be, with those of the 1xx answers before it: they end within so
/// many bytes of the stream.
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

    /// More of what the server sends. What comes of all of it does not depend on its pieces.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let room = LONGEST_HEAD.saturating_sub(self.received);
        let (within, beyond) = bytes.split_at(room.min(bytes.len()));
        self.feed_head(within)?;
        self.received = self.received.saturating_add(beyond.len());
        match &mut self.state {
            State::Body(_, body) => body.feed(beyond),
            State::Head(_) if beyond.is_empty() => {}
            State::Head(head) => {
                let longest = LONGEST_HEAD >> 10;
                let why = format!("the answer's headers are longer than {longest} KiB");
                return Err(if parse(head).is_ok() {
                    Trouble::Failed(why)
                } else {
                    malformed(head)
                });
            }
        }
        Ok(())
    }

    /// More of the head, and of what follows it.
    fn feed_head(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
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
        let skipped = skip_empty_lines(head);
        if self.received > BEGINNING && !has_empty_line(head, seen.saturating_sub(skipped)) {
            return Ok(());
        }
        loop {
            let (parsed, size) = match parse(head) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => return Ok(()),
                // Its first line is to be shown as a whole, however it came.
                Err(Malformed) if head.len() >= SHOWN || head.contains(&b'\n') => {
                    return Err(malformed(head));
                }
                Err(Malformed) => return Ok(()),
            };
            let mut rest = head.split_off(size);
            // It announces another one, unless it changes protocols.
            if matches!(parsed.status, 100 | 102..=199) {
                skip_empty_lines(&mut rest);
                *head = rest;
                continue;
            }
            let mut body = Body::new(&parsed.length);
            body.feed(&rest);
            self.state = State::Body(parsed, body);
            return Ok(());
        }
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
            State::Head(head) if parse(&head).is_err() => Err(malformed(&head)),
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
            State::Head(head) if parse(&head).is_err() => return Err(malformed(&head)),
            State::Head(_) if self.received == 0 => format!("no answer within {within}"),
            State::Head(_) => format!("the answer's headers did not end within {within}"),
        };
        Err(Trouble::Failed(why))
    }
}

/// Drops the empty lines that `head` begins with; of how many bytes.
fn skip_empty_lines(head: &mut Vec<u8>) -> usize {
    let mut rest = head.as_slice();
    while let Some(after) = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")) {
        rest = after;
    }
    let skipped = head.len().saturating_sub(rest.len());
    head.drain(..skipped);
    skipped
}

/// Whether there is an empty line in `head` whose end is not among the first `seen` bytes.
fn has_empty_line(head: &[u8], seen: usize) -> bool {
    let new = head.get(seen.saturating_sub(2)..).unwrap_or_default();
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

/// What can become no answer, whatever follows.
#[derive(Debug)]
struct Malformed;

/// The answer's head and its size, once it is complete.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
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
        Err(_) => Err(Malformed),
    }
}

fn malformed(bytes: &[u8]) -> Trouble {
    let text = String::from_utf8_lossy(bytes.get(..SHOWN).unwrap_or(bytes));
    let line = text.lines().next().unwrap_or_default();
    let hint = match bytes {
        // An alert or a handshake, version 3.
        [0x15 | 0x16, 3, ..] => "; it speaks TLS: is scheme: HTTPS meant?",
        _ => "",
    };
    Trouble::Failed(format!("malformed HTTP response {line:?}{hint}"))
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
    use proptest::prelude::*;

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

    /// An answer whose head ends with its byte number `size`.
    fn with_head_of(size: usize) -> Vec<u8> {
        let (first, last) = ("HTTP/1.1 200 OK\r\nX: ", "\r\n\r\nbody");
        let filling = size + 4 - first.len() - last.len();
        format!("{first}{}{last}", "a".repeat(filling)).into_bytes()
    }

    #[test]
    fn the_longest_head_is_the_same_however_it_is_cut() {
        let all = [1, 2, 999, 1000, 16 << 10, LONGEST_HEAD, usize::MAX];
        for piece in all {
            let fits = read(&with_head_of(LONGEST_HEAD), piece).expect("it fits");
            assert_eq!((fits.head.status, fits.body), (200, b"body".to_vec()));
            let Err(Trouble::Failed(why)) = read(&with_head_of(LONGEST_HEAD + 1), piece) else {
                panic!("it is too long, by {piece}");
            };
            assert_eq!(
                why, "the answer's headers are longer than 64 KiB",
                "{piece}"
            );
        }
    }

    /// What servers send, in parts that make little sense together.
    fn parts() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 500 No\n",
            "HTTP/1.1 103 Early\r\n\r\n",
            "HTTP/1.1 100 Continue\n\n",
            "X: y\r\n",
            "no colon\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "\r\n",
            "\n",
            "\r",
            "\r\n\r\n",
            "5\r\nHello\r\n0\r\n\r\n",
            "SSH-2.0-x",
            "\u{16}\u{3}\u{1}",
            "\0",
        ]);
        let few = (words.clone(), 1..4_usize);
        let many = (words, 1..6000_usize);
        let part = prop_oneof![8 => few, 1 => many];
        prop::collection::vec(part, 1..8).prop_map(|parts| {
            let texts = parts.into_iter().map(|(word, times)| word.repeat(times));
            texts.collect::<String>().into_bytes()
        })
    }

    proptest! {
        #[test]
        fn the_same_bytes_come_to_the_same_however_they_arrive(
            bytes in parts(),
            sizes in prop::collection::vec(prop_oneof![1..4_usize, 1..3000_usize, 1..70_000_usize], 1..20),
        ) {
            let expected = read(&bytes, bytes.len());
            let mut rest = bytes.as_slice();
            let mut response = Response::new(&|_| true);
            let mut failed = None;
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                failed = response.feed(piece).err();
                rest = after;
                if failed.is_some() || rest.is_empty() {
                    break;
                }
            }
            let got = failed.map_or_else(|| response.ended(None), Err);
            prop_assert_eq!(got, expected);
        }
    }
}
