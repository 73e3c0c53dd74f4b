// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers that lead elsewhere.

use super::*;

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nmove")
}

fn status(code: u16) -> String {
    format!("HTTP/1.1 {code} So\r\nContent-Length: 0\r\n\r\n")
}

/// A guest with a page that leads to `location`, one that does well and one that does not, at any
/// port.
fn leading(code: u16, location: &'static str) -> Guest {
    Guest::answering(move |request| match request.split(' ').nth(1) {
        Some("/success" | "/new?ok") => status(200),
        Some("/fail") => status(500),
        Some("/loop") => redirect(302, "/loop"),
        _ => redirect(code, location),
    })
}

#[test]
fn redirects_to_the_same_host_are_followed() {
    let well = || Outcome::Success;
    let failed = || Outcome::Failure("HTTP probe failed with statuscode: 500".to_owned());
    for code in [301, 302, 303, 307, 308] {
        for (location, outcome, ports) in [
            ("/success", well(), [8080, 8080]),
            ("success", well(), [8080, 8080]),
            ("/new?ok", well(), [8080, 8080]),
            ("/fail", failed(), [8080, 8080]),
            ("http://10.0.2.2:9000/success", well(), [8080, 9000]),
            ("http://10.0.2.2/fail", failed(), [8080, 80]),
        ] {
            let guest = leading(code, location);
            assert_eq!(guest.probe(http("/")), outcome, "{code} {location}");
            let dialled: Vec<_> = guest
                .requests()
                .iter()
                .map(|dialled| dialled.port)
                .collect();
            assert_eq!(dialled, ports, "{code} {location}");
        }
    }
}

#[test]
fn redirects_to_another_host_are_a_warning() {
    let warning = Outcome::Warning("Probe terminated redirects, Response body: move".to_owned());
    for location in [
        "http://0.0.0.0/fail",
        "//elsewhere/success",
        "http://10.0.2.3:8080/",
    ] {
        let guest = leading(302, location);
        assert_eq!(guest.probe(http("/")), warning, "{location}");
        assert_eq!(guest.requests().len(), 1, "{location}");
    }
}

#[test]
fn answers_that_lead_nowhere_are_a_warning() {
    for (answer, body) in [
        ("HTTP/1.1 308 Moved\r\nContent-Length: 0\r\n\r\n", ""),
        (
            "HTTP/1.1 308 Moved\r\nContent-Length: 7\r\n\r\nok body",
            "ok body",
        ),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", ""),
        (
            "HTTP/1.1 300 Choose\r\nLocation: /success\r\n\r\none",
            "one",
        ),
    ] {
        let why = format!("Probe terminated redirects, Response body: {body}");
        let guest = Guest::saying(answer);
        assert_eq!(guest.probe(http("/")), Outcome::Warning(why));
    }
    // After one that was followed, too.
    let guest = Guest::answering(|request| match request.split(' ').nth(1) {
        Some("/new") => "HTTP/1.1 308 Moved\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        _ => redirect(308, "/new"),
    });
    let why = "Probe terminated redirects, Response body: ok".to_owned();
    assert_eq!(guest.probe(http("/")), Outcome::Warning(why));
}

#[test]
fn a_loop_is_left_after_ten_requests() {
    let guest = leading(302, "/loop");
    assert_eq!(
        failure(guest.probe(http("/"))),
        "Get \"http://10.0.2.2:8080/loop\": stopped after 10 redirects"
    );
    assert_eq!(guest.requests().len(), 10);
}

#[test]
fn nine_redirects_in_a_row_are_followed() {
    let guest = Guest::answering(|request| {
        let page = request.split(' ').nth(1).unwrap();
        match page.trim_start_matches('/').parse() {
            Ok(9) => status(200),
            Ok(number) => redirect(302, &format!("/{}", number + 1)),
            Err(_) => redirect(302, "/1"),
        }
    });
    assert_eq!(guest.probe(http("/")), Outcome::Success);
    assert_eq!(guest.requests().len(), 10);
}

#[test]
fn the_host_header_is_kept() {
    let guest = Guest::answering(|request| {
        let right = request.contains("\r\nHost: muffins.cupcakes.org\r\n");
        match (request.split(' ').nth(1), right) {
            (Some("/new"), true) => status(200),
            (_, true) => redirect(302, "http://10.0.2.2:8080/new"),
            (_, false) => status(400),
        }
    });
    let with = |host: &str| {
        Handler::HttpGet(HttpGet {
            headers: vec![("Host".to_owned(), host.to_owned())],
            ..page("/")
        })
    };
    assert_eq!(guest.probe(with("muffins.cupcakes.org")), Outcome::Success);
    let other = failure(guest.probe(with("other.example")));
    assert_eq!(other, "HTTP probe failed with statuscode: 400");
}

#[test]
fn a_location_that_is_none_is_a_failure() {
    for (location, word) in [("http://[", "Location"), ("ftp://10.0.2.2/", "scheme")] {
        let said = failure(leading(302, location).probe(http("/")));
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_redirect_is_not_read_to_its_end() {
    let guest = Guest::new(|peer| {
        if peer.hear().starts_with("GET /new ") {
            peer.say(status(200));
        } else {
            peer.say("HTTP/1.1 302 Found\r\nLocation: /new\r\n\r\n");
            peer.stay();
        }
    });
    assert_eq!(guest.probe(http("/")), Outcome::Success);
}

#[test]
fn a_guest_does_not_choose_how_long_a_message_is() {
    let guest = Guest::answering(|request| match request.len() {
        0..1000 => redirect(302, &format!("/{}", "{".repeat(20_000))),
        _ => "no answer".to_owned(),
    });
    let why = failure(guest.probe(http("/")));
    assert!(
        why.starts_with("Get \"http://10.0.2.2:8080/%7B%7B"),
        "{why}"
    );
    assert!(why.len() < 11 << 10, "{} bytes", why.len());
}
