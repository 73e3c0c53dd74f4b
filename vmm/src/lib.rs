// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A minimal KVM machine around the i6300esb watchdog: boots a stock Linux kernel, gives it PCI, a
//! serial console and ACPI, and acts when its watchdog bites.
//!
//! [`machine::Machine`] is the machine; [`process::run`] makes it a process of its own, driven by a
//! supervisor in the words of [`protocol`].
//!
//! *Emulated:* what [`layout`] places: serial port, keyboard controller (reset only), ACPI power
//! management, PCI configuration mechanism #1 with a host bridge, the watchdog, a virtio console and
//! a virtio network device. KVM adds interrupt controllers, PIT and paravirtual clock.
//! *Not emulated:* firmware, RTC, video, disks.

pub mod agent;
mod arming;
pub mod board;
pub mod boot;
pub mod bus;
pub mod chipset;
pub mod clock;
pub mod config;
pub mod console;
pub mod cpuid;
pub mod dial;
mod fault;
pub mod hypervisor;
mod incarnation;
pub mod interrupts;
pub mod layout;
pub mod link;
mod loader;
pub mod machine;
pub mod mailbox;
pub mod memory;
pub mod outlet;
pub mod policy;
mod pretimeout;
pub mod process;
pub mod progress;
pub mod protocol;
pub mod pulse;
mod spare;
mod token_bucket;
pub mod vcpu;
pub mod virtio_console;
pub mod virtio_function;
pub mod virtio_net;
pub mod watchdog;
