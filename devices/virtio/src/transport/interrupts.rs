// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the function interrupts: by messages if the driver has chosen them, by the line and the status byte otherwise.

use super::VirtioPci;
use crate::device::VirtioDevice;
use crate::effects::{AccessEffects, Interrupts};
use crate::spec;

impl<D: VirtioDevice> VirtioPci<D> {
    /// Interrupts for `queues`, and for a change of configuration or status; each vector at most once.
    pub(super) fn interrupt(&mut self, queues: &[u16], config: bool) -> Interrupts {
        if self.msix.enabled(&self.header) {
            return self.message(queues, config);
        }
        if !queues.is_empty() {
            self.isr |= spec::ISR_QUEUE;
        }
        if config {
            self.isr |= spec::ISR_CONFIG;
        }
        Interrupts::NONE.with_intx(self.line_level())
    }

    fn message(&mut self, queues: &[u16], config: bool) -> Interrupts {
        let mut wanted = [false; spec::MSIX_VECTORS as usize];
        let config_vector = config.then(|| self.common.config_vector());
        let queue_vectors = queues.iter().map(|&queue| self.common.queue_vector(queue));
        for vector in config_vector.into_iter().chain(queue_vectors) {
            if let Some(wanted) = wanted.get_mut(usize::from(vector)) {
                *wanted = true;
            }
        }
        let vectors = (0..).zip(wanted).filter(|(_, wanted)| *wanted);
        let (msix, header) = (&mut self.msix, &self.header);
        Interrupts::sent(vectors.filter_map(|(vector, _)| msix.signal(header, vector)))
    }

    /// The line follows the status byte while messages are not chosen; its new level if that changed.
    pub(super) fn line_level(&mut self) -> Option<bool> {
        let wanted = self.isr != 0 && !self.msix.enabled(&self.header);
        self.header.set_interrupt(wanted)
    }

    pub(super) fn read_isr(&mut self, data: &mut [u8]) -> AccessEffects {
        if let Some(byte) = data.first_mut() {
            *byte = std::mem::take(&mut self.isr);
        }
        AccessEffects::interrupt(Interrupts::NONE.with_intx(self.line_level()))
    }
}
