// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest agent's channel: one port in the guest, several clients on the host.
//!
//! The VM process owns the port `org.qemu.guest_agent.0` and a UNIX socket. [`Multiplexer`] stands
//! between them. It is pure: bytes and time in, bytes and [`Effect`]s out. Its owner
//! does what the effects say, takes [`Multiplexer::port_output`] and [`Multiplexer::client_output`]
//! as far as port and sockets have room, and calls [`Multiplexer::timer`] when
//! [`Multiplexer::next_due`] says.
//!
//! What clients can rely on:
//! * Each gets its own answers, in order, with its own `id`, and nobody else's.
//! * A sync of its own is answered as an agent answers it, and drops what the client asked before.
//! * A request is executed at most once, and only in the boot it was made in. If the agent closes
//!   its port or the guest is reset, what waits is answered with the error [`RESTARTED`].
//! * While nobody has the port open, a request is answered with the error [`NOT_CONNECTED`], at once
//!   unless the agent was there [`Config::grace_ns`] ago.
//! * One that hangs up, does not read, or sends garbage holds up neither the agent nor the others.
//!
//! *Differs from a socket straight to the agent (QEMU's):* there are several clients; requests
//! do not survive the guest; a request whose client has gone and that had not left is not executed.

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

pub mod buffer;
pub mod dialogue;
pub mod framing;
pub mod message;

mod client;
mod freeze;
mod multiplexer;
mod numbers;
#[cfg(test)]
mod tests;

pub use client::{QUEUED_BYTES, QUEUED_REQUESTS, UNREAD_BYTES};
pub use multiplexer::{ClientId, Config, Effect, LOST, Multiplexer, NOT_CONNECTED, RESTARTED};
