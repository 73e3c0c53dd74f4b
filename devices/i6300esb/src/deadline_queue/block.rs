// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A few deadlines whose keys are neighbours.

use alloc::vec::Vec;

use crate::packed::Packed;
use crate::time::VmInstant;

/// Deadlines in a block at most. Few enough to look at them all.
const FULL: usize = 64;
/// Two blocks with no more than these together become one; it has room left, so that the next deadline does not split it.
const HALF: usize = FULL / 2;
/// Room is made for so many at a time, as doubling would leave half of a block unused.
const ROOM: usize = 8;

#[derive(Clone, Debug)]
struct Entry<K> {
    key: K,
    at: Packed<VmInstant>,
}

/// Deadlines in order of their keys; never none, but while one is taken out.
#[derive(Clone, Debug)]
pub(super) struct Block<K> {
    entries: Vec<Entry<K>>,
}

/// What became of a deadline that was put into a block.
#[derive(Debug)]
pub(super) enum Inserted<K> {
    /// The key had one, which moved.
    Moved,
    /// There is one more.
    Added,
    /// There is one more, and the block was full: the upper part of it is another block now.
    Split(Block<K>),
}

impl<K: Copy + Ord> Block<K> {
    pub(super) fn new(key: K, at: VmInstant) -> Self {
        let mut block = Self {
            entries: Vec::new(),
        };
        block.insert_at(0, key, at);
        block
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }

    fn insert_at(&mut self, index: usize, key: K, at: VmInstant) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(ROOM);
        }
        let at = Packed::new(at);
        self.entries.insert(index, Entry { key, at });
    }

    pub(super) fn insert(&mut self, key: K, at: VmInstant) -> Inserted<K> {
        match self.find(key) {
            Ok(index) => {
                if let Some(entry) = self.entries.get_mut(index) {
                    entry.at = Packed::new(at);
                }
                Inserted::Moved
            }
            Err(index) if self.entries.len() < FULL => {
                self.insert_at(index, key, at);
                Inserted::Added
            }
            // Keys that come in order fill their blocks.
            Err(FULL) => Inserted::Split(Self::new(key, at)),
            Err(index) => {
                let mut upper = Self {
                    entries: self.entries.split_off(HALF),
                };
                self.entries.shrink_to_fit();
                match index.checked_sub(HALF) {
                    Some(index) => upper.insert_at(index, key, at),
                    None => self.insert_at(index, key, at),
                }
                Inserted::Split(upper)
            }
        }
    }

    /// Whether the key had a deadline.
    pub(super) fn remove(&mut self, key: K) -> bool {
        let Ok(index) = self.find(key) else {
            return false;
        };
        let _ = self.entries.remove(index);
        self.entries
            .shrink_to(self.entries.len().saturating_add(ROOM));
        true
    }

    pub(super) fn first_key(&self) -> Option<K> {
        self.entries.first().map(|entry| entry.key)
    }

    #[cfg(test)]
    pub(super) fn last_key(&self) -> Option<K> {
        self.entries.last().map(|entry| entry.key)
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<VmInstant> {
        self.entries.iter().map(|entry| entry.at.get()).min()
    }

    /// The least key with the deadline `at`.
    pub(super) fn key_at(&self, at: VmInstant) -> Option<K> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| entry.at.get() == at)?;
        Some(entry.key)
    }

    /// Whether this and the next one should be one.
    pub(super) fn fits(&self, upper: &Self) -> bool {
        self.entries.len().saturating_add(upper.entries.len()) <= HALF
    }

    /// Takes in the next block.
    pub(super) fn join(&mut self, upper: Self) {
        self.entries.reserve_exact(upper.entries.len());
        self.entries.extend(upper.entries);
    }
}
