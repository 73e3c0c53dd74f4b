// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Remembers what happened to the machine, in its order, and holds it against the promises.

use std::time::Duration;

use kennel_vmm::protocol::{News, Notice};
use serde_json::Value;

use super::TITLE;
use crate::demo::{Director, Promise, Review, script_failed};
use crate::probe::ProbeKind;
use crate::spec::{Document, Probe};
use crate::supervisor::Order;
use crate::supervisor::events::Event;
use crate::supervisor::verdict::{Cause, Verdict};

/// Something that happened to the machine or in its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Beat {
    /// An instance was made.
    Created,
    AgentConnected,
    /// An attempt failed, as the so-manieth in a row, at this VM time in ns.
    Failed {
        probe: ProbeKind,
        streak: u64,
        uptime_ns: u64,
    },
    /// At this VM time in ns.
    Ready(u64),
    NotReady,
    /// The machine is ended: for its liveness, or for something else.
    Killed {
        liveness: bool,
    },
    /// The guest's script says that it makes the file.
    MakesFile,
    RemovesFile,
    StopsAgent,
}

/// Watches the machine.
#[derive(Debug)]
pub struct ProbesDirector {
    liveness_threshold: u64,
    readiness_threshold: u64,
    initial_delay_ns: u64,
    beats: Vec<Beat>,
    /// When instances ended and vCPUs started, in real time, in ns.
    ended_ns: Option<u64>,
    started_ns: Vec<u64>,
}

/// Where in the beats the story's turns are, as far as it came.
#[derive(Debug, Default)]
struct Turns {
    connected: Option<usize>,
    made: Option<usize>,
    ready: Option<usize>,
    removed: Option<usize>,
    unready: Option<usize>,
    ready_again: Option<usize>,
    silenced: Option<usize>,
    killed: Option<usize>,
    replaced: Option<usize>,
    recovered: Option<usize>,
}

impl ProbesDirector {
    /// For the machine of `document`.
    #[must_use]
    pub fn new(document: &Document) -> Self {
        let threshold = |probe: &Option<Probe>| {
            let probe = probe.as_ref();
            probe.map_or(0, |probe| u64::from(probe.failure_threshold))
        };
        let vmi = &document.vmi;
        let delay = vmi.liveness.as_ref().map(|probe| probe.initial_delay);
        Self {
            liveness_threshold: threshold(&vmi.liveness),
            readiness_threshold: threshold(&vmi.readiness),
            initial_delay_ns: delay
                .and_then(|delay| u64::try_from(delay.as_nanos()).ok())
                .unwrap_or_default(),
            beats: vec![],
            ended_ns: None,
            started_ns: vec![],
        }
    }

    /// The story as it is meant to go: each turn after the one before it.
    fn turns(&self) -> Turns {
        let mut at = Some(0);
        let mut next = |is: fn(&Beat) -> bool| {
            let from = at?;
            at = self.beats.iter().skip(from).position(is).map(|n| from + n);
            at
        };
        let is_ready: fn(&Beat) -> bool = |beat| matches!(beat, Beat::Ready(_));
        Turns {
            connected: next(|beat| *beat == Beat::AgentConnected),
            made: next(|beat| *beat == Beat::MakesFile),
            ready: next(is_ready),
            removed: next(|beat| *beat == Beat::RemovesFile),
            unready: next(|beat| *beat == Beat::NotReady),
            ready_again: next(|beat| *beat == Beat::MakesFile).and_then(|_| next(is_ready)),
            silenced: next(|beat| *beat == Beat::StopsAgent),
            killed: next(|beat| matches!(beat, Beat::Killed { .. })),
            replaced: next(|beat| *beat == Beat::Created),
            recovered: next(is_ready),
        }
    }

    /// The story has come to its end, or cannot any more.
    fn is_over(&self) -> bool {
        let killed = |beat: &&Beat| matches!(beat, Beat::Killed { .. });
        self.turns().recovered.is_some() || self.beats.iter().filter(killed).count() > 1
    }

    fn beat(&mut self, beat: Beat) -> Vec<Order> {
        self.beats.push(beat);
        if self.is_over() {
            vec![Order::Finish]
        } else {
            vec![]
        }
    }

    /// The beats from one turn up to another, if the story came so far.
    fn between(&self, from: Option<usize>, to: Option<usize>) -> &[Beat] {
        let range = from.zip(to).map(|(from, to)| from..to);
        range
            .and_then(|range| self.beats.get(range))
            .unwrap_or_default()
    }

