// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The programs that an image has beside busybox. A guest does without one that cannot be had, and that is said.

use super::assemble::Program;
use crate::guest::libraries::{LibraryError, Resolver};
use crate::guest::packages::{Package, PackageError, PackageStore};

/// A program to bring along.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// What notes call it.
    name: &'static str,
    /// The package it is in.
    package: &'static str,
    /// Its path there and in the guest.
    path: &'static str,
}

/// The programs, in the order in which they are looked for.
pub(super) const PROGRAMS: [Wanted; 2] = [
    Wanted {
        name: "wdctl",
        package: "util-linux",
        path: "bin/wdctl",
    },
    Wanted {
        name: "guest agent (qemu-ga)",
        package: "qemu-guest-agent",
        path: "usr/sbin/qemu-ga",
    },
];

/// A program and its package, or why there is none.
pub(super) type Obtained = (Wanted, Result<Package, PackageError>);

/// The programs that could be brought together.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) programs: Vec<Program>,
    /// The packages with their libraries.
    pub(super) libraries: Vec<Package>,
    /// What is missing and why, one sentence for each program.
    pub(super) notes: Vec<String>,
}

/// Downloads the packages of all programs.
pub(super) fn obtain(store: &PackageStore<'_>) -> Vec<Obtained> {
    PROGRAMS
        .into_iter()
        .map(|wanted| (wanted, store.obtain_one(wanted.package)))
        .collect()
}

/// Unpacks the programs and their libraries.
pub(super) fn gather(obtained: Vec<Obtained>, store: &PackageStore<'_>) -> Programs {
    let mut resolver = Resolver::new(store);
    let mut gathered = Programs::default();
    for (wanted, package) in obtained {
        match gather_one(wanted, package, store, &mut resolver) {
            Ok(program) => gathered.programs.push(program),
            Err(error) => gathered
                .notes
                .push(format!("the guest has no {}: {error}", wanted.name)),
        }
    }
    gathered.libraries = resolver.packages;
    gathered
}

fn gather_one(
    wanted: Wanted,
    package: Result<Package, PackageError>,
    store: &PackageStore<'_>,
    resolver: &mut Resolver<'_>,
) -> Result<Program, LibraryError> {
    let elf = store.unpack(&package?)?.read(wanted.path)?;
    let libraries = resolver.resolve(wanted.path, &elf)?;
    Ok(Program {
        path: wanted.path,
        elf,
        libraries,
    })
}
