// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine: builds the KVM VM around the board, boots the guest, and carries out the policy's
//! steps. Driven by one thread, the event loop's.

use std::io;
use std::sync::Arc;

use i6300esb::VmInstant;
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, Msrs, kvm_clock_data, kvm_mp_state};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;

use crate::board::{Board, BoardError};
use crate::boot::{self, BootError, BootSource, EntryPoint, registers};
use crate::clock::VmTimer;
use crate::config::MachineConfig;
use crate::hypervisor::{Hypervisor, HypervisorError, call};
use crate::mailbox::{self, ResetCause};
use crate::memory::{self, MemoryError};
use crate::policy::{Policy, Step};
use crate::protocol::{Command, Ending, MachineStatus, News, WatchdogStatus};
use crate::vcpu::{self, Surroundings, Vcpu};

/// The machine cannot be built, or not be built again after a reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The description contradicts itself or this host.
    #[error("{0}")]
    Config(String),
    /// KVM.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Devices.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// Kernel, initrd, command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The host gave no thread or descriptor.
    #[error("the host gave no {what}: {source}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
}

/// One KVM VM; a reset replaces it. The vCPUs end before the VM's last reference goes.
#[derive(Debug)]
struct Incarnation {
    vcpus: Vec<Vcpu>,
    vm: Arc<VmFd>,
}

/// Is told what happened, and when in VM time.
pub type Tell<'a> = dyn FnMut(VmInstant, News) + 'a;

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The machine goes on.
    Running,
    /// It has ended.
    Ended(Ending),
    /// It cannot go on.
    Failed(String),
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    hypervisor: Hypervisor,
    memory: GuestMemoryMmap,
    board: Board,
    policy: Policy,
    grace: VmTimer,
    incarnation: Option<Incarnation>,
    /// The guest's paravirtual clock as it stood when the machine was frozen.
    frozen_clock: Option<kvm_clock_data>,
    frozen: bool,
    resets: u64,
}

impl Machine {
    /// Builds the machine; [`Machine::power_on`] runs it.
    ///
    /// # Errors
    ///
    /// [`MachineError`].
    pub fn new(
        config: MachineConfig,
        console: Box<dyn io::Write + Send>,
    ) -> Result<Self, MachineError> {
        config.check().map_err(MachineError::Config)?;
        let host = |what| move |source| MachineError::Host { what, source };
        vcpu::install_handler().map_err(host("signal handler"))?;
        let hypervisor = Hypervisor::open()?;
        let most = hypervisor.max_vcpus();
        if usize::try_from(config.vcpus).is_ok_and(|wanted| wanted > most) {
            return Err(HypervisorError::TooManyVcpus {
                wanted: config.vcpus,
                most,
            }
            .into());
        }
        let memory = memory::map(config.memory_bytes)?;
        let network = config.network.is_some();
        let board = Board::new(config.watchdog.as_ref(), network, console)?;
        let grace = VmTimer::new(Arc::clone(&board.clock)).map_err(host("timer"))?;
        let policy = Policy::new(config.watchdog.clone().unwrap_or_default());
        Ok(Self {
            config,
            hypervisor,
            memory,
            board,
            policy,
            grace,
            incarnation: None,
            frozen_clock: None,
            frozen: false,
            resets: 0,
        })
    }

    /// The devices.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Readable when the grace of a watchdog shutdown may be over.
    #[must_use]
    pub fn grace_timer(&self) -> &VmTimer {
        &self.grace
    }

    /// Guest RAM.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Whether the guest's own console is its virtio console: Linux takes the last one that its
    /// command line names.
    #[must_use]
    pub fn reads_virtio_console(&self) -> bool {
        let words = self.config.cmdline.split_ascii_whitespace();
        let mut named = words.filter_map(|word| word.strip_prefix("console="));
        named
            .next_back()
            .is_some_and(|name| name == "hvc0" || name.starts_with("hvc0,"))
    }

    /// VM time.
    #[must_use]
    pub fn now(&self) -> VmInstant {
        self.board.clock.now()
    }

