// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's network: its ports, what probes of them tell in every state of a guest, the
//! tutorials' documents, and uplinks that come and go.

use crate::{Body, LinuxCase, group};

mod answers;
mod asked;
mod operation;
mod passt;
mod ports;
mod truth;
mod tutorials;
mod uplinks;

pub(crate) fn tests() -> Vec<LinuxCase> {
    let cases: [(&'static str, Body); 3] = [
        (
            "ports_are_reached_over_a_pause_and_a_reset",
            Box::new(ports::ports),
        ),
        (
            "every_state_of_a_guest_is_told_without_an_uplink",
            Box::new(truth::without_uplink),
        ),
        (
            "servers_that_stop_and_start_are_followed",
            Box::new(operation::servers),
        ),
    ];
    let with_passt: [(&str, passt::Body); 2] = [
        (
            "every_state_of_a_guest_is_told_beside_passt",
            truth::beside_passt,
        ),
        (
            "uplinks_that_fail_are_told_and_tried_again",
            uplinks::failures,
        ),
    ];
    let tutorials: [(&'static str, Body); 2] = [
        (
            "tutorials_instances_end_as_they_say",
            Box::new(tutorials::instances),
        ),
        (
            "tutorials_machines_go_on_as_they_say",
            Box::new(tutorials::machines),
        ),
    ];
    let tutorials = group("network", tutorials).into_iter();
    let mut tests = group("network", cases);
    tests.extend(tutorials.map(|test| test.needing(tutorials::NEED)));
    tests.extend(with_passt.map(|(name, body)| passt::test(name, body)));
    tests
}
