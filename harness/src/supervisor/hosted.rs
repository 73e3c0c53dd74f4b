// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An instance on this host: its VM process, its console, and whoever asks its guest.

use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use kennel_vmm::config::MachineConfig;
use kennel_vmm::protocol::Command;

use super::asking::{self, Ask, Asking, Line, Sockets};
use super::console::{Console, ConsoleFile};
use super::controller::{Answers, Happening, InstanceId, Questions};
use super::sockets::Claim;
use super::uptime::Uptime;
use super::vm_process::VmProcess;
use super::{Arrival, SuperviseError, failed};
use crate::moment::Moment;
use crate::probe::ProbeKind;

/// An instance's part of this host.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) uptime: Uptime,
    process: VmProcess,
    tap: Option<JoinHandle<()>>,
    console_file: Option<ConsoleFile>,
    /// Its sockets.
    claim: Option<Claim>,
    /// One of them leads to its guest's ports.
    has_network: bool,
    lines: Vec<(ProbeKind, Line)>,
    sender: Sender<Arrival>,
}

impl Hosted {
    pub(super) fn start(
        config: MachineConfig,
        name: &str,
        console: &Console,
        claim: Option<Claim>,
        instance: InstanceId,
        sender: &Sender<Arrival>,
    ) -> Result<Self, SuperviseError> {
        let file = console.own_file(name).map_err(failed("given a console"))?;
        let (ends, tap) = console
            .ends(name, file.as_ref(), sender)
            .map_err(failed("given a console"))?;
        let words = sender.clone();
        let say = move |word| words.send(Arrival::Word(instance, word)).is_ok();
        let has_network = config.network.is_some();
        let process = VmProcess::start_telling(config, ends, say).map_err(failed("started"))?;
        Ok(Self {
            uptime: Uptime::default(),
            process,
            tap,
            console_file: file,
            claim,
            has_network,
            lines: vec![],
            sender: sender.clone(),
        })
    }

    /// Where it is reached.
    pub(super) fn sockets(&self) -> Sockets<'_> {
        let claim = self.claim.as_ref();
        Sockets {
            agent: claim.map(Claim::agent),
            dial: claim.filter(|_| self.has_network).map(Claim::dial),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn tell(&mut self, command: &Command) {
        if let Err(error) = self.process.tell(command) {
            // It has ended meanwhile; its last words are on their way.
            log::debug!("{command:?} did not reach the VM process: {error}");
        }
    }

    pub(super) fn kill(&self) {
        if let Err(error) = self.process.kill() {
            log::debug!("the VM process cannot be killed: {error}");
        }
    }

    /// The signs of life that its process has given.
    pub(super) fn take_pulse(&self) -> Answers {
        self.process.take_pulse()
    }

    /// Asks its process for signs of life.
    pub(super) fn ask_pulse(&mut self, questions: Questions) {
        self.process.ask_pulse(questions);
    }

    /// Its sockets.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Its sockets may be another's.
    pub(super) fn release_sockets(&mut self) {
        self.claim = None;
    }

    /// Starts a process for `config` in the place of the one that is gone.
    pub(super) fn renew(
        &mut self,
        now: Moment,
        config: MachineConfig,
        name: &str,
        console: &Console,
        instance: InstanceId,
    ) -> Result<(), SuperviseError> {
        let (ends, tap) = console
            .ends(name, self.console_file.as_ref(), &self.sender)
            .map_err(failed("given a console"))?;
        self.tap = tap;
        let words = self.sender.clone();
        let say = move |word| words.send(Arrival::Word(instance, word)).is_ok();
        self.process = VmProcess::start_telling(config, ends, say).map_err(failed("started"))?;
        self.uptime.go_on_from(now);
        Ok(())
    }

    /// Its process has said its last word; how it went.
    pub(super) fn gone(&mut self) -> String {
        let status = self.process.reap();
        // With the process gone, the tap comes to its end by itself; else it is left alone.
        let tap = self.tap.take().filter(|_| status.is_ok());
        if tap.is_some_and(|tap| tap.join().is_err()) {
            log::error!("the console tap panicked");
        }
        match status {
            Ok(status) => format!("the VM process ended unexpectedly: {status}"),
            Err(error) => format!("the VM process is lost: {error}"),
        }
    }

    /// Has the probe attempted; an answer at once if it cannot be.
    pub(super) fn attempt(
        &mut self,
        asking: &Asking,
        instance: InstanceId,
        probe: ProbeKind,
        ask: Ask,
    ) -> Option<Happening> {
        let line = match self.lines.iter().position(|(kind, _)| *kind == probe) {
            Some(at) => self.lines.get(at).map(|(_, line)| line),
            None => {
                let line = asking.line(instance, probe, self.sockets(), self.sender.clone());
                self.lines.push((probe, line));
                self.lines.last().map(|(_, line)| line)
            }
        };
        line?.attempt(ask)
    }

    /// Has the agent asked to shut the guest down; an answer at once if it cannot be.
    pub(super) fn ask_shutdown(
        &self,
        instance: InstanceId,
        by: Instant,
        sender: &Sender<Arrival>,
    ) -> Option<Happening> {
        asking::shut_down(instance, self.sockets().agent, by, sender.clone())
    }
}
