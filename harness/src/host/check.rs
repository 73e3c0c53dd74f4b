// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Can this machine run Linux guests, and how?

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{install, qemu};

/// Where Linux offers KVM.
const KVM: &str = "/dev/kvm";
/// The box announces itself to what runs in it with this variable, set to `1`.
pub const BOX_MARKER: &str = "KENNEL_BOX";

/// The CPU extension that hardware KVM stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

/// What `/dev/kvm` is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kvm {
    /// There is no `/dev/kvm`.
    Absent,
    /// It is there, but this user may not open it.
    NoPermission,
    /// It is there, but opening it failed in another way.
    Broken(String),
    /// It opens, but the CPU has neither VT-x nor AMD-V: guest code is emulated, and not all that Linux needs
    /// (observed: `cmpxchg16b` and `xrstor` end the guest). Bare-metal payloads run.
    Software,
    /// It opens, on this extension.
    Hardware(Extension),
}

/// Whether this machine can start a KVM host in a box.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoxSupport {
    /// QEMU is here.
    Ready(PathBuf),
    /// QEMU will be installed on the first use: this is root on a machine with apt-get.
    Installable,
    /// QEMU is missing, and only somebody else can install it.
    Missing,
}

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// This machine's own KVM.
    pub kvm: Kvm,
    /// The box.
    pub in_a_box: BoxSupport,
    /// Whether this machine is itself such a box.
    pub inside_box: bool,
}

impl HostReport {
    /// Whether Linux guests run on this machine's own KVM.
    #[must_use]
    pub fn native_linux(&self) -> bool {
        matches!(self.kvm, Kvm::Hardware(_))
    }

    /// Whether at least bare-metal payloads run on this machine's own KVM.
    #[must_use]
    pub fn native_bare_metal(&self) -> bool {
        matches!(self.kvm, Kvm::Hardware(_) | Kvm::Software)
    }

    /// Whether the box can be used, if need be after installing QEMU.
    #[must_use]
    pub fn can_box(&self) -> bool {
        self.in_a_box != BoxSupport::Missing
    }
}

/// Looks at this machine. Opens `/dev/kvm` and closes it again; changes nothing.
#[must_use]
pub fn check() -> HostReport {
    let open = OpenOptions::new().read(true).write(true).open(KVM);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let in_a_box = match qemu::find() {
        Some(path) => BoxSupport::Ready(path),
        None if install::can_install() => BoxSupport::Installable,
        None => BoxSupport::Missing,
    };
    HostReport {
        kvm: judge(open.map(drop), extension(&cpuinfo)),
        in_a_box,
        inside_box: inside_box(),
    }
}

/// Whether this process runs in a box.
#[must_use]
pub fn inside_box() -> bool {
    std::env::var_os(BOX_MARKER).is_some_and(|value| value == "1")
        && Path::new("/run/kennel").is_dir()
}

/// What an attempt to open `/dev/kvm` and the CPU's extension come down to.
fn judge(open: io::Result<()>, extension: Option<Extension>) -> Kvm {
    match (open, extension) {
        (Ok(()), Some(extension)) => Kvm::Hardware(extension),
        (Ok(()), None) => Kvm::Software,
        (Err(error), _) => match error.kind() {
            io::ErrorKind::NotFound => Kvm::Absent,
            io::ErrorKind::PermissionDenied => Kvm::NoPermission,
            _ => Kvm::Broken(error.to_string()),
        },
    }
}

/// The virtualisation extension in the text of `/proc/cpuinfo`.
fn extension(cpuinfo: &str) -> Option<Extension> {
    let flags = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "flags")
        .map(|(_, flags)| flags)?;
    flags.split_whitespace().find_map(|flag| match flag {
        "vmx" => Some(Extension::Vmx),
        "svm" => Some(Extension::Svm),
        _ => None,
    })
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmx => "VT-x",
            Self::Svm => "AMD-V",
        })
    }
}

impl fmt::Display for Kvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(
                f,
                "absent: {KVM} does not exist (load kvm-intel or kvm-amd, or use the box)"
            ),
            Self::NoPermission => write!(
                f,
                "no permission: this user may not open {KVM} (add it to the group kvm: `sudo usermod -aG kvm $USER`, \
                 then log in again)"
            ),
            Self::Broken(reason) => write!(f, "unusable: opening {KVM} failed: {reason}"),
            Self::Software => write!(
                f,
                "software: {KVM} opens, but the CPU has neither VT-x nor AMD-V (bare-metal payloads only)"
            ),
            Self::Hardware(extension) => write!(f, "hardware: {extension}"),
        }
    }
}

impl fmt::Display for BoxSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(path) => write!(f, "ready: {}", path.display()),
            Self::Installable => write!(f, "installs {} on first use", qemu::PACKAGE),
            Self::Missing => write!(f, "no {}: {}", qemu::PROGRAM, qemu::INSTALL_HINT),
        }
    }
}

impl fmt::Display for HostReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.native_linux() {
            "on this machine"
        } else if self.can_box() {
            "in a box"
        } else {
            "no"
        };
        writeln!(f, "KVM           {}", self.kvm)?;
        if self.inside_box {
            writeln!(f, "this machine  is a KVM host in a box")?;
        }
        writeln!(f, "box           {}", self.in_a_box)?;
        write!(f, "Linux guests  {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpuinfo(flags: &str) -> String {
        format!(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: {flags}\nbugs\t\t: svm_bug\n"
        )
    }

    #[test]
    fn the_extension_is_a_whole_flag() {
        assert_eq!(extension(&cpuinfo("fpu svm npt")), Some(Extension::Svm));
        assert_eq!(extension(&cpuinfo("fpu vme vmx")), Some(Extension::Vmx));
        assert_eq!(extension(&cpuinfo("fpu svm_lock hypervisor")), None);
        assert_eq!(extension(""), None);
    }

    #[test]
    fn kvm_is_judged_by_opening_it_and_by_the_cpu() {
        let failed = |kind: io::ErrorKind| Err(io::Error::from(kind));
        let svm = Some(Extension::Svm);
        assert_eq!(judge(Ok(()), svm), Kvm::Hardware(Extension::Svm));
        assert_eq!(judge(Ok(()), None), Kvm::Software);
        assert_eq!(judge(failed(io::ErrorKind::NotFound), svm), Kvm::Absent);
        assert_eq!(
            judge(failed(io::ErrorKind::PermissionDenied), svm),
            Kvm::NoPermission
        );
        assert!(matches!(
            judge(failed(io::ErrorKind::ResourceBusy), svm),
            Kvm::Broken(_)
        ));
    }

    #[test]
    fn only_hardware_runs_linux_natively() {
        let report = |kvm, in_a_box| HostReport {
            kvm,
            in_a_box,
            inside_box: false,
        };
        let software = report(Kvm::Software, BoxSupport::Missing);
        assert!(!software.native_linux() && software.native_bare_metal() && !software.can_box());
        assert!(software.to_string().contains("bare-metal payloads only"));
        assert!(software.to_string().contains(qemu::INSTALL_HINT));
        assert!(software.to_string().ends_with("Linux guests  no"));
        let boxed = report(Kvm::Absent, BoxSupport::Installable);
        assert!(boxed.to_string().ends_with("Linux guests  in a box"));
        let native = report(Kvm::Hardware(Extension::Vmx), BoxSupport::Missing);
        assert!(native.native_linux());
        assert!(
            native
                .to_string()
                .ends_with("Linux guests  on this machine")
        );
    }
}
