// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds out which kernel modules must be loaded, and in which order, from the modules themselves.
//!
//! An unpacked kernel package has no `modules.dep`, so the order comes from each module's own `depends=`
//! (ELF section `.modinfo`). It differs from kernel to kernel; nothing about it is written down here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};

use object::{Object, ObjectSection};
use thiserror::Error;

/// Why the modules of a kernel cannot be put in order.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// A module that the guest cannot do without is in neither the kernel nor its modules.
    #[error("kernel {kernel} has no module {name}{}; choose another kernel", wanted_by(.parent))]
    Missing {
        /// The kernel's release.
        kernel: String,
        /// The module's name.
        name: String,
        /// The module that depends on it, if any.
        parent: Option<String>,
    },
    /// Modules depend on each other in a circle.
    #[error(
        "the modules of kernel {kernel} depend on each other in a circle at {name}; choose another kernel"
    )]
    Circle {
        /// The kernel's release.
        kernel: String,
        /// A module in the circle.
        name: String,
    },
    /// A module's file cannot be read or unpacked.
    #[error("cannot read kernel module {path}: {source}")]
    Read {
        /// The module's path.
        path: String,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// A file is not a kernel module.
    #[error("{path} is not a kernel module: {reason}")]
    NotAModule {
        /// The file's path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn wanted_by(parent: &Option<String>) -> String {
    parent
        .as_ref()
        .map(|name| format!(" (which its module {name} depends on)"))
        .unwrap_or_default()
}

/// A module that somebody wants loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The module's name; `-` and `_` mean the same.
    pub name: &'a str,
    /// Whether its absence is an error; otherwise it is left out together with what only it needs.
    pub required: bool,
}

impl<'a> Wanted<'a> {
    /// A module that must be there.
    #[must_use]
    pub fn required(name: &'a str) -> Self {
        Self {
            name,
            required: true,
        }
    }

    /// A module that is loaded when the kernel has it.
    #[must_use]
    pub fn optional(name: &'a str) -> Self {
        Self {
            name,
            required: false,
        }
    }
}

/// A module to load.
#[derive(Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_`.
    pub name: String,
    /// Its path in the kernel's module tree, as it was given.
    pub path: String,
    /// The ELF file, uncompressed.
    pub elf: Vec<u8>,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({}, {} bytes)", self.name, self.elf.len())
    }
}

/// What loading a list of modules comes down to.
#[derive(Debug, Default)]
pub struct Plan {
    /// Modules in the order in which to insert them, each once.
    pub load: Vec<Module>,
    /// Wanted or needed modules that are part of the kernel already.
    pub builtin: BTreeSet<String>,
    /// Optional modules that the kernel does not have.
    pub missing: Vec<String>,
}

type Reader<'a> = Box<dyn Fn(&str) -> io::Result<Vec<u8>> + 'a>;

/// The modules that belong to one kernel.
pub struct Modules<'a> {
    kernel: String,
    paths: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
    read: Reader<'a>,
}

impl fmt::Debug for Modules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Modules({}, {} files)", self.kernel, self.paths.len())
    }
}

impl<'a> Modules<'a> {
    /// The modules of the kernel release `kernel`: `paths` names files (those that are no modules are skipped),
    /// `builtin` is the text of the kernel's `modules.builtin`, and `read` gives a file by one of the paths.
    pub fn new(
        kernel: &str,
        paths: impl IntoIterator<Item = String>,
        builtin: &str,
        read: impl Fn(&str) -> io::Result<Vec<u8>> + 'a,
    ) -> Self {
        let paths = paths
            .into_iter()
            .filter_map(|path| Some((name_of(&path)?, path)))
            .collect();
        let builtin = builtin.lines().filter_map(name_of).collect();
        Self {
            kernel: kernel.to_owned(),
            paths,
            builtin,
            read: Box::new(read),
        }
    }

    /// The order in which to insert the `wanted` modules and all that they depend on.
    ///
    /// # Errors
    /// A required module or one it depends on is missing, or a file is unreadable or no module.
    pub fn plan(&self, wanted: &[Wanted<'_>]) -> Result<Plan, ModuleError> {
        let mut plan = Plan::default();
        for want in wanted {
            let name = canonical(want.name);
            // What an optional module brought in goes again if it turns out to be incomplete.
            let before = plan.load.len();
            match self.add(&mut plan, &mut Vec::new(), &name) {
                Err(ModuleError::Missing { .. }) if !want.required => {
                    plan.load.truncate(before);
                    plan.missing.push(name);
                }
                other => other?,
            }
        }
        Ok(plan)
    }

    /// Adds `name` behind everything it depends on; `above` is the chain of modules that led here.
    fn add(&self, plan: &mut Plan, above: &mut Vec<String>, name: &str) -> Result<(), ModuleError> {
        if plan.load.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if above.iter().any(|other| other == name) {
            return Err(ModuleError::Circle {
                kernel: self.kernel.clone(),
                name: name.to_owned(),
            });
        }
        let Some(path) = self.paths.get(name) else {
            if self.builtin.contains(name) {
                plan.builtin.insert(name.to_owned());
                return Ok(());
            }
            let parent = above.last().cloned();
            return Err(ModuleError::Missing {
                kernel: self.kernel.clone(),
                name: name.to_owned(),
                parent,
            });
        };
        let unreadable = |source| ModuleError::Read {
            path: path.clone(),
            source,
        };
        let elf = decompressed(path, (self.read)(path).map_err(unreadable)?).map_err(unreadable)?;
        above.push(name.to_owned());
        for needed in depends(path, &elf)? {
            self.add(plan, above, &needed)?;
        }
        above.pop();
        plan.load.push(Module {
            name: name.to_owned(),
            path: path.clone(),
            elf,
        });
        Ok(())
    }
}

/// A module's name as the kernel compares it.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of the module in the file at `path`, if the file name is one of a module.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))?;
    Some(canonical(stem))
}

/// The module's ELF file; which compression it has is told by its path.
fn decompressed(path: &str, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut elf = Vec::new();
    match path.rsplit('.').next() {
        Some("xz") => lzma_rust2::XzReader::new(bytes.as_slice(), true).read_to_end(&mut elf)?,
        Some("gz") => flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut elf)?,
        Some("zst") => ruzstd::decoding::StreamingDecoder::new(bytes.as_slice())
            .map_err(io::Error::other)?
            .read_to_end(&mut elf)?,
        _ => return Ok(bytes),
    };
    Ok(elf)
}

/// The names in the module's `depends=`.
fn depends(path: &str, elf: &[u8]) -> Result<Vec<String>, ModuleError> {
    let wrong = |reason: String| ModuleError::NotAModule {
        path: path.to_owned(),
        reason,
    };
    let file = object::File::parse(elf).map_err(|e| wrong(e.to_string()))?;
    let section = file
        .section_by_name(".modinfo")
        .ok_or_else(|| wrong("it has no section .modinfo".into()))?;
    let data = section.data().map_err(|e| wrong(e.to_string()))?;
    let list = data
        .split(|byte| *byte == 0)
        .filter_map(|field| std::str::from_utf8(field).ok()?.strip_prefix("depends="))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect();
    Ok(list)
}

#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;
