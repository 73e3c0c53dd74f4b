// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a worker says, one JSON object a line.

use std::process::ExitStatus;

use serde_json::{Value, json};

use super::case::CANNOT_RUN;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With this output.
    Passed(String),
    /// For this reason.
    CannotRun(String),
    /// Everything that it wrote.
    Failed(String),
}

impl Outcome {
    /// Of a process that ended so, after it wrote `output`.
    pub(super) fn of(status: ExitStatus, output: String) -> Self {
        match status.code() {
            Some(0) => Self::Passed(output),
            Some(code) if code == i32::from(CANNOT_RUN) => {
                let why = output.lines().last().unwrap_or_default();
                Self::CannotRun(why.to_owned())
            }
            _ => Self::Failed(format!("{output}\nthe test's process ended: {status}")),
        }
    }
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It takes cases from now on.
    Ready,
    /// This case has ended.
    Ended(String, Outcome),
}

impl Answer {
    /// As a line, without its end.
    pub(super) fn line(&self) -> String {
        let value = match self {
            Self::Ready => json!({ "ready": true }),
            Self::Ended(case, outcome) => {
                let (word, text) = match outcome {
                    Outcome::Passed(text) => ("passed", text),
                    Outcome::CannotRun(text) => ("cannot run", text),
                    Outcome::Failed(text) => ("failed", text),
                };
                json!({ "case": case, "outcome": word, "text": text })
            }
        };
        value.to_string()
    }

    /// From a line; None if a worker did not write it.
    pub(super) fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        if value.get("ready").is_some() {
            return Some(Self::Ready);
        }
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let outcome = match text("outcome")?.as_str() {
            "passed" => Outcome::Passed,
            "cannot run" => Outcome::CannotRun,
            "failed" => Outcome::Failed,
            _ => return None,
        };
        Some(Self::Ended(text("case")?, outcome(text("text")?)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn answers_are_read_as_they_were_written() {
        let long = "two\nlines \"quoted\" \u{1b}[0m ü".to_owned();
        for answer in [
            Answer::Ready,
            Answer::Ended("a::b".into(), Outcome::Passed(long.clone())),
            Answer::Ended("a::b".into(), Outcome::CannotRun(long.clone())),
            Answer::Ended("a::b".into(), Outcome::Failed(long)),
        ] {
            assert!(!answer.line().contains('\n'));
            assert_eq!(Answer::read(&answer.line()), Some(answer));
        }
        assert_eq!(Answer::read("something else"), None);
        assert_eq!(Answer::read("{}"), None);
    }

    #[test]
    fn a_process_that_ends_otherwise_than_well_has_failed() {
        let of = |raw| Outcome::of(ExitStatus::from_raw(raw), "one\ntwo\n".into());
        assert_eq!(of(0), Outcome::Passed("one\ntwo\n".into()));
        assert_eq!(of(77 << 8), Outcome::CannotRun("two".into()));
        for raw in [1 << 8, 101 << 8, 9] {
            let Outcome::Failed(text) = of(raw) else {
                unreachable!("{raw} is a failure")
            };
            assert!(text.starts_with("one\ntwo\n"), "{text}");
        }
    }
}
