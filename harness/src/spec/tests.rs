// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Documents in, results and messages out.

mod accepted;
mod bounds;
mod files;
mod fixtures;
mod networks;
mod probes;
mod refused;
mod replicas;
mod scalars;

use std::path::Path;

use super::{Document, NoteKind, Problems, load_file, parse};

/// A small valid instance, to be changed by the tests.
const INSTANCE: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: small
spec:
  domain:
    firmware:
      kernelBoot:
        container:
          image: kennel/guest
    resources:
      requests:
        memory: 128Mi
    devices:
      watchdog:
        name: mywatchdog
        i6300esb:
          action: poweroff
";

/// [`INSTANCE`] with one text replaced, which must be there.
fn with(from: &str, to: &str) -> String {
    assert!(INSTANCE.contains(from), "{from:?} is not in the document");
    INSTANCE.replacen(from, to, 1)
}

fn accept(text: &str) -> Document {
    parse(text, "vm.yaml").unwrap_or_else(|problems| panic_with(&problems, text))
}

fn panic_with(problems: &Problems, text: &str) -> ! {
    unreachable!("refused:\n{problems}\n{text}")
}

/// The problems as lines.
fn refuse(text: &str) -> Vec<String> {
    let problems = parse(text, "vm.yaml").expect_err(text);
    problems.list().iter().map(ToString::to_string).collect()
}

/// A document that the tests of the whole program read too.
fn fixture(name: &str) -> Document {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    load_file(&folder.join(name)).unwrap_or_else(|problems| panic_with(&problems, name))
}

/// The first note of this kind, as a line.
fn note(document: &Document, kind: NoteKind) -> Option<String> {
    document
        .notes
        .iter()
        .find(|note| note.kind == kind)
        .map(ToString::to_string)
}
