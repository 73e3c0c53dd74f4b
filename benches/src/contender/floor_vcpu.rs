// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's part of an action: a vCPU in this process that is kicked, given an NMI, or built
//! anew, and nothing around it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kennel_vmm::boot::{BootImage, BootSource, registers};
use kennel_vmm::bus::Bus;
use kennel_vmm::hypervisor::Hypervisor;
use kennel_vmm::mailbox::Mailbox;
use kennel_vmm::memory;
use kennel_vmm::vcpu::{Surroundings, Vcpu, install_handler};
use kvm_ioctls::VmFd;
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use crate::Trouble;
use crate::clock::monotonic_ns;

const COM1: u16 = 0x3f8;
const MIB: u64 = 16;
const BOUND: Duration = Duration::from_secs(10);

/// A port that notes what is written, and when.
pub(crate) struct Marks(std::sync::Mutex<Sender<(u8, u64)>>);

impl Marks {
    /// At `port`, and what was written there.
    pub(crate) fn at(bus: &Bus, port: u16) -> Result<Receiver<(u8, u64)>, Trouble> {
        let (sender, marks) = channel();
        let device = Self(std::sync::Mutex::new(sender));
        bus.add_ports(port, 1, Arc::new(device))
            .map_err(Trouble::new)?;
        Ok(marks)
    }
}

impl DevicePio for Marks {
    fn pio_read(&self, _: PioAddress, _: PioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn pio_write(&self, _: PioAddress, _: PioAddressOffset, data: &[u8]) {
        let at = monotonic_ns();
        if let (Some(letter), Ok(sender)) = (data.first(), self.0.lock()) {
            let _told = sender.send((*letter, at));
        }
    }
}

/// A vCPU that runs.
struct Running {
    vcpu: Vcpu,
    vm: Arc<VmFd>,
    /// Goes after the vCPU that runs in it.
    _memory: Box<dyn std::any::Any>,
}

/// A vCPU in its VM.
pub(crate) struct FloorVcpu {
    hypervisor: Hypervisor,
    kernel: PathBuf,
    cmdline: &'static str,
    around: Surroundings,
    marks: Receiver<(u8, u64)>,
    first: u8,
    running: Option<Running>,
}

impl FloorVcpu {
    /// The guest `kernel`, not yet running, which marks its first instruction on COM1 by an `S`.
    pub(crate) fn new(kernel: &Path, cmdline: &'static str) -> Result<Self, Trouble> {
        Self::marking(kernel, cmdline, COM1, b'S')
    }

    /// The same, with marks at `port` of which the first is `first`.
    pub(crate) fn marking(
        kernel: &Path,
        cmdline: &'static str,
        port: u16,
        first: u8,
    ) -> Result<Self, Trouble> {
        install_handler().map_err(Trouble::new)?;
        let bus = Bus::new();
        let marks = Marks::at(&bus, port)?;
        Ok(Self {
            hypervisor: Hypervisor::open().map_err(Trouble::new)?,
            kernel: kernel.to_owned(),
            cmdline,
            around: Surroundings {
                bus: Arc::new(bus),
                mailbox: Arc::new(Mailbox::new().map_err(Trouble::new)?),
            },
            marks,
            first,
            running: None,
        })
    }

    /// ns from now until the guest's first mark, in a VM built for it.
    pub(crate) fn build(&mut self) -> Result<u64, Trouble> {
        let begin = monotonic_ns();
        self.running = None;
        let memory = memory::map(MIB << 20).map_err(Trouble::new)?;
        let source = BootSource {
            kernel: &self.kernel,
            initrd: None,
            initrd_overlay: &[],
            cmdline: self.cmdline,
        };
        let entry = BootImage::open(&source)
            .and_then(|image| image.load(&memory, 1))
            .map_err(Trouble::new)?;
        let vm = self.hypervisor.build_vm(&memory).map_err(Trouble::new)?;
        let fd = self
            .hypervisor
            .build_vcpu(&vm, 0, 1)
            .map_err(Trouble::new)?;
        let special = fd.get_sregs().map_err(Trouble::new)?;
        fd.set_sregs(&registers::special(&entry, &special))
            .map_err(Trouble::new)?;
        fd.set_regs(&registers::general(&entry))
            .map_err(Trouble::new)?;
        let vcpu = Vcpu::start(0, fd, self.around.clone()).map_err(Trouble::new)?;
        vcpu.run();
        self.running = Some(Running {
            vcpu,
            vm,
            _memory: Box::new(memory),
        });
        Ok(self.wait_for(self.first)? - begin)
    }

    fn wait_for(&self, wanted: u8) -> Result<u64, Trouble> {
        loop {
            let (letter, at) = self.marks.recv_timeout(BOUND).map_err(|_| {
                Trouble::new(format!(
                    "the floor's guest never wrote {:?}",
                    char::from(wanted)
                ))
            })?;
            if letter == wanted {
                return Ok(at);
            }
        }
    }

    /// ns until the vCPU stands outside the guest.
    pub(crate) fn park(&self) -> Result<u64, Trouble> {
        let vcpu = self.vcpu()?;
        let begin = monotonic_ns();
        vcpu.park();
        vcpu.wait_parked();
        let parked = monotonic_ns() - begin;
        vcpu.run();
        Ok(parked)
    }

    /// ns until the guest's NMI handler says so.
    pub(crate) fn inject_nmi(&self) -> Result<u64, Trouble> {
        let begin = monotonic_ns();
        self.vcpu()?.inject_nmi();
        Ok(self.wait_for(b'N')? - begin)
    }

    /// ns until the guest's handler of what `interrupt` does says so.
    pub(crate) fn interrupt(
        &self,
        interrupt: impl Fn(&VmFd) -> Result<(), kvm_ioctls::Error>,
    ) -> Result<u64, Trouble> {
        let vm = &self.running()?.vm;
        // Of an interrupt that came again.
        self.marks.try_iter().for_each(drop);
        let begin = monotonic_ns();
        interrupt(vm).map_err(Trouble::new)?;
        Ok(self.wait_for(b'I')?.saturating_sub(begin))
    }

    fn vcpu(&self) -> Result<&Vcpu, Trouble> {
        self.running().map(|running| &running.vcpu)
    }

    fn running(&self) -> Result<&Running, Trouble> {
        let running = self.running.as_ref();
        running.ok_or_else(|| Trouble::new("the floor's vCPU does not run"))
    }
}
