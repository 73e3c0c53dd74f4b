// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A few deadlines whose keys are neighbours.

use alloc::vec::Vec;
use core::ops::Range;

use super::tournament::{self, Rank};
use crate::packed::Packed;
use crate::time::VmInstant;

/// Deadlines in a block at most, a power of two.
const FULL: usize = 64;
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

/// What counts in a block's tournament.
fn rank<K>(entries: &[Entry<K>]) -> impl Fn(usize) -> Option<Rank<usize>> {
    |index| {
        let entry = entries.get(index)?;
        Some((entry.at.get(), index))
    }
}

/// Deadlines in order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Block<K> {
    entries: Vec<Entry<K>>,
    /// The tournament of the entries for the earliest deadline; for that of the least key if there are several.
    winners: [u8; FULL],
    /// Two or more with the earliest deadline, by index, or none: they are taken one after the other without a tournament.
    alike: u64,
    /// The earliest of the deadlines.
    at: VmInstant,
    /// No key in the block is less.
    name: K,
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

/// The index of the lowest bit.
fn lowest(bits: u64) -> usize {
    usize::try_from(bits.trailing_zeros()).unwrap_or(FULL)
}

const fn without_lowest(bits: u64) -> u64 {
    bits & bits.wrapping_sub(1)
}

impl<K: Copy + Ord> Block<K> {
    pub(super) fn new(key: K, at: VmInstant) -> Self {
        let mut block = Self {
            entries: Vec::new(),
            winners: [0; FULL],
            alike: 0,
            at,
            name: key,
        };
        block.insert_at(0, key, at);
        block.play_many(0..FULL);
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
        let entry = self.entries.get(self.first())?;
        Some((self.at, entry.key))
    }

    /// The one that would be the earliest without it.
    pub(super) fn second(&self) -> Option<(VmInstant, K)> {
        if self.alike != 0 {
            let entry = self.entries.get(lowest(without_lowest(self.alike)))?;
            return Some((self.at, entry.key));
        }
        let others = tournament::beaten(&self.winners).filter_map(|index| self.entries.get(index));
        others.map(|entry| (entry.at.get(), entry.key)).min()
    }

    /// Where the earliest deadline is.
    fn first(&self) -> usize {
        if self.alike != 0 {
            return lowest(self.alike);
        }
        tournament::first(&self.winners)
    }

    /// Ends the run of those alike, so that the tournament knows all again.
    fn settle(&mut self) {
        if self.alike == 0 {
            return;
        }
        self.alike = 0;
        self.play_many(0..FULL);
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
        self.play_many(index..self.entries.len());
    }

    /// Finds the earliest deadline after that at `index` changed.
    fn play(&mut self, index: usize) {
        tournament::play(&mut self.winners, index, rank(&self.entries));
        self.note_earliest();
    }

    /// Finds the earliest deadline after those at `places` came or went.
    fn play_many(&mut self, places: Range<usize>) {
        tournament::play_many(&mut self.winners, places, rank(&self.entries));
        self.note_earliest();
    }

    fn note_earliest(&mut self) {
        if let Some(entry) = self.entries.get(self.first()) {
            self.at = entry.at.get();
        }
    }

    pub(super) fn insert(&mut self, key: K, at: VmInstant) -> Inserted<K> {
        self.settle();
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
        if self.alike != 0 {
            return self.move_one_alike(at);
        }
        let before = self.at;
        self.move_to(self.first(), at);
        if self.at == before && at != before {
            self.find_alike();
        }
    }

    fn move_one_alike(&mut self, at: VmInstant) {
        if at <= self.at {
            self.settle();
            return self.move_to(self.first(), at);
        }
        if let Some(entry) = self.entries.get_mut(lowest(self.alike)) {
            entry.at = Packed::new(at);
        }
        self.alike = without_lowest(self.alike);
        // The last one has the tournament to itself again.
        if without_lowest(self.alike) == 0 {
            self.settle();
        }
    }

    /// There are more with the earliest deadline, as is so when many are armed at once. Looked for only when one is met.
    #[cold]
    fn find_alike(&mut self) {
        let of = |(index, entry): (usize, &Entry<K>)| u64::from(entry.at.get() == self.at) << index;
        let alike = self.entries.iter().enumerate().map(of).sum();
        if without_lowest(alike) != 0 {
            self.alike = alike;
        }
    }

    fn move_to(&mut self, index: usize, at: VmInstant) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.at = Packed::new(at);
            self.play(index);
        }
    }

    /// Parts with the upper half.
    fn split(&mut self) -> Self {
        self.settle();
        let entries = self.entries.split_off(HALF);
        let name = entries.first().map_or(self.name, |entry| entry.key);
        let mut upper = Self {
            entries,
            name,
            ..*self
        };
        self.entries.shrink_to_fit();
        self.play_many(0..FULL);
        upper.play_many(0..FULL);
        upper
    }

    /// Whether the key had a deadline.
    pub(super) fn remove(&mut self, key: K) -> bool {
        self.settle();
        let found = self.find(key);
        if let Ok(index) = found {
            self.remove_at(index);
        }
        found.is_ok()
    }

    pub(super) fn remove_earliest(&mut self) {
        self.settle();
        self.remove_at(self.first());
    }

    fn remove_at(&mut self, index: usize) {
        let _ = self.entries.remove(index);
        self.entries
            .shrink_to(self.entries.len().saturating_add(ROOM));
        self.play_many(index..self.entries.len().saturating_add(1));
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
        self.settle();
        self.entries.reserve_exact(upper.entries.len());
        self.entries.extend(upper.entries);
        self.play_many(0..FULL);
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
