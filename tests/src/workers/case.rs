// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One test, and its run in a process of its own.

use std::fmt;
use std::process::ExitCode;

use crate::tier::Obstacle;

/// Names the case that a process is to run.
pub(super) const CASE: &str = "KENNEL_TEST_CASE";
/// The exit status of a case that cannot run here; the reason is the last line of its output.
pub(super) const CANNOT_RUN: u8 = 77;
/// What a case finds in its environment beside what the test program has: a place for sockets of its own.
pub const ENVIRONMENT_OF_CASE: &str = "XDG_RUNTIME_DIR";

/// What a case needs of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Memory for its guests and their processes, in MiB.
    pub memory_mib: u32,
    /// How many cases' room it takes: one that measures, or has several guests, takes more than one.
    pub lanes: u32,
}

impl Need {
    /// One guest of 256 MiB, and another test beside it does no harm.
    pub const SMALL: Self = Self {
        memory_mib: 512,
        lanes: 1,
    };

    /// With so much memory.
    #[must_use]
    pub const fn memory(self, memory_mib: u32) -> Self {
        Self { memory_mib, ..self }
    }

    /// With nothing beside it.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self {
            lanes: u32::MAX,
            ..self
        }
    }
}

/// A program that a case runs, and the package that has it.
pub type Program = (&'static str, &'static str);

/// The body of a case: fails by panicking.
type Body<C> = Box<dyn FnOnce(&C) -> Result<(), Obstacle> + Send>;

/// A test; `C` is what its body is given.
pub struct Case<C> {
    /// Its name, as `group::name`.
    pub name: String,
    /// What it needs of its worker.
    pub need: Need,
    /// Programs without which it cannot run.
    pub programs: &'static [Program],
    body: Body<C>,
}

impl<C> fmt::Debug for Case<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({}, {:?})", self.name, self.need)
    }
}

impl<C> Case<C> {
    /// A test with this name.
    #[must_use]
    pub fn new(
        name: String,
        need: Need,
        body: impl FnOnce(&C) -> Result<(), Obstacle> + Send + 'static,
    ) -> Self {
        Self {
            name,
            need,
            programs: &[],
            body: Box::new(body),
        }
    }

    /// The same test, with another need.
    #[must_use]
    pub fn needing(self, need: Need) -> Self {
        Self { need, ..self }
    }

    /// The same test, which cannot run without these programs.
    #[must_use]
    pub fn with_programs(mut self, programs: &'static [Program]) -> Self {
        self.programs = programs;
        self
    }
}

/// Runs the case that this process was started for, if it was; a panic of the body is the process's.
#[must_use]
pub fn run_asked<C>(
    cases: impl FnOnce() -> Vec<Case<C>>,
    context: impl FnOnce() -> C,
) -> Option<ExitCode> {
    let name = std::env::var(CASE).ok()?;
    let Some(case) = cases().into_iter().find(|case| case.name == name) else {
        eprintln!("there is no test {name}");
        return Some(ExitCode::FAILURE);
    };
    Some(match (case.body)(&context()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Obstacle(why)) => {
            eprintln!("{}", why.replace('\n', " "));
            ExitCode::from(CANNOT_RUN)
        }
    })
}
