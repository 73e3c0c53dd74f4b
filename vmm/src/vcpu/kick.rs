// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Getting a thread out of `KVM_RUN` without a race: a signal whose handler sets `immediate_exit`.
//!
//! A signal alone is lost when it arrives between the thread's last look at its orders and the
//! ioctl; with the flag set, that ioctl returns at once.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::thread::JoinHandle;

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use libc::siginfo_t;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

thread_local! {
    /// The `kvm_run` page of the vCPU this thread runs; const-initialised and without a destructor,
    /// so a signal handler may read it.
    static CURRENT: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn on_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let run = CURRENT.get();
    if !run.is_null() {
        // SAFETY: a non-null CURRENT points to the kvm_run page of a VcpuFd that lives on this
        // very thread: `Registration` resets it before the fd goes. One byte is written, which the
        // kernel reads at the next KVM_RUN; the write is volatile so that it is not elided.
        unsafe { ptr::write_volatile(&raw mut (*run).immediate_exit, 1) };
    }
}

/// Installs the kick signal's handler for the process.
///
/// # Errors
///
/// The kernel's.
pub fn install_handler() -> std::io::Result<()> {
    register_signal_handler(SIGRTMIN(), on_kick)
        .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))
}

/// Takes `thread` out of the guest, or keeps it from entering.
pub(super) fn kick(thread: &JoinHandle<()>) {
    if let Err(error) = thread.kill(SIGRTMIN()) {
        // ESRCH: it has ended, which is what was wanted.
        log::debug!("kick: {error}");
    }
}

/// While it lives, kicks reach `fd`.
pub(super) struct Registration;

impl Registration {
    pub(super) fn new(fd: &mut VcpuFd) -> Self {
        CURRENT.set(ptr::from_mut(fd.get_kvm_run()));
        Self
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        CURRENT.set(ptr::null_mut());
    }
}
