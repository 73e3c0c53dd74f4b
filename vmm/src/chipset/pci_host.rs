// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI root as the machine's buses see it: configuration ports in front, BARs behind.
//!
//! Registers and their differences from hardware: [`kennel_pci`].

use std::sync::Arc;

use kennel_pci::{
    AddFunctionError, ConfigEffects, ConfigMechanism1, FunctionAddress, HostBridge, PciFunction,
    PortEffects, RootBus,
};
use parking_lot::Mutex;
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use crate::bus::{BarMoves, MmioDevice};
use crate::interrupts::IrqLine;
use crate::mailbox::{Mailbox, Request, ResetCause};

/// Configuration address and data ports.
pub const PORTS: u16 = 8;

/// A function plugged into the root: its configuration space, its BARs' accesses and its line.
#[derive(Clone)]
pub struct Plugged {
    /// Where on bus 0.
    pub address: FunctionAddress,
    /// Configuration space.
    pub function: Arc<dyn PciFunction>,
    /// Accesses to its BARs.
    pub device: MmioDevice,
    /// Its interrupt line.
    pub irq: IrqLine,
}

impl std::fmt::Debug for Plugged {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Plugged")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Configuration mechanism #1 on the port bus.
pub struct PciHost {
    ports: ConfigMechanism1,
    plugged: Vec<Plugged>,
    moves: BarMoves,
    mailbox: Arc<Mailbox>,
    /// Held over an access and the queueing of its effects: two vCPUs' moves keep their order.
    in_order: Mutex<()>,
}

impl std::fmt::Debug for PciHost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PciHost")
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

impl PciHost {
    /// A root with a host bridge in slot 0 and these functions.
    ///
    /// # Errors
    ///
    /// Two functions share an address.
    pub fn new(
        plugged: Vec<Plugged>,
        moves: BarMoves,
        mailbox: Arc<Mailbox>,
    ) -> Result<Self, AddFunctionError> {
        let mut root = RootBus::new();
        if let Some(bridge) = FunctionAddress::new(crate::layout::HOST_BRIDGE_SLOT, 0) {
            root.add(bridge, Arc::new(HostBridge::new()))?;
        }
        for one in &plugged {
            root.add(one.address, Arc::clone(&one.function))?;
        }
        let ports = ConfigMechanism1::new(Arc::new(root));
        Ok(Self {
            ports,
            plugged,
            moves,
            mailbox,
            in_order: Mutex::new(()),
        })
    }

    /// Power-on state of every function and of the ports themselves.
    pub fn reset(&self) {
        let _in_order = self.in_order.lock();
        self.ports.reset();
        for (address, effects) in self.ports.bus().reset() {
            self.apply(address, &effects);
        }
    }

    fn apply(&self, address: FunctionAddress, effects: &ConfigEffects) {
        let Some(one) = self.plugged.iter().find(|one| one.address == address) else {
            return;
        };
        for change in effects.bar_changes() {
            self.moves.push(Arc::clone(&one.device), change);
        }
        if let Some(level) = effects.intx() {
            one.irq.set(level);
        }
    }
}

impl DevicePio for PciHost {
    fn pio_read(&self, base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.ports.read(base.0.saturating_add(offset), data);
    }

    fn pio_write(&self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let _in_order = self.in_order.lock();
        match self.ports.write(base.0.saturating_add(offset), data) {
            PortEffects::None => {}
            PortEffects::Config { function, effects } => self.apply(function, &effects),
            // Soft, hard or power cycle: this machine has one reset, of everything.
            PortEffects::Reset(_) => self.mailbox.post(Request::Reset(ResetCause::ResetControl)),
        }
    }
}
