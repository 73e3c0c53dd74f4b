// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel validate`: admission only.

use super::args::ValidateArgs;
use super::progress::print;
use super::{Answer, Failure};
use crate::spec;

pub(super) fn validate(args: &ValidateArgs) -> Answer {
    let document =
        spec::load_file(&args.file).map_err(|error| Failure::Usage(error.to_string()))?;
    document
        .check_files()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let vmi = &document.vmi;
    let mut text = format!(
        "{}: {} {} is valid\n",
        args.file.display(),
        document.kind.name(),
        vmi.object()
    );
    let rendered = if args.compat {
        document.rendered_probes()
    } else {
        Vec::new()
    };
    for note in document.notes.iter().chain(&rendered) {
        text.push_str(&format!("note: {note}\n"));
    }
    print(&text);
    Ok(0)
}
