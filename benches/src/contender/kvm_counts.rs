// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel counts of a process that runs a VM: KVM's exits, and CPU time.

use std::path::Path;

/// Where KVM counts, for root, where debugfs is mounted.
const KVM: &str = "/sys/kernel/debug/kvm";

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

/// CPU time in ms that a process took beside its guest's, by ticks.
pub(crate) fn own_cpu_ms(pid: u32) -> Option<u64> {
    own_cpu_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Of the line of `/proc/PID/stat`: time in both modes is the 14th and 15th field, time of a guest,
/// which the 14th holds too, the 43rd, in hundredths of a second.
fn own_cpu_in(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let own = (ticks(14)? + ticks(15)?).saturating_sub(ticks(43)?);
    Some(own * 10)
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
    fn a_guests_time_is_not_the_process_own() {
        let mut fields = vec!["0"; 50];
        (fields[11], fields[12], fields[40]) = ("70", "30", "55");
        let stat = format!(
            "12 (a ) b) S {}",
            fields.get(1..).expect("fields").join(" ")
        );
        assert_eq!(own_cpu_in(&stat), Some(450));
    }
}
