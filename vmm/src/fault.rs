// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Threads that hang on purpose, for the tests of who notices: in builds with the feature
//! `fault-injection` alone. Without it every call is nothing.
//!
//! `KENNEL_WEDGE=PLACE=FILE` makes the first thread that comes to PLACE and finds FILE remove FILE and
//! wait for ever.

/// Where a thread may hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The event loop, at any sign of life that it is asked for.
    Loop,
    /// The event loop, at a bite that it has not told yet.
    LoopAtBite,
    /// A vCPU's thread that is told to leave the guest.
    Vcpu,
    /// The link's thread, at a reset.
    Link,
    /// The link's thread, at the machine's end.
    LinkAtEnd,
    /// Whoever reads the kernel for a reset.
    KernelLoad,
}

#[cfg(feature = "fault-injection")]
pub(crate) fn may_hang(place: Place) {
    let name = match place {
        Place::Loop => "loop",
        Place::LoopAtBite => "loop-at-bite",
        Place::Vcpu => "vcpu",
        Place::Link => "link",
        Place::LinkAtEnd => "link-at-end",
        Place::KernelLoad => "kernel-load",
    };
    let wanted = std::env::var("KENNEL_WEDGE").unwrap_or_default();
    if let Some((wanted, file)) = wanted.split_once('=')
        && wanted == name
        && std::fs::remove_file(file).is_ok()
    {
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(feature = "fault-injection"))]
#[inline]
pub(crate) const fn may_hang(_: Place) {}
