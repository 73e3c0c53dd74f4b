// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! HTTPS, against a server whose certificate is its own.

use std::io::{Read, Write};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::Acceptor;
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use super::*;

/// What a server with this certificate's name and this version of TLS has in its configuration.
fn config(name: &str, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    Arc::new(config)
}

/// Serves one connection: whom the client named, and its request.
fn serve(peer: &mut Peer, config: &Arc<ServerConfig>, answer: &str) -> (Option<String>, String) {
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        acceptor.read_tls(&mut peer.stream()).unwrap();
        if let Some(accepted) = acceptor.accept().unwrap() {
            break accepted;
        }
    };
    let named = accepted.client_hello().server_name().map(str::to_owned);
    let mut connection = accepted.into_connection(config.clone()).unwrap();
    let mut stream = peer.stream();
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    tls.write_all(answer.as_bytes()).unwrap();
    // And it is closed without a word of TLS about that.
    tls.flush().unwrap();
    (named, String::from_utf8(heard).unwrap())
}

fn https() -> HttpGet {
    HttpGet {
        https: true,
        ..page("/")
    }
}

#[test]
fn any_certificate_will_do() {
    for version in [&version::TLS12, &version::TLS13] {
        let config = config("somebody.else", version);
        let (heard, hears) = std::sync::mpsc::channel();
        let guest = Guest::new(move |peer| {
            let answer = "HTTP/1.1 200 OK\r\n\r\nok body";
            heard.send(serve(peer, &config, answer)).unwrap();
        });
        assert_eq!(answer(&guest, &https()).unwrap().body, b"ok body");
        let (named, request) = hears.recv().unwrap();
        assert_eq!(named, None, "an address was sent as a name");
        assert!(
            request.starts_with("GET / HTTP/1.1\r\nHost: 10.0.2.2:8080\r\n"),
            "{request}"
        );
        assert_eq!(guest.probe(Handler::HttpGet(https())), Outcome::Success);
    }
}

#[test]
fn a_name_is_sent_and_a_status_decides() {
    let config = config("localhost", &version::TLS13);
    let (heard, hears) = std::sync::mpsc::channel();
    let port = on_loopback(move |peer| {
        let answer = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
        heard.send(serve(peer, &config, answer).0).unwrap();
    });
    let get = HttpGet {
        host: Some("localhost".to_owned()),
        port,
        ..https()
    };
    let guest = Guest::new(|_| {});
    let said = failure(guest.probe(Handler::HttpGet(get)));
    assert_eq!(said, "HTTP probe failed with statuscode: 500");
    assert_eq!(hears.recv().unwrap().as_deref(), Some("localhost"));
}

#[test]
fn a_redirect_may_lead_to_https() {
    let config = config("x", &version::TLS13);
    let guest = Guest::new(move |peer| {
        if peer.dialled.port == 443 {
            serve(peer, &config, "HTTP/1.1 200 OK\r\n\r\n");
        } else {
            peer.hear();
            peer.say("HTTP/1.1 301 Moved\r\nLocation: https://10.0.2.2/\r\n\r\n");
        }
    });
    assert_eq!(guest.probe(http("/")), Outcome::Success);
}

#[test]
fn who_speaks_no_tls_is_told_apart() {
    let said = |play: fn(&mut Peer)| failure(Guest::new(play).probe(Handler::HttpGet(https())));
    let plain = said(|peer| {
        peer.say("HTTP/1.1 400 Bad Request\r\n\r\n");
        peer.stay();
    });
    assert!(
        plain.contains("does not speak TLS; is scheme: HTTP meant?"),
        "{plain}"
    );
    let refused = said(|peer| {
        // A fatal alert: handshake failure.
        peer.say([0x15, 3, 3, 0, 2, 2, 40]);
        peer.stay();
    });
    assert!(
        refused.contains("refused with the alert HandshakeFailure"),
        "{refused}"
    );
    let closed = said(|peer| peer.finish());
    assert!(
        closed.ends_with("the connection was closed without an answer (EOF)"),
        "{closed}"
    );
    let silent = Guest::new(|peer| peer.stay());
    let silent = silent.probe_over(Handler::HttpGet(https()), IpFamily::Ipv4, WHILE);
    assert!(failure(silent).ends_with("no answer within 1 s"));
}
