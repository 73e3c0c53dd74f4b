// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a command ended, from what the agent says of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Manner;
use crate::agent::text::{KEPT, beginning};
use crate::probe::Outcome;

/// What the `guest-exec-status` of a command says that has ended. Exit status 0 is success,
/// everything else is failure.
pub(super) fn verdict(status: &Value, manner: Manner, command: &str) -> Outcome {
    if let Some(signal) = status.get("signal").and_then(Value::as_i64) {
        return failure(status, command, &killed(signal));
    }
    match status.get("exitcode").and_then(Value::as_i64) {
        Some(0) => Outcome::Success,
        Some(code) => failure(status, command, &ending(code, manner)),
        None => Outcome::Failure(format!(
            "the guest agent says that {command} ended, and not how"
        )),
    }
}

fn failure(status: &Value, command: &str, how: &str) -> Outcome {
    let output = output(status);
    Outcome::Failure(if output.is_empty() {
        format!("{command} ended without output ({how})")
    } else {
        format!("{output} ({how})")
    })
}

fn ending(code: i64, manner: Manner) -> String {
    match (code, manner) {
        (126, Manner::Shell) => "exit status 126: as if it may not be executed".into(),
        (127, Manner::Shell) => "exit status 127: as if it is not in the guest".into(),
        // What a shell makes of a signal; a command may well end like that by itself.
        (129..=192, Manner::Shell) => {
            let signal = code.saturating_sub(128);
            format!("exit status {code}: as if {}", killed(signal))
        }
        _ => format!("exit status {code}"),
    }
}

fn killed(signal: i64) -> String {
    match name(signal) {
        Some(name) => format!("killed by signal {signal} ({name})"),
        // Windows has no signals: the agent gives the exception's code there.
        None if signal > 64 => format!("ended by exception {signal:#x}"),
        None => format!("killed by signal {signal}"),
    }
}

/// Linux's names of those that end a process, on all its architectures but MIPS and Alpha.
const fn name(signal: i64) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Standard output and then standard error, as far as they are kept.
fn output(status: &Value) -> String {
    let mut bytes = stream(status, "out-data");
    let errors = stream(status, "err-data");
    if !bytes.is_empty() && !errors.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes.extend(errors);
    let cut = |key| status.get(key).and_then(Value::as_bool) == Some(true);
    let is_cut = bytes.len() > KEPT || cut("out-truncated") || cut("err-truncated");
    bytes.truncate(KEPT);
    let text = String::from_utf8_lossy(&bytes);
    // What is no UTF-8 has become longer.
    let kept = beginning(&text);
    let is_cut = is_cut || kept.len() < text.len();
    let mut text = kept.trim_end().to_owned();
    if is_cut {
        text.push_str(" [cut short]");
    }
    text
}

fn stream(status: &Value, key: &str) -> Vec<u8> {
    let encoded = status.get(key).and_then(Value::as_str).unwrap_or_default();
    match STANDARD.decode(encoded) {
        Ok(bytes) => bytes,
        Err(_) => b"[output that is not base64]".to_vec(),
    }
}
