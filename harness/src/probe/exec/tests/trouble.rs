// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Agents that refuse, hang or vanish, and commands that do not end.

use super::*;

fn running() -> Result<Value, AgentError> {
    Ok(json!({ "exited": false }))
}

fn failure(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failure(why) => why,
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn a_guest_without_a_shell_runs_it_itself() {
    let script = [
        (1, Err(cannot_execute("/bin/sh"))),
        (1, Ok(json!({ "pid": 7 }))),
        (1, Ok(json!({ "exited": true, "exitcode": 137 }))),
    ];
    let (calls, _, outcome) = play(&mut exec(&["check", "it"]), &script);
    let direct = json!({ "path": "check", "arg": ["it"], "capture-output": true });
    assert_eq!(calls[1].arguments, direct);
    assert_eq!(calls[2].arguments, json!({ "pid": 7 }));
    assert_eq!(
        failure(&outcome),
        "\"check it\" ended without output (exit status 137)",
        "the command's own: no shell made it"
    );
}

#[test]
fn a_program_named_like_an_option_is_not_given_to_a_shell() {
    let script = [(1, Err(cannot_execute("-x")))];
    let (calls, _, outcome) = play(&mut exec(&["-x"]), &script);
    assert_eq!(calls[0].arguments["path"], "-x");
    assert!(failure(&outcome).starts_with("\"-x\" was not run: the guest agent refused"));
}

#[test]
fn a_missing_program_is_named_where_there_is_no_shell() {
    let script = [
        (1, Err(cannot_execute("/bin/sh"))),
        (1, Err(cannot_execute("check"))),
    ];
    let (_, _, outcome) = play(&mut exec(&["check"]), &script);
    assert!(failure(&outcome).contains("“check” (No such file or directory)"));
}

#[test]
fn no_dev_null_in_the_guest() {
    let desc = "Guest agent command failed, error was 'Failed to open file to remap file descriptor (No such file or directory)'";
    let error = refused("GenericError", desc);
    let script = [(1, Err(error.clone())), (1, Err(error))];
    let (_, _, outcome) = play(&mut exec(&["check"]), &script);
    assert!(failure(&outcome).ends_with("is there a /dev/null in the guest?"));
}

#[test]
fn a_blocked_command_says_how_to_allow_it() {
    let blocked = refused("CommandNotFound", "Command guest-exec has been disabled");
    let (_, _, outcome) = play(&mut exec(&["check"]), &[(1, Err(blocked))]);
    let why = failure(&outcome);
    assert!(
        why.starts_with("the guest agent does not allow guest-exec: "),
        "{why}"
    );
    assert!(why.contains("/etc/qemu/qemu-ga.conf"), "{why}");
}

#[test]
fn a_frozen_agent_is_an_error_until_that_counts() {
    let desc = "Command guest-exec has been disabled: the agent is in frozen state";
    for (counts, is_failure) in [(false, false), (true, true)] {
        let script = [(1, Err(refused("CommandNotFound", desc)))];
        let mut exec = exec(&["check"]).freeze_counts(counts);
        let (_, _, outcome) = play(&mut exec, &script);
        assert_eq!(matches!(outcome, Outcome::Failure(_)), is_failure);
        assert_eq!(matches!(outcome, Outcome::Error(_)), !is_failure);
    }
}

#[test]
fn no_agent_fails_and_names_it() {
    let script = [(0, Err(AgentError::NotConnected))];
    let (_, _, outcome) = play(&mut exec(&["check"]), &script);
    assert!(failure(&outcome).contains("no guest agent is connected"));
}

#[test]
fn an_agent_started_anew_is_an_error_and_an_unintelligible_one_fails() {
    for (error, left) in [
        (AgentError::Restarted, false),
        (AgentError::Garbled("?".into()), true),
        (AgentError::Socket("gone".into()), true),
    ] {
        let why = error.to_string();
        let expected = if left {
            Outcome::Failure(why)
        } else {
            Outcome::Error(why)
        };
        let (_, _, outcome) = play(&mut exec(&["check"]), &[(1, Err(error.clone()))]);
        assert_eq!(outcome, expected);
        let mut midway = exec(&["check"]);
        let script = [(1, Ok(json!({ "pid": 7 }))), (1, Err(error.clone()))];
        assert_eq!(play(&mut midway, &script).2, expected);
        assert_eq!(midway.reaper().is_some(), left, "{error}");
    }
    let script = [(1, Ok(json!({ "odd": "x".repeat(1 << 20) })))];
    let (_, _, outcome) = play(&mut exec(&["check"]), &script);
    let why = failure(&outcome);
    assert!(why.contains("has no pid") && why.len() < 11 << 10);
}

#[test]
fn a_hung_agent_fails_at_the_deadline() {
    let (_, end, outcome) = play(&mut exec(&["check"]), &[(2000, Err(AgentError::TimedOut))]);
    assert_eq!(end, at(2000));
    let why = failure(&outcome);
    assert!(
        why.starts_with("the guest agent did not answer within 2 s"),
        "{why}"
    );

    let mut midway = exec(&["check"]);
    let script = [
        (500, Ok(json!({ "pid": 7 }))),
        (1500, Err(AgentError::TimedOut)),
    ];
    let (_, _, outcome) = play(&mut midway, &script);
    let why = failure(&outcome);
    assert!(
        why.contains("the guest agent's last answer did not come"),
        "{why}"
    );
    assert!(midway.reaper().is_some());
}

/// Asked at once, after 5, 10, 20, 40, 80 ms, and then every 100 ms: T/10 would be 200.
#[test]
fn a_command_that_does_not_end_fails_at_the_deadline() {
    let mut script = vec![(0, Ok(json!({ "pid": 7 })))];
    script.resize(1 + 6 + 18, (0, running()));
    let mut endless = exec(&["sleep", "1000"]);
    let (_, end, outcome) = play(&mut endless, &script);
    assert_eq!(end, at(2000));
    assert_eq!(
        failure(&outcome),
        "command timed out: \"sleep 1000\" did not end within 2 s and is being killed"
    );
    assert!(endless.reaper().is_some());
    let over = endless.next(end, Input::Woken);
    assert!(matches!(over, Need::Done(Outcome::Error(_))));
}

#[test]
fn what_ended_leaves_nothing_behind() {
    let mut run = exec(&["true"]);
    let script = [
        (0, Ok(json!({ "pid": 7 }))),
        (0, running()),
        (0, Ok(json!({ "exited": true, "exitcode": 0 }))),
    ];
    let (_, end, outcome) = play(&mut run, &script);
    assert_eq!((end, outcome), (at(5), Outcome::Success));
    assert!(run.reaper().is_none());
}
