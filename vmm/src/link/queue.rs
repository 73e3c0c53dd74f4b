// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that wait for somebody to take them.

use std::collections::VecDeque;

/// A queue of frames that does not grow without bound.
#[derive(Debug)]
pub(super) struct Queue {
    frames: VecDeque<Vec<u8>>,
    bound: usize,
    dropped: u64,
}

impl Queue {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            bound,
            dropped: 0,
        }
    }

    /// Appends it, unless `bound` frames wait already.
    pub(super) fn push_below(&mut self, bound: usize, frame: Vec<u8>) {
        if self.has_room(bound) {
            self.frames.push_back(frame);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.push_below(self.bound, frame);
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    /// The first `count` have been taken.
    pub(super) fn took(&mut self, count: usize) {
        self.frames.drain(..count.min(self.frames.len()));
    }

    pub(super) fn has_room(&self, bound: usize) -> bool {
        self.frames.len() < bound.min(self.bound)
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.frames.back().map(Vec::as_slice)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(Vec::as_slice)
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
