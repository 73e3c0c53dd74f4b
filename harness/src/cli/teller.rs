// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `kennel run` says while it runs: events, and the table of instances.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use kennel_vmm::outlet::{Outlet, OutletWriter};

use super::Failure;
use crate::moment::Moment;
use crate::spec::Kind;
use crate::supervisor::console::{Console, Output};
use crate::supervisor::controller::{Row, Table};
use crate::supervisor::events::Event;
use crate::supervisor::phase::Phase;
use crate::supervisor::{Order, Watcher};

/// Tells events and shows the table, without ever waiting for whoever reads them.
pub(super) struct Teller {
    outlets: Vec<Outlet>,
    events: OutletWriter,
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
        let screen = outlet("screen", Box::new(io::stderr()))?;
        let shown = screen.writer();
        let mut outlets = vec![screen];
        let events = match path {
            None => shown.clone(),
            Some(path) => {
                let output: Box<dyn Write + Send> = match path {
                    path if is_standard(path) => Box::new(io::stdout()),
                    path => Box::new(create("events", path)?),
                };
                let outlet = outlet("events", output)?;
                let writer = outlet.writer();
                outlets.push(outlet);
                writer
            }
        };
        Ok(Self {
            outlets,
            events,
            json: path.is_some(),
            screen: shown,
            tables: path.is_none_or(|path| !is_standard(path)),
            shown: None,
            node: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        })
    }

    /// Where consoles go. One guest has the terminal; of several, none has its input, and it is told
    /// whose line it is.
    pub(super) fn console(&mut self, kind: Kind, path: Option<&Path>) -> Result<Console, Failure> {
        let several = matches!(kind, Kind::VirtualMachineInstanceReplicaSet { .. });
        Ok(match path {
            None if several => Console::Named(self.screen.clone()),
            None => Console::Own(Output::Error),
            Some(path) if is_standard(path) && several => {
                let outlet = outlet("console", Box::new(io::stdout()))?;
                let writer = outlet.writer();
                self.outlets.push(outlet);
                Console::Named(writer)
            }
            Some(path) if is_standard(path) => Console::Own(Output::Standard),
            Some(path) if several => Console::Files(path.to_owned()),
            Some(path) => Console::Own(Output::File(create("what the guest prints", path)?)),
        })
    }

    /// Waits a moment for whoever has not read everything yet.
    pub(super) fn close(&self) {
        for outlet in &self.outlets {
            outlet.close();
        }
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

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

fn outlet(name: &str, output: Box<dyn Write + Send>) -> Result<Outlet, Failure> {
    Outlet::start(name, output).map_err(Failure::could_not)
}

fn create(what: &str, path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| {
        let hint = "give a file in a directory that you may write to";
        Failure::CouldNot(format!(
            "cannot write {what} to {}: {error}; {hint}",
            path.display()
        ))
    })
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
