// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Bytes on their way out, taken off the front a piece at a time.

/// A queue of bytes in one piece of memory.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// What is left.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// How much is left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    /// Nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            self.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds bytes that nobody else needs, without copying them if there are no others.
    pub fn push_owned(&mut self, bytes: Vec<u8>) {
        if self.is_empty() {
            self.start = 0;
            self.bytes = bytes;
        } else {
            self.bytes.extend_from_slice(&bytes);
        }
    }

    /// The first `count` bytes are gone.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        } else if self.start > self.bytes.len() / 2 {
            // Each byte is moved at most once for a byte that is gone.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// All of it is gone, and its memory.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
