// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Against a VM process of a few lines.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A socket behind which one client is served so.
fn served(
    serve: impl FnOnce(UnixStream) + Send + 'static,
) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dial");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    (folder, path)
}

fn dial(path: &Path, time: Duration) -> Result<UnixStream, DialError> {
    connect(path, Target::GuestIpv4, 8080, Instant::now() + time)
}

/// One that answers so, whatever is asked, and stays.
fn answering(answer: &'static [u8]) -> Result<UnixStream, DialError> {
    let (_folder, path) = served(move |mut client| {
        client.write_all(answer).unwrap();
        let _until_it_is_gone = client.read_to_end(&mut Vec::new());
    });
    dial(&path, HOUR)
}

#[test]
fn the_request_says_where_to_and_leaves_time_for_the_answer() {
    let (told, request) = std::sync::mpsc::channel();
    let (_folder, path) = served(move |mut client| {
        let mut line = String::new();
        let mut reader = BufReader::new(client.try_clone().unwrap());
        reader.read_line(&mut line).unwrap();
        told.send(line).unwrap();
        client.write_all(b"OK 10.0.2.2 8080\n").unwrap();
    });
    dial(&path, HOUR).unwrap();
    let request: Request = request.recv().unwrap().parse().unwrap();
    assert_eq!((request.target, request.port), (Target::GuestIpv4, 8080));
    assert!(request.timeout <= HOUR - WAY_BACK, "{request:?}");
    assert!(request.timeout > HOUR / 2, "{request:?}");
}

#[test]
fn what_the_guest_says_at_once_is_not_lost() {
    let (_folder, path) = served(|mut client| {
        let mut request = String::new();
        let mut reader = BufReader::new(client.try_clone().unwrap());
        reader.read_line(&mut request).unwrap();
        for piece in ["O", "K 10.0.2.2 80", "80\nSSH-2.0", "-x\nhello"] {
            client.write_all(piece.as_bytes()).unwrap();
        }
    });
    let mut heard = String::new();
    dial(&path, HOUR)
        .unwrap()
        .read_to_string(&mut heard)
        .unwrap();
    assert_eq!(heard, "SSH-2.0-x\nhello");
}

#[test]
fn an_answer_is_heard_also_from_who_does_not_read() {
    let (_folder, path) = served(|mut client| {
        client
            .write_all(b"FAIL busy 64 connections are open\n")
            .unwrap();
    });
    let Err(DialError::Failed { reason, text }) = dial(&path, HOUR) else {
        panic!("it did not fail so");
    };
    assert_eq!(
        (reason, text.as_str()),
        (Reason::Busy, "64 connections are open")
    );
}

#[test]
fn failures_say_why() {
    let refused = answering(b"FAIL refused the guest refused the connection\n").unwrap_err();
    assert_eq!(refused.to_string(), "the guest refused the connection");
    let garbled = answering(b"HTTP/1.1 200 OK\n").unwrap_err();
    assert!(matches!(garbled, DialError::Garbled(_)), "{garbled}");
    let endless = answering(&[b'x'; 2 * LINE_BYTES]).unwrap_err();
    assert!(matches!(endless, DialError::Garbled(_)), "{endless}");

    let (_folder, path) = served(drop);
    let closed = dial(&path, HOUR).unwrap_err().to_string();
    let nobody = dial(Path::new("/nonexistent/a.dial"), HOUR).unwrap_err();
    assert!(matches!(nobody, DialError::Socket(_)), "{nobody}");
    for said in [closed, nobody.to_string()] {
        assert!(!said.contains("a.dial"), "a path of ours: {said}");
    }
}

#[test]
fn a_silent_vm_process_is_left_at_the_deadline() {
    let (_folder, path) = served(|mut client| {
        let _until_it_is_gone = client.read_to_end(&mut Vec::new());
    });
    let silent = dial(&path, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(silent, DialError::TimedOut), "{silent}");
}

/// What a line of more than its bound comes to, in these pieces.
fn long_line(pieces: &[&[u8]]) -> String {
    let (client, mut server) = UnixStream::pair().unwrap();
    let seen = client.try_clone().unwrap();
    let reader = thread::spawn(move || line(&client, Instant::now() + HOUR).unwrap());
    for (at, piece) in pieces.iter().enumerate() {
        // The one before has been read.
        while at > 0 && rustix::io::ioctl_fionread(&seen).unwrap() > 0 {
            thread::yield_now();
        }
        server.write_all(piece).unwrap();
    }
    reader.join().unwrap()
}

#[test]
fn a_line_too_long_is_the_same_in_pieces() {
    let text = format!("FAIL busy {}\n", "x".repeat(LINE_BYTES)).into_bytes();
    let whole = long_line(&[&text]);
    assert_eq!(whole.len(), LINE_BYTES);
    let (first, second) = text.split_at(60);
    assert_eq!(long_line(&[first, second]), whole);
}
