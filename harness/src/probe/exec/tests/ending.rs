// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How commands are handed over, and what their ends mean.

use super::*;

#[test]
fn every_word_reaches_the_guest_as_it_is() {
    let long = "x".repeat(64 << 10);
    let words = [
        "a b",
        "\"",
        "\\",
        "'$(reboot)'",
        "line\nline",
        "ä€🐕",
        "",
        "-c",
        &long,
    ];
    let mut command = vec!["program"];
    command.extend(words);
    let mut run = exec(&command);
    let Need::Call(call) = run.next(at(0), Input::Begin) else {
        panic!("a call comes first");
    };
    assert_eq!(call.command, "guest-exec");
    let sent: Value = serde_json::from_str(&call.arguments.to_string()).expect("valid JSON");
    assert_eq!(sent["path"], "/bin/sh");
    assert_eq!(sent["capture-output"], true);
    assert!(sent.get("input-data").is_none(), "nothing to read");
    let arguments = sent["arg"].as_array().expect("a list");
    assert_eq!(arguments[..3], [json!("-c"), json!(RUN), json!(NAME)]);
    let handed: Vec<_> = arguments[3..].iter().filter_map(Value::as_str).collect();
    assert_eq!(handed, command);
}

#[test]
fn exit_status_nought_is_success() {
    let status = json!({ "exited": true, "exitcode": 0, "err-data": base64(b"noise") });
    assert_eq!(ended(&["true"], status), Outcome::Success);
}

#[test]
fn what_fails_says_its_output_and_how() {
    let rows = [
        (
            json!({ "exitcode": 3 }),
            "\"check it\" ended without output (exit status 3)",
        ),
        (
            json!({ "exitcode": 1, "out-data": base64(b"out\n"), "err-data": base64(b"err\n") }),
            "out\nerr (exit status 1)",
        ),
        (
            json!({ "exitcode": 1, "out-data": base64(b"out"), "err-data": base64(b"err") }),
            "out\nerr (exit status 1)",
        ),
        (
            json!({ "exitcode": 1, "err-data": base64(b"caf\xe9 \xff") }),
            "caf\u{fffd} \u{fffd} (exit status 1)",
        ),
        (
            json!({ "exitcode": 1, "out-data": base64(b"much"), "out-truncated": true }),
            "much [cut short] (exit status 1)",
        ),
        (
            json!({ "exitcode": 1, "out-data": "*" }),
            "[output that is not base64] (exit status 1)",
        ),
        (
            json!({ "signal": 9, "err-data": base64(b"bye") }),
            "bye (killed by signal 9 (SIGKILL))",
        ),
        (
            json!({ "signal": 35 }),
            "\"check it\" ended without output (killed by signal 35)",
        ),
        (
            json!({ "signal": 3_221_225_477_i64 }),
            "\"check it\" ended without output (ended by exception 0xc0000005)",
        ),
        (
            json!({ "exitcode": 137, "err-data": base64(b"Killed\n") }),
            "Killed (exit status 137: as if killed by signal 9 (SIGKILL))",
        ),
        (
            json!({ "exitcode": 127, "err-data": base64(b"kennel-probe: exec: check: not found\n") }),
            "kennel-probe: exec: check: not found (exit status 127: as if it is not in the guest)",
        ),
        (
            json!({ "exitcode": 126 }),
            "\"check it\" ended without output (exit status 126: as if it may not be executed)",
        ),
    ];
    for (mut status, message) in rows {
        status["exited"] = json!(true);
        assert_eq!(
            ended(&["check", "it"], status),
            Outcome::Failure(message.into())
        );
    }
}

#[test]
fn ten_kibibytes_of_output_are_kept() {
    for (length, kept, cut) in [
        (10_240, 10_240, false),
        (10_241, 10_240, true),
        (16 << 20, 10_240, true),
    ] {
        let output = vec![b'o'; length];
        let status = json!({ "exited": true, "exitcode": 1, "out-data": base64(&output) });
        let Outcome::Failure(message) = ended(&["loud"], status) else {
            panic!("it failed");
        };
        assert_eq!(
            message.matches('o').count() - usize::from(cut),
            kept,
            "{length}"
        );
        assert_eq!(message.contains("[cut short]"), cut, "{length}");
    }
}

#[test]
fn output_that_is_no_text_is_kept_no_longer() {
    let status = json!({ "exited": true, "exitcode": 1, "out-data": base64(&vec![0xff; 10_240]) });
    let Outcome::Failure(message) = ended(&["loud"], status) else {
        panic!("it failed");
    };
    let expected = "\u{fffd}".repeat(10_240 / 3);
    assert_eq!(message, format!("{expected} [cut short] (exit status 1)"));
}

#[test]
fn an_end_without_a_status_is_a_failure() {
    let Outcome::Failure(why) = ended(&["x"], json!({ "exited": true })) else {
        panic!("nobody can tell");
    };
    assert_eq!(why, "the guest agent says that \"x\" ended, and not how");
}

#[test]
fn a_long_command_is_not_repeated_in_full() {
    let long = "é".repeat(500);
    let Outcome::Failure(message) = ended(&[&long], json!({ "exited": true, "exitcode": 1 }))
    else {
        panic!("it failed");
    };
    assert_eq!(
        message,
        format!(
            "\"{}…\" ended without output (exit status 1)",
            "é".repeat(80)
        )
    );
}
