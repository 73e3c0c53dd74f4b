// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel simulate`: a document and a script, in virtual time.

use std::io::{self, BufWriter, ErrorKind, Write};

use super::args::SimulateArgs;
use super::progress::say;
use super::{Answer, Failure};
use crate::simulate;
use crate::spec::{self, Note, NoteKind, Script};

pub(super) fn simulate(args: &SimulateArgs) -> Answer {
    // What is wrong with either is told in one go.
    let document = spec::load_file(&args.file).map_err(|error| error.to_string());
    let script = Script::load(&args.script).map_err(|error| error.to_string());
    let (document, script) = match (document, script) {
        (Ok(document), Ok(script)) => (document, script),
        (document, script) => {
            let problems: Vec<_> = document.err().into_iter().chain(script.err()).collect();
            return Err(Failure::Usage(problems.join("\n")));
        }
    };
    // Nothing is attached here.
    let here = |note: &&Note| note.kind != NoteKind::NotAttached;
    for note in document.notes.iter().filter(here) {
        say(&format!("kennel: note: {note}"));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = simulate::simulate(&document, &script, args.compat, &mut out)
        .and_then(|outcome| out.write_all(outcome.table.closing().as_bytes()))
        .and_then(|()| out.flush());
    match written {
        // A reader that went away has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::CouldNot(format!(
            "the timeline cannot be written to standard output: {error}"
        ))),
        _ => Ok(0),
    }
}
