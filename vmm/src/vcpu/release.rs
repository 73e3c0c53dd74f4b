// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vCPU's last act: KVM keeps nothing of it that it could still write into guest memory.
//!
//! Its KVM VM may end only when the memory is another boot's, and KVM then lets go of the vCPU once
//! more: it marks the guest's steal time page, if it could not before, and on Intel puts a shadow VMCS
//! back where a guest that runs guests of its own has it.

use kvm_bindings::nested::KvmNestedStateBuffer;
use kvm_bindings::{
    KVM_STATE_NESTED_FORMAT_VMX, Msrs, kvm_msr_entry, kvm_nested_state__bindgen_ty_1,
    kvm_vmx_nested_state_hdr,
};
use kvm_ioctls::VcpuFd;

/// `MSR_KVM_STEAL_TIME`.
const MSR_STEAL_TIME: u32 = 0x4b56_4d03;
/// No page.
const NOWHERE: u64 = u64::MAX;

/// A host that refuses a step has none of what it would undo.
pub(super) fn release_memory(fd: &VcpuFd) {
    let off = kvm_msr_entry {
        index: MSR_STEAL_TIME,
        ..kvm_msr_entry::default()
    };
    match Msrs::from_entries(&[off]).map(|msrs| fd.set_msrs(&msrs)) {
        Ok(Ok(_)) => {}
        refused => log::debug!("no steal time to switch off: {refused:?}"),
    }
    if let Err(error) = fd.set_nested_state(&no_nesting()) {
        log::debug!("no guest's guest to leave: {error}");
    }
}

/// Outside any guest of the guest's, without VMXON.
fn no_nesting() -> KvmNestedStateBuffer {
    let mut state = KvmNestedStateBuffer::empty();
    state.format = u16::try_from(KVM_STATE_NESTED_FORMAT_VMX).unwrap_or_default();
    state.hdr = kvm_nested_state__bindgen_ty_1 {
        vmx: kvm_vmx_nested_state_hdr {
            vmxon_pa: NOWHERE,
            vmcs12_pa: NOWHERE,
            ..kvm_vmx_nested_state_hdr::default()
        },
    };
    state
}
