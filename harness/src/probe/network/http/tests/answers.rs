// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One answer.

use std::sync::Barrier;

use super::*;

/// What the page at `/` comes to, at a guest that plays so.
fn outcome(play: impl Fn(&mut Peer) + Clone + Send + 'static) -> Outcome {
    Guest::new(play).probe(http("/"))
}

#[test]
fn the_status_decides() {
    for (status, expected) in [
        ("200 OK", Ok(())),
        ("204 No Content", Ok(())),
        ("299 Whatever", Ok(())),
        ("200", Ok(())),
        ("100 Continue\r\n\r\nHTTP/1.1 200 OK", Ok(())),
        (
            "103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 500 No",
            Err(500),
        ),
        ("101 Switching Protocols", Err(101)),
        ("400 Bad Request", Err(400)),
        ("404 Not Found", Err(404)),
        ("500 Internal Server Error", Err(500)),
        ("503", Err(503)),
        ("999 Nobody knows", Err(999)),
    ] {
        for version in ["1.0", "1.1"] {
            let text = format!("HTTP/{version} {status}\r\nContent-Length: 7\r\n\r\nok body");
            let outcome = outcome(move |peer| {
                peer.hear();
                peer.say(&text);
            });
            let expected = match expected {
                Ok(()) => Outcome::Success,
                Err(code) => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
            };
            assert_eq!(outcome, expected, "HTTP/{version} {status}");
        }
    }
}

#[test]
fn the_request_is_what_the_document_says() {
    let (heard, hears) = std::sync::mpsc::channel();
    let guest = Guest::new(move |peer| {
        heard.send(peer.hear()).unwrap();
        peer.say("HTTP/1.1 200 OK\r\n\r\n");
    });
    let get = HttpGet {
        path: "/p?bar".to_owned(),
        headers: vec![("x-custom".to_owned(), "Awesome".to_owned())],
        ..page("/")
    };
    assert_eq!(guest.probe(Handler::HttpGet(get)), Outcome::Success);
    assert_eq!(
        hears.recv().unwrap(),
        "GET /p?bar HTTP/1.1\r\nHost: 10.0.2.2:8080\r\nUser-Agent: kube-probe/1.35\r\n\
         Accept: */*\r\nX-Custom: Awesome\r\nConnection: close\r\n\r\n"
    );
}

/// `nc -klp PORT -e echo -e …`: a new `echo` for each connection, which reads nothing.
const SEEDS: [&str; 2] = [
    "HTTP/1.1 200 OK\nContent-Length: 12\n\nHello World!\n",
    "HTTP/1.1 200 OK\n\nHello World!\n",
];

#[test]
fn a_server_that_answers_unasked_and_hangs_up_is_well() {
    for text in SEEDS {
        assert_eq!(outcome(move |peer| peer.say(text)), Outcome::Success);
        // All of it is there before the client knows that it is connected.
        let guest = Guest::dialled(move |peer| {
            peer.say(format!("OK 10.0.2.2 8080\n{text}"));
        });
        assert_eq!(guest.probe(http("/")), Outcome::Success);
        assert_eq!(
            answer(&guest, &page("/")).unwrap().body[..12],
            *b"Hello World!"
        );
        // Over TCP, closing with a request unread resets the connection.
        let port = on_loopback(move |peer| peer.say(text));
        let get = HttpGet {
            host: Some("127.0.0.1".to_owned()),
            port,
            ..page("/")
        };
        for _ in 0..20 {
            let outcome = guest.probe(Handler::HttpGet(get.clone()));
            assert_eq!(outcome, Outcome::Success);
        }
    }
}

#[test]
fn a_server_that_answers_while_the_request_is_written_is_well() {
    // More than a socket takes, and nobody reads it.
    let get = HttpGet {
        headers: vec![("X-Long".to_owned(), "x".repeat(4 << 20))],
        ..page("/")
    };
    let guest = Guest::new(|peer| peer.say("HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n"));
    let said = failure(guest.probe(Handler::HttpGet(get.clone())));
    assert_eq!(said, "HTTP probe failed with statuscode: 431");
    // Nor does it hang up before the probe is over.
    let over = Arc::new(Barrier::new(2));
    let waits = over.clone();
    let guest = Guest::new(move |peer| {
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        waits.wait();
    });
    assert_eq!(guest.probe(Handler::HttpGet(get)), Outcome::Success);
    over.wait();
}

#[test]
fn after_the_headers_a_broken_connection_changes_nothing() {
    for (text, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
            Outcome::Success,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
            Outcome::Success,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
            Outcome::Success,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nbody",
            Outcome::Success,
        ),
        (
            "HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nshort",
            Outcome::Failure("HTTP probe failed with statuscode: 500".to_owned()),
        ),
    ] {
        let closed = outcome(move |peer| {
            peer.hear();
            peer.say(text);
        });
        assert_eq!(closed, expected, "{text:?}");
        // With the request unread it is a reset.
        assert_eq!(outcome(move |peer| peer.say(text)), expected, "{text:?}");
    }
}

#[test]
fn header_lines_may_be_badly_written() {
    for text in [
        "HTTP/1.1  200  OK\nServer : x\nno colon\nX: 1\n  folded\n\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\nX-\u{e9}: \u{e9}\n\n",
    ] {
        let outcome = outcome(move |peer| {
            peer.hear();
            peer.say(text);
        });
        assert_eq!(outcome, Outcome::Success, "{text:?}");
    }
}

