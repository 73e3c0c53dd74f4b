// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `kennel run` says while it runs: events, and the table of instances.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kennel_vmm::outlet::{Open, Outlet, OutletWriter};

use super::{Failure, screen, without_error_numbers};
use crate::moment::Moment;
use crate::output_file::{self, LineFile};
use crate::spec::Kind;
use crate::supervisor::console::{Console, ConsoleFiles, Output, Relays};
use crate::supervisor::controller::{Row, Table};
use crate::supervisor::events::Event;
use crate::supervisor::phase::Phase;
use crate::supervisor::{Order, Watcher};

/// How long the end of a run waits for those who read.
const CLOSE_BOUND: Duration = Duration::from_secs(1);

/// What each of them gets even when another has used that up.
const LEAST_BOUND: Duration = Duration::from_millis(20);

/// Tells events and shows the table, without ever waiting for whoever reads them.
pub(super) struct Teller {
    /// Where events go, unless that is the screen.
    outlet: Option<Outlet>,
    /// Where several guests print, if that is standard output.
    consoles: Option<Outlet>,
    relays: Option<Relays>,
    events: OutletWriter,
    /// An event could not be written.
    lost: Arc<AtomicBool>,
    /// Events are JSON lines.
    pub(super) json: bool,
    /// Where people look: standard error.
    screen: OutletWriter,
    /// People look there for more than the guest's console.
    tables: bool,
    shown: Option<Table>,
    node: String,
}

impl Teller {
    /// JSON lines to `path`, or sentences to people. The table goes to people, unless a program
    /// reads the events as they come: it has them.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, Failure> {
        let screen = screen::start()?;
        let lost = Arc::new(AtomicBool::new(false));
        let open = |path| events_outlet(path, screen.clone(), Arc::clone(&lost));
        let outlet = path.map(open).transpose()?;
        let events = outlet
            .as_ref()
            .map_or_else(|| screen.clone(), Outlet::writer);
        Ok(Self {
            outlet,
            consoles: None,
            relays: None,
            events,
            lost,
            json: path.is_some(),
            screen,
            tables: path.is_none_or(|path| !is_standard(path)),
            shown: None,
            node: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        })
    }

    /// Where consoles go. One guest has the terminal; of several, none has its input, and it is told
    /// whose line it is. A file grows to `limit` bytes, if there is one.
    pub(super) fn console(
        &mut self,
        kind: Kind,
        path: Option<&Path>,
        limit: Option<u64>,
    ) -> Result<Console, Failure> {
        let several = matches!(kind, Kind::VirtualMachineInstanceReplicaSet { .. });
        Ok(match path {
            None if several => Console::Named(self.screen.clone()),
            None => Console::Own(Output::Error),
            Some(path) if is_standard(path) && several => {
                let stdout = Box::new(io::stdout());
                let outlet = Outlet::start("console", stdout).map_err(Failure::could_not)?;
                let writer = outlet.writer();
                self.consoles = Some(outlet);
                Console::Named(writer)
            }
            Some(path) if is_standard(path) => Console::Own(Output::Standard),
            Some(path) => {
                let (files, relays) = ConsoleFiles::new(path, limit, self.screen.clone());
                self.relays = Some(relays);
                if several {
                    Console::Files(files)
                } else {
                    let output = files
                        .file()
                        .map_err(|error| cannot_create("what the guest prints", path, &error))?;
                    Console::Own(Output::File(output))
                }
            }
        })
    }

    /// Waits a moment for whoever has not read everything yet, for a second in all; whether every event
    /// was written.
    pub(super) fn close(&mut self) -> bool {
        let now = Instant::now();
        let deadline = now.checked_add(CLOSE_BOUND).unwrap_or(now);
        // One that has taken everything is given the time to say so.
        let deadline = || {
            let soon = Instant::now().checked_add(LEAST_BOUND);
            soon.map_or(deadline, |soon| soon.max(deadline))
        };
        let closed = |outlet: &Outlet| outlet.close_by(deadline());
        let all_events = self.outlet.as_ref().is_none_or(closed);
        let consoles = self.consoles.as_ref().is_none_or(closed);
        let relays = self.relays.take();
        let relayed = relays.is_none_or(|it| it.finish_by(deadline()));
        // Said already of events that could not be written.
        let lost = self.lost.load(Ordering::Relaxed);
        let mut say = |what| {
            let _taken = writeln!(
                self.screen,
                "kennel: {what} was not taken in time and is lost"
            );
        };
        if !all_events && !lost {
            say("the last of the events");
        }
        if !(consoles && relayed) {
            say("what the guest printed last");
        }
        all_events && !lost
    }
}

