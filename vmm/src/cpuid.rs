// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What CPUID tells each vCPU: the host's supported leaves with our topology written in.
//!
//! One socket of single-threaded cores, APIC id = vCPU index, as the MADT says it too.

use kvm_bindings::kvm_cpuid_entry2;

const HYPERVISOR_PRESENT: u32 = 1 << 31;
const TSC_DEADLINE_TIMER: u32 = 1 << 24;
const INVARIANT_TSC: u32 = 1 << 8;
const HTT: u32 = 1 << 28;

/// Number of APIC id bits that tell `count` cores apart.
fn core_bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// Writes the identity of vCPU `id` of `count` into the supported leaves.
pub fn adjust(leaves: &mut [kvm_cpuid_entry2], id: u32, count: u32, tsc_deadline: bool) {
    let bits = core_bits(count);
    for leaf in leaves {
        match (leaf.function, leaf.index) {
            (0x1, _) => {
                let logical = count.min(0xff);
                leaf.ebx = (leaf.ebx & 0xffff) | (logical << 16) | (id.min(0xff) << 24);
                // Older kernels leave the deadline timer out of the list though they have it.
                let deadline = if tsc_deadline { TSC_DEADLINE_TIMER } else { 0 };
                leaf.ecx = leaf.ecx & !TSC_DEADLINE_TIMER | HYPERVISOR_PRESENT | deadline;
                leaf.edx = if count > 1 {
                    leaf.edx | HTT
                } else {
                    leaf.edx & !HTT
                };
            }
            // Intel: cache sharing (one core each) and cores in the package.
            (0x4, _) if leaf.eax & 0x1f != 0 => {
                let cores = count.saturating_sub(1).min(0x3f);
                leaf.eax = (leaf.eax & 0x3fff) | (cores << 26);
            }
            // Extended topology: level 0 one thread a core, level 1 all cores of the socket.
            (0xb | 0x1f, 0) => {
                (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 1, 0x100, id);
            }
            (0xb | 0x1f, 1) => {
                (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (bits, count, 0x201, id);
            }
            (0xb | 0x1f, _) => {
                (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, leaf.index & 0xff, id);
            }
            // Without an invariant TSC, Linux counts time by the paravirtual clock, which stands
            // still over a pause; the counter itself does not.
            (0x8000_0007, _) => leaf.edx &= !INVARIANT_TSC,
            // AMD: cores in the package and bits of the core id.
            (0x8000_0008, _) => {
                let cores = count.saturating_sub(1).min(0xff);
                leaf.ecx = (leaf.ecx & !0xf0ff) | cores | (bits << 12);
            }
            // AMD: extended APIC id, core id, node 0.
            (0x8000_001e, _) => {
                (leaf.eax, leaf.ebx, leaf.ecx) = (id, id & 0xff, 0);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ebx: 0xaaaa,
            ..Default::default()
        }
    }

    #[test]
    fn topology_tells_every_vcpu_its_own_apic_id() {
        for (count, bits) in [(1, 0), (2, 1), (3, 2), (64, 6), (255, 8)] {
            for id in [0, count - 1] {
                let mut leaves = [leaf(1, 0), leaf(0xb, 0), leaf(0xb, 1), leaf(0x8000_001e, 0)];
                adjust(&mut leaves, id, count, true);
                assert_eq!(leaves[0].ebx, 0xaaaa | count << 16 | id << 24);
                assert_eq!(leaves[0].edx & HTT != 0, count > 1);
                assert_eq!((leaves[1].eax, leaves[1].ebx, leaves[1].edx), (0, 1, id));
                assert_eq!(
                    (leaves[2].eax, leaves[2].ebx, leaves[2].edx),
                    (bits, count, id)
                );
                assert_eq!(leaves[3].eax, id);
            }
        }
    }

    #[test]
    fn deadline_timer_is_told_when_kvm_has_it() {
        for (has, expected) in [
            (true, HYPERVISOR_PRESENT | TSC_DEADLINE_TIMER),
            (false, HYPERVISOR_PRESENT),
        ] {
            let mut leaves = [leaf(1, 0)];
            adjust(&mut leaves, 0, 1, has);
            assert_eq!(leaves[0].ecx, expected);
        }
    }
}
