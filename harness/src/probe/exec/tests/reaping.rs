// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of a command that is out of time.

use super::*;

/// Reaps process 7 by the script, within a second; the calls as `command program-or-pid`.
fn reap(manner: Manner, script: Script<'_>) -> (Vec<String>, Reaped) {
    let mut reaper = Reaper::new(7, manner);
    let mut now = Moment::ZERO;
    let mut need = reaper.begin(at(1000));
    let mut calls = vec![];
    let mut script = script.iter();
    loop {
        let input = match need {
            Need::Done(reaped) => {
                assert_eq!(script.len(), 0, "answers that nobody asked for");
                return (calls, reaped);
            }
            Need::WaitUntil(moment) => {
                assert!(moment > now && moment <= at(1000));
                now = moment;
                Input::Woken
            }
            Need::Call(call) => {
                assert_eq!(call.until, at(1000));
                let whom = call.arguments.get("pid").or(call.arguments.get("path"));
                calls.push(format!("{} {}", call.command, whom.expect("whom")));
                let (millis, answer) = script.next().expect("an answer to the call");
                now = now.after(Duration::from_millis(*millis));
                Input::Answer(answer.clone())
            }
        };
        need = reaper.next(now, input);
    }
}

fn running() -> Result<Value, AgentError> {
    Ok(json!({ "exited": false }))
}

fn over() -> Result<Value, AgentError> {
    Ok(json!({ "exited": true, "signal": 9 }))
}

fn killer() -> Result<Value, AgentError> {
    Ok(json!({ "pid": 8 }))
}

#[test]
fn it_is_killed_and_both_are_forgotten_by_the_agent() {
    let script = [
        (1, running()),
        (1, killer()),
        (1, running()),
        (1, over()),
        (1, running()),
        (1, over()),
    ];
    let (calls, reaped) = reap(Manner::Shell, &script);
    assert_eq!(reaped, Reaped::Gone);
    assert_eq!(
        calls,
        [
            "guest-exec-status 7",
            "guest-exec \"/bin/sh\"",
            "guest-exec-status 8",
            "guest-exec-status 8",
            "guest-exec-status 7",
            "guest-exec-status 7",
        ]
    );
}

#[test]
fn the_shell_is_told_whom_to_end() {
    let mut reaper = Reaper::new(7, Manner::Shell);
    assert!(matches!(reaper.begin(at(1000)), Need::Call(_)));
    let Need::Call(call) = reaper.next(at(1), Input::Answer(running())) else {
        panic!("it is killed");
    };
    let arguments = call.arguments["arg"].as_array().expect("a list").clone();
    assert_eq!(arguments.last(), Some(&json!("7")));
    assert!(
        arguments[1]
            .as_str()
            .is_some_and(|script| script.contains("kill -9"))
    );
}

#[test]
fn what_has_ended_is_not_killed() {
    assert_eq!(reap(Manner::Shell, &[(1, over())]).1, Reaped::Gone);
    let unknown = refused("GenericError", "Invalid parameter 'pid'");
    assert_eq!(reap(Manner::Direct, &[(1, Err(unknown))]).1, Reaped::Gone);
    let script = [(1, Err(AgentError::Restarted))];
    assert_eq!(reap(Manner::Direct, &script).1, Reaped::Gone);
}

#[test]
fn without_a_shell_kill_and_then_taskkill() {
    let script = [(1, running()), (1, killer()), (1, over()), (1, over())];
    let (calls, reaped) = reap(Manner::Direct, &script);
    assert_eq!(
        (calls[1].as_str(), reaped),
        ("guest-exec \"kill\"", Reaped::Gone)
    );

    let script = [
        (1, running()),
        (1, Err(cannot_execute("kill"))),
        (1, killer()),
        (1, over()),
        (1, over()),
    ];
    let (calls, reaped) = reap(Manner::Direct, &script);
    assert_eq!(
        (calls[2].as_str(), reaped),
        ("guest-exec \"taskkill\"", Reaped::Gone)
    );

    let script = [
        (1, running()),
        (1, Err(cannot_execute("kill"))),
        (1, Err(cannot_execute("taskkill"))),
    ];
    assert_eq!(reap(Manner::Direct, &script).1, Reaped::NotYet);
}

#[test]
fn it_gives_up_in_time() {
    let hung = [(1000, Err(AgentError::TimedOut))];
    assert_eq!(reap(Manner::Shell, &hung).1, Reaped::NotYet);
    // Asked at once, and 5, 15, 35, 75, 155 ms, 255 ms ... later.
    let mut script = vec![(0, running()), (0, killer()), (0, over())];
    script.resize(3 + 14, (0, running()));
    assert_eq!(reap(Manner::Shell, &script).1, Reaped::NotYet);
}
