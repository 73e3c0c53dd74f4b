// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds the shared libraries that a program needs, in the packages that Debian's naming rule says they are in.

use std::collections::{BTreeMap, BTreeSet};

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{ElfFile, ProgramHeader};
use thiserror::Error;

use super::packages::{Contents, Package, PackageError, PackageStore};

/// Why a program cannot be brought along.
#[derive(Debug, Error)]
pub(super) enum LibraryError {
    /// The file is not an x86-64 program or library.
    #[error("{file} is not a 64-bit ELF file: {reason}")]
    NotElf {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No package is known to hold a library.
    #[error("{file} needs {library}, which none of its packages has")]
    NotFound {
        /// The program or library.
        file: String,
        /// The library's name.
        library: String,
    },
    /// A package cannot be had.
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// What one ELF file asks the dynamic linker for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    interpreter: Option<String>,
    libraries: Vec<String>,
}

/// Finds libraries; a package is opened once, however many programs need it.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    store: &'a PackageStore<'a>,
    opened: Vec<Contents>,
    /// The packages that were opened.
    pub(super) packages: Vec<Package>,
}

impl<'a> Resolver<'a> {
    /// One that takes packages from `store`.
    pub(super) fn new(store: &'a PackageStore<'a>) -> Self {
        Self {
            store,
            opened: Vec::new(),
            packages: Vec::new(),
        }
    }

    /// Everything that the program `elf` (called `file` in errors) needs to run, down to the dynamic linker: paths in
    /// the guest and contents.
    pub(super) fn resolve(
        &mut self,
        file: &str,
        elf: &[u8],
    ) -> Result<BTreeMap<String, Vec<u8>>, LibraryError> {
        let mut files = BTreeMap::new();
        let mut known = BTreeSet::new();
        let mut open = vec![(file.to_owned(), needs(file, elf)?)];
        while let Some((parent, needed)) = open.pop() {
            for library in needed.libraries.into_iter().chain(needed.interpreter) {
                let name = library.rsplit('/').next().unwrap_or_default();
                if !known.insert(name.to_owned()) {
                    continue;
                }
                if find(&self.opened, &library).is_none() {
                    self.open_package_of(name)?;
                }
                let (contents, path) =
                    find(&self.opened, &library).ok_or_else(|| LibraryError::NotFound {
                        file: parent.clone(),
                        library: library.clone(),
                    })?;
                let data = contents.read(&path)?;
                open.push((path.clone(), needs(&path, &data)?));
                files.insert(path, data);
            }
        }
        Ok(files)
    }

    /// Opens the package that should have `library`, if there is a rule for such a name.
    fn open_package_of(&mut self, library: &str) -> Result<(), LibraryError> {
        let Some(name) = package_of(library) else {
            return Ok(());
        };
        // Debian 13 renamed the packages whose interface changed with the width of time_t elsewhere.
        let package = self.store.obtain_one(&name).or_else(|first| {
            let renamed = self.store.obtain_one(&format!("{name}t64"));
            renamed.map_err(|_| first)
        })?;
        self.opened.push(self.store.unpack(&package)?);
        self.packages.push(package);
        Ok(())
    }
}

/// The library in one of the packages: at its path if it has one, else in any directory the linker looks in.
fn find<'a>(packages: &'a [Contents], library: &str) -> Option<(&'a Contents, String)> {
    let candidates = if library.starts_with('/') {
        vec![library.trim_start_matches('/').to_owned()]
    } else {
        ["lib/x86_64-linux-gnu", "lib64", "lib"]
            .iter()
            .map(|directory| format!("{directory}/{library}"))
            .collect()
    };
    packages.iter().find_map(|contents| {
        candidates
            .iter()
            .find(|path| contents.has(path))
            .map(|path| (contents, path.clone()))
    })
}

/// Libraries whose packages are not called by the rule: how their names begin, and the package.
const EXCEPTIONS: [(&str, &str); 5] = [
    ("ld-linux-", "libc6"),
    ("libc.so.6", "libc6"),
    ("libm.so.6", "libc6"),
    ("libglib-2.0.so.0", "libglib2.0-0"),
    ("libgmodule-2.0.so.0", "libglib2.0-0"),
];

/// The package that has the library, by Debian's policy: libNAME.so.VERSION is in libNAMEVERSION, with a hyphen between
/// them if NAME ends with a digit.
fn package_of(library: &str) -> Option<String> {
    let exception = EXCEPTIONS
        .iter()
        .find(|(start, _)| library.starts_with(start));
    if let Some((_, package)) = exception {
        return Some((*package).to_owned());
    }
    let (name, version) = library.split_once(".so.")?;
    let hyphen = if name.ends_with(|c: char| c.is_ascii_digit()) {
        "-"
    } else {
        ""
    };
    Some(
        format!("{name}{hyphen}{version}")
            .to_lowercase()
            .replace('_', "-"),
    )
}

fn needs(file: &str, data: &[u8]) -> Result<Needs, LibraryError> {
    read_needs(data).map_err(|error| LibraryError::NotElf {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}

fn read_needs(data: &[u8]) -> object::Result<Needs> {
    let file = ElfFile::<FileHeader64<Endianness>>::parse(data)?;
    let mut needs = Needs::default();
    for header in file.elf_program_headers() {
        if let Some(path) = header.interpreter(file.endian(), data)? {
            needs.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let table = file.elf_dynamic_table()?;
    for entry in table.iter() {
        if entry.tag == elf::DT_NEEDED {
            needs
                .libraries
                .push(String::from_utf8_lossy(table.string(entry)?).into_owned());
        }
    }
    Ok(needs)
}

/// Whether the program runs without any other file.
pub(super) fn is_static(data: &[u8]) -> bool {
    read_needs(data).is_ok_and(|needs| needs == Needs::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_follow_from_the_names_of_libraries() {
        for (library, package) in [
            ("libsmartcols.so.1", "libsmartcols1"),
            ("libc.so.6", "libc6"),
            ("libpcre2-8.so.0", "libpcre2-8-0"),
            ("libnuma.so.1", "libnuma1"),
            ("liburing.so.2", "liburing2"),
            ("libudev.so.1", "libudev1"),
            ("libglib-2.0.so.0", "libglib2.0-0"),
            ("libgmodule-2.0.so.0", "libglib2.0-0"),
            ("libm.so.6", "libc6"),
            ("ld-linux-x86-64.so.2", "libc6"),
        ] {
            assert_eq!(package_of(library).as_deref(), Some(package));
        }
        assert_eq!(package_of("linux-vdso"), None);
    }

    #[test]
    fn a_program_says_what_it_needs() {
        // This test's own program: dynamic, with libc.
        let own = std::fs::read("/proc/self/exe").expect("own program");
        let needs = read_needs(&own).expect("ELF");
        assert!(needs.interpreter.expect("dynamic").contains("ld-linux"));
        assert!(
            needs.libraries.iter().any(|name| name == "libc.so.6"),
            "{:?}",
            needs.libraries
        );
        assert!(!is_static(&own) && !is_static(b"#!/bin/sh"));
    }
}
