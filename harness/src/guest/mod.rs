// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests made from the distribution's own parts: a kernel, its modules, busybox, and an init that runs a scenario.

use std::fmt;

pub mod image;
pub mod init;
pub mod kernel;
mod libraries;
pub mod modules;
pub mod newc;
pub mod packages;

pub use init::{overlay, with_overlay};

/// What is being done right now, for whoever shows progress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The distribution's package lists are missing or too old and are being fetched.
    RefreshingPackageLists,
    /// Packages are being downloaded.
    Downloading {
        /// The packages' names.
        packages: Vec<String>,
        /// Size of all of them together, in bytes.
        bytes: u64,
        /// How much of it is there already, 0 to 100.
        percent: u8,
    },
    /// A package is being unpacked.
    Unpacking {
        /// The package's name.
        package: String,
    },
    /// The guest image is being put together.
    BuildingImage,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefreshingPackageLists => write!(f, "refreshing the package lists"),
            Self::Downloading {
                packages,
                bytes,
                percent,
            } => {
                let names = packages.join(", ");
                write!(
                    f,
                    "downloading {names} ({:.1} MB): {percent} %",
                    *bytes as f64 / 1e6
                )
            }
            Self::Unpacking { package } => write!(f, "unpacking {package}"),
            Self::BuildingImage => write!(f, "building the guest image"),
        }
    }
}

/// Is told each step when it begins, and downloads whenever their percentage changes.
pub type Progress<'a> = &'a dyn Fn(&Step);
