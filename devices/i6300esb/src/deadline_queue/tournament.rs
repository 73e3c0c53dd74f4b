// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds the first of many by a tournament, a binary tree in an array: the first one of two neighbours goes on to the
//! next round. One that changes plays its own rounds again, and no others.
//!
//! There is room for as many as the array is long, a power of two. Node `n` is played by the winners of nodes `2n` and
//! `2n + 1`; the nodes from the array's length on are the places themselves.

use core::ops::Range;

use crate::time::VmInstant;

/// What counts: the earlier instant, then the lesser `T`, which no two share.
pub(super) type Rank<T> = (VmInstant, T);

/// The order of ranks, in fewer instructions than that of tuples.
fn beats<T: Ord>(one: &Rank<T>, other: &Rank<T>) -> bool {
    one.0 < other.0 || (one.0 == other.0 && one.1 < other.1)
}

/// The node whose winner has won the tournament.
const FINAL: usize = 1;

/// The place that has won. Perhaps nobody is there, if there is nobody at all.
pub(super) fn first<P: Copy + Into<usize>>(winners: &[P]) -> usize {
    winner(winners, FINAL)
}

fn winner<P: Copy + Into<usize>>(winners: &[P], node: usize) -> usize {
    match winners.get(node) {
        Some(place) => (*place).into(),
        None => node.saturating_sub(winners.len()),
    }
}

/// Plays the rounds of `place`, after what is there changed; `rank` is `None` where nobody is.
#[inline]
pub(super) fn play<P, T>(winners: &mut [P], place: usize, rank: impl Fn(usize) -> Option<Rank<T>>)
where
    P: Copy + Into<usize> + TryFrom<usize>,
    T: Ord,
{
    let (mut node, mut first) = (winners.len().saturating_add(place), place);
    let mut best = rank(place);
    while node > FINAL {
        let other = winner(winners, node ^ 1);
        if let Some(theirs) = rank(other)
            && best.as_ref().is_none_or(|best| beats(&theirs, best))
        {
            (first, best) = (other, Some(theirs));
        }
        node /= 2;
        note(winners, node, first);
    }
}

/// Plays the rounds of many places. An array that is new must play those of all.
pub(super) fn play_many<P, T>(
    winners: &mut [P],
    places: Range<usize>,
    rank: impl Fn(usize) -> Option<Rank<T>>,
) where
    P: Copy + Into<usize> + TryFrom<usize>,
    T: Ord,
{
    let node = |place| winners.len().saturating_add(place);
    let (mut begin, mut last) = (node(places.start), node(places.end.saturating_sub(1)));
    while last > FINAL {
        (begin, last) = (begin / 2, last / 2);
        for node in begin..=last {
            let left = winner(winners, node.saturating_mul(2));
            let right = winner(winners, node.saturating_mul(2) | 1);
            let first = match (rank(left), rank(right)) {
                (Some(ours), Some(theirs)) if beats(&theirs, &ours) => right,
                (None, Some(_)) => right,
                _ => left,
            };
            note(winners, node, first);
        }
    }
}

fn note<P: TryFrom<usize>>(winners: &mut [P], node: usize, place: usize) {
    if let (Some(known), Ok(place)) = (winners.get_mut(node), P::try_from(place)) {
        *known = place;
    }
}

/// Those that the winner has beaten: one of them would be the first without it.
pub(super) fn beaten<P: Copy + Into<usize>>(winners: &[P]) -> impl Iterator<Item = usize> {
    let begin = winners.len().saturating_add(first(winners));
    let nodes = core::iter::successors(Some(begin), |node| Some(*node / 2));
    nodes
        .take_while(|node| *node > FINAL)
        .map(|node| winner(winners, node ^ 1))
}

#[cfg(test)]
mod tests {
    use super::{Rank, beaten, first, play, play_many};
    use crate::time::VmInstant;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_of_the_least_wins(
            mut values in prop::collection::vec(prop::option::weighted(0.8, 0..5_u8), 16),
            changes in prop::collection::vec(
                (0..16_usize, prop::collection::vec(prop::option::weighted(0.8, 0..5_u8), 1..6)), 0..40,
            ),
        ) {
            let mut winners = [0_u8; 16];
            play_many(&mut winners, 0..16, |place| rank(&values, place));
            for change in core::iter::once(None).chain(changes.into_iter().map(Some)) {
                if let Some((place, new)) = change {
                    let places = place..16.min(place + new.len());
                    values[places.clone()].copy_from_slice(&new[..places.len()]);
                    match places.len() {
                        1 => play(&mut winners, place, |place| rank(&values, place)),
                        _ => play_many(&mut winners, places, |place| rank(&values, place)),
                    }
                }
                let winner = first(&winners);
                prop_assert_eq!(values[winner].map(|_| winner), least(&values, 0..16));
                let others = (0..16).filter(|place| *place != winner);
                prop_assert_eq!(least(&values, beaten(&winners)), least(&values, others));
            }
        }
    }

    fn rank(values: &[Option<u8>], place: usize) -> Option<Rank<usize>> {
        let value = values[place]?;
        Some((VmInstant::from_nanos(value.into()), place))
    }

    fn least(values: &[Option<u8>], among: impl Iterator<Item = usize>) -> Option<usize> {
        let there = among.filter(|place| values[*place].is_some());
        there.min_by_key(|place| (values[*place], *place))
    }

    #[test]
    fn one_place_has_won_at_once() {
        let mut winners = [0_usize];
        play(&mut winners, 0, |place| {
            (place == 0).then_some((VmInstant::ZERO, place))
        });
        assert_eq!((first(&winners), beaten(&winners).count()), (0, 0));
        assert_eq!(first::<usize>(&[]), 1, "nobody");
    }
}
