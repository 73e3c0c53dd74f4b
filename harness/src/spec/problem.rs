// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is said about a document: problems that stop it, notes that do not, and where each stands.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use super::nearest;

/// At most this many problems are kept; the rest are counted.
const KEPT: usize = 100;
/// At most this many characters of a user's value are shown.
const SHOWN: usize = 60;

/// A place in the text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// A value's YAML path and position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As Kubernetes writes it: `spec.domain.devices.disks[0].name`, `metadata.annotations[kennel/pretimeout]`.
    pub path: String,
    /// Where the value, or the key that should have held it, stands.
    pub position: Option<Position>,
}

/// One mistake: what, where, what is allowed, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The document's file, as the caller named it.
    pub file: String,
    /// Absent when the file as a whole is meant.
    pub position: Option<Position>,
    /// The YAML path; empty when the file as a whole or its syntax is meant.
    pub path: String,
    /// What failed, with the value.
    pub message: String,
    /// What is allowed.
    pub allowed: Option<String>,
    /// What to do: the nearest known key or value of a misspelling, or how to write it.
    pub hint: Option<String>,
}

impl Problem {
    /// Joins a fault with its place.
    pub(super) fn new(file: &str, place: Place, fault: Fault) -> Self {
        let Place { path, position } = place;
        let Fault {
            message,
            allowed,
            hint,
        } = fault;
        Self {
            file: file.to_owned(),
            position,
            path,
            message,
            allowed,
            hint,
        }
    }
}

impl fmt::Display for Problem {
    /// One line: `FILE:LINE: PATH: message; allowed: …; hint`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", printable(&self.file))?;
        if let Some(position) = self.position {
            write!(f, "{}:", position.line)?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// Every problem of a document, in the order of the text; one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    left_out: usize,
}

impl Problems {
    /// The problems kept, at least one.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// How many problems there are, those left out included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len().saturating_add(self.left_out)
    }

    /// `Err` with these problems, or `Ok` when there are none.
    pub(super) fn or_ok(self) -> Result<(), Self> {
        if self.list.is_empty() {
            Ok(())
        } else {
            Err(self)
        }
    }

    /// Puts what explains the others before them.
    pub(super) fn push_first(&mut self, problem: Problem) {
        self.list.insert(0, problem);
    }

    pub(super) fn push(&mut self, problem: Problem) {
        if self.list.len() < KEPT {
            self.list.push(problem);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self {
            list: vec![problem],
            left_out: 0,
        }
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        if self.left_out > 0 {
            write!(f, "\n… and {} more problems", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A problem without its place: what a value parser gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) allowed: Option<String>,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            allowed: None,
            hint: None,
        }
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An unknown word out of a closed list, with the nearest of the list.
    pub(super) fn unknown<'k>(
        what: &str,
        word: &str,
        known: impl Iterator<Item = &'k str> + Clone,
    ) -> Self {
        let list = known.clone().collect::<Vec<_>>().join(", ");
        Self {
            message: format!("unknown {what} {}", quoted(word)),
            allowed: Some(list),
            hint: nearest::among(word, known).map(did_you_mean),
        }
    }
}

/// The hint for a misspelling.
pub(super) fn did_you_mean(word: &str) -> String {
    format!("did you mean \"{word}\"?")
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoteKind {
    /// Disks, volumes and other devices that are not attached yet.
    NotAttached,
    /// A value that is taken, and probably not what is meant.
    Doubtful,
    /// What KubeVirt makes of a probe.
    Rendered,
    /// Fields that a single host has no use for.
    NoUseHere,
    /// A value that Kennel takes and KubeVirt does not.
    NotInKubeVirt,
    /// A default that decides what runs.
    Defaulted,
    /// A value that was rounded.
    Rounded,
    /// A machine or set that KubeVirt would not start by itself.
    StartedAnyway,
    /// A `kennel/…` annotation that has no effect in this document.
    NoEffect,
}

/// Something worth knowing about a document that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// What it says.
    pub message: String,
    /// The fields meant, in the order of the text.
    pub places: Vec<Place>,
}

impl fmt::Display for Note {
    /// One line: `message: path (line N), path (line N)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        for (index, place) in self.places.iter().enumerate() {
            write!(f, "{} {}", if index == 0 { ":" } else { "," }, place.path)?;
            if let Some(position) = place.position {
                write!(f, " (line {})", position.line)?;
            }
        }
        Ok(())
    }
}

/// Where a walk leaves what it finds.
#[derive(Debug, Default)]
pub(super) struct Report {
    file: String,
    problems: RefCell<Vec<Problem>>,
    notes: RefCell<Vec<Note>>,
    /// Paths that a misspelt key stands for: their absence is no second problem.
    misspelt: RefCell<HashSet<String>>,
}

impl Report {
    pub(super) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn problem(&self, place: Place, fault: Fault) {
        self.problems
            .borrow_mut()
            .push(Problem::new(&self.file, place, fault));
    }

    /// Adds places to the note of this kind and text, which is made when it is not there yet.
    pub(super) fn note(&self, kind: NoteKind, message: &str, place: Place) {
        let mut notes = self.notes.borrow_mut();
        match notes
            .iter_mut()
            .find(|note| note.kind == kind && note.message == message)
        {
            Some(note) => note.places.push(place),
            None => notes.push(Note {
                kind,
                message: message.to_owned(),
                places: vec![place],
            }),
        }
    }

    pub(super) fn misspelt(&self, path: String) {
        self.misspelt.borrow_mut().insert(path);
    }

    pub(super) fn is_misspelt(&self, path: &str) -> bool {
        self.misspelt.borrow().contains(path)
    }

    /// The notes, or every problem in the order of the text.
    pub(super) fn finish(mut self) -> Result<Vec<Note>, Problems> {
        let notes = std::mem::take(self.notes.get_mut());
        self.into_problems().or_ok().map(|()| notes)
    }

    /// Every problem, in the order of the text.
    pub(super) fn into_problems(self) -> Problems {
        let mut list = self.problems.into_inner();
        list.sort_by_key(|problem| problem.position);
        let mut problems = Problems::default();
        for problem in list {
            problems.push(problem);
        }
        problems
    }
}

/// A user's text in quotes, on one line, cut when long.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("\"{}\"", printable(&shown))
}

/// A text without line breaks and other control characters.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: usize) -> Place {
        Place {
            path: "spec.domain".to_owned(),
            position: Some(Position { line, column: 1 }),
        }
    }

    #[test]
    fn a_problem_is_one_line_with_everything() {
        let fault = Fault::new(format!("unknown action {}", quoted("a\nb")))
            .allowed("x, y")
            .hint("did you mean \"x\"?");
        let problem = Problem::new("vm.yaml", place(7), fault);
        assert_eq!(
            problem.to_string(),
            "vm.yaml:7: spec.domain: unknown action \"a\\nb\"; allowed: x, y; did you mean \"x\"?"
        );
    }

    #[test]
    fn problems_come_in_the_order_of_the_text_and_are_bounded() {
        let report = Report::new("vm.yaml");
        for line in (1..=150).rev() {
            report.problem(place(line), Fault::new("wrong"));
        }
        let problems = report.finish().expect_err("there are problems");
        assert_eq!(problems.count(), 150);
        assert_eq!(problems.list().len(), KEPT);
        assert_eq!(problems.list()[0].position.map(|at| at.line), Some(1));
        assert!(problems.to_string().ends_with("… and 50 more problems"));
    }

    #[test]
    fn long_values_are_cut() {
        let text = quoted(&"x".repeat(5000));
        assert_eq!(text.chars().count(), SHOWN + 3);
    }
}
