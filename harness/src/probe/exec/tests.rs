// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands against an agent that answers as qemu-ga 7.2 was seen to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

mod ending;
mod reaping;
mod trouble;

const TIMEOUT: Duration = Duration::from_secs(2);

fn at(millis: u64) -> Moment {
    Moment::ZERO.after(Duration::from_millis(millis))
}

fn exec(command: &[&str]) -> Exec {
    let command = command.iter().map(|&word| word.into()).collect();
    Exec::new(command, TIMEOUT, Moment::ZERO.after(TIMEOUT))
}

fn refused(class: &str, desc: &str) -> AgentError {
    AgentError::Refused {
        class: class.into(),
        desc: desc.into(),
    }
}

fn cannot_execute(program: &str) -> AgentError {
    let desc = format!(
        "Guest agent command failed, error was 'Failed to execute child process “{program}” (No such file or directory)'"
    );
    refused("GenericError", &desc)
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Answers to calls in their order, each with the time it takes in ms.
type Script<'a> = &'a [(u64, Result<Value, AgentError>)];

/// Runs it at once by the script, to its end: the calls, when it ended, and how.
fn play(exec: &mut Exec, script: Script<'_>) -> (Vec<Call>, Moment, Outcome) {
    let mut now = Moment::ZERO;
    let mut script = script.iter();
    let mut calls = vec![];
    let mut need = exec.next(now, Input::Begin);
    loop {
        let input = match need {
            Need::Done(outcome) => {
                assert_eq!(script.len(), 0, "answers that nobody asked for");
                return (calls, now, outcome);
            }
            Need::WaitUntil(moment) => {
                assert!(moment > now, "no busy waiting");
                now = moment;
                Input::Woken
            }
            Need::Call(call) => {
                assert!(call.until <= Moment::ZERO.after(TIMEOUT));
                let (millis, answer) = script.next().expect("an answer to the call");
                now = now.after(Duration::from_millis(*millis));
                calls.push(call);
                Input::Answer(answer.clone())
            }
        };
        need = exec.next(now, input);
    }
}

/// What comes of a command that has started, by its end's status.
fn ended(command: &[&str], status: Value) -> Outcome {
    let script = [(1, Ok(json!({ "pid": 7 }))), (1, Ok(status))];
    play(&mut exec(command), &script).2
}
