// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vCPU and its thread: runs, is kicked out of the guest, parks, and is joined.

mod kick;
mod release;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use kvm_ioctls::VcpuFd;
use parking_lot::{Condvar, Mutex};

use crate::bus::Bus;
use crate::mailbox::Mailbox;

pub use kick::install_handler;

/// Looks at a vCPU thread's seat before its waiter sleeps: it is out of the guest in a fraction of the time that a sleeper
/// takes to wake on an idle CPU. Some 0.1 ms altogether.
const LOOKS: u32 = 200;

/// What a vCPU thread is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Park,
    Run,
    Finish,
}

#[derive(Debug)]
struct Seat {
    order: Order,
    parked: bool,
    /// The vCPU is never run again, and nothing of it writes into guest memory.
    finished: bool,
}

/// What the thread and its handle share.
#[derive(Debug)]
struct Shared {
    seat: Mutex<Seat>,
    changed: Condvar,
    /// Set after an order or an NMI, before the kick: the thread looks at this alone between two exits.
    attention: AtomicBool,
    nmi: AtomicBool,
    /// Written by the thread alone.
    exits: AtomicU64,
}

impl Shared {
    fn call(&self) {
        self.attention.store(true, Ordering::Release);
    }

    /// Whether it was called since; an order or an NMI that is there already is seen after this.
    fn is_called(&self) -> bool {
        self.attention.load(Ordering::Acquire) && self.attention.swap(false, Ordering::AcqRel)
    }

    /// No other thread writes it, so no locked instruction is needed.
    fn count_exit(&self) {
        let before = self.exits.load(Ordering::Relaxed);
        self.exits.store(before.wrapping_add(1), Ordering::Relaxed);
    }

    /// Waits, parked, until the order is something else; true to run, false to finish.
    fn wait_for_run(&self, mut unparked: impl FnMut()) -> bool {
        let mut seat = self.seat.lock();
        if seat.order == Order::Run {
            return true;
        }
        seat.parked = true;
        self.changed.notify_all();
        self.changed
            .wait_while(&mut seat, |seat| seat.order == Order::Park);
        seat.parked = false;
        let run = seat.order == Order::Run;
        drop(seat);
        if run {
            unparked();
        }
        run
    }

    /// Waits until the thread is where `is` wants it. It looks a while before it sleeps.
    fn wait_until(&self, is: impl Fn(&Seat) -> bool) {
        for _ in 0..LOOKS {
            if is(&self.seat.lock()) {
                return;
            }
            std::thread::yield_now();
        }
        let mut seat = self.seat.lock();
        self.changed.wait_while(&mut seat, |seat| !is(seat));
    }

    /// The thread's own wish to wait for the machine's next order.
    fn park_itself(&self) {
        let mut seat = self.seat.lock();
        if seat.order == Order::Run {
            seat.order = Order::Park;
            self.call();
        }
    }
}

/// The machine around a vCPU, as its exits need it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where port and memory accesses go.
    pub bus: Arc<Bus>,
    /// Where the vCPU asks for resets and tells its end.
    pub mailbox: Arc<Mailbox>,
}

/// A vCPU thread, from outside. Dropping it ends and joins the thread.
#[derive(Debug)]
pub struct Vcpu {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Vcpu {
    /// Starts the thread of `fd`, parked. [`install_handler`] must have been called before.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no thread.
    pub fn start(id: u32, fd: VcpuFd, around: Surroundings) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            seat: Mutex::new(Seat {
                order: Order::Park,
                parked: false,
                finished: false,
            }),
            changed: Condvar::new(),
            attention: AtomicBool::new(true),
            nmi: AtomicBool::new(false),
            exits: AtomicU64::new(0),
        });
        let ours = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{id}"))
            .stack_size(128 << 10)
            .spawn(move || run::thread(fd, &ours, &around))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Lets the vCPU into the guest.
    pub fn run(&self) {
        self.order(Order::Run);
    }

    /// Takes the vCPU out of the guest; [`Vcpu::wait_parked`] tells when it is.
    pub fn park(&self) {
        if self.order(Order::Park) {
            self.kick();
        }
    }

    /// Waits until the thread stands outside the guest.
    pub fn wait_parked(&self) {
        self.shared.wait_until(|seat| seat.parked);
    }

    /// Takes the vCPU out of the guest for good; [`Vcpu::wait_finished`] tells when it is.
    pub fn finish(&self) {
        if self.order(Order::Finish) {
            self.kick();
        }
    }

    /// Waits until the vCPU has left guest memory alone for good. Its thread then only closes it.
    pub fn wait_finished(&self) {
        self.shared.wait_until(|seat| seat.finished);
    }

    /// Gives the vCPU an NMI; a parked one takes it when it runs on.
    pub fn inject_nmi(&self) {
        self.shared.nmi.store(true, Ordering::Release);
        self.shared.call();
        self.kick();
    }

    /// Times that the guest needed this process, so far.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.shared.exits.load(Ordering::Relaxed)
    }

    /// False if that was its order already, so that the thread has been kicked, or needs no kick. After
    /// [`Order::Finish`] there is no other.
    fn order(&self, order: Order) -> bool {
        let mut seat = self.shared.seat.lock();
        if seat.order == order || seat.order == Order::Finish {
            return false;
        }
        seat.order = order;
        self.shared.call();
        drop(seat);
        self.shared.changed.notify_all();
        true
    }

    fn kick(&self) {
        if let Some(thread) = &self.thread {
            kick::kick(thread);
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.finish();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a vCPU thread panicked");
        }
    }
}
