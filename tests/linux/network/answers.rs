// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `httpGet` makes of a stock guest's answers: some of the kubelet's rows.

use kennel::spec::IpFamily;

use super::asked::{Guest, Question, Verdict};

use Verdict::{Fails, Late, Warns, Well};

/// Servers of one answer each, on ports from 7001 on.
pub(super) const SCRIPT: &str = r#"mkdir -p /www/there /www/empty
echo 'it is there' >/www/there/index.html
answer() { nc -ll -p "$@" >/dev/null 2>&1 & }
answer 7001 -e echo -e 'HTTP/1.1 200 OK\nContent-Length: 12\n\nHello World!'
answer 7002 -e echo -e 'HTTP/1.1 200 OK\n\nHello World!'
answer 7003 -e echo -e 'HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r'
answer 7004 -e echo -e 'HTTP/1.1 302 Found\r\nLocation: http://10.0.2.2:8080/there/\r\n\r'
answer 7005 -e echo -e 'HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r'
answer 7006 -e echo -e 'HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r'
answer 7007 -e sh -c 'sleep 100; echo late'
answer 7008 -e sh -c 'read line; sleep 2; printf "HTTP/1.0 204 Slow\r\n\r\n"'
answer 7009 -e true
answer 7010 -e echo 'SSH-2.0-OpenSSH_9.2'
answer 7011 -e sh -c 'printf "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"; sleep 100'
"#;

/// What is answered to a request for a path at a port.
const ROWS: [(&str, u16, &str, Verdict); 14] = [
    ("lines that end in a line feed alone", 7001, "/", Well),
    ("no length", 7002, "/", Well),
    ("a file", 8080, "/there/index.html", Well),
    (
        "no such file",
        8080,
        "/nowhere",
        Fails("HTTP probe failed with statuscode: 404"),
    ),
    (
        "a failure",
        7003,
        "/",
        Fails("HTTP probe failed with statuscode: 500"),
    ),
    ("redirected to another path", 8080, "/there", Well),
    (
        "redirected to nothing",
        8080,
        "/empty",
        Fails("statuscode: 404"),
    ),
    ("redirected to another port", 7004, "/", Well),
    (
        "redirected for ever",
        7005,
        "/",
        Fails("stopped after 10 redirects"),
    ),
    ("redirected elsewhere", 7006, "/", Warns("redirect")),
    ("slow", 7008, "/", Well),
    ("too slow", 7007, "/", Late("no answer within 10 s")),
    (
        "no HTTP",
        7010,
        "/",
        Fails("malformed HTTP response \"SSH-2.0-OpenSSH_9.2\""),
    ),
    (
        "half a body",
        7011,
        "/",
        Late("body did not end within 10 s (status 200, 5 bytes"),
    ),
];

/// Asks all of them.
pub(super) fn all(guest: &Guest) {
    let question = |(what, port, path, verdict): (&'static str, u16, &str, Verdict)| {
        let handler = format!("httpGet: {{port: {port}, path: {path}}}");
        (what, handler, IpFamily::Ipv4, verdict)
    };
    let mut questions: Vec<Question> = ROWS.map(question).into();
    let hangs_up = "httpGet: {port: 7009}".to_owned();
    let gone = Fails("the connection was closed without an answer");
    questions.push(("hung up on", hangs_up, IpFamily::Ipv4, gone));
    for family in [IpFamily::Ipv6, IpFamily::Both] {
        let served = "httpGet: {port: 7001}".to_owned();
        questions.push(("a line feed alone", served, family, Well));
        let accepted = "tcpSocket: {port: 7009}".to_owned();
        questions.push(("accepted", accepted, family, Well));
    }
    let wrong = guest.ask("up", &questions);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
