// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine that guests run on: this one if its KVM is up to it, else a KVM host in a box.
//!
//! The box is QEMU emulating a machine with AMD-V, booted from the distribution's kernel, with this machine's own root
//! file system as its root. A command runs in it unchanged, at the same paths, as the same user, and finds a real
//! kvm-amd behind `/dev/kvm`. It needs neither root nor KVM here, only QEMU.
//!
//! What is different in the box:
//! - `/dev`, `/proc`, `/sys` and `/run` are the box's own. So are UNIX sockets and FIFOs: they work in `/run` and
//!   `/dev/shm` only, not on the machine's file systems. `XDG_RUNTIME_DIR` is `/run/kennel`, and `KENNEL_BOX` is `1`.
//! - the network is loopback.
//! - everything else, `/tmp` included, is the machine's, and each side sees what the other writes.
//! - the box ends with its command; what that left running is killed.
//! - emulated code runs at about a third of the machine's speed.

pub mod agent;
mod check;
mod image;
mod install;
mod link;
mod protocol;
mod qemu;
mod session;
mod signals;
mod tail;
mod terminal;
mod writer;

pub use check::{BOX_MARKER, BoxSupport, Extension, HostReport, Kvm, check, inside_box};
pub use image::ImageError;
pub use install::{InstallError, find_program, provide};
pub use session::{BoxCommand, BoxError, BoxExit, BoxStdio, BoxStep, run_in_box};
