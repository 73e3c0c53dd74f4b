// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All blocks: found by key, and by the earliest deadline.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Bound;

use super::block::{Block, Inserted};
use super::tournament::{self, Rank};
use crate::time::VmInstant;

/// Room for one block in so many more is made at a time, as doubling would leave half of it unused.
const ROOM_PART: usize = 8;

/// What counts in the tournament of the blocks.
fn rank<K: Copy + Ord>(blocks: &[Block<K>]) -> impl Fn(usize) -> Option<Rank<K>> {
    |place| {
        let block = blocks.get(place)?;
        Some((block.at(), block.name()))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Blocks<K> {
    /// In no order.
    blocks: Vec<Block<K>>,
    /// Where each block is, by its name: keys in it are not less, those in the blocks before are.
    places: BTreeMap<K, usize>,
    /// The tournament of the blocks for the earliest deadline.
    winners: Vec<usize>,
}

impl<K: Copy + Ord> Blocks<K> {
    pub(super) const fn new() -> Self {
        Self {
            blocks: Vec::new(),
            places: BTreeMap::new(),
            winners: Vec::new(),
        }
    }

    /// The earliest deadline, and whose it is.
    pub(super) fn first(&self) -> Option<(VmInstant, K)> {
        self.blocks.get(self.first_place())?.earliest()
    }

    /// What [`Self::first`] would be without it.
    pub(super) fn second(&self) -> Option<(VmInstant, K)> {
        let first = self.blocks.get(self.first_place())?;
        let beaten = tournament::beaten(&self.winners).filter_map(|place| self.blocks.get(place));
        beaten
            .filter_map(Block::earliest)
            .chain(first.second())
            .min()
    }

    fn first_place(&self) -> usize {
        tournament::first(&self.winners)
    }

    /// Moves the earliest deadline of all.
    pub(super) fn move_first(&mut self, at: VmInstant) {
        let place = self.first_place();
        let _ = self.change(place, |block| block.move_earliest(at));
    }

    /// Takes the earliest deadline of all away.
    pub(super) fn remove_first(&mut self) {
        let place = self.first_place();
        if self.change(place, Block::remove_earliest).is_some() {
            self.tidy(place);
        }
    }

    /// Whether there is one deadline more; else the key's deadline moved.
    pub(super) fn insert(&mut self, key: K, at: VmInstant) -> bool {
        let place = self.place(key).or_else(|| self.rename_first(key));
        match place.and_then(|place| self.change(place, |block| block.insert(key, at))) {
            Some(Inserted::Moved) => return false,
            Some(Inserted::Added) => {}
            Some(Inserted::Split(upper)) => self.add(upper),
            None => self.add(Block::new(key, at)),
        }
        true
    }

    /// Whether the key had a deadline.
    pub(super) fn remove(&mut self, key: K) -> bool {
        let Some(place) = self.place(key) else {
            return false;
        };
        let removed = self.change(place, |block| block.remove(key)) == Some(true);
        if removed {
            self.tidy(place);
        }
        removed
    }

    /// Where the block is that the key belongs to. `None` if the key is less than all blocks' names.
    fn place(&self, key: K) -> Option<usize> {
        let (_, place) = self.places.range(..=key).next_back()?;
        Some(*place)
    }

    /// Names the first block by a key that is less than all, and says where it is.
    fn rename_first(&mut self, key: K) -> Option<usize> {
        let (_, place) = self.places.pop_first()?;
        self.places.insert(key, place);
        self.blocks.get_mut(place)?.rename(key);
        Some(place)
    }

    /// Changes a block, which then plays again if its earliest deadline moved.
    fn change<R>(&mut self, place: usize, act: impl FnOnce(&mut Block<K>) -> R) -> Option<R> {
        let block = self.blocks.get_mut(place)?;
        let before = block.at();
        let done = act(block);
        if block.at() != before {
            self.play(place);
        }
        Some(done)
    }

    /// After something was removed: gives the block up if nothing is left, or joins it where it became small.
    fn tidy(&mut self, place: usize) {
        let Some(block) = self.blocks.get(place) else {
            return;
        };
        let name = block.name();
        if block.is_empty() {
            let _ = self.take(name);
            self.join_around(name);
        } else if block.is_small() {
            self.join_around(name);
        }
    }

    fn add(&mut self, block: Block<K>) {
        let (name, place) = (block.name(), self.blocks.len());
        if place == self.blocks.capacity() {
            self.blocks
                .reserve_exact((place / ROOM_PART).saturating_add(1));
        }
        self.blocks.push(block);
        self.places.insert(name, place);
        if !self.resize() {
            self.play(place);
        }
        self.join_around(name);
    }

    /// Takes a block out; the last one fills its place.
    fn take(&mut self, name: K) -> Option<Block<K>> {
        let place = self.places.remove(&name)?;
        let block = self.blocks.swap_remove(place);
        if let Some(moved) = self.blocks.get(place) {
            self.places.insert(moved.name(), place);
        }
        if !self.resize() {
            self.play(place);
            self.play(self.blocks.len());
        }
        let room = self.blocks.len() / ROOM_PART;
        self.blocks
            .shrink_to(self.blocks.len().saturating_add(room).saturating_add(1));
        Some(block)
    }

    /// Joins the block that the key belongs to with its neighbours where both are small: so the memory follows the
    /// devices.
    fn join_around(&mut self, key: K) {
        let mut below = self.places.range(..=key).rev().map(|(name, _)| *name);
        let (own, before) = (below.next(), below.next());
        let above = (Bound::Excluded(key), Bound::Unbounded);
        let next = self.places.range(above).next().map(|(name, _)| *name);
        for (lower, upper) in [(own, next), (before, own)] {
            if let (Some(lower), Some(upper)) = (lower, upper) {
                self.join(lower, upper);
            }
        }
    }

    fn join(&mut self, lower: K, upper: K) {
        if let (Some(below), Some(above)) = (self.named(lower), self.named(upper))
            && below.fits(above)
            && let Some(above) = self.take(upper)
            && let Some(place) = self.place(lower)
        {
            let _ = self.change(place, |below| below.join(above));
        }
    }

    fn named(&self, name: K) -> Option<&Block<K>> {
        self.blocks.get(*self.places.get(&name)?)
    }

    /// Plays the rounds of one place, after what is there changed.
    fn play(&mut self, place: usize) {
        tournament::play(&mut self.winners, place, rank(&self.blocks));
    }

    /// Makes a tournament of another size, if there are more blocks than it has room for, or far fewer.
    fn resize(&mut self) -> bool {
        let (size, needed) = (self.winners.len(), self.blocks.len().next_power_of_two());
        if needed <= size && size / 4 < needed {
            return false;
        }
        self.winners = vec![0; needed];
        tournament::play_many(&mut self.winners, 0..needed, rank(&self.blocks));
        true
    }

    /// Whether each block is where its name says and as it should be, no two neighbours hold so little that they should
    /// be one.
    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        let names = || self.places.iter();
        let nexts = names().skip(1).map(Some).chain([None]);
        let mut pairs = names().zip(nexts);
        let ordered = pairs.all(|((name, place), next)| {
            let block = &self.blocks[*place];
            block.name() == *name
                && block.is_sound(next.map(|(next, _)| *next))
                && !next.is_some_and(|(_, upper)| block.fits(&self.blocks[*upper]))
        });
        let room = self.blocks.len() / ROOM_PART + 1;
        ordered
            && self.places.len() == self.blocks.len()
            && self.winners.len() >= self.blocks.len()
            && self.winners.len() / 4 < self.blocks.len().next_power_of_two()
            && self.blocks.capacity() <= self.blocks.len() + room
    }
}
