// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine that was measured on: figures mean little without it.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::contender;

/// What a reader needs to place the figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) kennel: String,
    pub(crate) qemu: Option<String>,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    /// Hardware, software, or none.
    pub(crate) kvm: String,
    /// ns since the Unix epoch, at the run's beginning.
    pub(crate) begun_ns: u64,
}

impl Host {
    pub(crate) fn here() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let memory = text("/proc/meminfo");
        Self {
            kennel: env!("CARGO_PKG_VERSION").to_owned(),
            qemu: contender::qemu_version(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: value(&cpuinfo, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: crate::noise::field(&memory, "MemTotal:") / 1024,
            kvm: kvm(value(&cpuinfo, "flags").unwrap_or_default()).to_owned(),
            begun_ns: crate::clock::realtime_ns(),
        }
    }

    /// Facts by name.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Kennel", self.kennel.clone()),
            ("QEMU", self.qemu.clone().unwrap_or_else(|| "absent".into())),
            ("Linux", self.kernel.clone()),
            ("CPU", format!("{} × {}", self.cpus, self.cpu)),
            ("Memory", format!("{} MiB", self.memory_mib)),
            ("KVM", self.kvm.clone()),
        ]
    }
}

fn kvm(flags: &str) -> &'static str {
    if kennel_vmm::hypervisor::Hypervisor::open().is_err() {
        return "none";
    }
    let has = |flag| flags.split_ascii_whitespace().any(|one| one == flag);
    if has("vmx") || has("svm") {
        "hardware"
    } else {
        "software: exits cost what emulation costs, compare ratios only"
    }
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))
        .map(str::trim)
}
