// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an access asks of the embedder: data, applied after the device's lock is dropped.

use crate::time::{TimerRequest, VmInstant};

/// Everything the embedder must do after a call. Nothing is ever called back.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the interrupt, the timer and the events must be applied"]
pub struct Effects {
    /// New level of the interrupt pin, if it changed. An embedder that delivers MSI sends one message on `Some(true)`.
    pub interrupt: Option<bool>,
    /// What to do with the timer.
    pub timer: TimerRequest,
    /// What happened, oldest first.
    pub events: Events,
}

impl Effects {
    /// Nothing to do.
    pub const NONE: Self = Self::none();

    /// [`Self::NONE`], made in place: copying the constant would copy the room for events too.
    #[inline(always)]
    pub(crate) const fn none() -> Self {
        Self {
            interrupt: None,
            timer: TimerRequest::Keep,
            events: Events::none(),
        }
    }
}

/// The end of the first stage.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirstStage {
    /// The exact instant the stage ended; the first one if `count` is above 1.
    pub due: VmInstant,
    /// Ends this event stands for.
    pub count: u64,
}

/// The end of the second stage, with the output enabled.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bite {
    /// The exact instant the stage ended; the first one if `count` is above 1.
    pub due: VmInstant,
    /// The last of the instants this event stands for; `due` if `count` is 1.
    pub last_due: VmInstant,
    /// Nanoseconds from the last ping to `due`; `None` if there was no ping since the watchdog was armed.
    pub ping_to_due_ns: Option<u64>,
    /// Nanoseconds from the arming of the watchdog to `due`.
    pub armed_to_due_ns: u64,
    /// Length of the round that ended at `due`, both stages as they were programmed, in nanoseconds.
    pub timeout_ns: u64,
    /// Bites this event stands for: 1, or more when they come faster than they are reported.
    pub count: u64,
}

impl Bite {
    /// How late the embedder learns of the bite, in nanoseconds. A bite is never early, so this is never negative.
    #[must_use]
    pub const fn lateness_ns(&self, now: VmInstant) -> u64 {
        now.nanos_since(self.due)
    }

    /// Nanoseconds from the last ping to `now`; `None` if there was no ping since the watchdog was armed.
    #[must_use]
    pub const fn since_ping_ns(&self, now: VmInstant) -> Option<u64> {
        match self.ping_to_due_ns {
            Some(ping_to_due) => Some(ping_to_due.saturating_add(self.lateness_ns(now))),
            None => None,
        }
    }
}

/// A stage ran out while nobody ran, and starts over: [`Config::forgive_stalls`](crate::Config::forgive_stalls).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallForgiven {
    /// The exact instant the stage was to end.
    pub due: VmInstant,
    /// How late that was found, in nanoseconds: for so long, at least, nobody ran.
    pub stalled_ns: u64,
}

/// Something that happened to the watchdog.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The first stage ran out: the pretimeout.
    FirstStage(FirstStage),
    /// The second stage ran out. What to do about it is the embedder's business.
    Bite(Bite),
    /// Nobody ran when a stage ended; it starts over.
    StallForgiven(StallForgiven),
    /// The watchdog stopped: by the guest, by a reset, or after a bite under [`AfterBite::Disarm`](crate::AfterBite::Disarm).
    Disarmed,
    /// The guest started the watchdog.
    Armed,
    /// The guest locked the watchdog: nothing but a reset stops it now.
    Locked,
}

/// The few events one call can bring: at most one of each kind.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    pub(crate) first_stage: Option<FirstStage>,
    pub(crate) bite: Option<Bite>,
    pub(crate) stall: Option<StallForgiven>,
    pub(crate) switched: Switched,
}

/// Which of the events without a value there are. One byte: the answer to every write of a ping clears it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switched(u8);

impl Switched {
    pub(crate) const NONE: Self = Self(0);
    const DISARMED: u8 = 1;
    const ARMED: u8 = 2;
    const LOCKED: u8 = 4;

    pub(crate) fn new(disarmed: bool, armed: bool, locked: bool) -> Self {
        let bit = |is: bool, bit| if is { bit } else { 0 };
        Self(bit(disarmed, Self::DISARMED) | bit(armed, Self::ARMED) | bit(locked, Self::LOCKED))
    }

