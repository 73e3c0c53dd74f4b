// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtio 1.x devices for a virtual machine monitor: the modern PCI transport, a console with two ports, and a network
//! card.
//!
//! The crate knows no hypervisor, no thread, no file descriptor and no clock. Register accesses go in as bytes and
//! work on the rings is asked for by the owner; what either changes for the outside (messages to send, the
//! interrupt line's level, a BAR that moved, ring work that is due, a port that the guest opened) comes back as
//! data. Guest memory is an argument of each ring function. Nothing a guest does can make it fail: what a driver
//! should not do is ignored and counted, and a ring that makes no sense stops the device until its driver resets it.
//!
//! # How to embed it
//! The owner keeps a [`VirtioPci`] behind one lock.
//! - On a vCPU thread: [`VirtioPci::bar_read`], [`VirtioPci::bar_write`], [`VirtioPci::config_write`]. Apply the
//!   [`AccessEffects`]; if [`AccessEffects::work`] is set, wake the loop.
//! - On the loop: for a console, [`VirtioPci::process`], again as long as it says so, then
//!   [`VirtioPci::agent_output`] into whatever room there is. For a network card, [`VirtioPci::transmit`] and
//!   [`VirtioPci::receive`], again as long as they say so; frames that the guest has no buffer for stay with the owner.
//!
//! ```
//! use kennel_virtio::{Console, Placement, VirtioPci};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10_0000)])?;
//! let mut console = VirtioPci::new(Console::new(), Placement::at(0xe000_0000))?;
//!
//! // A vCPU reads the number of queues.
//! let mut queues = [0; 2];
//! let effects = console.bar_read(0x12, &mut queues);
//! assert!(effects.is_none());
//! assert_eq!(u16::from_le_bytes(queues), 6);
//!
//! // The loop does what there is to do: nothing, without a driver.
//! let mut printed = Vec::new();
//! let effects = console.process(&memory, &mut printed);
//! assert!(!effects.more && effects.events.is_empty() && printed.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod console;
pub mod device;
pub mod effects;
pub mod net;
pub mod ring;
pub mod spec;
pub mod transport;

pub use console::{AgentOutput, Console, ConsoleCounters, ConsoleEffects, ConsoleEvent, PortId};
pub use device::{Identity, VirtioDevice};
pub use effects::{AccessEffects, DriverChange, Interrupts};
pub use net::{FrameCounters, Net, NetCounters, NetEffects};
pub use ring::{Buffer, Chain, QueueFault, RingFault, Rings};
pub use transport::{Placement, TransportCounters, TransportError, VirtioPci};
