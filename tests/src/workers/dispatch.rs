// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which case goes to which worker, and when.

use std::cmp::Reverse;

use super::case::Need;

/// Where a worker has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is started when there is work for it.
    Planned,
    Starting,
    Ready,
    /// It has ended, and comes back no more.
    Gone,
}

#[derive(Debug)]
struct Worker {
    room: Need,
    phase: Phase,
}

/// A case with whatever is to be given back when it is over.
#[derive(Debug)]
struct Entry<T> {
    case: String,
    /// Of several that need as much, the first goes first.
    rank: usize,
    need: Need,
    ticket: T,
    /// The worker that runs it.
    at: Option<usize>,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    Start(usize),
    Run(usize, String),
    /// No worker will ever have room for it.
    Refuse(String, Need, T),
}

/// The cases that are not over, and the workers.
#[derive(Debug)]
pub(super) struct Dispatch<T> {
    workers: Vec<Worker>,
    entries: Vec<Entry<T>>,
}

impl<T> Dispatch<T> {
    /// With a worker for each of these.
    pub(super) fn new(rooms: &[Need]) -> Self {
        let worker = |room: &Need| Worker {
            room: *room,
            phase: Phase::Planned,
        };
        Self {
            workers: rooms.iter().map(worker).collect(),
            entries: vec![],
        }
    }

    /// A case that waits from now on.
    pub(super) fn submit(&mut self, case: &str, rank: usize, need: Need, ticket: T) {
        self.entries.push(Entry {
            case: case.to_owned(),
            rank,
            need,
            ticket,
            at: None,
        });
    }

    /// This worker takes cases from now on.
    pub(super) fn ready(&mut self, worker: usize) {
        self.enter(worker, Phase::Ready);
    }

    /// This case is over.
    pub(super) fn ended(&mut self, case: &str) -> Option<T> {
        let at = self.entries.iter().position(|entry| entry.case == case)?;
        Some(self.entries.remove(at).ticket)
    }

    /// This worker has ended; the cases that it held.
    pub(super) fn lost(&mut self, worker: usize) -> Vec<(String, T)> {
        self.enter(worker, Phase::Gone);
        let held = self
            .entries
            .extract_if(.., |entry| entry.at == Some(worker));
        held.map(|entry| (entry.case, entry.ticket)).collect()
    }

    fn enter(&mut self, worker: usize, phase: Phase) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.phase = phase;
        }
    }

    /// What is to be done now.
    pub(super) fn steps(&mut self) -> Vec<Step<T>> {
        let mut steps = self.refuse();
        steps.extend(self.start().map(Step::Start));
        while let Some((worker, case)) = self.assign() {
            steps.push(Step::Run(worker, case));
        }
        steps
    }

    fn refuse(&mut self) -> Vec<Step<T>> {
        let rooms: Vec<Need> = self
            .workers
            .iter()
            .filter(|worker| worker.phase != Phase::Gone)
            .map(|worker| worker.room)
            .collect();
        let hopeless = self.entries.extract_if(.., |entry| {
            entry.at.is_none()
                && !rooms
                    .iter()
                    .any(|room| fits(entry.need.within(*room), *room))
        });
        hopeless
            .map(|entry| Step::Refuse(entry.case, entry.need, entry.ticket))
            .collect()
    }

    /// The next worker to start: no more of them than there are cases.
    fn start(&mut self) -> Option<usize> {
        let is = |phases: &'static [Phase]| move |worker: &&Worker| phases.contains(&worker.phase);
        let running = is(&[Phase::Starting, Phase::Ready]);
        let running = self.workers.iter().filter(running).count();
        if running >= self.entries.len() {
            return None;
        }
        let mut workers = self.workers.iter();
        let next = workers.position(|worker| worker.phase == Phase::Planned)?;
        self.enter(next, Phase::Starting);
        Some(next)
    }

    /// Gives the worker with the most lanes free the case that needs most of those for which it has room.
    fn assign(&mut self) -> Option<(usize, String)> {
        let mut rooms: Vec<(usize, Need)> = (0..self.workers.len())
            .filter_map(|worker| Some((worker, self.room(worker)?)))
            .collect();
        // Memory is kept for those that need much.
        rooms.sort_by_key(|(_, room)| (Reverse(room.lanes), room.memory_mib));
        rooms.into_iter().find_map(|(worker, room)| {
            let whole = self.workers.get(worker)?.room;
            let waiting = self.entries.iter_mut();
            let fitting =
                waiting.filter(|entry| entry.at.is_none() && fits(entry.need.within(whole), room));
            let most = fitting.max_by_key(|entry| {
                let need = entry.need.within(whole);
                (need.lanes, need.memory_mib, Reverse(entry.rank))
            })?;
            most.at = Some(worker);
            Some((worker, most.case.clone()))
        })
    }

    /// What is left of a worker that takes cases.
    fn room(&self, worker: usize) -> Option<Need> {
        let ready = |at: &&Worker| at.phase == Phase::Ready;
        let whole = self.workers.get(worker).filter(ready)?.room;
        let held = self.entries.iter().filter(|entry| entry.at == Some(worker));
        let left = held.fold(whole, |left, entry| {
            let need = entry.need.within(whole);
            Need {
                memory_mib: left.memory_mib.saturating_sub(need.memory_mib),
                lanes: left.lanes.saturating_sub(need.lanes),
            }
        });
        Some(left)
    }
}

impl Need {
    /// One that is to be alone takes what lanes a worker has.
    fn within(self, whole: Self) -> Self {
        Self {
            lanes: self.lanes.min(whole.lanes),
            ..self
        }
    }
}

fn fits(need: Need, room: Need) -> bool {
    need.memory_mib <= room.memory_mib && need.lanes <= room.lanes
}

#[cfg(test)]
mod tests;
