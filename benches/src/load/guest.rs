// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whom the probes ask.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kennel::guest::overlay;
use kennel::probe::Outcome;
use kennel::probe::network::NetworkRunner;
use kennel::spec::{Handler, IpFamily};
use kennel::supervisor::vm_process::{ConsoleEnds, VmProcess, Word};
use kennel_tests::web_guest;
use kennel_vmm::config::{MachineConfig, NetworkConfig, Uplink};
use kennel_vmm::protocol::News;

use super::model::Model;
use super::stack::{HTTP_PORT, Health, TCP_PORT};
use super::{directory, handler};
use crate::Trouble;
use crate::session::{LinuxGuest, Session};

/// An emulated machine takes its time to boot.
const BOOTS: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_millis(200);
const SCRIPT: &str = "mkdir -p /www\necho ok >/www/index.html\nhttpd -p 8080 -h /www\n\
                      while :; do sleep 1000; done";

/// Which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// A TCP/IP stack in a thread, behind Kennel's link
    #[default]
    Model,
    /// Linux with busybox' httpd, in Kennel's machine: needs --kernel and --initrd
    Linux,
    /// A web server on bare metal, in Kennel's machine
    BareMetal,
}

/// A guest that can be dialled, until this is dropped.
#[derive(Debug)]
pub(crate) enum Guest {
    Model(Model),
    Linux(Box<Machine>),
    BareMetal(Box<Machine>),
}

/// It runs in a VM process.
#[derive(Debug)]
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    process: VmProcess,
    words: Receiver<Word>,
}

impl Guest {
    /// Returns once it answers.
    pub(crate) fn start(session: &Session) -> Result<Self, Trouble> {
        match (session.load.guest, &session.linux) {
            (Choice::Model, _) => Ok(Self::Model(Model::start()?)),
            (Choice::Linux, Some(linux)) => {
                Ok(Self::Linux(Box::new(Machine::linux(linux, session)?)))
            }
            (Choice::Linux, None) => Err(Trouble::new("--guest linux needs --kernel and --initrd")),
            (Choice::BareMetal, _) => Ok(Self::BareMetal(Box::new(Machine::bare_metal(session)?))),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        match self {
            Self::Model(model) => model.socket(),
            Self::Linux(machine) | Self::BareMetal(machine) => machine.dial_socket(),
        }
    }

    /// Its VM process.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Model(model) => model.pid(),
            Self::Linux(machine) | Self::BareMetal(machine) => machine.process.pid(),
        }
    }

    /// What the thread that runs the guest is called.
    pub(crate) const fn thread(&self) -> &'static str {
        match self {
            Self::Model(_) => "guest",
            Self::Linux(_) | Self::BareMetal(_) => "vcpu",
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Model(_) => "a model: a TCP/IP stack in a thread, behind queues instead of rings",
            Self::Linux(_) => "Linux in Kennel's machine, with busybox' httpd for both kinds",
            Self::BareMetal(_) => "a web server on bare metal, in Kennel's machine, for both kinds",
        }
    }

    /// `httpGet` and `tcpSocket` of its servers.
    pub(crate) fn probes(&self) -> Result<[Handler; 2], Trouble> {
        let tcp = match self {
            Self::Model(_) => TCP_PORT,
            Self::Linux(_) | Self::BareMetal(_) => HTTP_PORT,
        };
        Ok([handler("httpGet", HTTP_PORT)?, handler("tcpSocket", tcp)?])
    }

    /// From now on it is so.
    pub(crate) fn becomes(&mut self, health: Health) -> Result<(), Trouble> {
        match self {
            Self::Model(model) => model.becomes(health),
            Self::Linux(_) | Self::BareMetal(_) => {
                Err(Trouble::new("only the model can be made ill"))
            }
        }
    }
}

impl Machine {
    fn linux(linux: &LinuxGuest, session: &Session) -> Result<Self, Trouble> {
        let config = MachineConfig {
            memory_bytes: 256 << 20,
            initrd: Some(linux.initrd.clone()),
            initrd_overlay: overlay(SCRIPT).map_err(Trouble::new)?,
            cmdline: "console=ttyS0 quiet panic=-1 cryptomgr.notests".into(),
            ..bare(&linux.kernel)
        };
        Self::start(config, session)
    }

    fn bare_metal(session: &Session) -> Result<Self, Trouble> {
        let kernel = web_guest::write();
        Self::start(bare(&kernel), session)
    }

    fn dial_socket(&self) -> PathBuf {
        self.directory.path().join("dial")
    }

    /// Returns once it answers.
    fn start(mut config: MachineConfig, session: &Session) -> Result<Self, Trouble> {
        let directory = directory()?;
        let dial_socket = directory.path().join("dial");
        config.network = Some(NetworkConfig {
            uplink: Uplink::None,
            dial_socket: dial_socket.clone(),
        });
        let ends = ConsoleEnds {
            input: Stdio::null(),
            output: Stdio::null(),
        };
        let (sender, words) = channel();
        let process = VmProcess::start(config, ends, sender).map_err(Trouble::new)?;
        let guest = Self {
            directory,
            process,
            words,
        };
        let second = Duration::from_secs(1);
        let probe = handler("httpGet", HTTP_PORT)?;
        let mut runner = NetworkRunner::new(probe, second, IpFamily::Ipv4, &dial_socket);
        let end = Instant::now() + BOOTS;
        while runner.attempt(Instant::now() + second) != Outcome::Success {
            guest.check()?;
            if Instant::now() >= end {
                return Err(Trouble::new("the guest's web server never answered"));
            }
            session.wait(AGAIN)?;
        }
        Ok(guest)
    }

    /// An error if it has ended.
    fn check(&self) -> Result<(), Trouble> {
        for word in self.words.try_iter() {
            let how = match word {
                Word::Gone => Some("Kennel's VM process ended".to_owned()),
                Word::Notice(notice) => match notice.news {
                    News::Failed { message } => Some(message),
                    News::Ended(_) => Some("the guest ended".to_owned()),
                    _ => None,
                },
            };
            if let Some(how) = how {
                return Err(Trouble::new(how));
            }
        }
        Ok(())
    }
}

/// A machine with a processor, its kernel and nothing else.
fn bare(kernel: &Path) -> MachineConfig {
    MachineConfig {
        memory_bytes: 16 << 20,
        vcpus: 1,
        kernel: kernel.to_owned(),
        initrd: None,
        initrd_overlay: vec![],
        cmdline: String::new(),
        watchdog: None,
        agent_socket: None,
        network: None,
        resets: 0,
    }
}
