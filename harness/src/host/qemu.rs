// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds, installs and starts the emulator that the box runs on: QEMU's TCG, which emulates AMD-V with nested paging.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::image::BoxImage;
use super::install::{self, InstallError, find_program};
use super::session::BoxError;

pub(super) const PROGRAM: &str = "qemu-system-x86_64";
pub(super) const PACKAGE: &str = "qemu-system-x86";
/// What to tell somebody who lacks it and is not root.
pub(super) const INSTALL_HINT: &str =
    "install it with `sudo apt-get install -y --no-install-recommends qemu-system-x86`";
/// The name of the virtio-serial port between caller and agent.
pub(super) const PORT: &str = "org.kennel.box";
/// How the machine's root is cached in the box. `mmap` writes through and looks at the machine again on each open and
/// lookup, so both sides see each other's files, and still lets files be mapped for writing.
const SHARE_CACHE: &str = "mmap";

/// No XSAVE: a guest's XSETBV does not exit to KVM (QEMU 7.2), which then runs the guest with all but the x87 state
/// switched off in XCR0, so that its tasks lose their SSE registers to each other.
const CPU: &str = "EPYC,+svm,+npt,-xsave";

/// What a box is to be.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub image: &'a BoxImage,
    /// The program that becomes the box's first process, by its path on this machine.
    pub agent: &'a Path,
    pub memory_mib: u32,
    pub vcpus: u32,
}

/// A started QEMU and this side of its pipes.
#[derive(Debug)]
pub(super) struct Running {
    pub child: Child,
    /// Complaints of QEMU itself.
    pub stderr: OwnedFd,
}

/// QEMU's path, by PATH.
pub(super) fn find() -> Option<PathBuf> {
    find_program(PROGRAM)
}

/// QEMU's path, once it is installed if this user may do that; `told` is called before that.
pub(super) fn provide(told: &dyn Fn()) -> Result<PathBuf, BoxError> {
    let provided = install::provide(&[(PROGRAM, PACKAGE)], &|_| told());
    provided.map_err(|error| match error {
        InstallError::Missing { .. } => BoxError::NoQemu,
        failed @ (InstallError::Failed { .. } | InstallError::NotInPath { .. }) => {
            BoxError::Install(failed)
        }
    })?;
    find().ok_or(BoxError::NoQemu)
}

/// Starts QEMU. It gets `agent` and `console` as its standard input and output (both are sockets), and is killed by the
/// kernel when the calling thread ends, however that happens.
pub(super) fn start(
    qemu: &Path,
    machine: &Machine<'_>,
    agent: OwnedFd,
    console: OwnedFd,
) -> Result<Running, BoxError> {
    // A parent-death signal can only be set by the child itself; setpriv (util-linux) does it and becomes QEMU.
    let mut command = match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
            command
        }
        // Without it, the agent notices that its caller is gone and powers the box off.
        None => Command::new(qemu),
    };
    let failed = |source| BoxError::Spawn {
        program: qemu.to_owned(),
        source,
    };
    let mut child = command
        .args(arguments(machine))
        .stdin(agent)
        .stdout(console)
        .stderr(Stdio::piped())
        // A Ctrl-C at the terminal is the caller's to handle, not QEMU's.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let stderr = child.stderr.take().map(OwnedFd::from);
    match stderr {
        Some(stderr) => Ok(Running { child, stderr }),
        None => Err(failed(std::io::ErrorKind::BrokenPipe.into())),
    }
}

/// QEMU's command line.
fn arguments(machine: &Machine<'_>) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: OsString| {
        args.push(name.into());
        args.push(value);
    };
    option("-name", "kennel-box".into());
    option("-accel", "tcg,thread=multi".into());
    option("-cpu", CPU.into());
    option("-smp", machine.vcpus.to_string().into());
    option("-m", machine.memory_mib.to_string().into());
    option("-display", "none".into());
    option(
        "-virtfs",
        "local,path=/,mount_tag=machine,security_model=none,multidevs=remap".into(),
    );
    option("-device", "virtio-serial-pci".into());
    option("-chardev", "socket,id=agent,fd=0".into());
    option(
        "-device",
        format!("virtserialport,chardev=agent,name={PORT}").into(),
    );
    option("-chardev", "socket,id=console,fd=1".into());
    option("-serial", "chardev:console".into());
    option("-kernel", machine.image.kernel.clone().into());
    option("-initrd", machine.image.initrd.clone().into());
    option("-append", kernel_command_line(machine.agent).into());
    args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
    args
}

fn kernel_command_line(agent: &Path) -> String {
    let agent: String = agent
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // A box that panics is over. The rest saves a second of start-up, or exits of the guests in it: no self tests of
    // ciphers, no calibration against slower clocks, no waiting for entropy, no mitigations against neighbours it hasn't.
    format!(
        "console=ttyS0 quiet panic=-1 cryptomgr.notests tsc=reliable no_timer_check random.trust_cpu=on mitigations=off \
         i8042.noaux i8042.nokbd KENNEL_CACHE={SHARE_CACHE} KENNEL_AGENT={agent}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_carries_any_agent_path() {
        let line = kernel_command_line(Path::new("/opt/my kennel/ä"));
        assert!(line.ends_with(" KENNEL_AGENT=2f6f70742f6d79206b656e6e656c2fc3a4"));
        assert!(line.len() < 2048, "longer is cut off by Linux");
    }

    #[test]
    fn the_machine_is_what_was_asked_for() {
        let image = BoxImage {
            kernel: "/k".into(),
            initrd: "/i".into(),
        };
        let args = arguments(&Machine {
            image: &image,
            agent: Path::new("/bin/kennel"),
            memory_mib: 7168,
            vcpus: 3,
        });
        let value = |name: &str| {
            let at = args.iter().position(|arg| arg == name).expect("given");
            args[at + 1].to_str().expect("UTF-8").to_owned()
        };
        assert_eq!(value("-m"), "7168");
        assert_eq!(value("-smp"), "3");
        assert_eq!(value("-kernel"), "/k");
        assert!(value("-cpu").contains("+svm"));
    }
}
