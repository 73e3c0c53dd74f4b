// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scripts for `kennel simulate`: what probes find and what guests do, and when.
//!
//! Not a KubeVirt document, but read as one is: every problem in one go, with its line, its path and
//! the nearest known word.

use std::path::Path;
use std::time::Duration;

use super::duration;
use super::keys::{Key, Object, Shape, Use};
use super::node;
use super::problem::{Fault, Place, Problem, Problems, Report, quoted};
use super::scalar;
use super::walk::{self, Cursor};
use crate::probe::ProbeKind;

/// Nobody simulates longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A script that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Script {
    /// The last instant, from the first instance's start.
    pub until: Duration,
    /// By their instants; those of one instant in the order of the text.
    pub cues: Vec<Cue>,
}

/// Something that a script makes happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// From the first instance's start.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What a cue makes happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// From here on, this is what a probe finds.
    Probe(ProbeKind, Finding),
    /// The guests that run do this.
    Guest(GuestAct),
}

/// What a probe finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What comes of an attempt.
    pub outcome: ScriptedOutcome,
    /// How long each try takes.
    pub latency: Duration,
    /// What the guest says to it.
    pub message: Option<String>,
}

/// What comes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptedOutcome {
    /// The guest is well.
    Success,
    /// It is not.
    Failure,
    /// It cannot be told.
    Error,
    /// The guest does not answer.
    Timeout,
}

impl ScriptedOutcome {
    const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Error, Self::Timeout];

    const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

/// What guests do, or have done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestAct {
    /// Boot again, in place.
    Reset,
    /// vCPUs and VM time stop.
    Pause,
    /// And go on.
    Resume,
    /// Power off by itself.
    PowerOff,
    /// The VM process dies.
    Crash,
    /// File systems are frozen.
    Freeze,
    /// And thawed.
    Thaw,
}

impl GuestAct {
    const ALL: [Self; 7] = [
        Self::Reset,
        Self::Pause,
        Self::Resume,
        Self::PowerOff,
        Self::Crash,
        Self::Freeze,
        Self::Thaw,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::PowerOff => "poweroff",
            Self::Crash => "crash",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

const PROBES: [(&str, ProbeKind); 2] = [
    ("liveness", ProbeKind::Liveness),
    ("readiness", ProbeKind::Readiness),
];

const fn key(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        usage: Use::Honoured,
        advice: None,
    }
}

// Durations may be plain numbers, so what they hold is looked at where they are read.
static SCRIPT: Object = Object {
    kind: "the script",
    keys: &[
        key("until", Shape::Opaque),
        key("events", Shape::List(&Shape::Object(&EVENT))),
    ],
};

static EVENT: Object = Object {
    kind: "an event",
    keys: &[
        key("at", Shape::Opaque),
        key("probe", Shape::Text),
        key("outcome", Shape::Text),
        key("latency", Shape::Opaque),
        key("message", Shape::Text),
        key("guest", Shape::Text),
    ],
};

impl Script {
    /// Reads the script in the file `path`.
    ///
    /// # Errors
    /// The file cannot be read, or every problem of the script, in the order of its text.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let text = super::read(path).map_err(|fault| super::whole_file(&name, fault))?;
        Self::parse(&text, &name)
    }

    /// Reads a script from text; `file_name` names it in messages.
    ///
    /// # Errors
    /// Every problem of the script, in the order of its text.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Problems> {
        let root = node::read(text).map_err(|(position, mut fault)| {
            if position.is_none() && text.len() <= node::MAX_BYTES {
                fault = Fault::new("the file holds no script").allowed("until and events");
            }
            let path = String::new();
            Problem::new(file_name, Place { path, position }, fault)
        })?;
        let report = Report::new(file_name);
        let at = Cursor::root(&root, &report);
        walk::check(&at, &SCRIPT);
        let until = at.require("until", "write how long to simulate, such as until: 600s");
        let until = until.as_ref().and_then(time);
        let events = at.get("events");
        let events = events.iter().flat_map(Cursor::items);
        let mut cues: Vec<_> = events.filter_map(|event| cue(&event)).collect();
        cues.sort_by_key(|cue| cue.at);
        let _notes = report.finish()?;
        Ok(Self {
            until: until.unwrap_or_default(),
            cues,
        })
    }
}

