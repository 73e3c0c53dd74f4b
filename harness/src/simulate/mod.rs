// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel simulate`: the supervisor's own controller and probe workers in virtual time, against a
//! script.
//!
//! From one thing that is due to the next, never by steps of time, so a day costs what happens in
//! it. Nothing here reads a clock or draws a number: the same document and script give the same
//! bytes.
//!
//! *Simulated*: guests (see `world`) that run the instant they are created, with their agent connected.
//! Instants count from the first one's start, also for those that come after it; time starts at
//! 1970-01-01T00:00:00Z. Of one instant, what is at once comes first, then the script, then what was
//! under way, then what is due.

mod world;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::moment::Moment;
use crate::spec::{Document, Script};
use crate::supervisor::controller::{Act, Controller, Happening, InstanceId, Options, Table};
use crate::supervisor::events::Said;
use crate::supervisor::verdict::Verdict;

use world::World;

/// What a simulation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The instances as they are in the end.
    pub table: Table,
    /// How it ended, if it did before the script.
    pub verdict: Option<Verdict>,
    /// How many things happened.
    pub steps: u64,
    /// How many of them were worth an event.
    pub events: u64,
}

/// Plays `script` to the instances of `document`, and writes their events to `out`, one JSON object a
/// line. With `compat`, by KubeVirt's own numbers.
///
/// # Errors
///
/// `out` cannot be written.
pub fn simulate(
    document: &Document,
    script: &Script,
    compat: bool,
    out: &mut dyn Write,
) -> io::Result<Outcome> {
    let options = Options { compat };
    let until = Moment::ZERO.after(script.until);
    let mut stage = Stage {
        controller: Controller::new(document, options),
        world: World::new(document, script),
        verdict: None,
        steps: 0,
        events: 0,
        out,
    };
    stage.happen(Moment::ZERO, vec![Happening::TimePassed])?;
    while stage.verdict.is_none() {
        let by_itself = stage.world.next_due();
        let due = stage.controller.next_due();
        let Some(now) = by_itself.into_iter().chain(due).min() else {
            break;
        };
        if now > until {
            break;
        }
        let happenings = if by_itself == Some(now) {
            stage.world.happen(now)
        } else {
            vec![Happening::TimePassed]
        };
        stage.happen(now, happenings)?;
    }
    Ok(Outcome {
        table: stage.controller.table(),
        verdict: stage.verdict,
        steps: stage.steps,
        events: stage.events,
    })
}

struct Stage<'a> {
    controller: Controller,
    world: World<'a>,
    verdict: Option<Verdict>,
    steps: u64,
    events: u64,
    out: &'a mut dyn Write,
}

impl Stage<'_> {
    /// These things happen at `now`, and all that comes of them at once.
    fn happen(&mut self, now: Moment, happenings: Vec<Happening>) -> io::Result<()> {
        let mut happenings = VecDeque::from(happenings);
        while let Some(happening) = happenings.pop_front() {
            self.steps = self.steps.saturating_add(1);
            let gone = match &happening {
                Happening::Gone { instance, .. } => Some(*instance),
                _ => None,
            };
            for act in self.controller.happened(now, happening) {
                match act {
                    Act::Event { instance, said } => self.tell(now, instance, said)?,
                    Act::Finish(verdict) => self.verdict = Some(verdict),
                    act => happenings.extend(self.world.act(now, act)),
                }
            }
            if let Some(instance) = gone {
                self.world.forget(instance);
            }
        }
        Ok(())
    }

    fn tell(&mut self, now: Moment, instance: InstanceId, said: Said) -> io::Result<()> {
        self.events = self.events.saturating_add(1);
        let (object, uptime_ns) = self.world.object(instance, now);
        let event = said.at(object, now.as_nanos(), uptime_ns);
        serde_json::to_writer(&mut *self.out, &event)?;
        self.out.write_all(b"\n")
    }
}
