// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Traces recorded from QEMU 7.2, replayed: the behaviour on which the hardware, QEMU and the guest drivers agree.

use crate::trace::{Trace, replay};

const SAMPLE: &str = include_str!("../qemu-7.2-sample.jsonl");

#[test]
fn recorded_qemu_traces_replay_without_a_divergence() {
    let traces: Vec<Trace> = SAMPLE
        .lines()
        .map(|line| serde_json::from_str(line).expect("a recorded trace"))
        .collect();
    assert!(traces.len() >= 40, "{} traces", traces.len());
    for Trace { trace, ops } in traces {
        assert_eq!(replay(&ops), Ok(()), "trace {trace}");
    }
}
