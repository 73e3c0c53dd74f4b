// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who is measured: Kennel, QEMU, and the floor. Each guest ends when its contender is dropped.

pub(crate) mod client;
pub(crate) mod floor_vcpu;
pub(crate) mod floor_vm;
pub(crate) mod kennel_watchdog;
pub(crate) mod kvm_counts;
pub(crate) mod marked;
pub(crate) mod placed;
pub(crate) mod qemu_watchdog;
pub(crate) mod supervised;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use kennel::supervisor::vm_process::{ConsoleEnds, VmProcess, Word};
use kennel_vmm::config::MachineConfig;
use kennel_vmm::protocol::News;
use tempfile::TempDir;

use crate::Trouble;

/// QEMU's program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// What boots in every contender alike.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) cmdline: String,
    pub(crate) memory_mib: u32,
}

impl Guest {
    /// A kernel alone.
    pub(crate) fn bare(kernel: &Path, memory_mib: u32, cmdline: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            initrd: None,
            cmdline: cmdline.to_owned(),
            memory_mib,
        }
    }

    /// The machine of ours that it boots in.
    pub(crate) fn config(&self) -> MachineConfig {
        MachineConfig {
            memory_bytes: u64::from(self.memory_mib) << 20,
            vcpus: 1,
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            initrd_overlay: vec![],
            cmdline: self.cmdline.clone(),
            watchdog: None,
            agent_socket: None,
            network: None,
            resets: 0,
        }
    }
}

/// A guest that runs, with its agent at a socket.
#[derive(Debug)]
pub(crate) struct Running {
    directory: TempDir,
    process: Process,
}

/// What ends when it is dropped.
#[derive(Debug)]
enum Process {
    Kennel {
        _process: VmProcess,
        words: Receiver<Word>,
    },
    Qemu(Killed),
    Floor(JoinHandle<()>),
}

impl Process {
    /// How it ended, if it has.
    fn ended(&mut self) -> Option<String> {
        match self {
            Self::Kennel { words, .. } => words.try_iter().find_map(|word| match word {
                Word::Gone => Some("Kennel's VM process ended".to_owned()),
                Word::Notice(notice) => match notice.news {
                    News::Failed { message } => Some(message),
                    _ => None,
                },
            }),
            Self::Qemu(Killed(child)) => {
                let status = child.try_wait().ok()??;
                Some(format!("{QEMU} ended: {status}"))
            }
            Self::Floor(thread) => thread
                .is_finished()
                .then(|| "the floor's thread ended".to_owned()),
        }
    }
}

/// A child that ends with its owner.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It fails for one that has ended, which is what is wanted.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Running {
    /// Where the agent's clients connect.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(&self.directory)
    }

    /// An error if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Trouble> {
        self.process
            .ended()
            .map_or(Ok(()), |how| Err(Trouble::new(how)))
    }

    /// The guest in Kennel's machine.
    pub(crate) fn kennel(guest: &Guest) -> Result<Self, Trouble> {
        let directory = tempfile::tempdir().map_err(Trouble::new)?;
        let config = MachineConfig {
            agent_socket: Some(socket_in(&directory)),
            ..guest.config()
        };
        let ends = ConsoleEnds {
            input: Stdio::null(),
            output: Stdio::null(),
        };
        let (sender, words) = channel();
        let process = VmProcess::start(config, ends, sender).map_err(Trouble::new)?;
        Ok(Self {
            directory,
            process: Process::Kennel {
                _process: process,
                words,
            },
        })
    }

    /// The guest in QEMU's `pc`, on the same KVM, with the agent's port at a socket.
    pub(crate) fn qemu(guest: &Guest) -> Result<Self, Trouble> {
        let directory = tempfile::tempdir().map_err(Trouble::new)?;
        let socket = socket_in(&directory);
        let mut qemu = Command::new(QEMU);
        qemu.args(["-M", "pc", "-accel", "kvm", "-nodefaults"])
            .args(["-display", "none", "-no-reboot", "-serial", "null"])
            .args(["-m", &guest.memory_mib.to_string()])
            .arg("-kernel")
            .arg(&guest.kernel)
            .args(["-append", &guest.cmdline])
            .args(["-device", "virtio-serial-pci,disable-legacy=on"])
            .arg("-chardev")
            .arg(format!(
                "socket,id=agent,server=on,wait=off,path={}",
                socket.display()
            ))
            .args([
                "-device",
                "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            ]);
        if let Some(initrd) = &guest.initrd {
            qemu.arg("-initrd").arg(initrd);
        }
        let child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us alone: what is measured comes to its end.
            .process_group(0)
            .spawn()
            .map_err(|error| Trouble::new(format!("{QEMU} cannot be started: {error}")))?;
        Ok(Self {
            directory,
            process: Process::Qemu(Killed(child)),
        })
    }

    /// No guest: a thread that answers at the socket as an agent would.
    pub(crate) fn floor() -> Result<Self, Trouble> {
        let directory = tempfile::tempdir().map_err(Trouble::new)?;
        let listener = UnixListener::bind(socket_in(&directory)).map_err(Trouble::new)?;
        let thread = std::thread::Builder::new()
            .name("floor".into())
            .spawn(move || {
                if let Ok((stream, _)) = listener.accept() {
                    answer(stream);
                }
            })
            .map_err(Trouble::new)?;
        Ok(Self {
            directory,
            process: Process::Floor(thread),
        })
    }
}

fn socket_in(directory: &TempDir) -> PathBuf {
    directory.path().join("agent")
}

/// Answers each request with its numbers until the client is gone.
fn answer(mut stream: std::os::unix::net::UnixStream) {
    use std::io::{BufRead, BufReader};
    let Ok(reader) = stream.try_clone() else {
        return;
    };
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        let Ok(request) = serde_json::from_str::<serde_json::Value>(&line) else {
            continue;
        };
        let sync = request.pointer("/arguments/id").cloned();
        let answer = serde_json::json!({
            "return": sync.unwrap_or_else(|| serde_json::json!({})),
            "id": request.get("id"),
        });
        if stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// QEMU's first line about its version, if it is installed.
pub(crate) fn qemu_version() -> Option<String> {
    let output = Command::new(Path::new(QEMU))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.to_owned())
}