fn time(at: &Cursor<'_>) -> Option<Duration> {
    let read = match (at.scalar(), at.whole()) {
        (Some(text), Some(number)) if scalar::looks_otherwise(text, number) => {
            let fault = Fault::new(format!("{} is the number {number} in YAML", quoted(text)));
            Err(fault.hint(format!("write {number}s if that is meant")))
        }
        (Some(text), _) => duration::parse(text, LONGEST),
        (None, _) => Err(Fault::new("must be a duration such as 90s")),
    };
    read.map_err(|fault| at.refuse(fault)).ok()
}

/// None of what is not a cue, which is reported.
fn cue(event: &Cursor<'_>) -> Option<Cue> {
    if !event.is_mapping() {
        return None;
    }
    let at = event.require("at", "write when, such as at: 90s");
    let at = at.as_ref().and_then(time);
    let what = match (event.get("probe"), event.get("guest")) {
        (Some(probe), None) => probe_cue(event, &probe),
        (None, Some(guest)) => guest_cue(event, &guest),
        (Some(_), Some(guest)) => {
            let fault = Fault::new("probe and guest are two events");
            guest.refuse(fault.hint("write an event of its own for each"));
            None
        }
        (None, None) => {
            if !event.is_misspelt("probe") && !event.is_misspelt("guest") {
                let fault = Fault::new("nothing happens in this event");
                event.refuse(fault.allowed("probe: liveness or readiness, or guest: reset, …"));
            }
            None
        }
    };
    Some(Cue {
        at: at?,
        what: what?,
    })
}

fn probe_cue(event: &Cursor<'_>, probe: &Cursor<'_>) -> Option<What> {
    let kind = word(probe, "probe", PROBES);
    let outcome = event.require("outcome", "write success, failure, error or timeout");
    let outcomes = ScriptedOutcome::ALL.map(|outcome| (outcome.name(), outcome));
    let outcome = outcome.and_then(|at| word(&at, "outcome", outcomes));
    let latency = event.get("latency");
    let latency = latency.as_ref().map_or(Some(Duration::ZERO), time);
    let message = event.get("message");
    if let (Some(at), Some(ScriptedOutcome::Success)) = (&message, outcome) {
        at.refuse(Fault::new("a success has no message").hint("leave it out"));
    }
    let finding = Finding {
        outcome: outcome?,
        latency: latency?,
        message: message.and_then(|at| at.text().map(str::to_owned)),
    };
    Some(What::Probe(kind?, finding))
}

fn guest_cue(event: &Cursor<'_>, guest: &Cursor<'_>) -> Option<What> {
    for name in ["outcome", "latency", "message"] {
        if let Some(at) = event.get(name) {
            at.refuse(Fault::new(format!(
                "{name} belongs to a probe, not to a guest"
            )));
        }
    }
    let acts = GuestAct::ALL.map(|act| (act.name(), act));
    word(guest, "act of a guest", acts).map(What::Guest)
}

