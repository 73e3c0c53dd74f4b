// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a machine is made of: the description that a VM process receives and checks before it
//! touches KVM.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What happens when the watchdog's second stage runs out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WatchdogAction {
    /// Platform reset; the guest boots again and reads "last reset by watchdog".
    #[default]
    Reset,
    /// The machine ends at once.
    Poweroff,
    /// ACPI power button; when the guest has not powered off after the grace, as [`Self::Poweroff`].
    Shutdown,
    /// The vCPUs and VM time stop until somebody resumes them.
    Pause,
    /// An NMI to every vCPU; the watchdog starts over.
    InjectNmi,
    /// Nothing but the event; the watchdog starts over.
    None,
}

impl WatchdogAction {
    /// Every action, in the order that messages list them.
    pub const ALL: [Self; 6] = [
        Self::Reset,
        Self::Poweroff,
        Self::Shutdown,
        Self::Pause,
        Self::InjectNmi,
        Self::None,
    ];

    /// The name in documents, events and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Poweroff => "poweroff",
            Self::Shutdown => "shutdown",
            Self::Pause => "pause",
            Self::InjectNmi => "inject-nmi",
            Self::None => "none",
        }
    }
}

/// What happens a while before the watchdog bites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PretimeoutAction {
    /// Nothing. The guest's own interrupt at the end of stage 1 is independent of this.
    #[default]
    None,
    /// An event.
    Event,
    /// An event and an NMI to every vCPU.
    InjectNmi,
}

impl PretimeoutAction {
    /// Every action, in the order that messages list them.
    pub const ALL: [Self; 3] = [Self::None, Self::Event, Self::InjectNmi];

    /// The name in documents and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Event => "event",
            Self::InjectNmi => "inject-nmi",
        }
    }
}

/// What the watchdog does after a bite whose action leaves the guest running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AfterBite {
    /// Starts over from stage 1 with its preloads and its lock.
    #[default]
    Rearm,
    /// Resets itself and stays disarmed until the guest enables it again (QEMU behaviour).
    Disarm,
    /// Stays where it is: bitten, not counting (hardware: the pin is low until a reset).
    Halt,
}

impl AfterBite {
    /// Every policy, in the order that messages list them.
    pub const ALL: [Self; 3] = [Self::Rearm, Self::Disarm, Self::Halt];

    /// The name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rearm => "rearm",
            Self::Disarm => "disarm",
            Self::Halt => "halt",
        }
    }
}

/// The watchdog and who acts on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogConfig {
    /// What a bite does.
    pub action: WatchdogAction,
    /// What happens a while before a bite.
    pub pretimeout: PretimeoutAction,
    /// How long before; at most a quarter of the timeout, which is also the default.
    #[serde(default)]
    pub pretimeout_lead: Option<Duration>,
    /// What the watchdog does after a bite that left the guest running.
    pub after_bite: AfterBite,
    /// How long [`WatchdogAction::Shutdown`] waits for the guest.
    pub shutdown_grace: Duration,
    /// Offer MSI for the stage-1 interrupt, which the real device does not.
    #[serde(default)]
    pub msi: bool,
    /// The timed-out flag is set from the start, as after a reset by the watchdog: this machine takes the place of one
    /// that its watchdog was to reset.
    #[serde(default)]
    pub timed_out: bool,
}

impl Default for WatchdogConfig {
    fn default() -> Self {
        Self {
            action: WatchdogAction::default(),
            pretimeout: PretimeoutAction::default(),
            pretimeout_lead: None,
            after_bite: AfterBite::default(),
            shutdown_grace: Duration::from_secs(30),
            msi: false,
            timed_out: false,
        }
    }
}

/// What the guest's link is connected to beside the probe host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Uplink {
    /// Nothing: the guest reaches the probe host alone.
    #[default]
    None,
    /// passt, started here as a child: the guest reaches what this user reaches.
    Passt,
    /// A TAP device of this name.
    Tap(String),
}

/// The guest's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// What lies beyond the probe host.
    pub uplink: Uplink,
    /// Where clients find the way to the guest's ports: a UNIX socket to be made here, whose
    /// protocol is [`crate::dial`].
    pub dial_socket: PathBuf,
}

/// A machine, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Guest RAM in bytes, a multiple of 4 KiB.
    pub memory_bytes: u64,
    /// Number of vCPUs, at least 1.
    pub vcpus: u32,
    /// bzImage or ELF vmlinux.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// A cpio segment appended to `initrd`, 4-byte aligned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initrd_overlay: Vec<u8>,
    /// Kernel command line.
    pub cmdline: String,
    /// The watchdog, if the machine has one.
    pub watchdog: Option<WatchdogConfig>,
    /// Where clients of the guest agent find it: a UNIX socket to be made here.
    pub agent_socket: Option<PathBuf>,
    /// The guest's network, if it has one.
    #[serde(default)]
    pub network: Option<NetworkConfig>,
    /// Resets that the machine went through in processes before this one: the count goes on from here.
    #[serde(default)]
    pub resets: u64,
}

impl MachineConfig {
    /// What is wrong with it, as far as it can be told without touching the host.
    ///
    /// # Errors
    ///
    /// One sentence: what, the value, what to write instead.
    pub fn check(&self) -> Result<(), String> {
        const PAGE: u64 = crate::layout::PAGE_SIZE;
        let bytes = self.memory_bytes;
        if bytes < crate::layout::MIN_RAM || !bytes.is_multiple_of(PAGE) {
            return Err(format!(
                "{bytes} bytes of guest memory are not possible: give a multiple of {PAGE} from {} on",
                crate::layout::MIN_RAM
            ));
        }
        if self.vcpus == 0 {
            return Err("a machine with 0 vCPUs does not run: give at least 1".into());
        }
        if !self.initrd_overlay.len().is_multiple_of(4) {
            return Err("the initrd overlay's length is not a multiple of 4 bytes".into());
        }
        Ok(())
    }
}
