// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kennel guest build`, and the image that `run` and `demo` boot.

use std::path::PathBuf;

use super::args::{Guest, ImageArgs};
use super::progress::{Progress, print, say};
use super::{Answer, Failure};
use crate::guest::image::{self, GuestImage, Source};
use crate::guest::packages;

pub(super) fn guest(what: &Guest) -> Answer {
    let Guest::Build { output, image } = what;
    let mut built = obtain(image)?;
    if let Some(directory) = output {
        built = built.copy_to(directory).map_err(Failure::could_not)?;
    }
    print(&format!(
        "kernel  {}\ninitrd  {}\nrelease {}\n",
        built.kernel.display(),
        built.initrd.display(),
        built.kernel_version
    ));
    Ok(0)
}

/// The image that stands for `kennel/guest`.
pub(super) fn obtain(args: &ImageArgs) -> Result<GuestImage, Failure> {
    let source = match (&args.kernel, &args.initrd) {
        (Some(kernel), Some(initrd)) => Source::Files {
            kernel: kernel.clone(),
            initrd: initrd.clone(),
        },
        _ if args.host_kernel => Source::HostKernel,
        _ => Source::Packages,
    };
    let progress = Progress::new();
    let built = image::build(&source, &cache()?, &|step| progress.guest(step));
    progress.finish();
    let built = built.map_err(Failure::could_not)?;
    if matches!(source, Source::Packages | Source::HostKernel) {
        say(&format!("kennel: guest kernel {}", built.kernel_version));
    }
    for note in &built.notes {
        say(&format!("kennel: note: {note}"));
    }
    Ok(built)
}

/// Where downloads and images are kept.
fn cache() -> Result<PathBuf, Failure> {
    packages::default_cache().ok_or_else(|| {
        let hint = "set HOME or XDG_CACHE_HOME to an absolute path";
        Failure::CouldNot(format!(
            "there is no place for downloads and guest images: {hint}"
        ))
    })
}
