// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Remembers what apt answered for as long as its package lists and its configuration stay as they are. Asking it again
//! would cost a second on every start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Answers by question, valid for one state of the lists.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answers {
    state: Vec<String>,
    answers: BTreeMap<String, String>,
}

/// The remembered answers of one set of package lists.
#[derive(Debug)]
pub(super) struct Memory {
    file: PathBuf,
    /// Whose names, sizes and times make up the state: files, and directories with what is directly in them.
    watched: Vec<PathBuf>,
    held: RefCell<Option<Answers>>,
}

impl Memory {
    /// Answers kept in `file`, valid until something in `watched` changes.
    pub(super) fn new(file: PathBuf, watched: Vec<PathBuf>) -> Self {
        Self {
            file,
            watched,
            held: RefCell::new(None),
        }
    }

    /// What was answered to `question`, if that still holds.
    pub(super) fn recall(&self, question: &str) -> Option<String> {
        self.with(|answers| answers.answers.get(question).cloned())
    }

    /// Remembers an answer. Not being able to costs time only, so that is no error.
    pub(super) fn learn(&self, question: &str, answer: &str) {
        let text = self.with(|answers| {
            answers
                .answers
                .insert(question.to_owned(), answer.to_owned());
            serde_json::to_vec(answers).unwrap_or_default()
        });
        let written = self.file.parent().and_then(|directory| {
            let mut temporary = tempfile::NamedTempFile::new_in(directory).ok()?;
            temporary.write_all(&text).ok()?;
            temporary.persist(&self.file).ok()
        });
        if written.is_none() {
            log::debug!("cannot write {}", self.file.display());
        }
    }

    /// Forgets everything, before the lists are changed.
    pub(super) fn forget(&self) {
        *self.held.borrow_mut() = None;
    }

    fn with<T>(&self, work: impl FnOnce(&mut Answers) -> T) -> T {
        let mut held = self.held.borrow_mut();
        let answers = held.get_or_insert_with(|| {
            let state = self.state();
            let read = fs::read(&self.file).ok();
            let known = read.and_then(|text| serde_json::from_slice::<Answers>(&text).ok());
            known
                .filter(|answers| answers.state == state)
                .unwrap_or(Answers {
                    state,
                    answers: BTreeMap::new(),
                })
        });
        work(answers)
    }

    fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        for path in &self.watched {
            describe(path, &mut state);
            let mut inside: Vec<PathBuf> = fs::read_dir(path)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            inside.sort();
            for path in inside.iter().filter(|path| path.is_file()) {
                describe(path, &mut state);
            }
        }
        state
    }
}

fn describe(path: &Path, state: &mut Vec<String>) {
    if let Ok(file) = fs::metadata(path) {
        let path = path.display();
        // A directory's own time changes with locks and temporary files; what is in it is listed by itself.
        state.push(if file.is_dir() {
            format!("{path}")
        } else {
            format!(
                "{path} {} {}.{:09}",
                file.len(),
                file.mtime(),
                file.mtime_nsec()
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_until_the_lists_change() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let lists = directory.path().join("lists");
        fs::create_dir(&lists).expect("directory");
        fs::write(lists.join("Packages"), "one").expect("write");
        let memory = || Memory::new(directory.path().join("answers"), vec![lists.clone()]);

        assert_eq!(memory().recall("where"), None);
        memory().learn("where", "here");
        memory().learn("what", "this");
        assert_eq!(memory().recall("where").as_deref(), Some("here"));

        fs::write(lists.join("Packages"), "three").expect("write");
        assert_eq!(memory().recall("where"), None);
        fs::write(directory.path().join("answers"), "not JSON").expect("write");
        assert_eq!(memory().recall("where"), None);
    }
}