    /// How the machine is.
    #[must_use]
    pub fn status(&self) -> MachineStatus {
        let vcpus = self.incarnation.iter().flat_map(|one| &one.vcpus);
        let watchdog = self
            .board
            .watchdog
            .as_ref()
            .map(|(watchdog, _)| watchdog.status());
        MachineStatus {
            frozen: self.frozen,
            resets: self.resets,
            exits: vcpus.map(Vcpu::exits).fold(0, u64::saturating_add),
            watchdog: watchdog.map(|status| WatchdogStatus {
                armed: status.armed,
                locked: status.locked,
                time_left_ns: status.time_left_ns,
                timeout_ns: status.timeout_ns,
                last_ping_age_ns: status.last_ping_age_ns,
                pings: status.pings,
                bites: status.bites,
                ignored_writes: status.ignored_writes,
            }),
        }
    }

    /// Boots the guest.
    ///
    /// # Errors
    ///
    /// [`MachineError`].
    pub fn power_on(&mut self, tell: &mut Tell<'_>) -> Result<(), MachineError> {
        self.incarnate()?;
        self.thaw();
        tell(VmInstant::ZERO, News::Started);
        Ok(())
    }

    /// Handles what vCPUs and devices have asked for, but not for ever: timers and commands get
    /// their turn even while vCPUs go on asking.
    pub fn serve_requests(&mut self, tell: &mut Tell<'_>) -> Outcome {
        for _ in 0..mailbox::CAPACITY {
            let Some(request) = self.board.mailbox.take() else {
                return Outcome::Running;
            };
            let now = self.board.clock.now();
            let steps = self.policy.request(now, request);
            match self.carry_out(now, steps, tell) {
                Outcome::Running => {}
                over => return over,
            }
        }
        self.board.mailbox.wake_again();
        Outcome::Running
    }

    /// Handles a command of the supervisor's.
    pub fn serve_command(&mut self, command: Command, tell: &mut Tell<'_>) -> Outcome {
        let steps = self.policy.command(command);
        self.carry_out(self.board.clock.now(), steps, tell)
    }

    /// The grace timer is readable.
    pub fn serve_grace(&mut self, tell: &mut Tell<'_>) -> Outcome {
        if !self.grace.take_expiry() {
            return Outcome::Running;
        }
        let steps = self.policy.grace_over();
        self.carry_out(self.board.clock.now(), steps, tell)
    }

    /// The watchdog's timer is readable.
    pub fn serve_watchdog(&mut self) {
        if let Some((watchdog, timer)) = &self.board.watchdog
            && timer.take_expiry()
        {
            watchdog.timer_fired();
        }
    }

    /// News are dated `now`, the instant that the policy judged by, until a step takes time itself.
    fn carry_out(&mut self, mut now: VmInstant, steps: Vec<Step>, tell: &mut Tell<'_>) -> Outcome {
        for step in steps {
            match step {
                Step::Tell(news) => tell(now, news),
                Step::TellStatus => tell(now, News::Status(self.status())),
                Step::Reset(cause) => {
                    if let Err(error) = self.reset(cause, tell) {
                        return Outcome::Failed(format!("the machine could not be reset: {error}"));
                    }
                }
                Step::Freeze => {
                    self.freeze();
                    now = self.board.clock.now();
                }
                Step::Thaw => self.thaw_frozen(),
                Step::InjectNmi => {
                    self.incarnation
                        .iter()
                        .flat_map(|one| &one.vcpus)
                        .for_each(Vcpu::inject_nmi);
                }
                Step::PressPowerButton => self.board.power.press_power_button(),
                Step::ArmGrace(instant) => self.grace.arm(instant),
                Step::End(ending) => return Outcome::Ended(ending),
                Step::Fail(message) => return Outcome::Failed(message),
            }
        }
        Outcome::Running
    }

    /// Ends the vCPUs and lets the console's reader take the rest.
    pub fn power_off(&mut self) {
        self.discarnate();
        self.board.console.close();
    }

    fn reset(&mut self, cause: ResetCause, tell: &mut Tell<'_>) -> Result<(), MachineError> {
        self.discarnate();
        // What falls due in the old boot, and is told by its end, is not acted on in the new one.
        self.board.reset();
        self.board.mailbox.next_boot();
        memory::wipe(&self.memory)?;
        self.incarnate()?;
        self.resets = self.resets.saturating_add(1);
        let news = News::Reset {
            cause,
            count: self.resets,
        };
        tell(self.board.clock.now(), news);
        if !self.frozen {
            self.thaw();
        }
        Ok(())
    }

