// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What boots: the built guest image, or kernel and initrd in a directory of this host.

use std::path::{Component, Path, PathBuf};

use super::nearest;
use super::problem::{Fault, NoteKind, Place, did_you_mean, quoted};
use super::vmi::{KernelBoot, KernelSource};
use super::walk::Cursor;

/// The name of the built guest image.
const BUILT: &str = "kennel/guest";
/// What every guest is told, before what the document adds.
pub(crate) const CMDLINE: &str = "console=ttyS0 quiet panic=-1 cryptomgr.notests";
/// Linux keeps 2048 bytes of its command line on this architecture, the NUL behind it included.
pub(super) const LONGEST_CMDLINE: usize = 2047;
const IMAGES: &str = "kennel/guest, or a directory such as ./guest";

/// The boot source and where its parts stand.
pub(super) struct Boot {
    pub(super) kernel_boot: KernelBoot,
    pub(super) args: Place,
    pub(super) image: Place,
    pub(super) kernel: Place,
    pub(super) initrd: Place,
}

/// Reads `domain.firmware.kernelBoot`. `folder` is what relative directories are relative to.
pub(super) fn kernel_boot(
    domain: Option<&Cursor<'_>>,
    document: &Cursor<'_>,
    folder: &Path,
) -> Boot {
    let at = domain.and_then(|domain| domain.descend(&["firmware", "kernelBoot"]));
    let args = at.as_ref().and_then(kernel_args);
    let args_at = at
        .as_ref()
        .map_or(document.place(), |at| at.place_of("kernelArgs"));
    let Some(container) = at.as_ref().and_then(|at| at.get("container")) else {
        without_container(domain, at.as_ref(), args.is_some());
        check_built_args(at.as_ref(), args.as_deref());
        let place = document.place();
        let kernel_boot = KernelBoot {
            source: KernelSource::Built,
            args,
        };
        return Boot {
            kernel_boot,
            args: args_at,
            image: place.clone(),
            kernel: place.clone(),
            initrd: place,
        };
    };
    let source = source(&container, folder);
    if source == KernelSource::Built {
        check_built_args(at.as_ref(), args.as_deref());
    }
    Boot {
        kernel_boot: KernelBoot { source, args },
        args: args_at,
        image: container.place_of("image"),
        kernel: container.place_of("kernelPath"),
        initrd: container.place_of("initrdPath"),
    }
}

/// The whole command line of a guest whose document has these `kernelArgs`.
pub(crate) fn command_line(args: Option<&str>) -> String {
    match args {
        Some(args) => format!("{CMDLINE} {args}"),
        None => CMDLINE.to_owned(),
    }
}

/// What is wrong with `args` for a kernel that reads a command line of `longest` bytes.
pub(super) fn too_long(args: &str, longest: usize) -> Option<Fault> {
    let length = command_line(Some(args)).len();
    let own = length.saturating_sub(args.len());
    let excess = length.checked_sub(longest).filter(|excess| *excess > 0)?;
    let fault = Fault::new(format!(
        "kernel arguments of {} bytes make a command line of {length} with what Kennel puts before them, \
         and this kernel reads {longest}",
        args.len()
    ));
    let most = longest.saturating_sub(own);
    Some(
        fault
            .allowed(format!("at most {most} bytes"))
            .hint(format!("shorten them by {excess}")),
    )
}

fn check_built_args(kernel_boot: Option<&Cursor<'_>>, args: Option<&str>) {
    let at = kernel_boot.and_then(|at| at.get("kernelArgs"));
    if let (Some(at), Some(args)) = (at, args)
        && let Some(fault) = too_long(args, LONGEST_CMDLINE)
    {
        at.refuse(fault);
    }
}

fn without_container(domain: Option<&Cursor<'_>>, kernel_boot: Option<&Cursor<'_>>, args: bool) {
    const NOTE: &str = "no kernelBoot.container: the built guest image kennel/guest boots";
    match (kernel_boot, domain) {
        (Some(at), _) if args => at.missing(
            "container",
            "kernelArgs need a kernel: write container with image: kennel/guest",
        ),
        (Some(at), _) => at.note_missing("container", NoteKind::Defaulted, NOTE),
        (None, Some(domain)) => domain.note_missing("firmware", NoteKind::Defaulted, NOTE),
        (None, None) => {}
    }
}

fn kernel_args(kernel_boot: &Cursor<'_>) -> Option<String> {
    let at = kernel_boot.get("kernelArgs")?;
    let text = at.text().filter(|text| !text.is_empty())?;
    // A block scalar ends in a line break that nobody meant.
    let text = text.trim_end_matches('\n');
    if text.contains(|c: char| c.is_control()) {
        let fault = Fault::new(format!(
            "kernel arguments {} have a line break or control character",
            quoted(text)
        ));
        at.refuse(fault.allowed("one line of text"));
    }
    Some(text.to_owned())
}

fn source(container: &Cursor<'_>, folder: &Path) -> KernelSource {
    let Some(image) = container.require("image", &format!("write image: {BUILT}")) else {
        return KernelSource::Built;
    };
    let Some(text) = image.text() else {
        return KernelSource::Built;
    };
    if text == BUILT {
        return KernelSource::Built;
    }
    if let Err(fault) = directory(text) {
        image.refuse(fault);
        return KernelSource::Built;
    }
    let path = folder.join(text);
    let kernel = container.require(
        "kernelPath",
        "write the kernel's path within the directory, such as /vmlinuz",
    );
    KernelSource::Directory {
        kernel: within(&path, kernel.as_ref()).unwrap_or_default(),
        initrd: within(&path, container.get("initrdPath").as_ref()),
        path,
    }
}

/// Whether an image names a directory, by its form alone.
fn directory(image: &str) -> Result<(), Fault> {
    if image.is_empty() {
        return Err(Fault::new("the image is empty").allowed(IMAGES));
    }
    if image.starts_with("oci:") {
        return Err(Fault::new(format!(
            "OCI layouts are not supported yet: {}",
            quoted(image)
        ))
        .allowed(IMAGES));
    }
    let is_path = image.starts_with(['/', '.']);
    if !is_path && let Some(near) = nearest::among(without_tag(image), [BUILT].into_iter()) {
        return Err(Fault::new(format!("unknown image {}", quoted(image)))
            .allowed(IMAGES)
            .hint(did_you_mean(near)));
    }
    let registry = image
        .split_once('/')
        .is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost");
    if !is_path && (registry || image.contains([':', '@'])) {
        let fault = Fault::new(format!(
            "image {} is one of a registry, which is not pulled",
            quoted(image)
        ));
        return Err(fault
            .allowed(IMAGES)
            .hint("unpack it, and write the directory"));
    }
    Ok(())
}

fn without_tag(image: &str) -> &str {
    image.split_once([':', '@']).map_or(image, |(name, _)| name)
}

/// The host's path of an absolute path within `directory`.
fn within(directory: &Path, at: Option<&Cursor<'_>>) -> Option<PathBuf> {
    let at = at?;
    let text = at.text()?;
    let path = Path::new(text);
    let mut parts = path.components();
    let absolute = parts.next() == Some(Component::RootDir);
    if !absolute
        || parts.clone().next().is_none()
        || !parts.all(|part| matches!(part, Component::Normal(_)))
    {
        let fault = Fault::new(format!(
            "path {} does not name a file of the image",
            quoted(text)
        ));
        at.refuse(
            fault.allowed("an absolute path within the image, without .., such as /boot/vmlinuz"),
        );
    }
    Some(directory.join(text.trim_start_matches('/')))
}
