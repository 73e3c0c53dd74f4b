// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The smallest machine: KVM, one vCPU, no device. A process of its own that runs the guest, passes
//! on what it writes to COM1 and takes every other access for nothing.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use kennel_vmm::boot::{BootImage, BootSource, registers};
use kennel_vmm::hypervisor::Hypervisor;
use kennel_vmm::memory;
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::Trouble;

/// The hidden subcommand: kernel, MiB of memory, command line, and perhaps an initrd.
pub(crate) const SUBCOMMAND: &str = "floor-vm";
const COM1: u16 = 0x3f8;

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let [_, kernel, mib, cmdline, initrd @ ..] = arguments else {
        return ExitCode::FAILURE;
    };
    let source = BootSource {
        kernel: Path::new(kernel),
        initrd: initrd.first().map(Path::new),
        initrd_overlay: &[],
        cmdline,
    };
    match mib
        .parse()
        .map_err(Trouble::new)
        .and_then(|mib: u64| run(&source, mib << 20))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("kennel-benches {SUBCOMMAND}: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run(source: &BootSource<'_>, bytes: u64) -> Result<(), Trouble> {
    let hypervisor = Hypervisor::open().map_err(Trouble::new)?;
    let memory = memory::map(bytes).map_err(Trouble::new)?;
    let entry = BootImage::open(source)
        .and_then(|image| image.load(&memory, 1))
        .map_err(Trouble::new)?;
    let vm = hypervisor.build_vm(&memory).map_err(Trouble::new)?;
    let mut vcpu = hypervisor.build_vcpu(&vm, 0, 1).map_err(Trouble::new)?;
    let special = vcpu.get_sregs().map_err(Trouble::new)?;
    vcpu.set_sregs(&registers::special(&entry, &special))
        .map_err(Trouble::new)?;
    vcpu.set_regs(&registers::general(&entry))
        .map_err(Trouble::new)?;
    loop {
        step(&mut vcpu)?;
    }
}

fn step(vcpu: &mut VcpuFd) -> Result<(), Trouble> {
    match vcpu.run().map_err(Trouble::new)? {
        VcpuExit::IoOut(COM1, data) => {
            let mut out = std::io::stdout();
            out.write_all(data)
                .and_then(|()| out.flush())
                .map_err(Trouble::new)?;
        }
        VcpuExit::IoIn(_, data) | VcpuExit::MmioRead(_, data) => data.fill(0xff),
        VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..) => {}
        other => return Err(Trouble::new(format!("the vCPU left with {other:?}"))),
    }
    Ok(())
}