    /// Builds a KVM VM with the guest loaded and its vCPUs parked.
    fn incarnate(&mut self) -> Result<(), MachineError> {
        let source = BootSource {
            kernel: &self.config.kernel,
            initrd: self.config.initrd.as_deref(),
            initrd_overlay: &self.config.initrd_overlay,
            cmdline: &self.config.cmdline,
        };
        let entry = boot::load(&self.memory, &source, self.config.vcpus)?;
        let vm = self.hypervisor.build_vm(&self.memory)?;
        let mut vcpus = Vec::new();
        for id in 0..self.config.vcpus {
            let fd = self.hypervisor.build_vcpu(&vm, id, self.config.vcpus)?;
            set_common_state(&fd)?;
            if id == 0 {
                set_boot_state(&fd, &entry)?;
            }
            let around = Surroundings {
                bus: Arc::clone(&self.board.bus),
                mailbox: Arc::clone(&self.board.mailbox),
            };
            let vcpu = Vcpu::start(id, fd, around).map_err(|source| MachineError::Host {
                what: "thread for a vCPU",
                source,
            })?;
            vcpus.push(vcpu);
        }
        self.board.interrupts.connect(Arc::clone(&vm));
        self.incarnation = Some(Incarnation { vcpus, vm });
        self.frozen_clock = None;
        Ok(())
    }

    /// Ends the vCPUs' threads and forgets the KVM VM.
    fn discarnate(&mut self) {
        self.board.interrupts.disconnect();
        if let Some(incarnation) = self.incarnation.take() {
            // All are told before the first is waited for.
            incarnation.vcpus.iter().for_each(Vcpu::park);
            drop(incarnation);
        }
    }

    fn freeze(&mut self) {
        if let Some(incarnation) = &self.incarnation {
            incarnation.vcpus.iter().for_each(Vcpu::park);
            incarnation.vcpus.iter().for_each(Vcpu::wait_parked);
            self.frozen_clock = incarnation.vm.get_clock().ok();
        }
        self.frozen = true;
        self.board.clock.freeze();
        self.follow_clock();
    }

    fn thaw_frozen(&mut self) {
        if let (Some(incarnation), Some(clock)) = (&self.incarnation, self.frozen_clock.take()) {
            let still = kvm_clock_data {
                clock: clock.clock,
                ..Default::default()
            };
            if let Err(error) = incarnation.vm.set_clock(&still) {
                log::warn!("the guest will see its clock jump over the pause: {error}");
            }
        }
        self.thaw();
    }

    fn thaw(&mut self) {
        self.frozen = false;
        self.board.clock.resume();
        self.follow_clock();
        self.incarnation
            .iter()
            .flat_map(|one| &one.vcpus)
            .for_each(Vcpu::run);
    }

    fn follow_clock(&self) {
        self.grace.follow_clock();
        if let Some((_, timer)) = &self.board.watchdog {
            timer.follow_clock();
        }
    }
}

/// The guest must not outlive the memory it runs in, which is unmapped after this.
impl Drop for Machine {
    fn drop(&mut self) {
        self.discarnate();
    }
}

/// What firmware leaves behind on every CPU alike.
fn set_common_state(fd: &VcpuFd) -> Result<(), HypervisorError> {
    fd.set_fpu(&registers::fpu())
        .map_err(call("set a vCPU's floating-point state"))?;
    let msrs = Msrs::from_entries(&registers::msrs()).map_err(|error| HypervisorError::Call {
        step: "take a list of MSRs",
        source: io::Error::other(format!("{error:?}")),
    })?;
    fd.set_msrs(&msrs).map_err(call("set a vCPU's MSRs"))?;
    Ok(())
}

/// The kernel's entry, on the boot CPU; the others wait for it to start them.
fn set_boot_state(fd: &VcpuFd, entry: &EntryPoint) -> Result<(), HypervisorError> {
    let special = fd.get_sregs().map_err(call("read a vCPU's registers"))?;
    fd.set_sregs(&registers::special(entry, &special))
        .map_err(call("set a vCPU's registers"))?;
    fd.set_regs(&registers::general(entry))
        .map_err(call("set a vCPU's registers"))?;
    let runnable = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    fd.set_mp_state(runnable)
        .map_err(call("make the boot vCPU runnable"))?;
    Ok(())
}
