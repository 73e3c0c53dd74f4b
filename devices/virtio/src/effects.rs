// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an access or a piece of ring work wants from the owner.

use kennel_pci::{ConfigEffects, MsiMessage};

use crate::spec;

/// Interrupts for the owner to bring about: messages to send, and the level of the INTx line if that changed.
#[must_use = "the guest waits for its interrupt"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    messages: [Option<MsiMessage>; spec::MSIX_VECTORS as usize],
    intx: Option<bool>,
}

impl Interrupts {
    /// Nothing to do.
    pub const NONE: Self = Self {
        messages: [None; spec::MSIX_VECTORS as usize],
        intx: None,
    };

    /// At most one message per vector.
    pub(crate) fn sent(messages: impl IntoIterator<Item = MsiMessage>) -> Self {
        let mut interrupts = Self::NONE;
        for (slot, message) in interrupts.messages.iter_mut().zip(messages) {
            *slot = Some(message);
        }
        interrupts
    }

    pub(crate) fn with_intx(self, level: Option<bool>) -> Self {
        Self {
            intx: level.or(self.intx),
            ..self
        }
    }

    /// Messages to send, at most one per vector.
    pub fn messages(&self) -> impl Iterator<Item = MsiMessage> + '_ {
        self.messages.iter().flatten().copied()
    }

    /// New level of the INTx line, if that changed.
    #[must_use]
    pub fn intx(&self) -> Option<bool> {
        self.intx
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// What the driver has done to the device as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChange {
    /// It drives the device from now on.
    Ready,
    /// It has reset the device, or the machine has.
    Reset,
}

/// What a register access wants from the owner.
#[must_use = "the guest waits for what its access brings about"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessEffects {
    /// BARs that moved. The line's level is in `interrupts`, never in here.
    pub config: ConfigEffects,
    /// Interrupts.
    pub interrupts: Interrupts,
    /// Ring work may be due: let the loop do it.
    pub work: bool,
    /// The queue whose notification address was written.
    pub notified: Option<u16>,
    /// What the driver did to the device as a whole.
    pub driver: Option<DriverChange>,
}

impl AccessEffects {
    /// Nothing to do.
    pub const NONE: Self = Self {
        config: ConfigEffects::NONE,
        interrupts: Interrupts::NONE,
        work: false,
        notified: None,
        driver: None,
    };

    pub(crate) fn interrupt(interrupts: Interrupts) -> Self {
        Self {
            interrupts,
            ..Self::NONE
        }
    }

    pub(crate) fn driver(change: DriverChange, interrupts: Interrupts) -> Self {
        Self {
            interrupts,
            work: true,
            driver: Some(change),
            ..Self::NONE
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}