    fn promises(&self) -> Vec<Promise> {
        let turns = self.turns();
        let ever_before = |to: Option<usize>, is: fn(&Beat) -> bool| {
            let mut beats = self.between(to.map(|_| 0), to).iter();
            beats.any(is)
        };
        let never_before =
            |to: Option<usize>, is: fn(&Beat) -> bool| to.is_some() && !ever_before(to, is);
        let waited = self.streaks(ProbeKind::Readiness, turns.connected, turns.made);
        let unready = self.streaks(ProbeKind::Readiness, turns.removed, turns.unready);
        let silent = self.failures();
        let wanted: Vec<u64> = (1..=self.liveness_threshold).collect();
        let due = silent
            .first()
            .is_some_and(|(at, _)| *at >= self.initial_delay_ns);
        let streaks: Vec<u64> = silent.iter().map(|(_, streak)| *streak).collect();
        let killed = turns.killed.and_then(|at| self.beats.get(at));
        vec![
            Promise::new("the guest agent connected", turns.connected.is_some()),
            Promise::new(
                "the guest was not ready before there was a file",
                !waited.is_empty()
                    && never_before(turns.made, |beat| matches!(beat, Beat::Ready(_))),
            ),
            Promise::new("it was ready with the file", turns.ready.is_some()),
            Promise::new(
                "it was not ready without it, after 2 failures in a row",
                unready.last() == Some(&self.readiness_threshold) && self.readiness_threshold == 2,
            ),
            Promise::new("and ready again with it", turns.ready_again.is_some()),
            Promise::new(
                "the machine ran through all of that",
                never_before(turns.silenced, |beat| matches!(beat, Beat::Killed { .. })),
            ),
            Promise::new(
                "without its agent it failed its liveness probe 3 times in a row",
                streaks == wanted && self.liveness_threshold == 3,
            ),
            Promise::new("no sooner than after its initial delay", due),
            Promise::new(
                "for that, and no sooner than that, it was killed",
                streaks == wanted && killed == Some(&Beat::Killed { liveness: true }),
            ),
            Promise::new(
                "it came back by itself",
                turns.replaced.is_some() && self.started_ns.len() == 2,
            ),
            Promise::new("and was ready again", turns.recovered.is_some()),
        ]
    }

    fn streaks(&self, of: ProbeKind, from: Option<usize>, to: Option<usize>) -> Vec<u64> {
        let beats = self.between(from, to).iter();
        let streak = |beat: &Beat| match beat {
            Beat::Failed { probe, streak, .. } if *probe == of => Some(*streak),
            _ => None,
        };
        beats.filter_map(streak).collect()
    }

    /// The liveness failures that got the machine killed: VM time in ns, and how many in a row.
    fn failures(&self) -> Vec<(u64, u64)> {
        let turns = self.turns();
        let beats = self.between(turns.silenced, turns.killed).iter();
        let failure = |beat: &Beat| match beat {
            Beat::Failed {
                probe: ProbeKind::Liveness,
                streak,
                uptime_ns,
            } => Some((*uptime_ns, *streak)),
            _ => None,
        };
        beats.filter_map(failure).collect()
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let turns = self.turns();
        let ready = |turn: Option<usize>| match self.beats.get(turn?)? {
            Beat::Ready(at) => Some(format!("{:.3} s after the vCPUs started", seconds(*at))),
            _ => None,
        };
        let failures = self.failures();
        let failed = failures.first().zip(failures.last());
        let failed = failed.map(|((first, _), (last, _))| {
            let (count, first, last) = (failures.len(), seconds(*first), seconds(*last));
            format!("{count}, from {first:.3} s to {last:.3} s")
        });
        let back = self.ended_ns.zip(self.started_ns.get(1));
        let back = back.map(|(ended, started)| {
            let gap = seconds(started.saturating_sub(ended));
            format!("{gap:.3} s after the end of the one before it")
        });
        let figures = [
            ("ready", ready(turns.ready)),
            ("liveness failures", failed),
            ("next vCPUs started", back),
            ("ready again", ready(turns.recovered)),
        ];
        let seen = |(name, figure): (_, Option<String>)| Some((name, figure?));
        figures.into_iter().filter_map(seen).collect()
    }
}

impl Director for ProbesDirector {
    fn event(&mut self, event: &Event) -> Vec<Order> {
        match beat_of(event) {
            Some(beat) => self.beat(beat),
            None => vec![],
        }
    }

    fn news(&mut self, notice: &Notice) -> Vec<Order> {
        match notice.news {
            News::Started => self.started_ns.push(notice.realtime_ns),
            News::Ended(_) => self.ended_ns = self.ended_ns.or(Some(notice.realtime_ns)),
            _ => {}
        }
        vec![]
    }

    fn console_line(&mut self, line: &str) -> Vec<Order> {
        if script_failed(line) {
            return vec![Order::Finish];
        }
        let said = line.split_once("demo: ").map(|(_, said)| said);
        match said {
            Some(said) if said.starts_with("touch") => self.beat(Beat::MakesFile),
            Some(said) if said.starts_with("rm") => self.beat(Beat::RemovesFile),
            Some(said) if said.starts_with("agent-stop") => self.beat(Beat::StopsAgent),
            _ => vec![],
        }
    }

    fn review(&self, verdict: &Verdict) -> Review {
        Review {
            title: TITLE,
            figures: self.figures(),
            verdict: verdict.clone(),
            promises: self.promises(),
        }
    }
}

