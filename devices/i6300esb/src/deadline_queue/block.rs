// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A few deadlines whose keys are neighbours.

use alloc::vec::Vec;

use crate::packed::Packed;
use crate::time::VmInstant;

/// Deadlines in a block at most. Few enough to look at them all for the earliest.
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

impl<K> Entry<K> {
    const fn new(key: K, at: VmInstant) -> Self {
        let at = Packed::new(at);
        Self { key, at }
    }
}

/// Deadlines in order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Block<K> {
    entries: Vec<Entry<K>>,
    /// The earliest of them; the least key if there are several.
    earliest: (VmInstant, K),
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
            earliest: (at, key),
        };
        block.insert_at(0, key, at);
        block
    }

    pub(super) const fn earliest(&self) -> (VmInstant, K) {
        self.earliest
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn first_key(&self) -> Option<K> {
        self.entries.first().map(|entry| entry.key)
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }

    fn insert_at(&mut self, index: usize, key: K, at: VmInstant) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(ROOM);
        }
        self.entries.insert(index, Entry::new(key, at));
        self.earliest = self.earliest.min((at, key));
    }

    fn look_for_earliest(&mut self) {
        // The first one of equals, so the least key.
        if let Some(entry) = self.entries.iter().min_by_key(|entry| entry.at.get()) {
            self.earliest = (entry.at.get(), entry.key);
        }
    }

    pub(super) fn insert(&mut self, key: K, at: VmInstant) -> Inserted<K> {
        match self.find(key) {
            Ok(index) => {
                self.move_to(index, key, at);
                Inserted::Moved
            }
            Err(index) if self.entries.len() < FULL => {
                self.insert_at(index, key, at);
                Inserted::Added
            }
            // Keys that come in order fill their blocks.
            Err(FULL) => Inserted::Split(Self::new(key, at)),
            Err(index) => {
                let mut upper = self.split();
                match index.checked_sub(HALF) {
                    Some(index) => upper.insert_at(index, key, at),
                    None => self.insert_at(index, key, at),
                }
                Inserted::Split(upper)
            }
        }
    }

    fn move_to(&mut self, index: usize, key: K, at: VmInstant) {
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = Entry::new(key, at);
        }
        let (_, first) = self.earliest;
        if first == key {
            self.look_for_earliest();
        } else {
            self.earliest = self.earliest.min((at, key));
        }
    }

    /// Parts with the upper half.
    fn split(&mut self) -> Self {
        let mut upper = Self {
            entries: self.entries.split_off(HALF),
            earliest: self.earliest,
        };
        self.entries.shrink_to_fit();
        self.look_for_earliest();
        upper.look_for_earliest();
        upper
    }

    /// Whether the key had a deadline.
    pub(super) fn remove(&mut self, key: K) -> bool {
        let Ok(index) = self.find(key) else {
            return false;
        };
        let _ = self.entries.remove(index);
        self.entries
            .shrink_to(self.entries.len().saturating_add(ROOM));
        let (_, first) = self.earliest;
        if first == key {
            self.look_for_earliest();
        }
        true
    }

    /// Whether there may be another that it should be one with.
    pub(super) const fn is_small(&self) -> bool {
        self.entries.len() <= HALF
    }

    /// Whether this and the next one should be one.
    pub(super) fn fits(&self, upper: &Self) -> bool {
        self.entries.len().saturating_add(upper.entries.len()) <= HALF
    }

    /// Takes in the next block.
    pub(super) fn join(&mut self, upper: Self) {
        self.entries.reserve_exact(upper.entries.len());
        self.entries.extend(upper.entries);
        self.earliest = self.earliest.min(upper.earliest);
    }

    /// Whether it is in order, begins at `name` or above and ends below `next`, and knows its earliest deadline.
    #[cfg(test)]
    pub(super) fn is_sound(&self, name: K, next: Option<K>) -> bool {
        let mut looked = self.clone();
        looked.look_for_earliest();
        let keys = || self.entries.iter().map(|entry| entry.key);
        self.first_key().is_some_and(|first| first >= name)
            && keys().zip(keys().skip(1)).all(|(key, above)| key < above)
            && keys().all(|key| next.is_none_or(|next| key < next))
            && self.entries.len() <= FULL
            && self.entries.capacity() <= self.entries.len().saturating_add(ROOM)
            && self.earliest == looked.earliest
    }
}