/// One of a closed list of words.
fn word<T: Copy, const N: usize>(
    at: &Cursor<'_>,
    what: &str,
    known: [(&'static str, T); N],
) -> Option<T> {
    let text = at.text()?;
    let found = known.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        at.refuse(Fault::unknown(
            what,
            text,
            known.iter().map(|(name, _)| *name),
        ));
    }
    found.map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_in_the_order_of_its_instants() {
        let text = "\
until: 600s
events:
- {at: 90s, guest: reset}
- {at: 0, probe: liveness, outcome: failure, latency: 5ms, message: \"no: answer\"}
- {at: 1m30s, probe: readiness, outcome: timeout}
";
        let script = Script::parse(text, "s.yaml").expect("a good script");
        assert_eq!(script.until, Duration::from_secs(600));
        let finding = |outcome, millis, message: Option<&str>| Finding {
            outcome,
            latency: Duration::from_millis(millis),
            message: message.map(str::to_owned),
        };
        let expected = [
            (
                0,
                What::Probe(
                    ProbeKind::Liveness,
                    finding(ScriptedOutcome::Failure, 5, Some("no: answer")),
                ),
            ),
            (90, What::Guest(GuestAct::Reset)),
            (
                90,
                What::Probe(
                    ProbeKind::Readiness,
                    finding(ScriptedOutcome::Timeout, 0, None),
                ),
            ),
        ];
        let expected = expected.map(|(seconds, what)| Cue {
            at: Duration::from_secs(seconds),
            what,
        });
        assert_eq!(script.cues, expected);
        assert_eq!(Script::parse("until: 5", "s").expect("no cues").cues, []);
    }

    #[test]
    fn every_problem_is_told_in_one_go() {
        let text = "\
untill: 600s
events:
- {at: soon, probe: livenes, outcome: failur}
- {probe: readiness}
- {at: 5s, guest: reboot, outcome: success}
- {at: 5s}
- {at: 5s, probe: liveness, guest: reset, outcome: success}
- {at: 5s, probe: liveness, outcome: success, message: fine}
- {at: 5s, gest: reset}
- {at: -5s, guest: thaw}
- {at: [], guest: thaw}
- 7
- {at: 010s, guest: thaw}
- {at: 010, guest: thaw}
- {at: 5s, probe: liveness, outcome: failure, latency: 1_0, message: no}
";
        let problems = Script::parse(text, "s.yaml").expect_err("a bad script");
        let told: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        let parts: [&[&str]; 19] = [
            &["s.yaml:1: untill: unknown key", "did you mean \"until\"?"],
            &["s.yaml:3: events[0].at: \"soon\" is not a duration"],
            &["s.yaml:3: events[0].probe: unknown probe", "\"liveness\"?"],
            &[
                "s.yaml:3: events[0].outcome: unknown outcome",
                "\"failure\"?",
            ],
            &["s.yaml:4: events[1].at: missing"],
            &["s.yaml:4: events[1].outcome: missing"],
            &[
                "s.yaml:5: events[2].guest: unknown act of a guest",
                "reset, pause",
            ],
            &["s.yaml:5: events[2].outcome: outcome belongs to a probe"],
            &["s.yaml:6: events[3]: nothing happens"],
            &["s.yaml:7: events[4].guest: probe and guest are two"],
            &["s.yaml:8: events[5].message: a success has no message"],
            &["s.yaml:9: events[6].gest: unknown key", "\"guest\"?"],
            &["s.yaml:10: events[7].at: duration \"-5s\" is negative"],
            &["s.yaml:11: events[8].at: must be a duration"],
            &["s.yaml:12: events[9]: an event must be a mapping"],
            &[
                "s.yaml:13: events[10].at: duration \"010s\" begins with a 0",
                "write 10s",
            ],
            &[
                "s.yaml:14: events[11].at: \"010\" is the number 8 in YAML",
                "write 8s if",
            ],
            &["s.yaml:15: events[12].latency: \"1_0\" is the number 10 in YAML"],
            &[
                "s.yaml:15: events[12].message: must be a string, is the boolean no",
                "\"no\"",
            ],
        ];
        assert_eq!(told.len(), parts.len(), "{told:#?}");
        for (line, parts) in told.iter().zip(parts) {
            for part in parts {
                assert!(line.contains(part), "{part:?} in {line:?}");
            }
        }
        let empty = Script::parse("# nothing\n", "s.yaml").expect_err("no script");
        let says = "s.yaml: the file holds no script; allowed: until and events";
        assert_eq!(empty.to_string(), says);
    }
}
