// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cuts a byte stream into JSON objects, as both ends of a guest agent's port do.
//!
//! Objects follow each other with or without white space between them. The byte 0xFF, which no
//! UTF-8 text contains, ends whatever came before (the protocol's `guest-sync-delimited` relies on
//! it). What is no object, or one beyond the [`Limits`], is skipped up to the next newline or 0xFF
//! and told as a length: never kept, and every byte is looked at once.

/// What an object may not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one object.
    pub bytes: usize,
    /// Brackets open at one time.
    pub nesting: usize,
    /// Values and members of one object: what it costs once it is parsed.
    pub values: usize,
}

impl Limits {
    /// What an agent may say. 48 MiB hold the largest honest answer, two streams of 16 MiB in
    /// base64; the other two are QEMU's own limits.
    pub const FROM_AGENT: Self = Self {
        bytes: 48 << 20,
        nesting: 1024,
        values: 2 << 20,
    };
    /// What a client may ask.
    pub const FROM_CLIENT: Self = Self {
        bytes: 16 << 20,
        ..Self::FROM_AGENT
    };
}

/// A piece of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Something with the outline of a JSON object. Whether it is one, a JSON parser tells.
    Object {
        /// From the first brace to the last.
        bytes: Vec<u8>,
        /// 0xFF was the last thing before it, white space aside.
        delimited: bool,
    },
    /// A 0xFF, and how many bytes of an unfinished object it put an end to.
    Reset {
        /// Bytes discarded.
        discarded: usize,
    },
    /// Bytes that are no object, up to a newline or a 0xFF.
    Garbage {
        /// How many.
        bytes: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between objects.
    Between,
    /// In an object, not in a string.
    Object,
    /// In a string that ends with this quote.
    Text(u8),
    /// In a string, after a backslash.
    Escape(u8),
    /// In what is no object.
    Skip,
}

/// Cuts one stream.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    /// Bytes of an object that are worth keeping: at most [`Limits::bytes`].
    worth: usize,
    state: State,
    object: Vec<u8>,
    nesting: usize,
    values: usize,
    skipped: usize,
    delimited: bool,
}

/// What a byte means for the framing.
enum Step {
    /// Nothing; look at the next.
    Go,
    /// It is the object's last byte.
    Complete,
    /// It ends what was skipped or is broken; it belongs to it.
    Garbage,
    /// A 0xFF.
    Reset,
    /// An object begins with it.
    Begin,
    /// It makes the object exceed a limit.
    TooMuch,
}

