// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs that this machine lacks, installed from the distribution's packages where this user may.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::check::inside_box;

/// How packages are installed.
const INSTALL: [&str; 3] = ["install", "-y", "--no-install-recommends"];

/// Why a program is not to be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// This user may not install it, or there is no apt-get.
    #[error("{programs} is not installed; {}", hint(packages))]
    Missing {
        /// The programs.
        programs: String,
        /// Their packages.
        packages: String,
    },
    /// The package is there, and the program is not found.
    #[error(
        "{packages} is installed, and {program} is not in PATH; add its directory, such as /usr/sbin"
    )]
    NotInPath {
        /// The program.
        program: String,
        /// The packages.
        packages: String,
    },
    /// apt-get failed.
    #[error(
        "cannot install {packages}: `{command}`: {reason}; check the network and the sources in /etc/apt"
    )]
    Failed {
        /// The packages.
        packages: String,
        /// The command that failed.
        command: String,
        /// Its last words.
        reason: String,
    },
}

/// What to tell somebody who may not install these packages.
fn hint(packages: &str) -> String {
    format!(
        "install it with `sudo apt-get {} {packages}`",
        INSTALL.join(" ")
    )
}

/// The executable file that this name stands for, by PATH.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| {
            candidate.is_file()
                && rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok()
        })
}

/// Whether [`provide`] has a chance: root, apt-get, and no box, which has no network.
pub(super) fn can_install() -> bool {
    rustix::process::geteuid().is_root() && find_program("apt-get").is_some() && !inside_box()
}

/// Installs those of these programs that are missing; each comes with the name of its package. `told` is called with the
/// packages before that begins.
///
/// # Errors
/// This user cannot install them, or apt-get fails.
pub fn provide(wanted: &[(&str, &str)], told: &dyn Fn(&str)) -> Result<(), InstallError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (programs, packages): (Vec<_>, Vec<_>) = missing.into_iter().copied().unzip();
    if !can_install() {
        return Err(InstallError::Missing {
            programs: programs.join(", "),
            packages: packages.join(" "),
        });
    }
    told(&packages.join(", "));
    let install = [&INSTALL[..], &packages].concat();
    if apt_get(&install, &packages).is_err() {
        // The package lists may be missing or older than the server's files.
        apt_get(&["update"], &packages)?;
        apt_get(&install, &packages)?;
    }
    match programs
        .iter()
        .find(|program| find_program(program).is_none())
    {
        None => Ok(()),
        Some(program) => Err(InstallError::NotInPath {
            program: (*program).to_owned(),
            packages: packages.join(", "),
        }),
    }
}

fn apt_get(args: &[&str], packages: &[&str]) -> Result<(), InstallError> {
    let failed = |reason: String| InstallError::Failed {
        packages: packages.join(", "),
        command: format!("apt-get {}", args.join(" ")),
        reason,
    };
    let output = Command::new("apt-get")
        // Another installation on this machine comes to its end first.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rfind(|line| !line.trim().is_empty());
    Err(failed(last.unwrap_or("it failed").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_again() {
        let told = |packages: &str| unreachable!("{packages}");
        provide(&[("sh", "no-such-package")], &told).expect("it is there");
    }

    #[test]
    fn what_cannot_be_installed_is_told_with_the_command_that_would() {
        let error = InstallError::Missing {
            programs: "passt, ip".into(),
            packages: "passt iproute2".into(),
        };
        assert_eq!(
            error.to_string(),
            "passt, ip is not installed; install it with \
             `sudo apt-get install -y --no-install-recommends passt iproute2`"
        );
    }
}
