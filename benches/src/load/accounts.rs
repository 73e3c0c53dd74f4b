// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process has used and holds, as the kernel counts it.

use std::fs;

use crate::noise::field;

/// ns of CPU that the threads of process `pid` whose names begin with one of `names` have used.
pub(crate) fn cpu_ns(pid: u32, names: &[&str]) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let of = |task: std::path::PathBuf| {
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if !names.iter().any(|one| name.starts_with(one)) {
            return 0;
        }
        let used = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let used = used.split_ascii_whitespace().next();
        used.and_then(|used| used.parse().ok()).unwrap_or(0)
    };
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| of(task.path()))
        .sum()
}

/// Resident bytes of process `pid`.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmRSS:") * 1024
}

/// Threads of process `pid`.
pub(crate) fn threads(pid: u32) -> usize {
    entries(&format!("/proc/{pid}/task"))
}

/// Descriptors that process `pid` has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    entries(&format!("/proc/{pid}/fd"))
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// TCP sockets of this host's network namespace: those open, and those in TIME-WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostSockets {
    pub(crate) open: u64,
    pub(crate) time_wait: u64,
}

impl HostSockets {
    pub(crate) fn read() -> Self {
        Self::of(&fs::read_to_string("/proc/net/sockstat").unwrap_or_default())
    }

    fn of(sockstat: &str) -> Self {
        let tcp = sockstat.lines().find(|line| line.starts_with("TCP:"));
        let words: Vec<&str> = tcp.unwrap_or_default().split_ascii_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name);
            let word = at.and_then(|at| words.get(at + 1));
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        Self {
            open: after("inuse"),
            time_wait: after("tw"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_sockets_is_read() {
        let text = "sockets: used 38\nTCP: inuse 3 orphan 0 tw 17 alloc 4 mem 0\nUDP: inuse 9\n";
        let expected = HostSockets {
            open: 3,
            time_wait: 17,
        };
        assert_eq!(HostSockets::of(text), expected);
        assert_eq!(HostSockets::of(""), HostSockets::default());
    }

    #[test]
    fn a_threads_cpu_is_found_by_its_name() {
        let pid = std::process::id();
        let busy = move || {
            let begin = std::time::Instant::now();
            while begin.elapsed().as_millis() < 20 {
                std::hint::spin_loop();
            }
            cpu_ns(pid, &["busy-one"])
        };
        let named = std::thread::Builder::new().name("busy-one".into());
        let used = named
            .spawn(busy)
            .expect("a thread")
            .join()
            .expect("no panic");
        assert!(used > 0 && cpu_ns(pid, &["nobody"]) == 0);
    }
}
