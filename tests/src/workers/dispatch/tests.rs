// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use super::*;

const BIG: Need = Need {
    memory_mib: 7000,
    lanes: 3,
};
const LITTLE: Need = Need {
    memory_mib: 2000,
    lanes: 3,
};
const SMALL: Need = Need::SMALL;

/// What is done, in one line, with cases of these needs submitted beforehand.
fn shown(steps: Vec<Step<usize>>) -> String {
    let words = steps.into_iter().map(|step| match step {
        Step::Start(worker) => format!("start {worker}"),
        Step::Run(worker, case) => format!("{case} at {worker}"),
        Step::Refuse(case, _, ticket) => format!("no {case} {ticket}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn dispatch(needs: &[(&str, Need)]) -> Dispatch<usize> {
    let mut dispatch = Dispatch::new(&[BIG, LITTLE]);
    // They come in any order.
    for (rank, (case, need)) in needs.iter().enumerate().rev() {
        dispatch.submit(case, rank, *need, rank);
    }
    dispatch
}

/// With both workers there.
fn running(needs: &[(&str, Need)]) -> Dispatch<usize> {
    let mut dispatch = dispatch(needs);
    dispatch.steps();
    dispatch.steps();
    dispatch.ready(0);
    dispatch.ready(1);
    dispatch
}

#[test]
fn no_more_workers_start_than_there_are_cases() {
    let mut one = dispatch(&[("a", SMALL)]);
    assert_eq!(shown(one.steps()), "start 0");
    assert_eq!(shown(one.steps()), "");
    one.submit("b", 1, SMALL, 1);
    assert_eq!(shown(one.steps()), "start 1");
    one.submit("c", 2, SMALL, 2);
    assert_eq!(shown(one.steps()), "", "there are but two");
}

#[test]
fn cases_go_where_most_room_is_and_wait_for_more() {
    let mut cases = running(&[
        ("a", SMALL),
        ("b", SMALL),
        ("c", SMALL),
        ("d", SMALL),
        ("e", SMALL),
        ("f", SMALL),
        ("g", SMALL),
    ]);
    assert_eq!(
        shown(cases.steps()),
        "a at 1, b at 0, c at 1, d at 0, e at 1, f at 0"
    );
    assert_eq!(cases.ended("d"), Some(3));
    assert_eq!(cases.ended("d"), None);
    assert_eq!(shown(cases.steps()), "g at 0");
}

#[test]
fn what_needs_most_comes_first_and_only_where_it_fits() {
    let mut cases = running(&[
        ("small", SMALL),
        ("alone", SMALL.alone()),
        ("big", SMALL.memory(6000)),
        ("large", SMALL.memory(5000)),
    ]);
    // Both of the large ones fit into the first worker only, and not at once.
    assert_eq!(shown(cases.steps()), "alone at 1, big at 0, small at 0");
    cases.ended("alone");
    assert_eq!(shown(cases.steps()), "");
    cases.ended("small");
    assert_eq!(shown(cases.steps()), "");
    cases.ended("big");
    assert_eq!(shown(cases.steps()), "large at 0");
}

#[test]
fn nothing_is_beside_what_is_to_be_alone() {
    let mut cases = running(&[("a", SMALL), ("b", SMALL), ("x", SMALL.alone())]);
    assert_eq!(shown(cases.steps()), "x at 1, a at 0, b at 0");
    cases.submit("y", 3, SMALL.alone(), 3);
    cases.submit("c", 4, SMALL, 4);
    cases.submit("d", 5, SMALL, 5);
    assert_eq!(shown(cases.steps()), "c at 0");
    cases.ended("x");
    assert_eq!(shown(cases.steps()), "y at 1");
}

#[test]
fn a_worker_that_is_lost_gives_back_its_cases_and_its_own_go_with_it() {
    let mut cases = running(&[("a", SMALL), ("b", SMALL)]);
    cases.submit("huge", 2, SMALL.memory(9000), 2);
    assert_eq!(
        shown(cases.steps()),
        "no huge 2, a at 1, b at 0",
        "no worker is so large"
    );
    cases.submit("big", 3, SMALL.memory(6800), 3);
    cases.submit("c", 4, SMALL, 4);
    assert_eq!(shown(cases.steps()), "c at 1");
    assert_eq!(cases.lost(0), [("b".to_owned(), 1)]);
    assert_eq!(shown(cases.steps()), "no big 3");
    assert_eq!(cases.lost(1), [("a".to_owned(), 0), ("c".to_owned(), 4)]);
    cases.submit("d", 5, SMALL, 5);
    assert_eq!(shown(cases.steps()), "no d 5", "none comes back");
}