fn beat_of(event: &Event) -> Option<Beat> {
    let data = |name: &str| event.data.get(name);
    Some(match event.reason {
        "Created" => Beat::Created,
        "AgentConnected" => Beat::AgentConnected,
        "Ready" => Beat::Ready(event.uptime_ns),
        "NotReady" => Beat::NotReady,
        "Killing" => Beat::Killed {
            liveness: data("cause").and_then(Value::as_str) == Some(Cause::LivenessFailed.name()),
        },
        // One without a streak told nothing.
        "Unhealthy" => Beat::Failed {
            probe: match data("probe").and_then(Value::as_str) {
                Some("liveness") => ProbeKind::Liveness,
                _ => ProbeKind::Readiness,
            },
            streak: data("streak").and_then(Value::as_u64)?,
            uptime_ns: event.uptime_ns,
        },
        _ => return None,
    })
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::probes::document;
    use crate::supervisor::controller::NotReady;
    use crate::supervisor::events::{Said, Streak};

    const SECOND: u64 = 1_000_000_000;

    /// What a director is told.
    #[derive(Clone)]
    enum Told {
        Event(u64, Said),
        News(u64, News),
        Line(&'static str),
    }

    fn unhealthy(at: u64, probe: ProbeKind, run: u32, threshold: u32) -> Told {
        let streak = Some(Streak { run, threshold });
        Told::Event(at, Said::unhealthy(probe, String::new(), streak))
    }

    fn killing() -> Said {
        Said::liveness_killing("demo", true, Duration::from_secs(10))
    }

    /// All of it as it is meant to be.
    fn story() -> Vec<Told> {
        use ProbeKind::{Liveness, Readiness};
        use Told::{Event, Line, News as Notice};
        let file_made = Line("demo: touch /tmp/ready");
        vec![
            Event(0, Said::created(Some(1))),
            Notice(1, News::Started),
            Event(8, Said::agent(true)),
            unhealthy(15, Readiness, 1, 2),
            file_made.clone(),
            Event(17, Said::ready(Ok(()))),
            Line("demo: rm /tmp/ready"),
            unhealthy(18, Readiness, 1, 2),
            unhealthy(20, Readiness, 2, 2),
            Event(20, Said::ready(Err(NotReady::ContainersNotReady))),
            file_made,
            Event(24, Said::ready(Ok(()))),
            Line("demo: agent-stop"),
            unhealthy(45, Liveness, 1, 3),
            unhealthy(47, Liveness, 2, 3),
            unhealthy(49, Liveness, 3, 3),
            Event(49, killing()),
            Notice(50, News::Ended(kennel_vmm::protocol::Ending::GuestPowerOff)),
            Event(0, Said::created(Some(2))),
            Notice(51, News::Started),
            Event(17, Said::ready(Ok(()))),
        ]
    }

    fn tell(story: Vec<Told>) -> (Review, Vec<Order>) {
        let mut director = ProbesDirector::new(&document().expect("the document"));
        let mut orders = vec![];
        for told in story {
            orders.extend(match told {
                Told::Event(at, said) => director.event(&said.at("x", 0, at * SECOND)),
                Told::Line(line) => director.console_line(line),
                Told::News(at, news) => director.news(&Notice {
                    realtime_ns: at * SECOND,
                    uptime_ns: 0,
                    news,
                }),
            });
        }
        (director.review(&Verdict::Stopped(Cause::Done)), orders)
    }

    #[test]
    fn the_story_keeps_every_promise_and_ends_the_run() {
        let (review, orders) = tell(story());
        assert!(review.all_kept(), "{review}");
        assert_eq!(orders, [Order::Finish]);
        let text = review.to_string();
        for figure in [
            "  ready               17.000 s after",
            "  liveness failures   3, from 45.000 s to 49.000 s",
            "  next vCPUs started  1.000 s after",
        ] {
            assert!(text.contains(figure), "{text}");
        }
    }

    #[test]
    fn whatever_is_left_out_breaks_a_promise() {
        // The first creation, a failure that the next one's streak counts, and the end of the first
        // instance, which only makes a figure.
        const NO_PROMISE: [usize; 3] = [0, 7, 17];
        let whole = story();
        for left_out in (0..whole.len()).filter(|number| !NO_PROMISE.contains(number)) {
            let mut story = whole.clone();
            story.remove(left_out);
            let (review, _) = tell(story);
            assert!(!review.all_kept(), "without number {left_out}:\n{review}");
        }
    }

    #[test]
    fn a_kill_at_the_wrong_time_or_for_something_else_is_told() {
        let mut early = story();
        early.insert(8, Told::Event(19, killing()));
        assert!(!tell(early).0.all_kept());
        let other: Vec<_> = story()
            .into_iter()
            .map(|told| match told {
                Told::Event(49, said) if said == killing() => {
                    Told::Event(49, Said::killing("its time is over"))
                }
                told => told,
            })
            .collect();
        assert!(!tell(other).0.all_kept());
        let hasty: Vec<_> = story()
            .into_iter()
            .map(|told| match told {
                Told::Event(45, said) => Told::Event(44, said),
                told => told,
            })
            .collect();
        assert!(!tell(hasty).0.all_kept());
    }
}
