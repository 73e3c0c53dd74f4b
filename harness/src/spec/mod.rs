// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! KubeVirt documents: reads a VirtualMachineInstance, VirtualMachine or
//! VirtualMachineInstanceReplicaSet, says everything that is wrong with it in one go, and gives back
//! what a machine needs to know.
//!
//! *Honoured*: name, namespace, memory, CPU count, the watchdog, the pod network, both probes,
//! replicas, kernelBoot, the termination grace and the `kennel/…` annotations. *Named in a note*:
//! devices that are not attached yet, values that are probably not meant, fields that a single host
//! has no use for. *Refused*: unknown keys, wrong types, values that KubeVirt,
//! Kubernetes behind it, or this host would not take.
//!
//! How it works: `node` makes a tree with positions, `walk` compares it with the tables of
//! `keys`, the modules named after parts of the document read values off it, `problem`
//! collects what they find. Nothing but [`load_file`] and [`Document::check_files`] touches the
//! file system.

mod admit;
mod annotations;
mod boot;
mod devices;
mod domain;
mod duration;
mod handlers;
mod host;
mod hosts;
mod keys;
mod metadata;
mod nearest;
mod network;
mod node;
mod ports;
mod probe;
mod probes;
mod problem;
mod quantity;
mod replicas;
mod scalar;
mod script;
mod vmi;
mod walk;
mod watchdog;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(crate) use boot::{CMDLINE, command_line};

pub use annotations::KNOWN as KENNEL_ANNOTATIONS;
pub use domain::{MAX_VCPUS, MIN_MEMORY_BYTES};
pub use host::HostLimits;
pub use network::{Network, UplinkWish};
pub use probe::{Handler, HttpGet, IpFamily, Probe, TcpSocket};
pub use problem::{Note, NoteKind, Place, Position, Problem, Problems};
pub use replicas::MAX_REPLICAS;
pub use script::{Cue, Finding, GuestAct, Script, ScriptedOutcome, What};
pub use vmi::{Document, KernelBoot, KernelSource, Kind, RunStrategy, Vmi, Watchdog};

use problem::{Fault, Report};

/// A size in bytes, written as a document's sizes are.
///
/// # Errors
/// Why `text` is no size.
pub fn bytes(text: &str) -> Result<u64, String> {
    let size = quantity::Quantity::parse(text).map_err(|fault| fault.message)?;
    u64::try_from(size.ceil()).map_err(|_| "a size is not negative".to_owned())
}

/// Reads the document in the file `path`.
///
/// # Errors
/// The file cannot be read, or every problem of the document, in the order of its text.
pub fn load_file(path: &Path) -> Result<Document, Problems> {
    let name = path.display().to_string();
    let text = read(path).map_err(|fault| whole_file(&name, fault))?;
    parse(&text, &name)
}

/// Reads a document from text. `file_name` names it in messages, and its folder is what relative
/// paths in the document are relative to.
///
/// # Errors
/// Every problem of the document, in the order of its text.
pub fn parse(text: &str, file_name: &str) -> Result<Document, Problems> {
    let root = node::read(text).map_err(|(position, fault)| {
        let place = Place {
            path: String::new(),
            position,
        };
        Problem::new(file_name, place, fault)
    })?;
    let (admitted, notes) = admit(&root, file_name).map_err(|mut problems| {
        if node::lost_indentation(text) {
            let fault = Fault::new(node::LOST_INDENTATION);
            let guess = whole_file(file_name, fault.hint("indent each level by two spaces"));
            problems.push_first(guess);
        }
        problems
    })?;
    let admit::Admitted { kind, vmi, places } = admitted;
    Ok(Document {
        file: file_name.to_owned(),
        kind,
        vmi,
        notes,
        places,
    })
}

fn admit(root: &node::Node, file_name: &str) -> Result<(admit::Admitted, Vec<Note>), Problems> {
    let report = Report::new(file_name);
    let folder = Path::new(file_name).parent().unwrap_or(Path::new(""));
    let Some(admitted) = admit::admit(&walk::Cursor::root(root, &report), folder) else {
        return Err(report.into_problems());
    };
    Ok((admitted, report.finish()?))
}

fn read(path: &Path) -> Result<String, Fault> {
    let limit = node::MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| {
            Fault::new(format!("cannot read the document: {}", host::cause(&error)))
        })?;
    if bytes.len() > node::MAX_BYTES {
        let fault = Fault::new("the document is too large");
        return Err(fault.allowed(format!("at most {} bytes", node::MAX_BYTES)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Fault::new(format!("the document is not UTF-8 text (line {line})")).hint("save it as UTF-8")
    })
}

fn whole_file(file: &str, fault: Fault) -> Problem {
    Problem::new(
        file,
        Place {
            path: String::new(),
            position: None,
        },
        fault,
    )
}
