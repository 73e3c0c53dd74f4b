// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The vCPU thread's loop: enter the guest, answer the exit, look at the orders.

use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::kick::Registration;
use super::release::release_memory;
use super::{Shared, Surroundings};
use crate::bus::View;
use crate::fault::{self, Place};
use crate::mailbox::{Request, ResetCause};

/// What an exit means for the loop.
#[derive(Debug)]
enum Next {
    Continue,
    Ask(Request),
}

/// However the thread ends, whoever waits for it goes on.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let mut seat = self.0.seat.lock();
        (seat.parked, seat.finished) = (true, true);
        drop(seat);
        self.0.changed.notify_all();
    }
}

pub(super) fn thread(mut fd: VcpuFd, shared: &Shared, around: &Surroundings) {
    let _gone = Gone(shared);
    let mut bus = View::new(Arc::clone(&around.bus));
    // Kicks may come from the first instant on; the registration goes before the fd does.
    let registration = Registration::new(&mut fd);
    loop {
        // Before the orders are read: a kick after that read sets it again.
        fd.set_kvm_immediate_exit(0);
        compiler_fence(Ordering::SeqCst);
        if shared.is_called() && !attend(&fd, shared) {
            break;
        }
        if let Next::Ask(request) = enter(&mut fd, shared, &mut bus) {
            around.mailbox.post(request);
        }
        if around.mailbox.boot_is_over() {
            // Going on could run into what lies behind a reset request; the machine decides.
            shared.park_itself();
        }
    }
    release_memory(&fd);
    drop(registration);
}

/// Does what the thread was called for; false to finish.
#[cold]
fn attend(fd: &VcpuFd, shared: &Shared) -> bool {
    fault::may_hang(Place::Vcpu);
    if !shared.wait_for_run(|| forgive_pause(fd)) {
        return false;
    }
    if shared.nmi.swap(false, Ordering::AcqRel)
        && let Err(error) = fd.nmi()
    {
        log::warn!("a vCPU refused an NMI: {error}");
    }
    true
}

/// Keeps the guest's own lockup detectors from taking the pause for a hang.
fn forgive_pause(fd: &VcpuFd) {
    if let Err(error) = fd.kvmclock_ctrl() {
        log::debug!("the guest has no paravirtual clock to tell about the pause: {error}");
    }
}

fn enter(fd: &mut VcpuFd, shared: &Shared, bus: &mut View) -> Next {
    match fd.run() {
        Ok(exit) => {
            // Before the answer, so that whoever sees what it does finds it counted.
            shared.count_exit();
            answer(exit, bus)
        }
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Next::Continue,
        Err(error) => Next::Ask(Request::VcpuFailed(format!("KVM_RUN failed: {error}"))),
    }
}

fn answer(exit: VcpuExit<'_>, bus: &mut View) -> Next {
    match exit {
        VcpuExit::IoIn(port, data) => bus.pio_read(port, data),
        VcpuExit::IoOut(port, data) => bus.pio_write(port, data),
        VcpuExit::MmioRead(address, data) => bus.mmio_read(address, data),
        VcpuExit::MmioWrite(address, data) => bus.mmio_write(address, data),
        VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen => {}
        VcpuExit::Shutdown => return Next::Ask(Request::Reset(ResetCause::TripleFault)),
        VcpuExit::InternalError => return Next::Ask(failed("KVM_EXIT_INTERNAL_ERROR")),
        VcpuExit::FailEntry(reason, cpu) => {
            return Next::Ask(failed(&format!(
                "KVM_EXIT_FAIL_ENTRY, reason {reason:#x}, cpu {cpu}"
            )));
        }
        other => return Next::Ask(failed(&format!("an exit it has no use for, {other:?}"))),
    }
    Next::Continue
}

fn failed(what: &str) -> Request {
    Request::VcpuFailed(format!("a vCPU left the guest with {what}"))
}
