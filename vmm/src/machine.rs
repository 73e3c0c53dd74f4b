// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine: builds the KVM VM around the board, boots the guest, and carries out the policy's
//! steps. Driven by one thread, the event loop's.

use std::io;
use std::sync::Arc;

use i6300esb::VmInstant;
use kvm_bindings::kvm_clock_data;

use crate::board::{Board, BoardError};
use crate::boot::{BootError, BootImage, BootSource, EntryPoint};
use crate::clock::VmTimer;
use crate::config::MachineConfig;
use crate::fault::{self, Place};
use crate::hypervisor::{Hypervisor, HypervisorError};
use crate::incarnation::{Blank, Incarnation, Recipe};
use crate::loader::{Load, Loader};
use crate::mailbox::{self, Request, ResetCause};
use crate::memory::{self, GuestRam, MemoryError};
use crate::policy::{Policy, Step};
use crate::progress::Progress;
use crate::protocol::{Command, Ending, MachineStatus, News, WatchdogStatus};
use crate::pulse::Phase;
use crate::spare::Spare;
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
    /// The loader's thread panicked.
    #[error("loading the guest ended by a defect of this program, please report it")]
    Loader,
    /// The host gave no thread or descriptor.
    #[error("the host gave no {what}: {source}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
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

/// A reset whose load is under way: there are no vCPUs, and devices stand in their reset state.
#[derive(Debug)]
struct Booting {
    cause: ResetCause,
    /// The KVM VM that ends once the guest runs in the next.
    old: Option<Incarnation>,
    load: Load<Result<(EntryPoint, Blank), MachineError>>,
    /// Answers that say that the reset was told.
    held: Vec<News>,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    image: Arc<BootImage>,
    recipe: Recipe,
    spare: Spare<Blank>,
    board: Board,
    policy: Policy,
    /// For what the policy waits for.
    policy_timer: VmTimer,
    incarnation: Option<Incarnation>,
    loader: Loader,
    booting: Option<Booting>,
    /// The guest's paravirtual clock as it stood when the machine was frozen.
    frozen_clock: Option<kvm_clock_data>,
    frozen: bool,
    resets: u64,
    progress: Arc<Progress>,
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
        let image = BootImage::open(&BootSource {
            kernel: &config.kernel,
            initrd: config.initrd.as_deref(),
            initrd_overlay: &config.initrd_overlay,
            cmdline: &config.cmdline,
        })?;
        let memory = memory::map(config.memory_bytes)?;
        let network = config.network.is_some();
        let board = Board::new(config.watchdog.as_ref(), network, console)?;
        let policy_timer = VmTimer::new(Arc::clone(&board.clock)).map_err(host("timer"))?;
        let policy = Policy::new(config.watchdog.clone().unwrap_or_default());
        let recipe = Recipe {
            hypervisor: Arc::new(hypervisor),
            memory,
            vcpus: config.vcpus,
        };
        Ok(Self {
            resets: config.resets,
            config,
            image: Arc::new(image),
            spare: spare_of(&recipe),
            recipe,
            board,
            policy,
            policy_timer,
            incarnation: None,
            loader: Loader::default(),
            booting: None,
            frozen_clock: None,
            frozen: false,
            progress: Arc::default(),
        })
    }

    /// Says there, from now on, how far it is with what it does.
    pub fn report_to(&mut self, progress: Arc<Progress>) {
        let watchdog = self.config.watchdog.as_ref();
        progress.know_machine(
            Arc::clone(&self.board.mailbox),
            watchdog.map(|watchdog| watchdog.action),
            Arc::clone(self.image.steps()),
        );
        self.progress = progress;
    }

    /// The devices.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Readable when the policy may have something to do.
    #[must_use]
    pub fn policy_timer(&self) -> &VmTimer {
        &self.policy_timer
    }

    /// Guest RAM.
    #[must_use]
    pub fn memory(&self) -> &GuestRam {
        &self.recipe.memory
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
        let watchdog = self.board.watchdog.as_ref().map(|one| one.status());
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
        self.progress.enter(Phase::LoadKernel);
        let entry = self.image.load(&self.recipe.memory, self.config.vcpus)?;
        self.progress.enter(Phase::BuildVm);
        let blank = self.recipe.build()?;
        self.incarnate(&entry, blank)?;
        self.thaw();
        self.progress.enter(Phase::Idle);
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
            let looks = matches!(request, Request::Watchdog(_) | Request::WatchdogChanged);
            let now = self.board.clock.now();
            let steps = self.policy.request(now, request);
            let mut outcome = self.carry_out(now, steps, tell);
            if looks && outcome == Outcome::Running {
                outcome = self.look_at_watchdog(tell);
            }
            match outcome {
                Outcome::Running => {}
                over => return over,
            }
        }
        self.board.mailbox.wake_again();
        Outcome::Running
    }

    /// Handles a command of the supervisor's.
    pub fn serve_command(&mut self, command: Command, tell: &mut Tell<'_>) -> Outcome {
        // A reset that the guest has asked for already is told first.
        if matches!(command, Command::Sync { .. })
            && let over @ (Outcome::Ended(_) | Outcome::Failed(_)) = self.serve_requests(tell)
        {
            return over;
        }
        let steps = self.policy.command(command);
        self.carry_out(self.board.clock.now(), steps, tell)
    }

    /// The policy's timer is readable.
    pub fn serve_policy(&mut self, tell: &mut Tell<'_>) -> Outcome {
        if !self.policy_timer.take_expiry() {
            return Outcome::Running;
        }
        let now = self.board.clock.now();
        let steps = self.policy.time_passed(now);
        match self.carry_out(now, steps, tell) {
            Outcome::Running => self.look_at_watchdog(tell),
            over => over,
        }
    }

    fn look_at_watchdog(&mut self, tell: &mut Tell<'_>) -> Outcome {
        let Some(watchdog) = &self.board.watchdog else {
            return Outcome::Running;
        };
        let (now, status) = watchdog.observe();
        let steps = self.policy.watchdog_is(now, &status);
        self.carry_out(now, steps, tell)
    }

    /// The watchdog's timer is readable.
    pub fn serve_watchdog(&mut self) {
        if let Some(watchdog) = &self.board.watchdog {
            watchdog.timer_fired();
        }
    }

    /// What does not wait for the supervisor to be told: an NMI is on its way into the guest meanwhile, and
    /// vCPUs that have to leave it are on their way out.
    fn get_ready(&self, steps: &[Step]) {
        let Some(incarnation) = &self.incarnation else {
            return;
        };
        if steps.contains(&Step::InjectNmi) {
            incarnation.vcpus.iter().for_each(Vcpu::inject_nmi);
        }
        let resets = steps.iter().any(|step| matches!(step, Step::Reset(_)));
        if resets || steps.contains(&Step::Freeze) {
            incarnation.kick(resets);
        }
    }

    /// News are dated `now`, the instant that the policy judged by, until a step takes time itself.
    fn carry_out(&mut self, mut now: VmInstant, steps: Vec<Step>, tell: &mut Tell<'_>) -> Outcome {
        let bites = |step: &Step| matches!(step, Step::Tell(News::Watchdog(_)));
        if steps.iter().any(bites) {
            self.progress.set_bitten(true);
        }
        self.get_ready(&steps);
        for step in steps {
            match step {
                Step::Tell(news) => {
                    if let Some(news) = self.hold(news) {
                        tell(now, news);
                    }
                }
                Step::TellStatus => tell(now, News::Status(self.status())),
                Step::Reset(cause) => self.begin_reset(cause),
                Step::EndReset => {
                    if let Err(error) = self.end_reset(tell) {
                        return Outcome::Failed(format!("the machine could not be reset: {error}"));
                    }
                }
                Step::KeepSpare => {
                    self.spare.keep();
                    self.loader.get_ready();
                }
                Step::Freeze => {
                    self.freeze();
                    now = self.board.clock.now();
                }
                Step::Thaw => self.thaw_frozen(),
                // It is on its way since before the first step.
                Step::InjectNmi => {}
                Step::PressPowerButton => self.board.power.press_power_button(),
                Step::End(ending) => return Outcome::Ended(ending),
                Step::Fail(message) => return Outcome::Failed(message),
            }
        }
        self.policy_timer.set(self.policy.next_due());
        if self.booting.is_none() {
            self.progress.set_bitten(false);
        }
        Outcome::Running
    }

    /// Ends the vCPUs.
    pub fn power_off(&mut self) {
        self.progress.enter(Phase::End);
        self.discarnate();
    }

    /// Ends the present boot and begins to load the next. The loop goes on meanwhile.
    fn begin_reset(&mut self, cause: ResetCause) {
        if self.booting.is_some() {
            log::debug!("a reset by {cause:?} is dropped: no guest has run since the last one");
            return;
        }
        self.progress.set_reset(Some(cause));
        self.progress.enter(Phase::WaitForVcpus);
        self.board.interrupts.disconnect();
        let old = self.incarnation.take();
        // While the vCPUs come out of the guest, as far as it goes without them.
        old.iter().for_each(|old| old.kick(true));
        let spare = self.spare.take();
        spare.iter().for_each(Blank::restart_clocks);
        old.iter().for_each(Incarnation::finish);
        // A host that gave no spare may have no room for two.
        let (old, ends_first) = match &spare {
            Some(_) => (old, None),
            None => (None, old),
        };
        // What falls due in the old boot, and is told by its end, is not acted on in the new one.
        self.progress.enter(Phase::ResetDevices);
        self.board.reset();
        self.board.mailbox.next_boot();
        self.policy.reset_done();
        let (recipe, image) = (self.recipe.clone(), Arc::clone(&self.image));
        let progress = Arc::clone(&self.progress);
        progress.enter(Phase::Wipe);
        let load = self.loader.start(&self.board.mailbox, move || {
            drop(ends_first);
            memory::wipe(&recipe.memory)?;
            progress.enter(Phase::LoadKernel);
            fault::may_hang(Place::KernelLoad);
            let entry = image.load(&recipe.memory, recipe.vcpus)?;
            progress.enter(Phase::BuildVm);
            let blank = spare.map_or_else(|| recipe.build(), Ok)?;
            Ok((entry, blank))
        });
        self.booting = Some(Booting {
            cause,
            old,
            load,
            held: vec![],
        });
    }

    /// Lets the loaded guest run, unless the machine has been frozen meanwhile.
    fn end_reset(&mut self, tell: &mut Tell<'_>) -> Result<(), MachineError> {
        let Some(booting) = self.booting.take() else {
            return Ok(());
        };
        let loaded = booting.load.take();
        let (entry, blank) = loaded.unwrap_or(Err(MachineError::Loader))?;
        self.incarnate(&entry, blank)?;
        self.resets = self.resets.saturating_add(1);
        let news = News::Reset {
            cause: booting.cause,
            count: self.resets,
        };
        tell(self.board.clock.now(), news);
        for news in booting.held {
            tell(self.board.clock.now(), news);
        }
        if !self.frozen {
            self.thaw();
        }
        self.spare.replace(booting.old);
        self.progress.set_reset(None);
        self.progress.enter(Phase::Idle);
        Ok(())
    }

    /// Keeps back what must not be told before a reset that is under way; gives back the rest.
    fn hold(&mut self, news: News) -> Option<News> {
        match &mut self.booting {
            Some(booting) if matches!(news, News::Synced { .. }) => {
                booting.held.push(news);
                None
            }
            _ => Some(news),
        }
    }

    /// Parks vCPUs before the loaded guest's entry, in a KVM VM without a guest.
    fn incarnate(&mut self, entry: &EntryPoint, blank: Blank) -> Result<(), MachineError> {
        let around = Surroundings {
            bus: Arc::clone(&self.board.bus),
            mailbox: Arc::clone(&self.board.mailbox),
        };
        let incarnation = blank.incarnate(entry, &around)?;
        self.board.interrupts.connect(Arc::clone(&incarnation.vm));
        self.incarnation = Some(incarnation);
        self.frozen_clock = None;
        Ok(())
    }

    /// Ends the vCPUs' threads and forgets the KVM VM, and at the same time the one in reserve.
    fn discarnate(&mut self) {
        self.board.interrupts.disconnect();
        self.spare.discard();
        drop(self.booting.take());
        drop(self.incarnation.take());
    }

    fn freeze(&mut self) {
        if let Some(incarnation) = &self.incarnation {
            self.progress.enter(Phase::WaitForVcpus);
            incarnation.park();
            self.progress.enter(Phase::Idle);
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
        self.policy_timer.follow_clock();
        if let Some(watchdog) = &self.board.watchdog {
            watchdog.follow_clock();
        }
    }
}

/// The guest must not outlive the memory it runs in, which is unmapped after this.
impl Drop for Machine {
    fn drop(&mut self) {
        self.discarnate();
    }
}

fn spare_of(recipe: &Recipe) -> Spare<Blank> {
    let recipe = recipe.clone();
    Spare::new(move || {
        let built = recipe.build();
        built
            .inspect_err(|error| log::warn!("the next reset will take longer: {error}"))
            .ok()
    })
}
