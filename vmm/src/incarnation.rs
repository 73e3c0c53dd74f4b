// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One KVM VM, from the reset that begins it to the reset that ends it.
//!
//! [`Blank`] is one that no guest has run in: everything but the registers that depend on the loaded
//! kernel, and the vCPUs' threads. It touches no guest memory, so it can be built while another one
//! runs in the same RAM.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, Msrs, kvm_clock_data, kvm_mp_state, kvm_msr_entry};
use kvm_ioctls::{VcpuFd, VmFd};

use crate::boot::{EntryPoint, registers};
use crate::hypervisor::{Hypervisor, HypervisorError, call};
use crate::machine::MachineError;
use crate::memory::GuestRam;
use crate::vcpu::{Surroundings, Vcpu};

/// What every KVM VM of a machine is built from.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) hypervisor: Arc<Hypervisor>,
    /// Held as long as a VM may be built over it, also in the background.
    pub(crate) memory: GuestRam,
    pub(crate) vcpus: u32,
}

/// A KVM VM without a guest. The vCPUs go before the VM.
#[derive(Debug)]
pub(crate) struct Blank {
    vcpus: Vec<VcpuFd>,
    vm: Arc<VmFd>,
    /// Its slots map this.
    memory: GuestRam,
}

/// A KVM VM with its guest; a reset replaces it. The vCPUs end before the VM's last reference goes.
#[derive(Debug)]
pub(crate) struct Incarnation {
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) vm: Arc<VmFd>,
    /// The guest must not outlive the memory it runs in.
    _memory: GuestRam,
}

impl Recipe {
    /// Builds a VM with its vCPUs.
    pub(crate) fn build(&self) -> Result<Blank, HypervisorError> {
        let vm = self.hypervisor.build_vm(&self.memory)?;
        let vcpu = |id| {
            let fd = self.hypervisor.build_vcpu(&vm, id, self.vcpus)?;
            set_common_state(&fd)?;
            Ok(fd)
        };
        let vcpus: Result<_, HypervisorError> = (0..self.vcpus).map(vcpu).collect();
        Ok(Blank {
            vcpus: vcpus?,
            vm,
            memory: self.memory.clone(),
        })
    }
}

impl Blank {
    /// Lets the guest's clocks begin now rather than when the VM was built. One that cannot be set
    /// shows the guest a machine that was switched on earlier, which it can live with.
    pub(crate) fn restart_clocks(&self) {
        if let Err(error) = self.vm.set_clock(&kvm_clock_data::default()) {
            log::debug!("the paravirtual clock goes on from the VM's creation: {error}");
        }
        for fd in &self.vcpus {
            if let Err(error) = set_msrs(fd, &[registers::time_stamp_counter()]) {
                log::debug!("a time stamp counter goes on from the VM's creation: {error}");
            }
        }
    }

    /// Starts the vCPUs' threads, parked, before the loaded kernel's entry.
    pub(crate) fn incarnate(
        self,
        entry: &EntryPoint,
        around: &Surroundings,
    ) -> Result<Incarnation, MachineError> {
        let Self { vcpus, vm, memory } = self;
        if let Some(boot) = vcpus.first() {
            set_boot_state(boot, entry)?;
        }
        let start = |(id, fd)| {
            Vcpu::start(id, fd, around.clone()).map_err(|source| MachineError::Host {
                what: "thread for a vCPU",
                source,
            })
        };
        let vcpus: Result<_, MachineError> = (0..).zip(vcpus).map(start).collect();
        Ok(Incarnation {
            vcpus: vcpus?,
            vm,
            _memory: memory,
        })
    }
}

impl Incarnation {
    /// Takes the vCPUs out of the guest, for good if it has to `finish`. All are told before the
    /// first is waited for.
    pub(crate) fn kick(&self, finish: bool) {
        let tell = if finish { Vcpu::finish } else { Vcpu::park };
        self.vcpus.iter().for_each(tell);
    }

    /// Waits until the vCPUs stand outside the guest.
    pub(crate) fn park(&self) {
        self.kick(false);
        self.vcpus.iter().for_each(Vcpu::wait_parked);
    }

    /// Waits until nothing of the guest touches its memory any more.
    pub(crate) fn finish(&self) {
        self.kick(true);
        self.vcpus.iter().for_each(Vcpu::wait_finished);
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.kick(true);
    }
}

/// What firmware leaves behind on every CPU alike.
fn set_common_state(fd: &VcpuFd) -> Result<(), HypervisorError> {
    fd.set_fpu(&registers::fpu())
        .map_err(call("set a vCPU's floating-point state"))?;
    set_msrs(fd, &registers::msrs())
}

fn set_msrs(fd: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), HypervisorError> {
    let msrs = Msrs::from_entries(entries).map_err(|error| HypervisorError::Call {
        step: "take a list of MSRs",
        source: io::Error::other(format!("{error:?}")),
    })?;
    fd.set_msrs(&msrs).map_err(call("set a vCPU's MSRs"))?;
    Ok(())
}

/// The kernel's entry, on the boot CPU; the others wait for it to start them.
fn set_boot_state(fd: &VcpuFd, entry: &EntryPoint) -> Result<(), HypervisorError> {
    let special = fd.get_sregs().map_err(call("read a vCPU's registers"))?;
    fd.set_sregs(&registers::special(entry, &special))
        .map_err(call("set a vCPU's registers"))?;
    fd.set_regs(&registers::general(entry))
        .map_err(call("set a vCPU's registers"))?;
    let runnable = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    fd.set_mp_state(runnable)
        .map_err(call("make the boot vCPU runnable"))?;
    Ok(())
}
