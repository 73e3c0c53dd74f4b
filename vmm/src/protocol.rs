// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VM process and its supervisor say to each other: JSON, a line a message.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::config::{MachineConfig, WatchdogAction};
use crate::mailbox::ResetCause;

/// Supervisor to VM process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Command {
    /// The first message: build this machine and run it.
    Start(Box<MachineConfig>),
    /// Stop the vCPUs and VM time.
    Pause,
    /// Let them go on.
    Resume,
    /// Press the ACPI power button.
    PressPowerButton,
    /// Platform reset.
    Reset,
    /// NMI to every vCPU.
    InjectNmi,
    /// Tell how the machine is, as [`News::Status`].
    Status,
    /// Tell [`News::Synced`], after everything that has happened to the machine until now.
    Sync {
        /// Comes back with the answer.
        token: u64,
    },
    /// Give a sign of life from the event loop, as the answer to this question: see [`crate::pulse`].
    Pulse(u64),
    /// End the machine at once.
    Stop,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// vCPUs and VM time stand still.
    pub frozen: bool,
    /// Resets since the machine was created.
    pub resets: u64,
    /// Exits of all vCPUs to this process since the last reset, kicks left out.
    pub exits: u64,
    /// The watchdog, if there is one.
    pub watchdog: Option<WatchdogStatus>,
}

/// How the watchdog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogStatus {
    /// The guest has enabled it.
    pub armed: bool,
    /// The guest has locked it.
    pub locked: bool,
    /// Until it bites if nobody pings, in ns.
    pub time_left_ns: Option<u64>,
    /// Both stages as programmed, in ns.
    pub timeout_ns: u64,
    /// Since the last ping, in ns.
    pub last_ping_age_ns: Option<u64>,
    /// Pings since power-on.
    pub pings: u64,
    /// Bites since power-on.
    pub bites: u64,
    /// Guest writes without effect since power-on.
    pub ignored_writes: u64,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Ending {
    /// The guest powered itself off.
    GuestPowerOff,
    /// The watchdog bit, with action poweroff.
    WatchdogPowerOff,
    /// The watchdog bit, with action shutdown, and the guest did not power off within its grace.
    GraceExpired,
    /// The host asked.
    Stopped,
}

/// A bite as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogReport {
    /// What is done about it.
    pub action: WatchdogAction,
    /// Programmed: both stages, in ns.
    pub timeout_ns: u64,
    /// From the last ping, or from arming, to this report, in ns of VM time.
    pub since_ping_ns: u64,
    /// From the exact deadline to this report, in ns of VM time.
    pub lateness_ns: u64,
    /// Bites that this report stands for.
    pub bites: u64,
}

/// What a VM process has to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum News {
    /// The vCPUs run.
    Started,
    /// The guest armed its watchdog, or gave it another timeout.
    WatchdogArmed {
        /// What a ping buys: both stages as programmed, in ns.
        timeout_ns: u64,
    },
    /// The guest disarmed its watchdog.
    WatchdogDisarmed,
    /// The watchdog bites soon, unless it is pinged.
    Pretimeout {
        /// From the exact instant of the pretimeout to the bite, in ns.
        lead_ns: u64,
        /// From the exact deadline to this report, in ns of VM time.
        lateness_ns: u64,
        /// Whether the guest was given an NMI.
        nmi: bool,
    },
    /// The watchdog bit.
    Watchdog(WatchdogReport),
    /// This process did not run for a while; a deadline that fell due meanwhile was moved, so that the guest has the time
    /// that it could not use.
    StallForgiven {
        /// From the exact deadline to when it was found, in ns: at least so long nobody ran.
        stalled_ns: u64,
    },
    /// The guest was asked to shut down and has this long, in ns.
    ShutdownAsked {
        /// The grace in ns.
        grace_ns: u64,
    },
    /// The machine was reset and boots again.
    Reset {
        /// How it came about.
        cause: ResetCause,
        /// Resets since the machine was created.
        count: u64,
    },
    /// vCPUs and VM time stand still.
    Paused {
        /// The watchdog did it.
        by_watchdog: bool,
    },
    /// They go on.
    Resumed,
    /// An NMI was given to every vCPU.
    NmiInjected,
    /// A program in the guest opened the agent's port.
    AgentConnected,
    /// It closed the port, or the guest that had it open is gone.
    AgentDisconnected,
    /// A client asked the agent to freeze the guest's file systems, and it did.
    FilesystemsFrozen,
    /// They are thawed.
    FilesystemsThawed,
    /// Addresses that the guest has shown on its link; told when they change.
    GuestAddresses {
        /// IPv4, if it has one.
        ipv4: Option<Ipv4Addr>,
        /// IPv6 of the link's prefix, if it has one.
        ipv6: Option<Ipv6Addr>,
    },
    /// The uplink works.
    UplinkUp,
    /// The uplink does not work, and is tried again if a wait is given.
    UplinkDown {
        /// What failed, and what to do.
        message: String,
        /// Until the next try, in ns.
        retry_ns: Option<u64>,
    },
    /// The guest's network has ended, and the machine goes on without: whatever reaches for the guest's
    /// ports fails.
    NetworkDown {
        /// Why, and what to do.
        message: String,
    },
    /// The answer to [`Command::Status`].
    Status(MachineStatus),
    /// The answer to [`Command::Sync`]. Every reset, pause and end that came before the command is
    /// told before it: it must not overtake another notice. A machine that has ended does not answer.
    Synced {
        /// The command's.
        token: u64,
    },
    /// The machine has ended; the last message of a machine that ran.
    Ended(Ending),
    /// The machine could not be built or could not go on; the last message.
    Failed {
        /// What failed, with what value, and what to do.
        message: String,
    },
}

/// VM process to supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Nanoseconds since the Unix epoch.
    pub realtime_ns: u64,
    /// VM time in ns.
    pub uptime_ns: u64,
    /// What happened.
    pub news: News,
}
