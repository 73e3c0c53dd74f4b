// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Traces recorded from QEMU 7.2, replayed: the behaviour on which the hardware, QEMU and the guest drivers agree.

use crate::parse::parse_line;
use crate::trace::{Op, Trace, replay};

const SAMPLE: &str = include_str!("../qemu-7.2-sample.jsonl");

#[test]
fn recorded_qemu_traces_replay_without_a_divergence() {
    let traces: Vec<Trace> = SAMPLE
        .lines()
        .map(|line| parse_line(line).expect("a recorded trace"))
        .collect();
    assert!(traces.len() >= 40, "{} traces", traces.len());
    for Trace { trace, ops } in traces {
        assert_eq!(replay(&ops), Ok(()), "trace {trace}");
    }
}

#[test]
fn a_wrong_expectation_is_a_divergence() {
    let Trace { mut ops, .. } =
        parse_line(SAMPLE.lines().next().expect("a line")).expect("a recorded trace");
    let last = ops
        .iter()
        .rposition(|op| matches!(op, Op::TimedOut(_)))
        .expect("a trace looks at the flag");
    if let Some(Op::TimedOut(expected)) = ops.get_mut(last) {
        *expected = !*expected;
    }
    let divergence = replay(&ops).expect_err("the device does not do that");
    assert_eq!(
        (divergence.index, divergence.what),
        (last, "timed-out flag")
    );
    assert_ne!(divergence.expected, divergence.got);
}
