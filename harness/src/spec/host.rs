// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether this host can do what an accepted document asks for.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::boot::{self, LONGEST_CMDLINE};
use super::problem::{Fault, Place, Problem, Problems, quoted};
use super::vmi::{Document, KernelSource, Kind};

/// What the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Memory that can be had without swapping, in bytes.
    pub available_bytes: u64,
    /// The most vCPUs that KVM gives one machine.
    pub max_vcpus: u32,
}

impl Document {
    /// Checks memory and vCPUs against what the host has. Looks at nothing but its arguments.
    ///
    /// # Errors
    /// What the host has too little of.
    pub fn check_host(&self, host: &HostLimits) -> Result<(), Problems> {
        let mut problems = Problems::default();
        let machines = match self.kind {
            Kind::VirtualMachineInstanceReplicaSet { replicas } => u64::from(replicas),
            _ => 1,
        };
        let memory = self.vmi.memory_bytes.saturating_mul(machines);
        let available = host.available_bytes;
        if memory > available {
            let each = match machines {
                1 => String::new(),
                _ => format!(" for {machines} replicas"),
            };
            let fault = Fault::new(format!(
                "{} of memory{each} are more than this host has available",
                mebibytes(memory)
            ));
            let fault = fault.allowed(format!("up to {}", mebibytes(available)));
            problems.push(self.problem(
                &self.places.memory,
                fault.hint("ask for less, or free some"),
            ));
        }
        let (vcpus, most) = (self.vmi.vcpus, host.max_vcpus);
        if vcpus > most {
            let fault = Fault::new(format!(
                "{vcpus} vCPUs are more than this host's KVM gives one machine"
            ));
            problems.push(self.problem(&self.places.vcpus, fault.allowed(format!("1 to {most}"))));
        }
        problems.or_ok()
    }

    /// Checks that the kernel and initrd which the document names are files that can be read.
    ///
    /// # Errors
    /// What is missing or unreadable.
    pub fn check_files(&self) -> Result<(), Problems> {
        let KernelSource::Directory {
            path,
            kernel,
            initrd,
        } = &self.vmi.kernel_boot.source
        else {
            return Ok(());
        };
        if let Err(fault) = check_directory(path) {
            return Err(self.problem(&self.places.image, fault).into());
        }
        let mut problems = Problems::default();
        if let Err(fault) = check_file("kernel", kernel) {
            problems.push(self.problem(&self.places.kernel, fault));
        }
        let args = self.vmi.kernel_boot.args.as_deref();
        let too_long = args.and_then(|args| boot::too_long(args, longest_cmdline(kernel)));
        if let Some(fault) = too_long {
            problems.push(self.problem(&self.places.args, fault));
        }
        if let Some(Err(fault)) = initrd.as_deref().map(|initrd| check_file("initrd", initrd)) {
            problems.push(self.problem(&self.places.initrd, fault));
        }
        problems.or_ok()
    }

    fn problem(&self, place: &Place, fault: Fault) -> Problem {
        Problem::new(&self.file, place.clone(), fault)
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn check_directory(path: &Path) -> Result<(), Fault> {
    let metadata = fs::metadata(path).map_err(|error| {
        let fault = Fault::new(format!("image directory {}: {}", shown(path), cause(&error)));
        fault.hint("a relative one is relative to the document's folder; kennel/guest is the built guest image")
    })?;
    if !metadata.is_dir() {
        return Err(Fault::new(format!(
            "image {} is not a directory",
            shown(path)
        )));
    }
    if path.join("oci-layout").exists() {
        return Err(Fault::new(format!(
            "OCI layouts are not supported yet: {}",
            shown(path)
        ))
        .hint("unpack the image, and write that directory"));
    }
    Ok(())
}

fn check_file(what: &str, path: &Path) -> Result<(), Fault> {
    let failed =
        |error: io::Error| Fault::new(format!("{what} {}: {}", shown(path), cause(&error)));
    // Told apart before it is opened: opening a FIFO would wait for its writer.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(Fault::new(format!(
            "{what} {} is not a regular file",
            shown(path)
        )));
    }
    if metadata.len() == 0 {
        return Err(Fault::new(format!("{what} {} is empty", shown(path))));
    }
    File::open(path).map(drop).map_err(failed)
}

/// How long a command line the kernel in this file reads: a bzImage says so in its header (Linux' boot
/// protocol, 2.06 and later); for what does not, Linux' own bound holds.
fn longest_cmdline(kernel: &Path) -> usize {
    const MAGIC: std::ops::Range<usize> = 0x202..0x206;
    const CMDLINE_SIZE: std::ops::Range<usize> = 0x238..0x23c;
    let mut header = [0; CMDLINE_SIZE.end];
    let read = File::open(kernel).and_then(|mut file| file.read_exact(&mut header));
    if read.is_err() || header.get(MAGIC) != Some(b"HdrS") {
        return LONGEST_CMDLINE;
    }
    let size = header
        .get(CMDLINE_SIZE)
        .and_then(|size| size.try_into().ok());
    let size = size.map_or(0, u32::from_le_bytes);
    usize::try_from(size)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(LONGEST_CMDLINE)
}

/// Why a file could not be used, in words.
pub(super) fn cause(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        ErrorKind::NotADirectory => "a part of its path is not a directory".to_owned(),
        kind => kind.to_string(),
    }
}
