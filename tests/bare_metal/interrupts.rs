// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The stage-1 interrupt as a guest takes it, and what a ping costs in exits.

use kennel::host;
use kennel_tests::machine::Machine;
use kennel_tests::stage_1::{By, interrupts_once};
use kennel_vmm::config::WatchdogConfig;
use kennel_vmm::protocol::{Command, MachineStatus, News};
use libtest_mimic::Trial;

use crate::test;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("stage_1_interrupts_once_by_its_pin", pin),
        test("stage_1_interrupts_once_by_message", message),
        test("a_ping_is_three_exits", ping_exits),
    ]
}

/// A KVM that emulates its guests' code was seen to deliver a level interrupt once more after the
/// line had fallen; the linux tier, on a KVM that does not, lets none of those pass.
fn pin() {
    let software = !host::check().native_linux();
    let spurious = interrupts_once(By::Pin);
    assert!(
        spurious <= u32::from(software),
        "{spurious} interrupts with nothing to acknowledge"
    );
}

fn message() {
    assert_eq!(interrupts_once(By::Message), 0);
}

fn status(machine: &mut Machine) -> MachineStatus {
    machine.tell(&Command::Status);
    let (_, status) = machine.news("status", |news| match news {
        News::Status(status) => Some(status.clone()),
        _ => None,
    });
    status
}

/// Two runs that differ in 2,000 pings differ in their exits.
fn ping_exits() {
    let [few, many] = ['e', 'E'].map(|letter| {
        let mut machine = Machine::start(letter, Some(WatchdogConfig::default()));
        machine.line("pinged");
        status(&mut machine)
    });
    let pings = |status: &MachineStatus| status.watchdog.expect("there is one").pings;
    assert_eq!((pings(&few), pings(&many)), (1_000, 3_000));
    assert_eq!(many.exits - few.exits, 3 * 2_000);
}
