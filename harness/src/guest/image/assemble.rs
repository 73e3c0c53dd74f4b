// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Puts an initrd together. Nothing here reads a file or a clock: the same parts give the same bytes.

use std::collections::BTreeMap;

use super::BuildError;
use crate::guest::init::FILES;
use crate::guest::kernel::Kernel;
use crate::guest::modules::Wanted;
use crate::guest::newc::Archive;

/// The modules a guest has and what it lacks without them, None if it is no guest for Kennel then.
pub(super) const MODULES: [(&str, Option<&str>); 7] = [
    ("i6300esb", None),
    ("button", Some("it does not obey its power button")),
    ("evdev", Some("it does not obey its power button")),
    ("virtio_pci", Some("it sees no virtio devices")),
    ("virtio_console", Some("it has no agent channel")),
    ("virtio_net", Some("it has no network")),
    ("virtio_blk", Some("it sees no disks")),
];

/// Empty directories that the guest's init and programs expect.
const DIRECTORIES: [(&str, u32); 9] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("root", 0o700),
    ("sbin", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var/log", 0o755),
];

/// A program beside busybox.
#[derive(Debug)]
pub(super) struct Program {
    /// Its path in the guest.
    pub(super) path: &'static str,
    /// The program.
    pub(super) elf: Vec<u8>,
    /// What it needs: paths in the guest and contents.
    pub(super) libraries: BTreeMap<String, Vec<u8>>,
}

/// A finished initrd.
#[derive(Debug, Default)]
pub(super) struct Assembled {
    pub(super) initrd: Vec<u8>,
    pub(super) notes: Vec<String>,
}

/// Builds the initrd for `kernel`.
pub(super) fn assemble(
    kernel: &Kernel<'_>,
    busybox: &[u8],
    programs: &[Program],
) -> Result<Assembled, BuildError> {
    let wanted: Vec<Wanted<'_>> = MODULES
        .iter()
        .map(|(name, without)| Wanted {
            name,
            required: without.is_none(),
        })
        .collect();
    let plan = kernel.modules.plan(&wanted)?;

    let mut archive = Archive::new();
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.character_device("dev/null", 0o666, 1, 3)?;
    for (path, mode) in DIRECTORIES {
        archive.directory(path, mode)?;
    }
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.symlink("bin/sh", "busybox")?;
    for (path, mode, text) in FILES {
        archive.file(path, mode, text.as_bytes())?;
    }

    let mut order = String::new();
    for module in &plan.load {
        let path = format!("lib/modules/{}/{}.ko", kernel.release, module.name);
        archive.file(&path, 0o644, &module.elf)?;
        order.push_str(&format!("/{path}\n"));
    }
    archive.file("kennel/modules", 0o644, order.as_bytes())?;

    // Programs may share libraries.
    let libraries: BTreeMap<_, _> = programs
        .iter()
        .flat_map(|program| &program.libraries)
        .collect();
    for (path, data) in libraries {
        archive.file(path, 0o755, data)?;
    }
    for program in programs {
        archive.file(program.path, 0o755, &program.elf)?;
    }
    Ok(Assembled {
        initrd: archive.finish(),
        notes: plan.missing.iter().map(|name| note(kernel, name)).collect(),
    })
}

fn note(kernel: &Kernel<'_>, missing: &str) -> String {
    let without = MODULES
        .iter()
        .find(|(name, _)| *name == missing)
        .and_then(|(_, without)| *without);
    format!(
        "kernel {} has no module {missing}: {}",
        kernel.release,
        without.unwrap_or("the guest does without")
    )
}
