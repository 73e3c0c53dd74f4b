// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process kept on one CPU, so that two that are compared have the same one: CPUs of a shared
//! machine are not equally fast, and the scheduler has its habits.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Trouble;

/// The CPUs that this process may use.
pub(crate) fn cpus() -> Result<Vec<usize>, Trouble> {
    let allowed = sched_getaffinity(None).map_err(Trouble::new)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect())
}

/// What `start` starts stays on `cpu`; this thread does not.
pub(crate) fn on_cpu<T>(
    cpu: usize,
    start: impl FnOnce() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let before = sched_getaffinity(None).map_err(Trouble::new)?;
    let mut alone = CpuSet::new();
    alone.set(cpu);
    sched_setaffinity(None, &alone).map_err(Trouble::new)?;
    let started = start();
    sched_setaffinity(None, &before).map_err(Trouble::new)?;
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stays_where_it_was_started_and_the_starter_does_not() {
        let before = cpus().expect("its own CPUs");
        let cpu = *before.last().expect("one at least");
        let child = on_cpu(cpu, || {
            let mut grep = std::process::Command::new("grep");
            grep.args(["-F", "Cpus_allowed_list:", "/proc/self/status"]);
            grep.output().map_err(Trouble::new)
        });
        let told = String::from_utf8(child.expect("grep").stdout).expect("text");
        assert_eq!(told.split_whitespace().last(), Some(&*cpu.to_string()));
        assert_eq!(cpus().expect("its own CPUs"), before);
    }
}
