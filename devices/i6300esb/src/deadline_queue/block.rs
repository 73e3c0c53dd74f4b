// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A few deadlines whose keys are neighbours.

use alloc::vec::Vec;

use crate::packed::Packed;
use crate::time::VmInstant;

/// Deadlines in a block at most. Few enough to look at them all for the earliest.
pub(super) const FULL: usize = 32;
/// Two blocks with no more than these together become one; it has room left, so that the next deadline does not split it.
const HALF: usize = FULL / 2;
/// Room is made for so many at a time, as doubling would leave half of a block unused.
const ROOM: usize = 4;

#[derive(Copy, Clone, Debug)]
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
    /// The earliest of the deadlines.
    at: VmInstant,
    /// No key in the block is less.
    name: K,
    /// Which one `at` is; the one of the least key if there are several.
    earliest: u8,
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
            at,
            name: key,
            earliest: 0,
        };
        block.insert_at(0, key, at);
        block
    }

    pub(super) const fn name(&self) -> K {
        self.name
    }

    /// The name must be less than any key of the block.
    pub(super) const fn rename(&mut self, name: K) {
        self.name = name;
    }

    /// The earliest deadline.
    pub(super) const fn at(&self) -> VmInstant {
        self.at
    }

    /// The earliest deadline, and whose it is; the one of the least key if there are several.
    pub(super) fn earliest(&self) -> Option<(VmInstant, K)> {
        let entry = self.entries.get(usize::from(self.earliest))?;
        Some((self.at, entry.key))
    }

    /// The one that would be the earliest without it.
    pub(super) fn second(&self) -> Option<(VmInstant, K)> {
        let others = (0..)
            .zip(&self.entries)
            .filter(|(index, _)| *index != self.earliest);
        others.map(|(_, entry)| (entry.at.get(), entry.key)).min()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }

    fn insert_at(&mut self, index: usize, key: K, at: VmInstant) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(ROOM);
        }
        self.entries.insert(index, Entry::new(key, at));
        self.look_for_earliest();
    }

    fn look_for_earliest(&mut self) {
        let (mut at, mut earliest) = (VmInstant::MAX, 0);
        for (index, entry) in (0..).zip(&self.entries) {
            // The first one of equals, so the least key.
            if entry.at.get() < at {
                (at, earliest) = (entry.at.get(), index);
            }
        }
        (self.at, self.earliest) = (at, earliest);
    }

    pub(super) fn insert(&mut self, key: K, at: VmInstant) -> Inserted<K> {
        match self.find(key) {
            Ok(index) => {
                self.move_to(index, at);
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
                    // Below the upper part's name and above all that is left here.
                    Some(0) | None => self.insert_at(index, key, at),
                    Some(index) => upper.insert_at(index, key, at),
                }
                Inserted::Split(upper)
            }
        }
    }

    /// Moves the earliest deadline.
    pub(super) fn move_earliest(&mut self, at: VmInstant) {
        self.move_to(usize::from(self.earliest), at);
    }

    fn move_to(&mut self, index: usize, at: VmInstant) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.at = Packed::new(at);
            // A later one than the earliest changes nothing, if it was not that itself.
            if at <= self.at || index == usize::from(self.earliest) {
                self.look_for_earliest();
            }
        }
    }

    /// Parts with the upper half.
    fn split(&mut self) -> Self {
        let entries = self.entries.split_off(HALF);
        let name = entries.first().map_or(self.name, |entry| entry.key);
        let mut upper = Self {
            entries,
            name,
            ..*self
        };
        self.entries.shrink_to_fit();
        self.look_for_earliest();
        upper.look_for_earliest();
        upper
    }

    /// Whether the key had a deadline.
    pub(super) fn remove(&mut self, key: K) -> bool {
        let found = self.find(key);
        if let Ok(index) = found {
            self.remove_at(index);
        }
        found.is_ok()
    }

    pub(super) fn remove_earliest(&mut self) {
        self.remove_at(usize::from(self.earliest));
    }

    fn remove_at(&mut self, index: usize) {
        let _ = self.entries.remove(index);
        self.entries
            .shrink_to(self.entries.len().saturating_add(ROOM));
        self.look_for_earliest();
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
        self.look_for_earliest();
    }

    /// Whether it is in order, begins at its name or above and ends below `next`, and knows its earliest deadline.
    #[cfg(test)]
    pub(super) fn is_sound(&self, next: Option<K>) -> bool {
        let keys = || self.entries.iter().map(|entry| entry.key);
        let earliest = self.entries.iter().map(|entry| (entry.at.get(), entry.key));
        keys().next().is_some_and(|first| first >= self.name)
            && keys().zip(keys().skip(1)).all(|(key, above)| key < above)
            && keys().all(|key| next.is_none_or(|next| key < next))
            && self.entries.len() <= FULL
            && self.entries.capacity() <= self.entries.len().saturating_add(ROOM)
            && self.earliest() == earliest.min()
    }
}