impl Framer {
    /// At the beginning of a stream.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            worth: limits.bytes,
            state: State::Between,
            object: Vec::new(),
            nesting: 0,
            values: 0,
            skipped: 0,
            delimited: false,
        }
    }

    /// Forgets what is unfinished: another stream begins.
    pub fn restart(&mut self) {
        *self = Self::new(self.limits);
    }

    /// From here on, an object that is longer is skipped as if it exceeded the limits.
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.worth = bytes.min(self.limits.bytes);
    }

    /// Bytes of an unfinished object that are kept.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.object.len()
    }

    /// The next piece, taken off the front of `input`; none once all of `input` is looked at.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Frame> {
        let data = *input;
        let mut kept = 0;
        let mut index = 0;
        while let Some(&byte) = data.get(index) {
            let plain = self.plain(data.get(index..).unwrap_or_default());
            let (step, after) = if plain > 0 {
                (Step::Go, index.saturating_add(plain))
            } else {
                (self.step(byte), index.saturating_add(1))
            };
            let begun = std::mem::replace(&mut index, after);
            match step {
                Step::Go | Step::TooMuch => {
                    let length = self.object.len().saturating_add(after.saturating_sub(kept));
                    let too_much = matches!(step, Step::TooMuch) || length > self.worth;
                    if !self.in_object() {
                        kept = after;
                    } else if too_much {
                        self.skip_object(length);
                        kept = after;
                    }
                    continue;
                }
                Step::Begin => {
                    kept = begun;
                    continue;
                }
                Step::Complete => self.keep(data, kept, after),
                Step::Garbage | Step::Reset => {
                    if self.in_object() {
                        self.keep(data, kept, begun);
                    }
                }
            }
            // A 0xFF stays until what it ends has been told.
            let ends_garbage = matches!(step, Step::Reset) && self.skipped > 0;
            let used = if ends_garbage { begun } else { after };
            *input = data.get(used..).unwrap_or_default();
            return Some(self.finish(&step));
        }
        if self.in_object() {
            self.keep(data, kept, data.len());
        }
        *input = &[];
        None
    }

    /// How many bytes from here on mean nothing for the framing: most of a long answer.
    fn plain(&mut self, bytes: &[u8]) -> usize {
        let meant = match self.state {
            State::Text(quote) => bytes
                .iter()
                .position(|&byte| byte == quote || matches!(byte, b'\\' | b'\n' | 0xff)),
            State::Skip => bytes.iter().position(|byte| matches!(byte, b'\n' | 0xff)),
            State::Between | State::Object | State::Escape(_) => Some(0),
        };
        let plain = meant.unwrap_or(bytes.len());
        if self.state == State::Skip {
            self.skipped = self.skipped.saturating_add(plain);
        }
        plain
    }

    const fn in_object(&self) -> bool {
        !matches!(self.state, State::Between | State::Skip)
    }

    fn keep(&mut self, data: &[u8], from: usize, to: usize) {
        self.object
            .extend_from_slice(data.get(from..to).unwrap_or_default());
    }

    fn skip_object(&mut self, length: usize) {
        self.object = Vec::new();
        self.skipped = length;
        self.state = State::Skip;
    }

    fn finish(&mut self, step: &Step) -> Frame {
        let bytes = std::mem::take(&mut self.object);
        let skipped = std::mem::take(&mut self.skipped);
        self.state = State::Between;
        match step {
            Step::Complete => Frame::Object {
                bytes,
                delimited: std::mem::take(&mut self.delimited),
            },
            Step::Reset if skipped == 0 => {
                self.delimited = true;
                Frame::Reset {
                    discarded: bytes.len(),
                }
            }
            _ => {
                self.delimited = false;
                Frame::Garbage {
                    bytes: skipped.saturating_add(bytes.len()),
                }
            }
        }
    }

    fn step(&mut self, byte: u8) -> Step {
        if byte == 0xff {
            return Step::Reset;
        }
        match self.state {
            State::Between => self.between(byte),
            State::Object => self.structure(byte),
            State::Escape(quote) => {
                self.state = State::Text(quote);
                Step::Go
            }
            State::Text(quote) => self.text(quote, byte),
            State::Skip => {
                self.skipped = self.skipped.saturating_add(1);
                if byte == b'\n' {
                    Step::Garbage
                } else {
                    Step::Go
                }
            }
        }
    }

    fn between(&mut self, byte: u8) -> Step {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Step::Go,
            b'{' => {
                self.state = State::Object;
                self.nesting = 1;
                self.values = 0;
                Step::Begin
            }
            _ => {
                self.state = State::Skip;
                self.skipped = 1;
                Step::Go
            }
        }
    }

    fn text(&mut self, quote: u8, byte: u8) -> Step {
        match byte {
            b'\\' => self.state = State::Escape(quote),
            // No JSON string holds a newline: the rest of the line is lost, what follows is not.
            b'\n' => {
                self.skipped = 1;
                return Step::Garbage;
            }
            _ if byte == quote => self.state = State::Object,
            _ => {}
        }
        Step::Go
    }

    fn structure(&mut self, byte: u8) -> Step {
        match byte {
            // QEMU's JSON has both quotes.
            b'"' | b'\'' => self.state = State::Text(byte),
            b'{' | b'[' => {
                self.nesting = self.nesting.saturating_add(1);
                self.values = self.values.saturating_add(1);
            }
            b',' => self.values = self.values.saturating_add(1),
            b'}' | b']' => {
                self.nesting = self.nesting.saturating_sub(1);
                if self.nesting == 0 {
                    return Step::Complete;
                }
            }
            _ => {}
        }
        if self.nesting > self.limits.nesting || self.values > self.limits.values {
            return Step::TooMuch;
        }
        Step::Go
    }
}
