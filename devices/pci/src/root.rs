// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The root bus: 32 slots of up to 8 functions on bus 0, and nothing behind bridges.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::function::{ConfigEffects, PciFunction};
use crate::intx::{InterruptPin, IntxLine};
use crate::spec;

/// Where a function is on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionAddress {
    device: u8,
    function: u8,
}

impl FunctionAddress {
    /// Device 0..=31, function 0..=7; `None` beyond.
    #[must_use]
    pub fn new(device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self { device, function })
    }

    /// Slot, 0..=31.
    #[must_use]
    pub fn device(self) -> u8 {
        self.device
    }

    /// Function within the slot, 0..=7.
    #[must_use]
    pub fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for FunctionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00:{:02x}.{:x}", self.device, self.function)
    }
}

/// Why a function cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddFunctionError {
    /// Another function is there.
    #[error("PCI address {0} is in use already")]
    InUse(FunctionAddress),
    /// Guests look beyond function 0 only if it says there is more.
    #[error(
        "PCI address {0} would stay unseen: function 0 of the slot is missing or not marked as multi-function"
    )]
    Unseen(FunctionAddress),
}

/// How one function's pin is wired: a row of the owner's `_PRT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntxRoute {
    /// The function.
    pub function: FunctionAddress,
    /// Its pin.
    pub pin: InterruptPin,
    /// The line the pin is wired to.
    pub line: IntxLine,
}

/// The functions on bus 0. Filled once, then shared by all vCPUs.
#[derive(Default)]
pub struct RootBus {
    functions: BTreeMap<FunctionAddress, Arc<dyn PciFunction>>,
}

impl RootBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Plugs in a function.
    ///
    /// # Errors
    /// [`AddFunctionError`]; functions beyond 0 come after their function 0.
    pub fn add(
        &mut self,
        address: FunctionAddress,
        function: Arc<dyn PciFunction>,
    ) -> Result<(), AddFunctionError> {
        if self.functions.contains_key(&address) {
            return Err(AddFunctionError::InUse(address));
        }
        if address.function > 0 && !self.is_multifunction(address.device) {
            return Err(AddFunctionError::Unseen(address));
        }
        self.functions.insert(address, function);
        Ok(())
    }

    fn is_multifunction(&self, device: u8) -> bool {
        let first = FunctionAddress {
            device,
            function: 0,
        };
        self.functions.get(&first).is_some_and(|function| {
            let mut header_type = [0];
            function.config_read(spec::HEADER_TYPE, &mut header_type);
            header_type[0] & spec::HEADER_MULTIFUNCTION != 0
        })
    }

    /// The function at `address`.
    #[must_use]
    pub fn get(&self, address: FunctionAddress) -> Option<&Arc<dyn PciFunction>> {
        self.functions.get(&address)
    }

    /// All functions, by address.
    pub fn functions(&self) -> impl Iterator<Item = (FunctionAddress, &Arc<dyn PciFunction>)> + '_ {
        self.functions
            .iter()
            .map(|(&address, function)| (address, function))
    }

    /// Reads configuration space; all ones where there is no function.
    pub fn config_read(&self, address: FunctionAddress, offset: u16, data: &mut [u8]) {
        match self.functions.get(&address) {
            Some(function) => function.config_read(offset, data),
            None => data.fill(spec::UNCLAIMED),
        }
    }

    /// Writes configuration space; ignored where there is no function.
    pub fn config_write(
        &self,
        address: FunctionAddress,
        offset: u16,
        data: &[u8],
    ) -> ConfigEffects {
        match self.functions.get(&address) {
            Some(function) => function.config_write(offset, data),
            None => ConfigEffects::NONE,
        }
    }

    /// Resets every function, and says what that did to whom.
    #[must_use = "BARs that moved are unreachable until the owner's bus knows"]
    pub fn reset(&self) -> Vec<(FunctionAddress, ConfigEffects)> {
        self.functions()
            .map(|(address, function)| (address, function.reset()))
            .filter(|(_, effects)| !effects.is_none())
            .collect()
    }

    /// The wiring of every pin in use.
    pub fn intx_routes(&self) -> impl Iterator<Item = IntxRoute> + '_ {
        self.functions().filter_map(|(address, function)| {
            let pin = function.interrupt_pin()?;
            Some(IntxRoute {
                function: address,
                pin,
                line: IntxLine::swizzle(address.device, pin),
            })
        })
    }
}

impl fmt::Debug for RootBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.functions.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_bridge::HostBridge;

    #[test]
    fn addresses_stay_on_the_bus() {
        let last = FunctionAddress::new(31, 7).expect("valid");
        assert_eq!(last.to_string(), "00:1f.7");
        assert_eq!(FunctionAddress::new(32, 0), None);
        assert_eq!(FunctionAddress::new(0, 8), None);
    }

    #[test]
    fn a_function_needs_a_free_address_that_guests_look_at() {
        let at = |device, function| FunctionAddress::new(device, function).expect("valid");
        let bridge = || Arc::new(HostBridge::new());
        let mut bus = RootBus::new();
        assert_eq!(bus.add(at(0, 0), bridge()), Ok(()));
        assert_eq!(
            bus.add(at(0, 0), bridge()),
            Err(AddFunctionError::InUse(at(0, 0)))
        );
        for unseen in [at(0, 1), at(7, 1)] {
            assert_eq!(
                bus.add(unseen, bridge()),
                Err(AddFunctionError::Unseen(unseen))
            );
        }
        assert!(bus.get(at(0, 0)).is_some() && bus.get(at(7, 1)).is_none());
        assert_eq!(format!("{bus:?}").matches("device: 0").count(), 1);
    }
}
