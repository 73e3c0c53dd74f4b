// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The KVM side of the machine: opening KVM, and building one VM with its chips, slots and vCPUs.
//!
//! A reset takes a new VM rather than repairing the old one: everything the kernel kept about the
//! guest (LAPICs, PIT, MSRs, paravirtual clock pages) is then factory-fresh.

use std::io;
use std::path::Path;
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::cpuid;
use crate::layout;
use crate::memory::GuestRam;

const KVM_PATH: &str = "/dev/kvm";
const KVM_API_VERSION: i32 = 12;

/// KVM cannot be used, or refused a step of building the VM.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HypervisorError {
    /// There is no KVM here.
    #[error(
        "{KVM_PATH} does not exist: this machine offers no KVM; load kvm_intel or kvm_amd, or use \
         `kennel host run --box`"
    )]
    Missing,
    /// KVM is there for others.
    #[error(
        "{KVM_PATH} may not be opened by this user: join the group that owns it \
         (`sudo usermod -aG kvm $USER`, then log in again), or use `kennel host run --box`"
    )]
    Permission,
    /// KVM does not open.
    #[error("{KVM_PATH} cannot be opened: {0}")]
    Open(io::Error),
    /// Something else bears its name.
    #[error("{KVM_PATH} is not KVM; reload kvm_intel or kvm_amd, or use `kennel host run --box`")]
    NotKvm,
    /// Another API.
    #[error("{KVM_PATH} speaks KVM API {found}, and only {KVM_API_VERSION} is known")]
    ApiVersion {
        /// What it speaks.
        found: i32,
    },
    /// A capability that the machine is built on.
    #[error("this host's KVM lacks {0}, which the machine needs")]
    Capability(&'static str),
    /// More vCPUs than the host runs.
    #[error("{wanted} vCPUs were asked for, and this host's KVM runs at most {most} in a VM")]
    TooManyVcpus {
        /// What was asked for.
        wanted: u32,
        /// What the host allows.
        most: usize,
    },
    /// A call into KVM failed.
    #[error("KVM could not {step}: {source}")]
    Call {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

pub(crate) fn call(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> HypervisorError {
    move |source| HypervisorError::Call {
        step,
        source: io::Error::from_raw_os_error(source.errno()),
    }
}

/// An open /dev/kvm that has what the machine needs.
#[derive(Debug)]
pub struct Hypervisor {
    kvm: Kvm,
    cpuid: CpuId,
}

impl Hypervisor {
    /// Opens KVM and checks it.
    ///
    /// # Errors
    ///
    /// KVM is missing, forbidden or too old.
    pub fn open() -> Result<Self, HypervisorError> {
        let kvm = Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => HypervisorError::Missing,
            libc::EACCES | libc::EPERM => HypervisorError::Permission,
            other if !Path::new(KVM_PATH).exists() => {
                log::debug!("{KVM_PATH}: errno {other}");
                HypervisorError::Missing
            }
            other => HypervisorError::Open(io::Error::from_raw_os_error(other)),
        })?;
        let found = kvm.get_api_version();
        if found < 0 {
            return Err(HypervisorError::NotKvm);
        }
        if found != KVM_API_VERSION {
            return Err(HypervisorError::ApiVersion { found });
        }
        for (capability, name) in [
            (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
            (Cap::Pit2, "KVM_CAP_PIT2"),
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        ] {
            if !kvm.check_extension(capability) {
                return Err(HypervisorError::Capability(name));
            }
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(call("list the CPUID leaves it supports"))?;
        Ok(Self { kvm, cpuid })
    }

    /// How many vCPUs a VM may have on this host.
    #[must_use]
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// Builds a VM over `memory`: in-kernel interrupt chips, PIT, memory slots.
    ///
    /// # Errors
    ///
    /// KVM refuses a step.
    pub fn build_vm(&self, memory: &GuestRam) -> Result<Arc<VmFd>, HypervisorError> {
        let vm = self.kvm.create_vm().map_err(call("create a VM"))?;
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(call("place its identity map"))?;
        vm.set_tss_address(usize::try_from(layout::KVM_TSS).unwrap_or(usize::MAX))
            .map_err(call("place its TSS"))?;
        vm.create_irq_chip()
            .map_err(call("create the interrupt controllers"))?;
        // The speaker port belongs to the PIT: Linux calibrates the TSC through it.
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        vm.create_pit2(pit).map_err(call("create the PIT"))?;
        for (slot, region) in memory.iter().enumerate() {
            let slot = kvm_userspace_memory_region {
                slot: u32::try_from(slot).unwrap_or(u32::MAX),
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
                flags: 0,
            };
            // SAFETY: the region is a live mapping of that size. The caller keeps it until every
            // vCPU of this VM has ended (`incarnation`'s structs hold it beside them, and let it go
            // last).
            unsafe { vm.set_user_memory_region(slot) }.map_err(call("map guest memory"))?;
        }
        Ok(Arc::new(vm))
    }

    /// Creates vCPU `id` of `count` with its CPUID.
    ///
    /// # Errors
    ///
    /// KVM refuses a step.
    pub fn build_vcpu(&self, vm: &VmFd, id: u32, count: u32) -> Result<VcpuFd, HypervisorError> {
        let vcpu = vm.create_vcpu(id.into()).map_err(call("create a vCPU"))?;
        let mut leaves = self.cpuid.clone();
        let deadline = self.kvm.check_extension(Cap::TscDeadlineTimer);
        cpuid::adjust(leaves.as_mut_slice(), id, count, deadline);
        vcpu.set_cpuid2(&leaves)
            .map_err(call("set a vCPU's CPUID"))?;
        Ok(vcpu)
    }
}
