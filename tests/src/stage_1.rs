// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The stage-1 interrupt as a guest takes it: by the pin, and by a message.

use kennel_vmm::config::{WatchdogAction, WatchdogConfig};

use crate::machine::Machine;

/// How the guest is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// INTx, level.
    Pin,
    /// MSI.
    Message,
}

/// The guest is interrupted once, acknowledges, and is not interrupted again before a ping has
/// started stage 1 anew. Gives the interrupts that came with nothing to acknowledge.
///
/// # Panics
///
/// It is otherwise.
#[must_use]
pub fn interrupts_once(by: By) -> u32 {
    let (letter, msi) = match by {
        By::Pin => ('i', false),
        By::Message => ('j', true),
    };
    let config = WatchdogConfig {
        action: WatchdogAction::None,
        msi,
        ..WatchdogConfig::default()
    };
    let mut machine = Machine::start(letter, Some(config));
    if msi {
        assert_eq!(machine.line("capability="), "00000040");
        assert_eq!(machine.line("msi="), "00800005");
    }
    assert_eq!(
        machine.line("active="),
        "00000001",
        "the status says who interrupted"
    );
    assert_eq!(
        machine.line("acknowledged="),
        "00000000",
        "writing 1 clears it"
    );
    assert_eq!(
        machine.line("interrupts="),
        "00000001",
        "and nobody interrupts again"
    );
    let spurious = u32::from_str_radix(&machine.line("spurious="), 16);
    assert_eq!(
        machine.line("after_ping="),
        "00000002",
        "until stage 1 ends once more"
    );
    spurious.unwrap_or(u32::MAX)
}
