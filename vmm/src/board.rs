// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The board: every device of the machine, on its buses. It outlives resets.

use std::io;
use std::sync::Arc;

use kennel_pci::{FunctionAddress, PciFunction};
use vm_device::DeviceMmio;

use crate::bus::{Bus, MmioDevice, RegisterError};
use crate::chipset::keyboard::{self, KeyboardController};
use crate::chipset::pci_host::{self, PciHost, Plugged};
use crate::chipset::power::{self, PowerManagement};
use crate::clock::VmClock;
use crate::config::WatchdogConfig;
use crate::console::Console;
use crate::interrupts::Interrupts;
use crate::layout;
use crate::mailbox::Mailbox;
use crate::virtio_console::VirtioConsole;
use crate::virtio_net::VirtioNet;
use crate::watchdog::{Watchdog, WatchdogError};

/// A board could not be put together: the kernel is out of descriptors, or [`layout`] contradicts
/// itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// The kernel gave no descriptor or thread.
    #[error("a device could not be built: {0}; the process may be out of file descriptors")]
    Kernel(#[from] io::Error),
    /// Two devices share an address.
    #[error(transparent)]
    Overlap(#[from] RegisterError),
    /// Two functions share a slot.
    #[error(transparent)]
    Slot(#[from] kennel_pci::AddFunctionError),
    /// A virtio device's configuration space contradicts itself.
    #[error(transparent)]
    Virtio(#[from] kennel_virtio::TransportError),
    /// The watchdog could not be built.
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
}

/// The devices, and what they share.
#[derive(Debug)]
pub struct Board {
    /// VM time.
    pub clock: Arc<VmClock>,
    /// What devices and vCPUs ask for.
    pub mailbox: Arc<Mailbox>,
    /// Lines into KVM.
    pub interrupts: Arc<Interrupts>,
    /// The buses.
    pub bus: Arc<Bus>,
    /// COM1.
    pub console: Arc<Console>,
    /// ACPI power management.
    pub power: Arc<PowerManagement>,
    /// The virtio console, with the guest agent's port.
    pub virtio_console: Arc<VirtioConsole>,
    /// The network device, if the guest has a network.
    pub virtio_net: Option<Arc<VirtioNet>>,
    /// The PCI root.
    pub pci: Arc<PciHost>,
    /// The watchdog, if there is one.
    pub watchdog: Option<Arc<Watchdog>>,
}

impl Board {
    /// Puts the devices on their buses, a network device among them if there is a `network`.
    ///
    /// # Errors
    ///
    /// [`BoardError`].
    pub fn new(
        watchdog: Option<&WatchdogConfig>,
        network: bool,
        console: Box<dyn io::Write + Send>,
    ) -> Result<Self, BoardError> {
        let clock = Arc::new(VmClock::new());
        let mailbox = Arc::new(Mailbox::new()?);
        let interrupts = Interrupts::new();
        let bus = Arc::new(Bus::new());

        let console = Arc::new(Console::new(interrupts.line(layout::COM1_GSI), console)?);
        let power = Arc::new(PowerManagement::new(
            interrupts.line(layout::SCI_GSI),
            Arc::clone(&mailbox),
        ));
        let keyboard = Arc::new(KeyboardController::new(Arc::clone(&mailbox)));

        let watchdog = watchdog
            .map(|config| build_watchdog(config, &clock, &interrupts, &mailbox))
            .transpose()?;

        let virtio_console = Arc::new(VirtioConsole::new(&interrupts)?);
        let mut plugged: Vec<_> = plug(&virtio_console, layout::CONSOLE_SLOT, &interrupts)
            .into_iter()
            .collect();
        let virtio_net = network.then(|| VirtioNet::new(&interrupts)).transpose()?;
        let virtio_net = virtio_net.map(Arc::new);
        if let Some(net) = &virtio_net {
            plugged.extend(plug(net, layout::NET_SLOT, &interrupts));
        }
        if let Some(watchdog) = &watchdog {
            plugged.extend(plug(watchdog, layout::WATCHDOG_SLOT, &interrupts));
        }
        let pci = Arc::new(PciHost::new(
            plugged,
            bus.bar_moves(),
            Arc::clone(&mailbox),
        )?);

        bus.add_ports(
            layout::COM1_PORT,
            layout::COM1_PORTS,
            Arc::clone(&console) as _,
        )?;
        bus.add_ports(
            layout::PM1A_EVENT_PORT,
            power::PORTS,
            Arc::clone(&power) as _,
        )?;
        bus.add_ports(layout::I8042_DATA_PORT, keyboard::PORTS, keyboard)?;
        bus.add_ports(
            layout::PCI_CONFIG_ADDRESS_PORT,
            pci_host::PORTS,
            Arc::clone(&pci) as _,
        )?;
        Ok(Self {
            clock,
            mailbox,
            interrupts,
            bus,
            console,
            power,
            virtio_console,
            virtio_net,
            pci,
            watchdog,
        })
    }

    /// Platform reset of every device; no vCPU may be running.
    pub fn reset(&self) {
        self.console.reset();
        self.power.reset();
        self.pci.reset();
        self.bus.settle();
    }
}

/// A device as function 0 of `slot`; none if there is no such slot.
fn plug<D>(device: &Arc<D>, slot: u8, interrupts: &Arc<Interrupts>) -> Option<Plugged>
where
    D: PciFunction + DeviceMmio + Send + Sync + 'static,
{
    Some(Plugged {
        address: FunctionAddress::new(slot, 0)?,
        function: Arc::clone(device) as _,
        device: Arc::clone(device) as MmioDevice,
        irq: interrupts.line(layout::pci_intx_gsi(slot, 0)),
    })
}

fn build_watchdog(
    config: &WatchdogConfig,
    clock: &Arc<VmClock>,
    interrupts: &Arc<Interrupts>,
    mailbox: &Arc<Mailbox>,
) -> Result<Arc<Watchdog>, WatchdogError> {
    let irq = interrupts.line(layout::pci_intx_gsi(layout::WATCHDOG_SLOT, 0));
    let watchdog = Watchdog::new(config, Arc::clone(clock), irq, Arc::clone(mailbox))?;
    Ok(Arc::new(watchdog))
}
