// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guests of a simulation: what they do when they are told something, and when.
//!
//! A guest takes no time to boot and none to shut down, and its agent is connected as long as it
//! runs. Asked to shut down, by its agent or by the power button, it does so at once; unless its
//! liveness outcome is `timeout`: that is a hung guest, which obeys nothing and is stopped when its
//! grace is over. One with `failure` answers badly, and obeys. A paused guest does nothing: only
//! `resume` and `crash` reach it.

use std::collections::BTreeMap;
use std::time::Duration;

use kennel_vmm::mailbox::ResetCause;
use kennel_vmm::protocol::{Command, Ending, News};

use crate::moment::Moment;
use crate::probe::{Outcome, ProbeKind};
use crate::spec::{Document, Finding, GuestAct, Script, ScriptedOutcome, What};
use crate::supervisor::controller::{Act, Happening, InstanceId};
use crate::supervisor::uptime::Uptime;

/// The guests, and what is under way.
#[derive(Debug)]
pub(super) struct World<'a> {
    namespace: &'a str,
    script: &'a Script,
    /// The first cue that has not been given.
    cue: usize,
    liveness: Timeline<'a>,
    readiness: Timeline<'a>,
    guests: BTreeMap<InstanceId, Guest>,
    /// By instant, then in the order of their beginning.
    under_way: BTreeMap<(Moment, u64), Happening>,
    begun: u64,
}

/// What one probe finds, each from its instant on.
type Timeline<'a> = Vec<(Moment, &'a Finding)>;

#[derive(Debug)]
struct Guest {
    object: String,
    uptime: Uptime,
    resets: u64,
    paused: bool,
}

impl<'a> World<'a> {
    pub(super) fn new(document: &'a Document, script: &'a Script) -> Self {
        Self {
            namespace: &document.vmi.namespace,
            script,
            cue: 0,
            liveness: timeline(script, ProbeKind::Liveness),
            readiness: timeline(script, ProbeKind::Readiness),
            guests: BTreeMap::new(),
            under_way: BTreeMap::new(),
            begun: 0,
        }
    }

