// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The probes' demonstration: a machine that is ready, not ready, ready again, and in the end killed
//! and replaced, because its guest agent is gone.

mod director;

use crate::spec::{self, Document, Problems};

pub use director::ProbesDirector;

/// What is about to be seen.
pub const TITLE: &str = "a guest is ready and not ready by turns, falls silent, and is replaced";

/// The machine, in a user's words.
const MACHINE: &str = include_str!("machine.yaml");

/// The machine.
///
/// # Errors
///
/// None that a test would not have found.
pub fn document() -> Result<Document, Problems> {
    spec::parse(MACHINE, "machine.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::NoteKind;

    #[test]
    fn the_document_is_admitted_without_doubts() {
        let document = document().expect("a document without problems");
        for note in &document.notes {
            // Late answers are waited for, on purpose.
            let meant = note.message.contains("is longer than the period");
            assert!(meant || note.kind == NoteKind::Defaulted, "{note:?}");
        }
        let probes = (document.vmi.liveness, document.vmi.readiness);
        assert!(matches!(probes, (Some(_), Some(_))), "{probes:?}");
    }
}
