// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel counts of a process that runs a VM: exits, and CPU time.

use std::path::Path;

/// Where KVM counts, for root, where debugfs is mounted.
const KVM: &str = "/sys/kernel/debug/kvm";

/// How threads that run vCPUs begin their names: ours, and QEMU's when it names them.
const VCPU_NAMES: [&str; 2] = ["vcpu", "CPU "];

/// Exits of all vCPUs of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exits {
    /// All, also those that the kernel answers.
    pub(crate) all: u64,
    /// For a port.
    pub(crate) ports: u64,
    /// For a device's memory in another process.
    pub(crate) memory: u64,
    /// For a guest that waits.
    pub(crate) halts: u64,
}

/// Of the VM of process `pid`; `None` if the kernel does not tell.
pub(crate) fn exits(pid: u32) -> Option<Exits> {
    exits_in(Path::new(KVM), pid)
}

fn exits_in(kvm: &Path, pid: u32) -> Option<Exits> {
    let prefix = format!("{pid}-");
    let mut vms = std::fs::read_dir(kvm).ok()?.filter_map(Result::ok);
    let vm = vms.find(|vm| vm.file_name().to_string_lossy().starts_with(&prefix))?;
    let count = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(vm.path().join(name)).ok()?;
        text.trim().parse().ok()
    };
    Some(Exits {
        all: count("exits")?,
        ports: count("io_exits")?,
        memory: count("mmio_exits")?,
        halts: count("halt_exits")?,
    })
}

/// CPU time in ns of the threads of process `pid` that run no vCPU; `None` if it is not told which
/// ones do.
pub(crate) fn cpu_beside_vcpus(pid: u32) -> Option<u64> {
    cpu_beside_vcpus_in(&Path::new("/proc").join(pid.to_string()).join("task"))
}

fn cpu_beside_vcpus_in(tasks: &Path) -> Option<u64> {
    let (mut nanos, mut vcpus) = (0_u64, 0);
    for task in std::fs::read_dir(tasks).ok()?.filter_map(Result::ok) {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name));
        // One that has ended meanwhile took what it took; it is not known.
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else {
            continue;
        };
        if VCPU_NAMES.iter().any(|vcpu| name.starts_with(vcpu)) {
            vcpus += 1;
            continue;
        }
        nanos += times.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    (vcpus > 0).then_some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_those_of_the_process() {
        let kvm = tempfile::tempdir().expect("a directory");
        for (vm, factor) in [("12-9", 1), ("123-9", 2)] {
            let vm = kvm.path().join(vm);
            std::fs::create_dir(&vm).expect("a directory");
            for (name, count) in [
                ("exits", 100),
                ("io_exits", 20),
                ("mmio_exits", 3),
                ("halt_exits", 4),
            ] {
                std::fs::write(vm.join(name), format!("{}\n", count * factor)).expect("a file");
            }
        }
        let exits = exits_in(kvm.path(), 123).expect("counted");
        let Exits {
            all,
            ports,
            memory,
            halts,
        } = exits;
        assert_eq!((all, ports, memory, halts), (200, 40, 6, 8));
        assert_eq!(exits_in(kvm.path(), 1), None);
    }

    #[test]
    fn threads_of_vcpus_are_left_out() {
        let tasks = tempfile::tempdir().expect("a directory");
        let add = |id: &str, name: &str, times: &str| {
            let task = tasks.path().join(id);
            std::fs::create_dir(&task).expect("a directory");
            std::fs::write(task.join("comm"), name).expect("a file");
            std::fs::write(task.join("schedstat"), times).expect("a file");
        };
        add("7", "kennel\n", "300 5 6\n");
        assert_eq!(
            cpu_beside_vcpus_in(tasks.path()),
            None,
            "which are the vCPUs?"
        );
        add("8", "vcpu0\n", "5000 5 6\n");
        add("9", "CPU 0/KVM\n", "5000 5 6\n");
        add("10", "console\n", "20 5 6\n");
        assert_eq!(cpu_beside_vcpus_in(tasks.path()), Some(320));
    }
}