    /// When something happens by itself.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let under_way = self.under_way.keys().map(|(at, _)| *at).next();
        self.next_cue().into_iter().chain(under_way).min()
    }

    fn next_cue(&self) -> Option<Moment> {
        let cue = self.script.cues.get(self.cue)?;
        Some(Moment::ZERO.after(cue.at))
    }

    /// The next thing that happens by itself, at `now`; the script comes first.
    pub(super) fn happen(&mut self, now: Moment) -> Vec<Happening> {
        if self.next_cue() == Some(now) {
            let what = self.script.cues.get(self.cue).map(|cue| &cue.what);
            self.cue = self.cue.saturating_add(1);
            return match what {
                Some(What::Guest(act)) => self.all_do(now, *act),
                // Found in its timeline when an attempt asks.
                Some(What::Probe(..)) | None => vec![],
            };
        }
        let next = self.under_way.pop_first();
        next.into_iter().map(|(_, happening)| happening).collect()
    }

    fn all_do(&mut self, now: Moment, act: GuestAct) -> Vec<Happening> {
        let ids: Vec<_> = self.guests.keys().copied().collect();
        ids.into_iter()
            .flat_map(|id| self.does(now, id, act))
            .collect()
    }

    fn does(&mut self, now: Moment, id: InstanceId, act: GuestAct) -> Vec<Happening> {
        let Some(guest) = self.guests.get_mut(&id) else {
            return vec![];
        };
        let news = match (act, guest.paused) {
            (GuestAct::Crash, _) => return vec![gone(id, "the VM process ended unexpectedly")],
            (GuestAct::Pause, false) => vec![News::Paused { by_watchdog: false }],
            (GuestAct::Resume, true) => vec![News::Resumed],
            (GuestAct::PowerOff, false) => return self.ends(now, id, Ending::GuestPowerOff),
            (GuestAct::Reset, false) => {
                guest.resets = guest.resets.saturating_add(1);
                let reset = News::Reset {
                    cause: ResetCause::ResetControl,
                    count: guest.resets,
                };
                vec![News::AgentDisconnected, reset, News::AgentConnected]
            }
            (GuestAct::Freeze, false) => vec![News::FilesystemsFrozen],
            (GuestAct::Thaw, false) => vec![News::FilesystemsThawed],
            _ => vec![],
        };
        self.tells(now, id, news)
    }

    fn tells(&mut self, now: Moment, id: InstanceId, news: Vec<News>) -> Vec<Happening> {
        let Some(guest) = self.guests.get_mut(&id) else {
            return vec![];
        };
        for news in &news {
            let uptime_ns = guest.uptime.ns(now);
            guest.uptime.hear(now, uptime_ns, news);
            match news {
                News::Paused { .. } => guest.paused = true,
                News::Resumed => guest.paused = false,
                _ => {}
            }
        }
        let happening = |news| Happening::News { instance: id, news };
        news.into_iter().map(happening).collect()
    }

    fn ends(&mut self, now: Moment, id: InstanceId, ending: Ending) -> Vec<Happening> {
        let mut happenings = self.tells(now, id, vec![News::Ended(ending)]);
        happenings.push(gone(id, ""));
        happenings
    }

    /// Does what the controller wants; with what comes of it at once.
    pub(super) fn act(&mut self, now: Moment, act: Act) -> Vec<Happening> {
        match act {
            Act::Create { instance, name } => self.create(now, instance, &name),
            Act::Tell { instance, command } => match command {
                Command::Stop => self.ends(now, instance, Ending::Stopped),
                Command::PressPowerButton => self.asked_to_shut_down(now, instance),
                Command::Pause => self.does(now, instance, GuestAct::Pause),
                Command::Resume => self.does(now, instance, GuestAct::Resume),
                Command::Sync { token } => self.tells(now, instance, vec![News::Synced { token }]),
                _ => vec![],
            },
            Act::Kill { instance } => vec![gone(instance, "the VM process was killed")],
            Act::AskShutdown { instance, .. } => self.asked_to_shut_down(now, instance),
            Act::Attempt {
                instance,
                probe,
                number,
                deadline,
                ..
            } => {
                let (at, outcome) = self.answer(now, probe, deadline);
                let probed = Happening::Probed {
                    instance,
                    probe,
                    number,
                    outcome,
                };
                if at <= now {
                    return vec![probed];
                }
                self.begun = self.begun.saturating_add(1);
                self.under_way.insert((at, self.begun), probed);
                vec![]
            }
            // Simulated machines have no process that could hang.
            Act::Look { .. } | Act::AskForLife { .. } | Act::Recreate { .. } => vec![],
            Act::Event { .. } | Act::ShowTable | Act::Finish(_) => vec![],
        }
    }

    fn create(&mut self, now: Moment, id: InstanceId, name: &str) -> Vec<Happening> {
        let guest = Guest {
            object: format!("{}/{name}", self.namespace),
            uptime: Uptime::default(),
            resets: 0,
            paused: false,
        };
        self.guests.insert(id, guest);
        let mut happenings = vec![Happening::Created {
            instance: id,
            pid: None,
        }];
        happenings.extend(self.tells(now, id, vec![News::Started, News::AgentConnected]));
        happenings
    }

    fn asked_to_shut_down(&mut self, now: Moment, id: InstanceId) -> Vec<Happening> {
        let hung = self.finding(now, ProbeKind::Liveness);
        let hung = hung.is_some_and(|it| it.outcome == ScriptedOutcome::Timeout);
        let paused = self.guests.get(&id).is_none_or(|guest| guest.paused);
        if hung || paused {
            return vec![];
        }
        self.ends(now, id, Ending::GuestPowerOff)
    }

    /// What a probe finds: what the script said of it last.
    fn finding(&self, now: Moment, probe: ProbeKind) -> Option<&'a Finding> {
        let timeline = match probe {
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        };
        let said = timeline.partition_point(|(at, _)| *at <= now);
        let (_, finding) = timeline.get(said.checked_sub(1)?)?;
        Some(finding)
    }

    /// When an attempt that begins now is over, and what comes of it.
    fn answer(&self, now: Moment, probe: ProbeKind, deadline: Moment) -> (Moment, Outcome) {
        let Some(finding) = self.finding(now, probe) else {
            return (now, Outcome::Success);
        };
        let message = |default: String| finding.message.clone().unwrap_or(default);
        let at = now.after(finding.latency);
        let outcome = match finding.outcome {
            _ if at > deadline => None,
            ScriptedOutcome::Timeout => None,
            ScriptedOutcome::Success => Some(Outcome::Success),
            ScriptedOutcome::Failure => Some(Outcome::Failure(message("it failed".into()))),
            ScriptedOutcome::Error => Some(Outcome::Error(message("it could not be told".into()))),
        };
        outcome.map_or_else(
            || {
                let took: Duration = deadline.since(now);
                let shown = humantime::format_duration(took);
                let timed_out = Outcome::Failure(message(format!("timed out after {shown}")));
                (deadline, timed_out)
            },
            |outcome| (at, outcome),
        )
    }

    /// Whom an event is about, and the VM time there.
    pub(super) fn object(&self, id: InstanceId, now: Moment) -> (&str, u64) {
        self.guests
            .get(&id)
            .map_or(("", 0), |guest| (&guest.object, guest.uptime.ns(now)))
    }

    /// The instance is over, and so is everything that it had under way.
    pub(super) fn forget(&mut self, id: InstanceId) {
        self.guests.remove(&id);
        self.under_way.retain(|_, happening| match happening {
            Happening::Probed { instance, .. } => *instance != id,
            _ => true,
        });
    }
}

fn timeline(script: &Script, probe: ProbeKind) -> Timeline<'_> {
    let cues = script.cues.iter();
    cues.filter_map(|cue| match &cue.what {
        What::Probe(kind, finding) if *kind == probe => Some((Moment::ZERO.after(cue.at), finding)),
        _ => None,
    })
    .collect()
}

fn gone(instance: InstanceId, how: &str) -> Happening {
    Happening::Gone {
        instance,
        how: how.to_owned(),
    }
}
