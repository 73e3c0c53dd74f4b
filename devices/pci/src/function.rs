// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a PCI function is to the bus: configuration accesses in, effects out.

use crate::bar::{BarChange, BarRange};
use crate::intx::InterruptPin;
use crate::spec;

/// Where each BAR is decoded, `None` where it is not.
pub type DecodedBars = [Option<BarRange>; spec::BAR_COUNT];

/// What the owner must do after a configuration write or a reset, in this order: take every
/// [`BarChange::old`] off its bus, put every [`BarChange::new`] on it, drive the interrupt line.
///
/// The owner applies it after the access, and holds one lock over access and application, so that two
/// vCPUs cannot apply their changes in the wrong order.
#[must_use = "a BAR that moved is unreachable until the owner's bus knows"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigEffects {
    bars: [Option<BarChange>; spec::BAR_COUNT],
    intx: Option<bool>,
}

impl ConfigEffects {
    /// Nothing to do.
    pub const NONE: Self = Self {
        bars: [None; spec::BAR_COUNT],
        intx: None,
    };

    /// The BAR changes that lead from `before` to `after`.
    pub fn between(before: &DecodedBars, after: &DecodedBars) -> Self {
        let mut effects = Self::NONE;
        let pairs = before.iter().zip(after);
        for (slot, (bar, (&old, &new))) in effects.bars.iter_mut().zip(pairs.enumerate()) {
            *slot = (old != new).then_some(BarChange { bar, old, new });
        }
        effects
    }

    /// The same, with the level that the function's INTx line takes; `None` leaves it.
    pub fn with_intx(self, level: Option<bool>) -> Self {
        Self {
            intx: level,
            ..self
        }
    }

    /// The BARs decoded differently than before, at most one change per BAR.
    pub fn bar_changes(&self) -> impl Iterator<Item = BarChange> + '_ {
        self.bars.iter().flatten().copied()
    }

    /// New level of the function's INTx line, if that changed.
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

/// One PCI function, shared by all vCPUs: the implementer locks inside.
///
/// Accesses never fail. The bus calls with 1 to 4 bytes inside one aligned dword of the 256 bytes;
/// implementations take any length and offset all the same.
pub trait PciFunction: Send + Sync {
    /// Reads configuration space from byte `offset` on; fills all of `data`.
    fn config_read(&self, offset: u16, data: &mut [u8]);

    /// Writes configuration space from byte `offset` on.
    fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffects;

    /// Puts the function into its state after a platform reset.
    fn reset(&self) -> ConfigEffects;

    /// Where each BAR is decoded now: what the owner's bus must hold when it is built or restored.
    fn decoded_bars(&self) -> DecodedBars;

    /// The pin this function signals at; `None` if it has no INTx.
    fn interrupt_pin(&self) -> Option<InterruptPin> {
        None
    }
}

/// Bytes of configuration space that belong to the device, not to its header.
///
/// A function gives an access to its [`Type0`](crate::Type0) first, which reads zero and ignores writes
/// there, then the part inside the window to the device:
///
/// ```
/// use kennel_pci::ConfigWindow;
/// const WATCHDOG: ConfigWindow = ConfigWindow::new(0x60, 12);
/// // A dword at 0x68 belongs to the window; of a dword at 0x5e only the upper word.
/// assert_eq!(WATCHDOG.part(0x68, &[1, 2, 3, 4]), Some((0x68, &[1, 2, 3, 4][..])));
/// assert_eq!(WATCHDOG.part(0x5e, &[1, 2, 3, 4]), Some((0x60, &[3, 4][..])));
/// assert_eq!(WATCHDOG.part(0x6c, &[1, 2, 3, 4]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigWindow {
    start: u16,
    len: u16,
}

impl ConfigWindow {
    /// `len` bytes from byte `start` of configuration space on.
    #[must_use]
    pub const fn new(start: u16, len: u16) -> Self {
        Self { start, len }
    }

    /// First byte.
    #[must_use]
    pub const fn start(&self) -> u16 {
        self.start
    }

    /// First byte after it.
    #[must_use]
    pub const fn end(&self) -> u16 {
        self.start.saturating_add(self.len)
    }

    /// The part of a write inside the window and the configuration offset it starts at.
    #[must_use]
    pub fn part<'a>(&self, offset: u16, data: &'a [u8]) -> Option<(u16, &'a [u8])> {
        let (first, bytes) = self.overlap(offset, data.len())?;
        Some((first, data.get(bytes)?))
    }

    /// The part of a read inside the window and the configuration offset it starts at.
    #[must_use]
    pub fn part_mut<'a>(&self, offset: u16, data: &'a mut [u8]) -> Option<(u16, &'a mut [u8])> {
        let (first, bytes) = self.overlap(offset, data.len())?;
        Some((first, data.get_mut(bytes)?))
    }

    fn overlap(&self, offset: u16, len: usize) -> Option<(u16, std::ops::Range<usize>)> {
        let base = usize::from(offset);
        let first = offset.max(self.start);
        let end = base.saturating_add(len).min(self.end().into());
        let from = usize::from(first).checked_sub(base)?;
        let to = end.checked_sub(base)?;
        (from < to).then_some((first, from..to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bar::AddressSpace;

    #[test]
    fn between_names_only_what_changed() {
        let at = |start| BarRange::new(AddressSpace::Memory, start, 16);
        let before = [at(0), at(16), None, None, at(64), None];
        let after = [at(0), at(32), at(48), None, None, None];
        let changes: Vec<_> = ConfigEffects::between(&before, &after)
            .bar_changes()
            .collect();
        let change = |bar, old, new| BarChange { bar, old, new };
        assert_eq!(
            changes,
            [
                change(1, at(16), at(32)),
                change(2, None, at(48)),
                change(4, at(64), None)
            ]
        );
        assert!(ConfigEffects::between(&before, &before).is_none());
        assert!(!ConfigEffects::NONE.with_intx(Some(false)).is_none());
    }

    #[test]
    fn a_window_takes_exactly_its_bytes_of_any_access() {
        let window = ConfigWindow::new(0x60, 12);
        for offset in 0..=0xff_u16 {
            for len in 0..=8_u16 {
                let mut data: Vec<u8> = (0..len).map(|_| 0).collect();
                if let Some((first, part)) = window.part_mut(offset, &mut data) {
                    assert!(first >= window.start() && first >= offset && !part.is_empty());
                    part.fill(1);
                }
                for (at, &byte) in (offset..).zip(&data) {
                    assert_eq!(
                        byte == 1,
                        (0x60..0x6c).contains(&at),
                        "{offset:#x}+{len} {at:#x}"
                    );
                }
            }
        }
        assert_eq!(window.part(u16::MAX, &[0; 4]), None);
        assert_eq!(ConfigWindow::new(u16::MAX, 4).part(u16::MAX, &[7]), None);
    }
}