impl Watcher for Teller {
    fn event(&mut self, event: &Event) -> Vec<Order> {
        let line = match serde_json::to_string(event) {
            Ok(json) if self.json => in_json(&json),
            _ => sentence(event),
        };
        // It takes everything at once.
        let _taken = writeln!(self.events, "{line}");
        vec![]
    }

    fn table(&mut self, table: &Table, now: Moment) {
        // Before anything runs, the events say all there is.
        let runs = |row: &Row| row.phase == Phase::Running;
        if self.tables && (self.shown.is_some() || table.rows.iter().any(runs)) {
            let text = table.changes(self.shown.as_ref(), now, &self.node);
            let _taken = self.screen.write_all(text.as_bytes());
            self.shown = Some(table.clone());
        }
    }
}

/// An event as a person reads it.
pub(super) fn sentence(event: &Event) -> String {
    let seconds = std::time::Duration::from_nanos(event.uptime_ns).as_secs_f64();
    let message = super::without_error_numbers(&event.message);
    let message = on_one_line(&message);
    format!("kennel: {seconds:10.3} s  {:<18} {message}", event.reason)
}

/// Guests write parts of messages: none of them may begin a line, or speak to the terminal.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if acts(char) {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

/// JSON that says the same. Its writer leaves those as they are that have no place in its own text, so
/// they are in strings.
fn in_json(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for char in json.chars() {
        if acts(char) {
            line.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            line.push(char);
        }
    }
    line
}

/// Control characters, and what breaks lines or reverses their direction.
fn acts(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub(super) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Events to `path`, opened now so that a mistake is told before anything runs; but a FIFO waits for its
/// reader, and nothing waits for that.
fn events_outlet(
    path: &Path,
    mut screen: OutletWriter,
    lost: Arc<AtomicBool>,
) -> Result<Outlet, Failure> {
    let open: Open = if is_standard(path) {
        Box::new(|| Ok(Box::new(io::stdout())))
    } else if output_file::is_fifo(path) {
        let path = path.to_owned();
        Box::new(move || Ok(Box::new(output_file::create(&path)?)))
    } else {
        let file = LineFile::create(path);
        let file = file.map_err(|error| cannot_create("events", path, &error))?;
        Box::new(move || Ok(Box::new(file)))
    };
    let shown = path.display().to_string();
    let failed = move |error: &io::Error| {
        lost.store(true, Ordering::Relaxed);
        let why = without_error_numbers(&error.to_string());
        let _taken = writeln!(
            screen,
            "kennel: events cannot be written to {shown} and are lost until they can be: {why}; \
             free some space there, or give another file"
        );
    };
    Outlet::start_opening("events", open, Box::new(failed)).map_err(Failure::could_not)
}

fn cannot_create(what: &str, path: &Path, error: &io::Error) -> Failure {
    let hint = "give a file in a directory that you may write to";
    Failure::CouldNot(format!(
        "cannot write {what} to {}: {error}; {hint}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_text_stays_text() {
        assert_eq!(
            on_one_line("“größe” 日\u{1b}[2J\r\nkennel: well\u{9b}1m\u{202e}"),
            "“größe” 日\\u{1b}[2J\\r\\nkennel: well\\u{9b}1m\\u{202e}"
        );
    }

    #[test]
    fn a_guests_text_in_json_means_the_same_and_does_nothing() {
        let text = "“größe” 日\u{1b}[2J\r\nkennel: \"well\"\u{7f}\u{9b}1m\u{202e}";
        let json = in_json(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(acts), "{json}");
        assert!(
            json.contains("größe") && json.contains("\\u009b1m"),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