#[test]
fn what_is_no_answer_fails_with_a_word_about_it() {
    for (text, expected) in [
        ("", "the connection was closed without an answer (EOF)"),
        (
            "HTTP/1.1 200 OK\r\nServer: x\r\n",
            "the connection was closed within the answer's headers (EOF)",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n",
            "malformed HTTP response \"SSH-2.0-OpenSSH_9.2\"",
        ),
        (
            "\0\u{1}\u{2}",
            "malformed HTTP response \"\\0\\u{1}\\u{2}\"",
        ),
        (
            "\u{15}\u{3}\u{1}\0\u{2}\u{2}F",
            "malformed HTTP response \"\\u{15}\\u{3}\\u{1}\\0\\u{2}\\u{2}F\"; it speaks TLS: is \
             scheme: HTTPS meant?",
        ),
        (
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "malformed HTTP response \"HTTP/1.1 2x0 OK\"",
        ),
        (
            "HTTP/1.1 -1 OK\r\n\r\n",
            "malformed HTTP response \"HTTP/1.1 -1 OK\"",
        ),
    ] {
        let outcome = outcome(move |peer| {
            peer.hear();
            peer.say(text);
        });
        assert_eq!(reason(outcome), expected);
    }
    let long = outcome(|peer| {
        peer.hear();
        peer.say("x".repeat(4000));
    });
    assert!(reason(long).len() < 200);
    // A server that accepts, and resets the connection.
    let reset = outcome(|_| {});
    assert!(reason(reset).starts_with("the connection was closed without an answer ("));
}

#[test]
fn a_server_that_says_nothing_is_left_at_the_deadline() {
    let guest = Guest::new(|peer| peer.stay());
    let said = guest.probe_over(http("/"), IpFamily::Ipv4, WHILE);
    assert_eq!(reason(said), "no answer within 1 s");
}

#[test]
fn an_answer_without_end_is_bounded() {
    let headers = outcome(|peer| {
        peer.hear();
        peer.say("HTTP/1.1 200 OK\r\n");
        peer.say_for_ever("X-Endless: yes\r\n");
    });
    assert_eq!(
        reason(headers),
        "the answer's headers are longer than 64 KiB"
    );
    let line = outcome(|peer| {
        peer.hear();
        peer.say("HTTP/1.1 200 OK\r\nX-Endless: ");
        peer.say_for_ever("yes");
    });
    assert_eq!(reason(line), "the answer's headers are longer than 64 KiB");
    let hints = outcome(|peer| {
        peer.hear();
        peer.say_for_ever("HTTP/1.1 103 Early Hints\r\n\r\n");
    });
    assert_eq!(reason(hints), "the answer's headers are longer than 64 KiB");
    let body = outcome(|peer| {
        peer.hear();
        peer.say("HTTP/1.1 200 OK\r\n\r\n");
        peer.say_for_ever("body");
    });
    assert_eq!(body, Outcome::Success);
}

#[test]
fn an_answer_whose_time_is_over_says_what_was_there() {
    let limit = Limit {
        deadline: Instant::now(),
        timeout: Duration::from_secs(1),
    };
    let all = |_: &response::Head| true;
    for (text, expected) in [
        ("", Err("no answer within 1 s")),
        (
            "HTTP/1.1 200 OK\r\n",
            Err("the answer's headers did not end within 1 s"),
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nHello",
            Err("the answer's body did not end within 1 s (status 200, 5 bytes of it came)"),
        ),
        (
            "HTTP/1.1 302 Found\r\n\r\n",
            Err("the answer's body did not end within 1 s (status 302, 0 bytes of it came)"),
        ),
        ("HTTP/1.1 500 No\r\n\r\nHello", Ok(500)),
    ] {
        let mut response = response::Response::new(&all);
        response.feed(text.as_bytes()).unwrap();
        assert!(!response.is_over());
        let status = response.timed_out(limit).map(|answer| answer.head.status);
        let expected = expected.map_err(|why| Trouble::Failed(why.to_owned()));
        assert_eq!(status, expected, "{text:?}");
    }
    // By the clock.
    let guest = Guest::new(|peer| {
        peer.say("HTTP/1.1 200 OK\r\n\r\nHello");
        peer.stay();
    });
    let said = guest.probe_over(http("/"), IpFamily::Ipv4, WHILE);
    assert!(matches!(said, Outcome::Failure(why) if why.contains("within 1 s")));
}

#[test]
fn of_a_body_ten_kib_are_kept() {
    for (there, kept) in [(10_239, 10_239), (10_240, 10_240), (10_241, 10_240)] {
        for end in ["Content-Length: ", "X: "] {
            let guest = Guest::answering(move |_| {
                format!(
                    "HTTP/1.1 200 OK\r\n{end}{there}\r\n\r\n{}",
                    "x".repeat(there)
                )
            });
            assert_eq!(answer(&guest, &page("/")).unwrap().body, vec![b'x'; kept]);
        }
    }
    let chunked = Guest::saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok \r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!(answer(&chunked, &page("/")).unwrap().body, b"ok body");
}

#[test]
fn a_body_of_known_length_is_not_waited_for_beyond_it() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        // The connection stays open.
        let outcome = outcome(move |peer| {
            peer.hear();
            peer.say(head);
            peer.stay();
        });
        assert_eq!(outcome, Outcome::Success, "{head:?}");
    }
}

#[test]
fn pieces_of_any_size_make_the_same_answer() {
    let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello";
    let all = |_: &response::Head| true;
    for size in 1..text.len() {
        let mut response = response::Response::new(&all);
        for piece in text.chunks(size) {
            assert!(!response.is_over());
            response.feed(piece).unwrap();
        }
        assert!(response.is_over(), "pieces of {size}");
        let answer = response.ended(None).unwrap();
        assert_eq!(
            (answer.head.status, answer.body.as_slice()),
            (200, &b"Hello"[..])
        );
    }
}