    /// Takes the event that came first.
    fn take(&mut self) -> Option<Event> {
        let Self(all) = *self;
        // The lowest bit that is set goes.
        self.0 = all & all.wrapping_sub(1);
        match all & !self.0 {
            Self::DISARMED => Some(Event::Disarmed),
            Self::ARMED => Some(Event::Armed),
            Self::LOCKED => Some(Event::Locked),
            _ => None,
        }
    }
}

impl Events {
    /// No event.
    pub const NONE: Self = Self::none();

    #[inline(always)]
    pub(crate) const fn none() -> Self {
        Self {
            first_stage: None,
            bite: None,
            stall: None,
            switched: Switched::NONE,
        }
    }

    /// Whether nothing happened.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !(self.first_stage.is_some()
            || self.bite.is_some()
            || self.stall.is_some()
            || self.switched.0 != 0)
    }

    /// The events, oldest first.
    pub fn iter(&self) -> EventsIter {
        self.into_iter()
    }

    /// The bite among them, if there is one.
    #[must_use]
    pub const fn bite(&self) -> Option<Bite> {
        self.bite
    }

    /// The end of a first stage among them, if there is one.
    #[must_use]
    pub const fn first_stage(&self) -> Option<FirstStage> {
        self.first_stage
    }

    /// Whether `event` is among them.
    #[must_use]
    pub fn contains(&self, event: Event) -> bool {
        self.iter().any(|each| each == event)
    }
}

impl IntoIterator for Events {
    type Item = Event;
    type IntoIter = EventsIter;

    fn into_iter(self) -> EventsIter {
        EventsIter(self)
    }
}

impl IntoIterator for &Events {
    type Item = Event;
    type IntoIter = EventsIter;

    fn into_iter(self) -> EventsIter {
        EventsIter(*self)
    }
}

/// Iterator over [`Events`], oldest first.
#[derive(Clone, Debug)]
pub struct EventsIter(Events);

impl Iterator for EventsIter {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let left = &mut self.0;
        if let Some(first_stage) = left.first_stage
            && left.bite.is_none_or(|bite| first_stage.due <= bite.due)
        {
            left.first_stage = None;
            return Some(Event::FirstStage(first_stage));
        }
        if let Some(bite) = left.bite.take() {
            return Some(Event::Bite(bite));
        }
        if let Some(stall) = left.stall.take() {
            return Some(Event::StallForgiven(stall));
        }
        left.switched.take()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Bite, Event, Events, FirstStage, Switched};
    use crate::time::VmInstant;

    fn bite(due: u64) -> Bite {
        let due = VmInstant::from_nanos(due);
        Bite {
            due,
            last_due: due,
            ping_to_due_ns: Some(7),
            armed_to_due_ns: 9,
            timeout_ns: 7,
            count: 1,
        }
    }

    #[test]
    fn events_come_oldest_first() {
        let first_stage = FirstStage {
            due: VmInstant::from_nanos(5),
            count: 1,
        };
        let mut events = Events::NONE;
        assert!(events.is_empty());
        events.switched = Switched::new(true, true, true);
        events.first_stage = Some(first_stage);
        events.bite = Some(bite(9));
        assert!(!events.is_empty());
        let order = [
            Event::FirstStage(first_stage),
            Event::Bite(bite(9)),
            Event::Disarmed,
            Event::Armed,
            Event::Locked,
        ];
        assert_eq!(events.iter().collect::<Vec<_>>(), order);
        events.bite = Some(bite(3));
        assert_eq!(
            events.iter().next(),
            Some(Event::Bite(bite(3))),
            "a bite that came before the next first stage"
        );
        assert!(events.contains(Event::Locked));
    }

    #[test]
    fn lateness_and_age_are_counted_from_the_exact_instant() {
        let bite = bite(100);
        assert_eq!(bite.lateness_ns(VmInstant::from_nanos(103)), 3);
        assert_eq!(bite.lateness_ns(VmInstant::from_nanos(99)), 0);
        assert_eq!(bite.since_ping_ns(VmInstant::from_nanos(103)), Some(10));
    }
}
